//! Live statistics of a running load.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::measure::intervals::{Interval, IntervalRecorder, Intervals};
use crate::measure::timeline::Bucket;
use crate::measure::wall_clock::WallClock;

/// Statistics since the last [`drain`](Self::drain). Clones share them: worker threads add, one
/// observer drains.
#[derive(Debug, Clone, Default)]
pub struct LiveStats {
    recent: Arc<Mutex<Bucket>>,
    intervals: Option<Intervals>,
    clock: WallClock,
}

impl LiveStats {
    /// Creates statistics that also have the times of each second. They must be drained about once
    /// per second, because each needs up to half a megabyte.
    #[doc(hidden)]
    pub fn with_intervals() -> Self {
        Self {
            intervals: Some(Intervals::default()),
            ..Self::default()
        }
    }

    /// Returns and clears the statistics.
    pub fn drain(&self) -> Bucket {
        take(&mut self.lock())
    }

    /// Returns and clears the intervals of the seconds that are over. Seconds in which no message
    /// ended have none.
    #[doc(hidden)]
    pub fn drain_intervals(&self) -> Vec<Interval> {
        let now = self.clock.since_epoch(Instant::now());
        let intervals = self.intervals.as_ref();
        intervals.map_or_else(Vec::new, |intervals| intervals.drain_complete(now))
    }

    /// Returns and clears all intervals, at the end of a run.
    #[doc(hidden)]
    pub fn drain_all_intervals(&self) -> Vec<Interval> {
        let now = self.clock.since_epoch(Instant::now());
        let intervals = self.intervals.as_ref();
        intervals.map_or_else(Vec::new, |intervals| intervals.drain_all(now))
    }

    /// Adds statistics.
    pub(crate) fn add(&self, bucket: &Bucket) {
        self.lock().merge(bucket);
    }

    /// Returns the recorder of the intervals of one thread, if there are intervals.
    pub(crate) fn interval_recorder(&self) -> Option<IntervalRecorder> {
        let intervals = self.intervals.as_ref()?;
        Some(intervals.recorder(self.clock))
    }

    /// Returns the clock of all times of the run.
    pub(crate) fn clock(&self) -> WallClock {
        self.clock
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
