//! Statistical tests of the random faults. They are deterministic: each checks ten fixed seeds.
//! The bounds are 4.5 standard deviations, which true random numbers exceed once in 100,000 times.

use std::time::Duration;

use super::draw::{Draw, is_burst_loss};
use crate::serve::config::{FaultInjection, LossBurst};

const COUNT: u64 = 2000;
const DROP_RATE: f64 = 0.3;
const DEVIATIONS: f64 = 4.5;

fn faults(seed: u64) -> FaultInjection {
    FaultInjection {
        jitter: Duration::from_secs(1),
        drop_rate: DROP_RATE,
        seed,
        ..FaultInjection::default()
    }
}

/// Returns ten seeds: adjacent ones, and some with few or many bits.
fn seeds() -> impl Iterator<Item = u64> {
    [
        0,
        1,
        2,
        3,
        7,
        1 << 32,
        (1 << 32) + 1,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ]
    .into_iter()
}

/// Returns the faults of datagrams with consecutive numbers, which are also those of the first
/// messages of consecutive connections, and those of consecutive messages of one connection.
fn sequences(faults: &FaultInjection) -> [Vec<Option<Duration>>; 2] {
    let delay = |draw: Draw| (!draw.is_dropped).then_some(draw.delay);
    let neighbours = (0..COUNT).map(|number| delay(Draw::new(faults, number, 0)));
    let messages = (0..COUNT).map(|number| delay(Draw::new(faults, 0, number)));
    [neighbours.collect(), messages.collect()]
}

#[track_caller]
fn assert_near(actual: f64, expected: f64, variance: f64, context: &str) {
    let deviations = (actual - expected) / variance.sqrt();
    assert!(
        deviations.abs() < DEVIATIONS,
        "{context}: {actual}, not {expected}: {deviations} standard deviations"
    );
}

#[test]
fn losses_and_pairs_of_losses_match_the_rate() {
    let count = COUNT as f64;
    let p = DROP_RATE;
    for seed in seeds() {
        for sequence in sequences(&faults(seed)) {
            let lost: Vec<_> = sequence.iter().map(Option::is_none).collect();
            let losses = lost.iter().filter(|lost| **lost).count() as f64;
            assert_near(losses, count * p, count * p * (1.0 - p), "losses");
            // Every second pair overlaps no other: they are independent.
            let pairs = lost.chunks(2).filter(|pair| *pair == [true; 2]).count() as f64;
            let rate = p * p;
            let trials = count / 2.0;
            assert_near(pairs, trials * rate, trials * rate * (1.0 - rate), "pairs");
        }
    }
}

#[test]
fn losses_have_as_many_runs_as_independent_ones() {
    let count = COUNT as f64;
    for seed in seeds() {
        for sequence in sequences(&faults(seed)) {
            let lost: Vec<_> = sequence.iter().map(Option::is_none).collect();
            let losses = lost.iter().filter(|lost| **lost).count() as f64;
            let runs = lost.chunk_by(|one, next| one == next).count() as f64;
            // The Wald-Wolfowitz runs test.
            let expected = 2.0 * losses * (count - losses) / count + 1.0;
            let variance = (expected - 1.0) * (expected - 2.0) / (count - 1.0);
            assert_near(runs, expected, variance, "runs");
        }
    }
}

#[test]
fn neighbouring_delays_are_uncorrelated() {
    const BUCKETS: usize = 4;
    for seed in seeds() {
        let faults = FaultInjection {
            drop_rate: 0.0,
            ..faults(seed)
        };
        for sequence in sequences(&faults) {
            let delays: Vec<_> = sequence
                .iter()
                .flatten()
                .map(Duration::as_secs_f64)
                .collect();
            let mut cells = [0_u32; BUCKETS * BUCKETS];
            for pair in delays.chunks(2) {
                let bucket = |delay: f64| (delay * BUCKETS as f64) as usize;
                cells[bucket(pair[0]) * BUCKETS + bucket(pair[1])] += 1;
            }
            let expected = delays.len() as f64 / 2.0 / cells.len() as f64;
            let squares = cells.map(|cell| (f64::from(cell) - expected).powi(2) / expected);
            // The chi-squared distribution has the variance of twice its mean.
            let freedom = (cells.len() - 1) as f64;
            assert_near(squares.iter().sum(), freedom, 2.0 * freedom, "chi squared");
            let products = delays
                .windows(2)
                .map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5));
            let correlation = 12.0 * products.sum::<f64>();
            let trials = delays.len() as f64 - 1.0;
            assert_near(correlation, 0.0, trials, "lag-1 correlation");
        }
    }
}

