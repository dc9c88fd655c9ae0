//! How long things took: any number of durations in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer durations count as this long.
const LONGEST: Duration = Duration::from_secs(3600);

/// Durations from a nanosecond to an hour, kept with three digits.
#[derive(Debug, Clone)]
pub struct Latency(Histogram<u64>);

/// What many durations come to. `p99` is the duration that 99 of 100 did not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say what they are")]
pub struct Figures {
    pub min: Duration,
    pub mean: Duration,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p99_9: Duration,
    pub max: Duration,
}

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the crate takes 1 to 5 digits and any such bounds")]
    fn default() -> Self {
        let bounded = Histogram::new_with_bounds(1, nanos(LONGEST), 3);
        Self(bounded.expect("three digits"))
    }
}

impl Latency {
    /// Adds a duration.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(nanos(duration));
    }

    /// The number of durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds what another has recorded.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds, so that there is nothing that would not fit.
        let _ = self.0.add(&other.0);
    }

    /// What they come to; nothing if there are none.
    pub fn figures(&self) -> Option<Figures> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| Duration::from_nanos(self.0.value_at_quantile(quantile));
        let (min, max) = (Duration::from_nanos(self.0.min()), Duration::from_nanos(self.0.max()));
        Some(Figures {
            min,
            mean: Duration::from_secs_f64(self.0.mean() / 1e9).clamp(min, max),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p99_9: at(0.999),
            max,
        })
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn near(found: Duration, micros: u64) {
        let wanted = Duration::from_micros(micros);
        assert!(found.abs_diff(wanted) <= wanted / 500, "{found:?} is not {wanted:?}");
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut latency = Latency::default();
        assert_eq!(latency.figures(), None);
        for micros in 1..=10_000 {
            latency.record(Duration::from_micros(micros));
        }
        let figures = latency.figures().unwrap();
        near(figures.min, 1);
        near(figures.mean, 5_000);
        near(figures.p50, 5_000);
        near(figures.p90, 9_000);
        near(figures.p99, 9_900);
        near(figures.p99_9, 9_990);
        near(figures.max, 10_000);
        assert_eq!(latency.count(), 10_000);
    }

    #[test]
    fn figures_never_contradict_each_other() {
        for durations in [vec![0], vec![7], vec![1, 1_000_003], vec![u64::MAX, 3, 3]] {
            let mut latency = Latency::default();
            durations.iter().for_each(|n| latency.record(Duration::from_nanos(*n)));
            let f = latency.figures().unwrap();
            let sorted = [f.min, f.p50, f.p90, f.p99, f.p99_9, f.max].is_sorted();
            assert!(sorted && f.min <= f.mean && f.mean <= f.max, "{f:?}");
        }
    }
}
