//! Time series of a run of any length in bounded memory.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::measure::encoding::{self, DecodeError};
use crate::measure::latency::{MAX_DURATION, nanos};

/// The maximum number of buckets; beyond it, pairs are merged into buckets of twice the width.
const MAX_BUCKETS: usize = 128;

/// The initial width of a bucket in nanoseconds. A second is a multiple of it, by a power of two.
const MIN_WIDTH: u64 = 1_000_000_000 / 64;

/// Time series of a run. All buckets have the same width, which doubles when the run exceeds their
/// number, so that there are 64 to 128 of them after the first seconds.
///
/// Buckets start at multiples of their width since the Unix epoch, so that those of different
/// machines can be added exactly. The first one may start before the run.
#[derive(Debug, Clone, PartialEq)]
pub struct Timeline {
    /// Start of the run in nanoseconds since the Unix epoch; zero if it is not known.
    start: u64,
    /// Time in nanoseconds from the start of the first bucket to that of the run.
    lead: u64,
    /// Width of a bucket in nanoseconds.
    width: u64,
    buckets: Vec<Bucket>,
}

/// Statistics of a span of time. Durations have one significant digit.
#[derive(Debug, Clone, PartialEq)]
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
            start: 0,
            lead: 0,
            width: MIN_WIDTH,
            buckets: Vec::new(),
        }
    }
}

impl Timeline {
    /// Creates a time series of the buckets from the one that contains `start`, a time since the
    /// Unix epoch. Returns `None` if the width is not that of a time series, or if there are too
    /// many buckets.
    #[doc(hidden)]
    pub fn from_buckets(start: Duration, width: Duration, buckets: Vec<Bucket>) -> Option<Self> {
        let width = whole_nanos(width);
        let factor = width / MIN_WIDTH;
        let is_valid =
            width == factor * MIN_WIDTH && factor.is_power_of_two() && buckets.len() <= MAX_BUCKETS;
        let mut timeline = Self {
            start: 0,
            lead: 0,
            width,
            buckets,
        };
        if is_valid {
            timeline.set_start(start);
        }
        is_valid.then_some(timeline)
    }

    /// Sets the start of the run since the Unix epoch. Buckets recorded so far move to it.
    #[doc(hidden)]
    pub fn set_start(&mut self, start: Duration) {
        self.start = whole_nanos(start);
        self.lead = self.start % self.width;
    }

    /// Returns the start of the run since the Unix epoch; zero if it is not known.
    pub fn start(&self) -> Duration {
        Duration::from_nanos(self.start)
    }

    /// Returns the time from the start of the first bucket to that of the run.
    #[doc(hidden)]
    pub fn lead(&self) -> Duration {
        Duration::from_nanos(self.lead)
    }

    /// Returns the index of the bucket of a time since the start of the run.
    fn index(&self, moment: Duration) -> u64 {
        whole_nanos(moment).saturating_add(self.lead) / self.width
    }

    /// Returns the number of the first bucket, counted from the epoch.
    fn first(&self) -> u64 {
        self.start / self.width
    }

    /// Returns the number of the bucket after the last one, or 0 if there are none.
    fn end(&self) -> u64 {
        match self.buckets.len() as u64 {
            0 => 0,
            len => self.first() + len,
        }
    }