#[test]
fn adjacent_seeds_give_unrelated_losses() {
    for seed in seeds() {
        let [one, _] = sequences(&faults(seed));
        let [next, _] = sequences(&faults(seed.wrapping_add(1)));
        // A shift by one datagram must not match either.
        for shift in 0..2 {
            let pairs = one.iter().skip(shift).zip(&next);
            let trials = pairs.len() as f64;
            let both = pairs.filter(|(one, next)| one.is_none() && next.is_none());
            let rate = DROP_RATE * DROP_RATE;
            let variance = trials * rate * (1.0 - rate);
            assert_near(
                both.count() as f64,
                trials * rate,
                variance,
                "common losses",
            );
        }
    }
}

/// Returns which of consecutive datagrams or messages have each fault.
fn faulty(draws: &[Draw]) -> [Vec<bool>; 5] {
    let which = |has: fn(&Draw) -> bool| draws.iter().map(has).collect();
    [
        which(|draw| draw.is_dropped),
        which(|draw| draw.corruption.is_some()),
        which(|draw| draw.closes_connection),
        which(|draw| draw.is_duplicated),
        which(|draw| draw.is_reordered),
    ]
}

#[test]
fn each_fault_matches_its_rate_and_is_independent() {
    let count = COUNT as f64;
    let p = DROP_RATE;
    for seed in seeds() {
        let faults = FaultInjection {
            corrupt_rate: p,
            close_rate: p,
            duplicate_rate: p,
            reorder_rate: p,
            ..faults(seed)
        };
        let datagrams: Vec<_> = (0..COUNT).map(|n| Draw::new(&faults, n, 0)).collect();
        let messages: Vec<_> = (0..COUNT).map(|n| Draw::new(&faults, 5, n)).collect();
        for draws in [datagrams, messages] {
            let kinds = faulty(&draws);
            for (index, kind) in kinds.iter().enumerate() {
                let happened = kind.iter().filter(|happened| **happened).count() as f64;
                assert_near(happened, count * p, count * p * (1.0 - p), "rate");
                for other in &kinds[index + 1..] {
                    let both = kind
                        .iter()
                        .zip(other)
                        .filter(|(one, other)| **one && **other);
                    let rate = p * p;
                    let variance = count * rate * (1.0 - rate);
                    assert_near(both.count() as f64, count * rate, variance, "both");
                }
            }
        }
    }
}

#[test]
fn bursts_have_the_configured_loss_and_length() {
    const DATAGRAMS: u64 = 50_000;
    let burst = LossBurst {
        begin: 0.02,
        end: 0.2,
        loss_in_burst: 1.0,
        loss_otherwise: 0.0,
    };
    for seed in seeds() {
        let lost: Vec<_> = (0..DATAGRAMS)
            .map(|number| is_burst_loss(&burst, seed, number))
            .collect();
        let count = DATAGRAMS as f64;
        // The stationary share of the bad state, with the variance of a correlated sequence.
        let share = burst.begin / (burst.begin + burst.end);
        let correlation = 1.0 - burst.begin - burst.end;
        let variance = count * share * (1.0 - share) * (1.0 + correlation) / (1.0 - correlation);
        let losses = lost.iter().filter(|lost| **lost).count() as f64;
        assert_near(losses, count * share, variance, "losses");
        // Lengths of bursts are geometric.
        let bursts: Vec<_> = lost.chunk_by(PartialEq::eq).filter(|run| run[0]).collect();
        let runs = bursts.len() as f64;
        let variance = (1.0 - burst.end) / burst.end.powi(2) * runs;
        assert_near(losses, runs / burst.end, variance, "length of bursts");
        let single = bursts.iter().filter(|burst| burst.len() == 1).count() as f64;
        let variance = runs * burst.end * (1.0 - burst.end);
        assert_near(single, runs * burst.end, variance, "bursts of one");
    }
}

#[test]
fn partial_losses_follow_the_state() {
    const DATAGRAMS: u64 = 50_000;
    for seed in seeds() {
        let burst = |loss_in_burst, loss_otherwise| LossBurst {
            begin: 0.1,
            end: 0.1,
            loss_in_burst,
            loss_otherwise,
        };
        let lost = |burst| (0..DATAGRAMS).filter(move |n| is_burst_loss(&burst, seed, *n));
        let in_burst = lost(burst(1.0, 0.0)).count() as f64;
        let otherwise = DATAGRAMS as f64 - in_burst;
        let lost_in_burst = lost(burst(0.5, 0.0)).count() as f64;
        assert_near(lost_in_burst, in_burst * 0.5, in_burst * 0.25, "in bursts");
        let lost_otherwise = lost(burst(0.0, 0.1)).count() as f64;
        let variance = otherwise * 0.1 * 0.9;
        assert_near(lost_otherwise, otherwise * 0.1, variance, "otherwise");
    }
}
