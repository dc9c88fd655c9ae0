//! Time series of a run of any length in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::measure::latency::{MAX_DURATION, nanos};

/// The maximum number of buckets; beyond it, pairs are merged into buckets of twice the width.
const MAX_BUCKETS: usize = 128;

/// The initial width of a bucket.
const MIN_WIDTH: Duration = Duration::from_millis(10);

/// Time series of a run. All buckets have the same width, which doubles when the run exceeds their
/// number, so that there are 64 to 128 of them after the first seconds.
#[derive(Debug, Clone)]
pub struct Timeline {
    width: Duration,
    buckets: Vec<Bucket>,
}

/// Statistics of a span of time. Durations have one significant digit.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// The number of failed messages.
    pub failed: u64,
    /// The number of lost messages.
    pub lost: u64,
    /// The number of messages that were due and were not sent.
    pub unsent: u64,
    /// The number of connections that replaced another one.
    pub reconnects: u64,
    /// The time for which connections were down, summed over the connections.
    pub downtime: Duration,
    /// The number of latencies of messages without a reply.
    unanswered: u64,
    times: Histogram<u32>,
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            width: MIN_WIDTH,
            buckets: Vec::new(),
        }
    }
}

impl Timeline {
    /// Returns the bucket of a time since the start of the run.
    pub fn at(&mut self, moment: Duration) -> &mut Bucket {
        while moment.as_nanos() / self.width.as_nanos() >= MAX_BUCKETS as u128 {
            self.coarsen();
        }
        // Less than the number of buckets, by the loop above.
        let index = (moment.as_nanos() / self.width.as_nanos()) as usize;
        if self.buckets.len() <= index {
            self.buckets.resize_with(index + 1, Bucket::default);
        }
        &mut self.buckets[index]
    }

    /// Counts `count` messages as unsent that were due from `first` on, `interval` nanoseconds
    /// apart. The effort does not depend on the count.
    pub(crate) fn unsent_evenly(&mut self, first: Duration, interval: f64, count: u64) {
        let first = first.as_nanos() as f64;
        let mut counted = 0;
        while counted < count {
            let nanos = (first + counted as f64 * interval) as u64;
            // May double the width.
            self.at(Duration::from_nanos(nanos));
            let width = self.width.as_nanos() as f64;
            let end = ((nanos as f64 / width).floor() + 1.0) * width;
            let until = ((end - first) / interval).ceil() as u64;
            let until = until.clamp(counted + 1, count);
            self.at(Duration::from_nanos(nanos)).unsent += until - counted;
            counted = until;
        }
    }

    /// Counts a connection as down for a span of time.
    pub(crate) fn down(&mut self, from: Duration, until: Duration) {
        // May double the width.
        self.at(until);
        let mut from = from;
        while from < until {
            let index = (from.as_nanos() / self.width.as_nanos()) as u32;
            let end = (self.width * (index + 1)).min(until);
            self.at(from).downtime += end - from;
            from = end;
        }
    }

    /// Adds the time series of another part of the same run.
    pub fn merge(&mut self, mut other: Self) {
        while self.width < other.width {
            self.coarsen();
        }
        while other.width < self.width {
            other.coarsen();
        }
        for (index, bucket) in other.buckets.iter().enumerate() {
            match self.buckets.get_mut(index) {
                Some(own) => own.merge(bucket),
                None => self.buckets.push(bucket.clone()),
            }
        }
    }

    /// Merges pairs of buckets.
    pub fn coarsen(&mut self) {
        let mut old = std::mem::take(&mut self.buckets).into_iter();
        while let Some(mut bucket) = old.next() {
            if let Some(next) = old.next() {
                bucket.merge(&next);
            }
            self.buckets.push(bucket);
        }
        self.width *= 2;
    }

    /// Returns the width of a bucket.
    pub fn width(&self) -> Duration {
        self.width
    }

    /// Returns the buckets from the start to the last non-empty one.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }
}

impl Default for Bucket {
    #[expect(
        clippy::expect_used,
        reason = "the crate takes 1 to 5 digits and any such bounds"
    )]
    fn default() -> Self {
        let times = Histogram::new_with_bounds(1_000, nanos(MAX_DURATION), 1);
        Self {
            failed: 0,
            lost: 0,
            unsent: 0,
            reconnects: 0,
            downtime: Duration::ZERO,
            unanswered: 0,
            times: times.expect("one digit"),
        }
    }
}

impl Bucket {
    /// Records a reply with its latency.
    pub fn answered(&mut self, time: Duration) {
        self.times.saturating_record(nanos(time));
    }

    /// Records a message without a reply with the time that has passed.
    pub fn unanswered(&mut self, time: Duration) {
        self.answered(time);
        self.unanswered += 1;
    }

    /// Returns the number of replies.
    pub fn count(&self) -> u64 {
        self.times.len() - self.unanswered
    }