    /// Returns the bucket of a time since the start of the run.
    #[doc(hidden)]
    pub fn at(&mut self, moment: Duration) -> &mut Bucket {
        while self.index(moment) >= MAX_BUCKETS as u64 {
            self.coarsen();
        }
        // Less than the number of buckets, by the loop above.
        let index = self.index(moment) as usize;
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
            let width = self.width as f64;
            let lead = self.lead as f64;
            let end = (((nanos as f64 + lead) / width).floor() + 1.0) * width - lead;
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
            let end = Duration::from_nanos((self.index(from) + 1) * self.width - self.lead);
            let end = end.min(until);
            self.at(from).downtime += end - from;
            from = end;
        }
    }

    /// Adds another time series. One without a known start is taken to have the same start.
    #[doc(hidden)]
    pub fn merge(&mut self, mut other: Self) {
        if self.start == 0 {
            self.set_start(other.start());
        } else if other.start == 0 {
            other.set_start(self.start());
        }
        while self.width < other.width {
            self.coarsen();
        }
        while other.width < self.width {
            other.coarsen();
        }
        let count = |one: &Self, other: &Self| {
            let end = one.end().max(other.end());
            end.saturating_sub(one.first().min(other.first()))
        };
        while count(self, &other) > MAX_BUCKETS as u64 {
            self.coarsen();
            other.coarsen();
        }
        // Both less than the number of buckets, by the loop above.
        let first = self.first().min(other.first());
        let missing = (self.first() - first) as usize;
        let offset = (other.first() - first) as usize;
        let len = self.end().max(other.end()).saturating_sub(first) as usize;
        self.buckets
            .splice(0..0, (0..missing).map(|_| Bucket::default()));
        self.buckets.resize_with(len, Bucket::default);
        let own = self.buckets.iter_mut().skip(offset);
        own.zip(&other.buckets)
            .for_each(|(own, bucket)| own.merge(bucket));
        self.set_start(self.start().min(other.start()));
    }

    /// Merges pairs of buckets.
    #[doc(hidden)]
    pub fn coarsen(&mut self) {
        // Widths are aligned to the epoch: an odd first bucket is the second half of its pair.
        let single = (self.first() % 2) as usize;
        let mut old = std::mem::take(&mut self.buckets).into_iter();
        self.buckets.extend(old.by_ref().take(single));
        while let Some(mut bucket) = old.next() {
            if let Some(next) = old.next() {
                bucket.merge(&next);
            }
            self.buckets.push(bucket);
        }
        self.width *= 2;
        self.lead = self.start % self.width;
    }

    /// Returns the width of a bucket.
    pub fn width(&self) -> Duration {
        Duration::from_nanos(self.width)
    }

    /// Returns the buckets from the one of the start to the last non-empty one.
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }
}

