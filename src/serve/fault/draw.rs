//! Seeded random decisions.

use std::time::Duration;

use fastrand::Rng;

use crate::serve::config::{FaultInjection, LossBurst};

/// Maximum delay, to prevent overflows: a century.
pub(super) const MAX_DELAY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Random decisions about the reply to one message.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Draw {
    pub(super) is_dropped: bool,
    pub(super) delay: Duration,
    /// A random number that selects the bit to flip.
    pub(super) corruption: Option<u64>,
    pub(super) closes_connection: bool,
    pub(super) is_duplicated: bool,
    pub(super) is_reordered: bool,
}

impl Draw {
    /// Decides on the message with this number on the connection, or the datagram, with this
    /// number. The same seed and numbers give the same decisions.
    pub(super) fn new(faults: &FaultInjection, connection: u64, message: u64) -> Self {
        let mut rng = rng(faults.seed, connection, message);
        // All are drawn for every message: one fault must not change the others.
        let mut happens = |rate| rng.f64() < rate;
        let is_dropped = happens(faults.drop_rate);
        let is_corrupt = happens(faults.corrupt_rate);
        let closes_connection = happens(faults.close_rate);
        let is_duplicated = happens(faults.duplicate_rate);
        let is_reordered = happens(faults.reorder_rate);
        let jitter = faults.jitter.mul_f64(rng.f64());
        Self {
            is_dropped,
            delay: faults.delay.saturating_add(jitter).min(MAX_DELAY),
            corruption: is_corrupt.then(|| rng.u64(..)),
            closes_connection,
            is_duplicated,
            is_reordered,
        }
    }
}

/// Returns the generator for a message. The first numbers of generators with adjacent seeds are
/// correlated, so each number is hashed.
fn rng(seed: u64, connection: u64, message: u64) -> Rng {
    let seed = mix(mix(seed).wrapping_add(connection.wrapping_mul(GOLDEN_RATIO)));
    Rng::with_seed(mix(seed.wrapping_add(message.wrapping_mul(GOLDEN_RATIO))))
}

/// Increment of SplitMix64: 2^64 divided by the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the output of SplitMix64 for a state: each bit depends on all bits of the state.
fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(GOLDEN_RATIO);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// Datagrams after which the Gilbert-Elliott chain starts anew, from its stationary distribution.
/// So the state of a datagram depends only on its number, whichever thread receives it, and takes
/// a bounded time.
const CHAIN_LEN: u64 = 1 << 14;

/// Distinguishes the random numbers of the chain from those of [`Draw`].
const CHAIN_SEED: u64 = 0x6765_6d6f_6465_6c00;

/// Returns whether the reply to the datagram with this number is lost in or outside a burst.
pub(super) fn is_burst_loss(burst: &LossBurst, seed: u64, number: u64) -> bool {
    let loss = if is_in_burst(burst, seed, number) {
        burst.loss_in_burst
    } else {
        burst.loss_otherwise
    };
    let [_, draw] = chain_draws(seed, number);
    draw < loss
}

/// Returns whether the Gilbert-Elliott chain is in its bad state. Searches backwards for a
/// transition that gives the same state from either one.
fn is_in_burst(burst: &LossBurst, seed: u64, number: u64) -> bool {
    let LossBurst { begin, end, .. } = *burst;
    let stay = 1.0 - end;
    let mut is_inverted = false;
    let start = number - number % CHAIN_LEN;
    for number in (start + 1..=number).rev() {
        let [draw, _] = chain_draws(seed, number);
        if draw < begin.min(stay) {
            return !is_inverted;
        }
        if draw >= begin.max(stay) {
            return is_inverted;
        }
        // The state either stays or changes.
        is_inverted ^= begin > stay;
    }
    let [draw, _] = chain_draws(seed, start);
    is_inverted ^ (draw * (begin + end) < begin)
}

/// Returns the random numbers for the transition to a datagram, and for its loss.
fn chain_draws(seed: u64, number: u64) -> [f64; 2] {
    let mut rng = rng(seed ^ CHAIN_SEED, number, 0);
    [(); 2].map(|()| rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_do_not_change_one_another() {
        let jitter = FaultInjection {
            jitter: Duration::from_secs(1),
            seed: 7,
            ..FaultInjection::default()
        };
        let all = FaultInjection {
            drop_rate: 0.5,
            corrupt_rate: 0.5,
            close_rate: 0.5,
            duplicate_rate: 0.5,
            reorder_rate: 0.5,
            ..jitter.clone()
        };
        for number in 0..100 {
            let one = Draw::new(&jitter, number, 3);
            assert_eq!(one.delay, Draw::new(&all, number, 3).delay);
            assert!(one.delay < Duration::from_secs(1) && !one.is_dropped);
        }
    }

    #[test]
    fn extreme_rates_are_never_and_always() {
        for (rate, happens) in [(0.0, false), (1.0, true)] {
            let faults = FaultInjection {
                drop_rate: rate,
                corrupt_rate: rate,
                close_rate: rate,
                duplicate_rate: rate,
                reorder_rate: rate,
                ..FaultInjection::default()
            };
            for number in 0..1000 {
                let draw = Draw::new(&faults, 0, number);
                let drawn = [
                    draw.is_dropped,
                    draw.corruption.is_some(),
                    draw.closes_connection,
                    draw.is_duplicated,
                    draw.is_reordered,
                ];
                assert_eq!(drawn, [happens; 5]);
            }
        }
    }

    #[test]
    fn maximum_delay_does_not_overflow() {
        let faults = FaultInjection {
            delay: Duration::MAX,
            jitter: Duration::MAX,
            ..FaultInjection::default()
        };
        assert_eq!(Draw::new(&faults, 0, 0).delay, MAX_DELAY);
    }

    #[test]
    fn burst_states_are_those_of_the_chain() {
        for (begin, end) in [
            (0.01, 0.25),
            (0.001, 0.001),
            (0.5, 0.5),
            (0.9, 0.8),
            (1.0, 1.0),
            (0.0, 0.5),
            (0.0, 0.0),
            (0.3, 0.0),
        ] {
            let burst = LossBurst {
                begin,
                end,
                loss_in_burst: 1.0,
                loss_otherwise: 0.0,
            };
            // The first state of a chain is given, the others follow from transitions.
            let first = 3 * CHAIN_LEN;
            let mut is_bad = is_in_burst(&burst, 7, first);
            for number in first + 1..first + 3000 {
                let [draw, _] = chain_draws(7, number);
                is_bad = draw < if is_bad { 1.0 - end } else { begin };
                assert_eq!(is_in_burst(&burst, 7, number), is_bad, "{burst:?} {number}");
                assert_eq!(is_burst_loss(&burst, 7, number), is_bad);
            }
        }
    }
}