    /// Returns the latency at a quantile from 0 to 1, or `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let nanos = self.times.value_at_quantile(share);
        (!self.times.is_empty()).then(|| Duration::from_nanos(self.times.median_equivalent(nanos)))
    }

    /// Adds the statistics of another span.
    pub fn merge(&mut self, other: &Self) {
        self.failed += other.failed;
        self.lost += other.lost;
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.downtime += other.downtime;
        self.unanswered += other.unanswered;
        // Cannot fail: both have the same bounds.
        let _ = self.times.add(&other.times);
    }

    /// Clears the statistics.
    pub fn clear(&mut self) {
        self.failed = 0;
        self.lost = 0;
        self.unsent = 0;
        self.reconnects = 0;
        self.downtime = Duration::ZERO;
        self.unanswered = 0;
        self.times.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn counts(timeline: &Timeline) -> Vec<u64> {
        timeline.buckets().iter().map(Bucket::count).collect()
    }

    #[test]
    fn number_of_buckets_is_bounded() {
        let mut timeline = Timeline::default();
        for (seconds, buckets, width) in [(1, 100, 10), (2, 100, 20), (60, 94, 640), (86400, 66, 0)]
        {
            timeline
                .at(Duration::from_secs(seconds) - MILLI)
                .answered(MILLI);
            assert_eq!(timeline.buckets().len(), buckets, "{seconds} s");
            assert!(
                width == 0 || timeline.width() == width * MILLI,
                "{:?}",
                timeline.width()
            );
        }
        assert_eq!(counts(&timeline).iter().sum::<u64>(), 4);
        timeline.at(Duration::MAX).failed += 1;
        assert!(timeline.buckets().len() <= MAX_BUCKETS);
    }

    #[test]
    fn unsent_messages_are_counted_when_they_were_due() {
        let mut timeline = Timeline::default();
        timeline.unsent_evenly(5 * MILLI, 1e6, 12);
        timeline.unsent_evenly(Duration::ZERO, 1e6, 5);
        let unsent = |timeline: &Timeline| -> Vec<_> {
            let buckets = timeline.buckets().iter();
            buckets.map(|bucket| bucket.unsent).collect()
        };
        assert_eq!(unsent(&timeline), [10, 7]);
        timeline.unsent_evenly(Duration::ZERO, 1e3, 10_000_000);
        assert_eq!(unsent(&timeline).iter().sum::<u64>(), 10_000_017);
        assert!(timeline.buckets().len() <= MAX_BUCKETS);
    }

    #[test]
    fn downtime_is_distributed_over_the_buckets() {
        let mut timeline = Timeline::default();
        timeline.down(5 * MILLI, 23 * MILLI);
        timeline.down(7 * MILLI, 9 * MILLI);
        timeline.down(9 * MILLI, 9 * MILLI);
        let downtime = |timeline: &Timeline| -> Vec<_> {
            let buckets = timeline.buckets().iter();
            buckets.map(|bucket| bucket.downtime).collect()
        };
        assert_eq!(downtime(&timeline), [7 * MILLI, 10 * MILLI, 3 * MILLI]);
        let hour = Duration::from_secs(3600);
        timeline.down(Duration::ZERO, hour);
        assert!(timeline.buckets().len() <= MAX_BUCKETS);
        let total: Duration = downtime(&timeline).iter().sum();
        assert_eq!(total, hour + 20 * MILLI);
    }

    #[test]
    fn coarsened_buckets_keep_times_and_counts() {
        let mut timeline = Timeline::default();
        for bucket in 0..5 {
            (0..=bucket).for_each(|_| timeline.at(bucket * MIN_WIDTH).answered(MILLI));
            timeline.at(bucket * MIN_WIDTH).failed += 1;
        }
        timeline.coarsen();
        assert_eq!(counts(&timeline), [3, 7, 5]);
        let failed: Vec<_> = timeline
            .buckets()
            .iter()
            .map(|bucket| bucket.failed)
            .collect();
        assert_eq!(failed, [2, 2, 1]);
    }

    #[test]
    fn merged_timelines_equal_one() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut whole = Timeline::default();
        let mut parts: [Timeline; 3] = Default::default();
        for number in 0..10_000 {
            // The parts end at different times, and so have buckets of different widths.
            let part = number % 3;
            let moment = Duration::from_micros(random.u64(..1_000_000 << (4 * part)));
            let time = Duration::from_micros(random.u64(1..1_000_000));
            whole.at(moment).answered(time);
            parts[part].at(moment).answered(time);
        }
        let [mut merged, second, third] = parts;
        merged.merge(third);
        merged.merge(second);
        assert_eq!(
            (merged.width(), counts(&merged)),
            (whole.width(), counts(&whole)),
            "seed {seed}"
        );
        for (merged, whole) in merged.buckets().iter().zip(whole.buckets()) {
            assert_eq!(merged.quantile(0.99), whole.quantile(0.99), "seed {seed}");
        }
    }

    #[test]
    fn bucket_durations_have_one_digit() {
        let mut bucket = Bucket::default();
        assert_eq!(bucket.quantile(0.5), None);
        (1..=1000).for_each(|millis| bucket.answered(millis * MILLI));
        for (share, millis) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = bucket.quantile(share).unwrap();
            assert!(
                found.abs_diff(millis * MILLI) <= millis * MILLI / 16,
                "{share}: {found:?}"
            );
        }
        bucket.clear();
        assert_eq!((bucket.count(), bucket.quantile(0.5)), (0, None));
    }
}
