//! Concurrency chosen by measurement.
//!
//! The method is that of TCP congestion control: slow start while the measured rate grows, then
//! additive probes that are undone if they bring nothing, and a multiplicative decrease on overload
//! (RFC 5681 section 3.1). The rate takes the place of the round-trip time, as in the gradient
//! methods of TCP Vegas and of Netflix' concurrency-limits: a server that is at its limit gives
//! the same rate to more requests.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Concurrency at the start.
pub(crate) const INITIAL_CONCURRENCY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(3);

/// Time between two samples.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Growth of the rate by which a doubled concurrency is worth it.
const MIN_START_GAIN: f64 = 1.1;

/// Growth of the rate by which a probe is worth it.
const MIN_PROBE_GAIN: f64 = 1.03;

/// Part of the usual rate below which the concurrency is reduced.
const FALLING_RATE: f64 = 0.7;

/// Samples after a change that belong to the old concurrency or to both.
const SETTLING_SAMPLES: u32 = 1;

/// Samples between two probes at first, and after many that brought nothing.
const MIN_PAUSE: u32 = 4;
const MAX_PAUSE: u32 = 64;

/// Weight of a new sample in the usual rate.
const SMOOTHING: f64 = 0.25;

/// Measurements of one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Sample {
    /// Bytes per second.
    pub rate: f64,
    /// Number of requests that a server refused for overload, or that timed out.
    pub overloads: u64,
    /// Whether work was waiting for concurrency.
    pub is_saturated: bool,
}

/// Controller of the concurrency. It does not measure time: each call is one interval.
#[derive(Debug)]
pub(crate) struct ConcurrencyController {
    limit: usize,
    max: usize,
    phase: Phase,
    /// Samples to ignore until the concurrency has taken effect.
    settling: u32,
    /// Pause after the next probe that brings nothing.
    pause: u32,
}

#[derive(Debug)]
enum Phase {
    /// Doubling; the previous concurrency and its rate.
    Start(Option<Measured>),
    /// Steady for so many samples.
    Steady {
        remaining: u32,
        rate: Option<f64>,
        low_samples: u32,
    },
    /// One more than what is known to be good.
    Probe(Measured),
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    limit: usize,
    rate: f64,
}

impl ConcurrencyController {
    /// Creates a controller that starts with [`INITIAL_CONCURRENCY`] and never exceeds `max`.
    pub(crate) fn new(max: NonZeroUsize) -> Self {
        Self {
            limit: INITIAL_CONCURRENCY.min(max).get(),
            max: max.get(),
            phase: Phase::Start(None),
            settling: SETTLING_SAMPLES,
            pause: MIN_PAUSE,
        }
    }

    /// Returns the current concurrency.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Processes the sample of an interval and returns the concurrency for the next.
    pub(crate) fn update(&mut self, sample: Sample) -> usize {
        let is_settling = self.settling > 0;
        self.settling = self.settling.saturating_sub(1);
        if sample.overloads > 0 {
            // The requests that follow a decrease may be those of before.
            if !is_settling || !matches!(self.phase, Phase::Steady { .. }) {
                self.decrease();
            }
        } else if sample.is_saturated && !is_settling {
            self.follow_rate(sample.rate);
        }
        self.limit
    }

    fn follow_rate(&mut self, now: f64) {
        match &mut self.phase {
            Phase::Start(previous) => match *previous {
                Some(before) if now < before.rate * MIN_START_GAIN => self.settle_at(before),
                _ if self.limit == self.max => self.steady(Some(now)),
                _ => {
                    let limit = self.limit;
                    self.phase = Phase::Start(Some(Measured { limit, rate: now }));
                    self.set((limit * 2).min(self.max));
                }
            },
            Phase::Steady {
                remaining,
                rate,
                low_samples,
            } => {
                let usual = rate.unwrap_or(now);
                if now < usual * FALLING_RATE {
                    *low_samples += 1;
                    if *low_samples == 2 {
                        self.set((self.limit * 3 / 4).max(1));
                        self.steady(None);
                    }
                    return;
                }
                *low_samples = 0;
                let usual = usual + (now - usual) * SMOOTHING;
                *rate = Some(usual);
                *remaining = remaining.saturating_sub(1);
                if *remaining == 0 && self.limit < self.max {
                    let limit = self.limit;
                    self.phase = Phase::Probe(Measured { limit, rate: usual });
                    self.set((limit + (limit / 8).max(1)).min(self.max));
                }
            }
            Phase::Probe(before) => {
                let before = *before;
                if now < before.rate * MIN_PROBE_GAIN {
                    self.settle_at(before);
                } else {
                    self.pause = MIN_PAUSE;
                    self.phase = Phase::Steady {
                        remaining: 1,
                        rate: Some(now),
                        low_samples: 0,
                    };
                }
            }
        }
    }

    /// Goes back to a concurrency that was as good, and probes less often.
    fn settle_at(&mut self, before: Measured) {
        self.set(before.limit);
        self.steady(Some(before.rate));
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }

    /// Reduces the concurrency after an overload: to what was good before, otherwise by half.
    fn decrease(&mut self) {
        match self.phase {
            Phase::Start(Some(before)) | Phase::Probe(before) => self.settle_at(before),
            Phase::Start(None) | Phase::Steady { .. } => {
                self.set((self.limit / 2).max(1));
                self.steady(None);
                self.pause = (self.pause * 2).min(MAX_PAUSE);
            }
        }
    }

    fn steady(&mut self, rate: Option<f64>) {
        self.phase = Phase::Steady {
            remaining: self.pause,
            rate,
            low_samples: 0,
        };
    }

    fn set(&mut self, limit: usize) {
        self.limit = limit;
        self.settling = SETTLING_SAMPLES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: NonZeroUsize = NonZeroUsize::new(64).unwrap();

    fn saturated(rate: f64) -> Sample {
        Sample {
            rate,
            overloads: 0,
            is_saturated: true,
        }
    }

    /// Feeds a server model with the concurrency for so many intervals, and returns each limit
    /// with its rate.
    fn simulate(
        intervals: usize,
        mut server: impl FnMut(usize, usize) -> Sample,
    ) -> Vec<(usize, f64)> {
        let mut controller = ConcurrencyController::new(MAX);
        (0..intervals)
            .map(|interval| {
                let limit = controller.limit();
                let sample = server(limit, interval);
                controller.update(sample);
                (limit, sample.rate)
            })
            .collect()
    }

    /// Returns the mean rate after the start.
    fn mean_rate(run: &[(usize, f64)]) -> f64 {
        let rest = &run[20..];
        rest.iter().map(|(_, rate)| rate).sum::<f64>() / rest.len() as f64
    }

    fn mean_limit(run: &[(usize, f64)]) -> f64 {
        let rest = &run[20..];
        rest.iter().map(|(limit, _)| *limit as f64).sum::<f64>() / rest.len() as f64
    }

    #[test]
    fn latency_bound_server_gets_the_maximum() {
        let run = simulate(60, |limit, _| saturated(limit as f64));
        assert_eq!(run[0].0, 4);
        assert_eq!(run.last().unwrap().0, MAX.get());
        let doubled = run.iter().position(|(limit, _)| *limit == MAX.get());
        assert!(doubled.unwrap() <= 10, "{run:?}");
    }

    #[test]
    fn bandwidth_bound_server_gets_few_connections() {
        let mut random = fastrand::Rng::with_seed(1);
        let run = simulate(200, |limit, _| {
            // Noise of 4 %.
            let noise = 0.98 + 0.04 * random.f64();
            saturated((limit as f64).min(10.0) * noise)
        });
        assert!(mean_rate(&run) > 9.5, "{}", mean_rate(&run));
        assert!(mean_limit(&run) < 24.0, "{run:?}");
    }

    #[test]
    fn connection_limit_of_a_server_is_respected() {
        // More than four requests at once get 503; the others give the full rate.
        let run = simulate(400, |limit, _| Sample {
            overloads: limit.saturating_sub(4) as u64,
            ..saturated(limit.min(4) as f64)
        });
        let refused = run.iter().filter(|(limit, _)| *limit > 4).count();
        assert!(mean_rate(&run) > 3.6, "{}", mean_rate(&run));
        assert!(refused < 24, "{refused} of 400 intervals over the limit");
    }

    #[test]
    fn request_rate_limit_leads_to_few_connections() {
        // Each connection makes ten requests per interval, of which 20 in total are accepted.
        let run = simulate(200, |limit, _| Sample {
            overloads: (limit * 10).saturating_sub(20) as u64,
            ..saturated((limit * 10).min(20) as f64)
        });
        assert!(mean_limit(&run) <= 2.5, "{run:?}");
        assert!(mean_rate(&run) > 14.0, "{}", mean_rate(&run));
    }

    #[test]
    fn falling_rate_reduces_and_recovery_grows_again() {
        let capacity = |interval| {
            if (100..140).contains(&interval) {
                2.0
            } else {
                20.0
            }
        };
        let run = simulate(400, |limit, interval| {
            saturated((limit as f64).min(capacity(interval)))
        });
        let before = run[99].0;
        assert!((16..=40).contains(&before), "{before}");
        let lowest = run[100..140].iter().map(|(limit, _)| *limit).min().unwrap();
        assert!(lowest < before, "{lowest}");
        assert!(run[399].1 > 18.0, "{:?}", run[399]);
    }

    #[test]
    fn unused_concurrency_is_no_measurement() {
        let run = simulate(50, |_, _| Sample {
            is_saturated: false,
            ..saturated(1.0)
        });
        assert!(run.iter().all(|(limit, _)| *limit == 4));
    }

    #[test]
    fn concurrency_stays_between_one_and_the_maximum() {
        let mut random = fastrand::Rng::with_seed(7);
        for max in [1, 2, 3, 64] {
            let max = NonZeroUsize::new(max).unwrap();
            let mut controller = ConcurrencyController::new(max);
            for _ in 0..5000 {
                let limit = controller.update(Sample {
                    rate: random.f64() * 100.0,
                    overloads: u64::from(random.u8(..10) == 0),
                    is_saturated: random.bool(),
                });
                assert!((1..=max.get()).contains(&limit), "{limit}");
            }
        }
    }
}