/// Returns a time in nanoseconds, at most the maximum.
fn whole_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
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
    #[doc(hidden)]
    pub fn answered(&mut self, time: Duration) {
        // Zero is in the first slot, like 1 ns. But the crate keeps a maximum of zero apart, which
        // is lost when the histogram is encoded.
        self.times.saturating_record(nanos(time).max(1));
    }

    /// Records a message without a reply with the time that has passed.
    #[doc(hidden)]
    pub fn unanswered(&mut self, time: Duration) {
        self.answered(time);
        self.unanswered += 1;
    }

    /// Returns the number of replies.
    pub fn count(&self) -> u64 {
        self.times.len().saturating_sub(self.unanswered)
    }

    /// Returns the latencies as text, as those of a
    /// [`LatencyHistogram`](super::latency::LatencyHistogram).
    #[doc(hidden)]
    pub fn encode_times(&self) -> String {
        encoding::encode(&self.times)
    }

    /// Adds encoded latencies, of which `unanswered` are of messages without a reply.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]; the bucket is then unchanged.
    #[doc(hidden)]
    pub fn merge_encoded(&mut self, times: &str, unanswered: u64) -> Result<(), DecodeError> {
        encoding::decode_into(times, &mut self.times)?;
        self.unanswered += unanswered;
        Ok(())
    }

    /// Returns the number of latencies of messages without a reply.
    pub fn unanswered_count(&self) -> u64 {
        self.unanswered
    }

    /// Returns the latency at a quantile from 0 to 1, or `None` without any.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let nanos = self.times.value_at_quantile(share);
        (!self.times.is_empty()).then(|| Duration::from_nanos(self.times.median_equivalent(nanos)))
    }

    /// Adds the statistics of another span.
    #[doc(hidden)]
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
    #[doc(hidden)]
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
        for (seconds, buckets, width) in
            [(1, 64, 1), (2, 128, 1), (60, 120, 32), (86400, 85, 65536)]
        {
            timeline
                .at(Duration::from_secs(seconds) - MILLI)
                .answered(MILLI);
            assert_eq!(timeline.buckets().len(), buckets, "{seconds} s");
            assert_eq!(timeline.width, width * MIN_WIDTH);
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
        assert_eq!(unsent(&timeline), [5 + 11, 1]);
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
        let micros = [12_625, 7_375].map(Duration::from_micros);
        assert_eq!(downtime(&timeline), micros);
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
            let moment = Duration::from_nanos(bucket * MIN_WIDTH);
            (0..=bucket).for_each(|_| timeline.at(moment).answered(MILLI));
            timeline.at(moment).failed += 1;
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
        for round in 0..40 {
            let case = format!("seed {seed}, round {round}");
            let epoch = Duration::from_nanos(1_764_000_000_123_456_789);
            let starts = [(); 4].map(|()| {
                let bits = random.u8(0..32);
                epoch + random.u32(..1 << bits) * MILLI
            });
            let first = starts.into_iter().min().unwrap();
            let mut whole = Timeline::default();
            whole.set_start(first);
            let parts = starts.map(|start| {
                let mut part = Timeline::default();
                part.set_start(start);
                // The runs end at different times, and so have buckets of different widths.
                let bits = random.u8(10..34);
                let length = random.u64(1..1 << bits);
                for _ in 0..500 {
                    let moment = Duration::from_micros(random.u64(..length));
                    let time = Duration::from_micros(random.u64(1..1_000_000));
                    let kind = random.u8(..);
                    for (timeline, moment) in
                        [(&mut part, moment), (&mut whole, start - first + moment)]
                    {
                        let bucket = timeline.at(moment);
                        match kind {
                            0..8 => bucket.failed += 1,
                            8..16 => bucket.unsent += 1,
                            16..24 => bucket.unanswered(time),
                            _ => bucket.answered(time),
                        }
                    }
                }
                part
            });
            let mut merged = Timeline::default();
            parts.into_iter().for_each(|part| merged.merge(part));
            // Parts that end early do not widen the others.
            while merged.width < whole.width {
                merged.coarsen();
            }
            assert_eq!(merged.start(), first, "{case}");
            assert!(merged == whole, "{case}: {merged:?}, {whole:?}");
        }
    }

    #[test]
    fn empty_timeline_adds_no_buckets_at_the_end() {
        let run = |start: u64, moments: &[u64]| {
            let mut timeline = Timeline::default();
            timeline.set_start(Duration::from_millis(start));
            for moment in moments {
                let moment = Duration::from_millis(*moment);
                timeline.at(moment).answered(MILLI);
            }
            timeline
        };
        let whole = run(1_000, &[0, 500]);
        for later in [2_000, 1_000_000] {
            let mut merged = run(1_000, &[0, 500]);
            merged.merge(run(later, &[]));
            assert_eq!(merged, whole);
            let mut merged = run(later, &[]);
            merged.merge(run(1_000, &[0, 500]));
            assert_eq!(merged, whole);
        }
        let mut merged = run(2_000, &[]);
        merged.merge(run(1_000, &[]));
        assert_eq!(merged, run(1_000, &[]));
    }

    #[test]
    fn merged_timelines_are_aligned_to_the_epoch() {
        let run = |start: u64, moments: &[u64]| {
            let mut timeline = Timeline::default();
            timeline.set_start(Duration::from_millis(start));
            for moment in moments {
                timeline.at(Duration::from_millis(*moment)).answered(MILLI);
            }
            timeline
        };
        let mut merged = run(99_900, &[0, 50, 150, 1050]);
        merged.merge(run(101_500, &[0, 600, 3_700_000]));
        while merged.width() < Duration::from_secs(64) {
            merged.coarsen();
        }
        // From 64 s to 128 s, and from 3,776 s to 3,840 s.
        let busy = counts(&merged).into_iter().enumerate();
        let busy: Vec<_> = busy.filter(|(_, count)| *count > 0).collect();
        assert_eq!(busy, [(0, 6), (58, 1)]);
        assert_eq!(merged.lead(), Duration::from_millis(99_900 - 64_000));
        // An unknown start, of a thread without messages.
        merged.merge(Timeline::default());
        assert_eq!(counts(&merged).iter().sum::<u64>(), 7);
        assert_eq!(merged.start(), Duration::from_millis(99_900));
    }

    #[test]
    fn encoded_buckets_equal_the_recorded_ones() {
        let mut timeline = Timeline::default();
        timeline.set_start(Duration::from_nanos(1_764_000_000_123_456_789));
        timeline.at(3500 * MILLI).answered(Duration::ZERO);
        for millis in 0..3000 {
            timeline.at(millis * MILLI).answered(millis * MILLI);
            timeline.at(millis * MILLI).unanswered(MILLI);
        }
        let buckets = timeline.buckets().iter().map(|bucket| {
            let mut copy = Bucket::default();
            let unanswered = bucket.unanswered_count();
            copy.merge_encoded(&bucket.encode_times(), unanswered)
                .unwrap();
            copy
        });
        let buckets: Vec<_> = buckets.collect();
        let copy = Timeline::from_buckets(timeline.start(), timeline.width(), buckets.clone());
        assert_eq!(copy, Some(timeline));
        for (nanos, count) in [(0, 1), (1, 1), (MIN_WIDTH * 3, 1), (MIN_WIDTH, 129)] {
            let buckets = vec![Bucket::default(); count];
            let width = Duration::from_nanos(nanos);
            assert_eq!(Timeline::from_buckets(Duration::ZERO, width, buckets), None);
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
