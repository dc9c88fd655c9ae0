//! Histogram of the time from a read to its replies being written or queued.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::serve::counter::add;

/// Upper bounds of the buckets, which the last one does not have.
pub(super) const BUCKET_BOUNDS: [Duration; 13] = [
    Duration::from_micros(5),
    Duration::from_micros(10),
    Duration::from_micros(25),
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

const BUCKETS: usize = BUCKET_BOUNDS.len() + 1;

/// Of this many reads, one is measured: reading the clock twice costs as much as 1 % of a request.
const SAMPLING_INTERVAL: u32 = 16;

/// Counters of the measured times of one worker.
#[derive(Debug, Default)]
pub(super) struct HandlingTimes {
    buckets: [AtomicU64; BUCKETS],
    nanoseconds: AtomicU64,
}

/// The measured times of all workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Histogram {
    /// Number of times per bucket; not cumulative.
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum: Duration,
}

/// Selects the reads to measure.
#[derive(Debug)]
pub(super) struct Sampler {
    is_enabled: bool,
    skip: Cell<u32>,
}

impl HandlingTimes {
    /// Records a time. Only one thread may do so.
    pub(super) fn record(&self, time: Duration) {
        let bucket = BUCKET_BOUNDS.partition_point(|bound| *bound < time);
        add(&self.buckets[bucket], 1);
        add(&self.nanoseconds, time.as_nanos() as u64);
    }
}

impl Histogram {
    pub(super) fn sum<'a>(workers: impl Iterator<Item = &'a HandlingTimes>) -> Self {
        let mut total = Self {
            buckets: [0; BUCKETS],
            sum: Duration::ZERO,
        };
        for times in workers {
            for (total, bucket) in total.buckets.iter_mut().zip(&times.buckets) {
                *total += bucket.load(Relaxed);
            }
            total.sum += Duration::from_nanos(times.nanoseconds.load(Relaxed));
        }
        total
    }
}

impl Sampler {
    pub(super) fn new(is_enabled: bool) -> Self {
        Self {
            is_enabled,
            skip: Cell::new(0),
        }
    }

    /// Returns whether to measure this read. The first one is measured.
    pub(super) fn is_due(&self) -> bool {
        if !self.is_enabled {
            return false;
        }
        let skip = self.skip.get();
        self.skip
            .set(skip.checked_sub(1).unwrap_or(SAMPLING_INTERVAL - 1));
        skip == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_of_sixteen_is_measured() {
        let sampler = Sampler::new(true);
        let due: Vec<_> = (0..33).map(|_| sampler.is_due()).collect();
        let positions: Vec<_> = (0..33).filter(|at| due[*at]).collect();
        assert_eq!(positions, [0, 16, 32]);
        assert!(!Sampler::new(false).is_due());
    }

    #[test]
    fn time_at_a_bound_belongs_to_its_bucket() {
        let workers = [HandlingTimes::default(), HandlingTimes::default()];
        workers[0].record(Duration::from_micros(5));
        workers[1].record(Duration::from_nanos(5001));
        workers[1].record(Duration::from_secs(7));
        let total = Histogram::sum(workers.iter());
        assert_eq!((total.buckets[0], total.buckets[1]), (1, 1));
        assert_eq!(total.buckets[BUCKETS - 1], 1);
        assert_eq!(total.sum, Duration::new(7, 10_001));
    }
}
