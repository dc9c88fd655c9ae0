//! Latency histogram in bounded memory.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::encoding::{self, DecodeError};
use super::percentile::PercentileList;

/// The longest duration that is distinguished.
pub(super) const MAX_DURATION: Duration = Duration::from_secs(3600);

/// HDR histogram of durations from a nanosecond to an hour, with three significant digits.
#[derive(Debug, Clone, PartialEq)]
pub struct LatencyHistogram(Histogram<u64>);

/// Percentiles of a histogram. `p99` is the duration that 99 of 100 recorded ones do not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say what they are")]
pub struct Percentiles {
    pub min: Duration,
    pub mean: Duration,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub p99_9: Duration,
    pub max: Duration,
}

impl Default for LatencyHistogram {
    #[expect(
        clippy::expect_used,
        reason = "the crate takes 1 to 5 digits and any such bounds"
    )]
    fn default() -> Self {
        let bounded = Histogram::new_with_bounds(1, nanos(MAX_DURATION), 3);
        Self(bounded.expect("three digits"))
    }
}

/// Serialized as minimum, mean, default percentiles and maximum in seconds, or as nothing if nothing was
/// recorded.
impl Serialize for LatencyHistogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields(&PercentileList::default())
            .serialize(serializer)
    }
}

impl LatencyHistogram {
    /// Records a duration.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(nanos(duration));
    }

    /// Records `count` durations: the shortest one, and each next one longer by `interval`
    /// nanoseconds. The effort does not depend on the count.
    pub(crate) fn record_evenly(&mut self, shortest: Duration, interval: f64, count: u64) {
        let shortest = nanos(shortest);
        let longest = nanos(MAX_DURATION);
        let mut recorded = 0;
        while recorded < count {
            let value = (shortest as f64 + recorded as f64 * interval) as u64;
            let value = value.min(longest);
            let until = if value == longest {
                count
            } else {
                let next = self.0.next_non_equivalent(value) - shortest;
                ((next as f64 / interval).ceil() as u64).clamp(recorded + 1, count)
            };
            self.0.saturating_record_n(value, until - recorded);
            recorded = until;
        }
    }

    /// Returns the number of recorded durations.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds the durations of another histogram.
    pub fn merge(&mut self, other: &Self) {
        // Cannot fail: both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// Returns the histogram of nanoseconds.
    pub(super) fn as_hdr(&self) -> &Histogram<u64> {
        &self.0
    }

    /// Returns all counts as text: the compressed HdrHistogram V2 format in Base64, with durations
    /// in nanoseconds.
    #[doc(hidden)]
    pub fn encode(&self) -> String {
        encoding::encode(&self.0)
    }

    /// Adds the durations of an encoded histogram.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the histogram is then unchanged.
    #[doc(hidden)]
    pub fn merge_encoded(&mut self, text: &str) -> Result<(), DecodeError> {
        encoding::decode_into(text, &mut self.0)
    }

    /// Returns the number of durations up to `bound`, at the precision of three digits.
    #[doc(hidden)]
    pub fn count_up_to(&self, bound: Duration) -> u64 {
        self.0.count_between(0, nanos(bound))
    }

    /// Iterates over quantiles from 0 to 1 and their durations. The steps become finer towards 1:
    /// ten steps for each halving of the distance to 1.
    pub fn quantiles(&self) -> impl Iterator<Item = (f64, Duration)> {
        let points = self.0.iter_quantiles(10);
        points.map(|point| {
            (
                point.quantile(),
                Duration::from_nanos(point.value_iterated_to()),
            )
        })
    }

    /// Returns the duration that a share of the recorded ones, from 0 to 1, does not exceed, or
    /// `None` if nothing was recorded.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let nanos = self.0.value_at_quantile(share);
        (!self.0.is_empty()).then(|| Duration::from_nanos(nanos))
    }

    /// Returns the names and times of minimum, mean, percentiles and maximum, or `None` if nothing
    /// was recorded.
    #[doc(hidden)]
    pub fn rows(&self, percentiles: &PercentileList) -> Option<Vec<(String, Duration)>> {
        let known = self.percentiles()?;
        let mut rows = vec![("min".into(), known.min), ("mean".into(), known.mean)];
        rows.extend(percentiles.iter().map(|percentile| {
            let time = self.quantile(percentile.quantile());
            (percentile.to_string(), time.unwrap_or(known.max))
        }));
        rows.push(("max".into(), known.max));
        Some(rows)
    }

    /// Returns the [rows](Self::rows) with times in seconds, and names that are identifiers:
    /// `p99_9`.
    #[doc(hidden)]
    pub fn fields(&self, percentiles: &PercentileList) -> Option<BTreeMap<String, f64>> {
        let rows = self.rows(percentiles)?;
        let field = |(name, time): (String, Duration)| (name.replace('.', "_"), time.as_secs_f64());
        Some(rows.into_iter().map(field).collect())
    }

    /// Returns the percentiles, or `None` if nothing was recorded.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.0.is_empty() {
            return None;
        }
        let at = |quantile| Duration::from_nanos(self.0.value_at_quantile(quantile));
        let min = Duration::from_nanos(self.0.min());
        let max = Duration::from_nanos(self.0.max());
        Some(Percentiles {
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

/// Returns a duration in nanoseconds, at most the longest that is distinguished.
pub(super) fn nanos(duration: Duration) -> u64 {
    // The histogram would record a longer duration with an arbitrary value above its bound.
    u64::try_from(duration.min(MAX_DURATION).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;

    #[track_caller]
    fn near(found: Duration, micros: u64) {
        let wanted = Duration::from_micros(micros);
        assert!(
            found.abs_diff(wanted) <= wanted / 500,
            "{found:?} is not {wanted:?}"
        );
    }

    #[test]
    fn percentiles_match_recorded_durations() {
        let mut latency = LatencyHistogram::default();
        assert_eq!(latency.percentiles(), None);
        for micros in 1..=10_000 {
            latency.record(Duration::from_micros(micros));
        }
        let percentiles = latency.percentiles().unwrap();
        near(percentiles.min, 1);
        near(percentiles.mean, 5_000);
        near(percentiles.p50, 5_000);
        near(percentiles.p90, 9_000);
        near(percentiles.p99, 9_900);
        near(percentiles.p99_9, 9_990);
        near(percentiles.max, 10_000);
        assert_eq!(latency.count(), 10_000);
    }

    /// Many durations of some random distribution, in nanoseconds.
    fn sample(random: &mut Rng) -> Vec<u64> {
        let shape = random.u8(..6);
        let scale = 1_u64 << random.u32(0..36);
        let one = |random: &mut Rng| match shape {
            0 => scale,
            1 => random.u64(0..=scale),
            // Exponential.
            2 => (-(1.0 - random.f64()).ln() * scale as f64) as u64,
            // Two peaks far apart.
            3 => [scale, scale << random.u32(0..12)][usize::from(random.u8(..) == 0)],
            // All orders of magnitude.
            4 => random.u64(..) >> random.u32(0..64),
            // A heavy tail.
            _ => (scale as f64 / (1.0 - random.f64()).powf(1.5)) as u64,
        };
        let count = 1 << random.u32(0..14);
        (0..random.usize(1..=count)).map(|_| one(random)).collect()
    }

    #[test]
    fn percentiles_match_sorted_durations() {
        let seed = fastrand::u64(..);
        let mut random = Rng::with_seed(seed);
        for round in 0..300 {
            let mut sample = sample(&mut random);
            let mut latency = LatencyHistogram::default();
            sample
                .iter()
                .for_each(|nanos| latency.record(Duration::from_nanos(*nanos)));
            sample
                .iter_mut()
                .for_each(|n| *n = (*n).min(3_600_000_000_000));
            sample.sort_unstable();
            let f = latency.percentiles().unwrap();
            let case = format!("seed {seed}, round {round}: {f:?}");
            let exact = |share: f64| {
                let rank = (share * sample.len() as f64).ceil() as usize;
                sample[rank.clamp(1, sample.len()) - 1]
            };
            let mean = sample.iter().map(|n| *n as f64).sum::<f64>() / sample.len() as f64;
            for (found, exact) in [
                (f.min, exact(0.0)),
                (f.mean, mean as u64),
                (f.p50, exact(0.5)),
                (f.p90, exact(0.9)),
                (f.p99, exact(0.99)),
                (f.p99_9, exact(0.999)),
                (f.max, exact(1.0)),
            ] {
                assert!(
                    nanos(found).abs_diff(exact) <= exact / 1000 + 1,
                    "{exact} in {case}"
                );
            }
            assert!(
                [f.min, f.p50, f.p90, f.p99, f.p99_9, f.max].is_sorted(),
                "{case}"
            );
            assert!(f.min <= f.mean && f.mean <= f.max, "{case}");
            let first = latency.quantiles().next().unwrap();
            let last = latency.quantiles().last().unwrap();
            assert!(latency.quantiles().is_sorted(), "{case}");
            assert!(
                first.0 > 0.0 && last == (1.0, f.max),
                "{first:?}, {last:?} in {case}"
            );
        }
    }

    #[test]
    fn merged_histograms_equal_one() {
        let mut whole = LatencyHistogram::default();
        let mut parts = [(); 3].map(|()| LatencyHistogram::default());
        for number in 0..3000_usize {
            let duration = Duration::from_nanos(1 << (number % 40));
            whole.record(duration);
            parts[number % 3].record(duration);
        }
        let [mut merged, second, third] = parts;
        merged.merge(&second);
        merged.merge(&third);
        assert_eq!(
            (merged.count(), merged.percentiles()),
            (3000, whole.percentiles())
        );
    }

    #[test]
    fn evenly_spaced_durations_equal_single_ones() {
        for (shortest, interval, count) in [
            (0_u64, 1e6, 3000_u64),
            (0, 0.3, 100_000),
            (1_000_000, 12_345.678, 50_000),
            (3_599_000_000_000, 1e6, 5000),
            (7, 1.0, 1),
            (7, 1.0, 0),
        ] {
            let mut single = LatencyHistogram::default();
            for number in 0..count {
                let nanos = (shortest as f64 + number as f64 * interval) as u64;
                single.record(Duration::from_nanos(nanos));
            }
            let mut evenly = LatencyHistogram::default();
            evenly.record_evenly(Duration::from_nanos(shortest), interval, count);
            let values = |latency: &LatencyHistogram| (latency.count(), latency.percentiles());
            assert_eq!(values(&evenly), values(&single), "{shortest}, {interval}");
        }
        let mut many = LatencyHistogram::default();
        many.record_evenly(Duration::ZERO, 1e-9, u64::MAX);
        many.record_evenly(Duration::from_secs(1), f64::MIN_POSITIVE, u64::MAX);
        assert_eq!(many.count(), u64::MAX);
    }

    #[test]
    fn durations_are_counted_up_to_a_bound() {
        let mut latency = LatencyHistogram::default();
        let micros = Duration::from_micros;
        (0..=10_000).for_each(|n| latency.record(micros(n)));
        for (bound, count) in [
            (0, 1),
            (100, 101),
            (1000, 1001),
            (10_000, 10_001),
            (90_000, 10_001),
        ] {
            assert_eq!(latency.count_up_to(micros(bound)), count);
        }
    }
}
