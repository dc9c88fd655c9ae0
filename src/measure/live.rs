//! Live statistics of a running load.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::measure::timeline::Bucket;

/// Statistics since the last [`drain`](Self::drain). Clones share them: worker threads add, one
/// observer drains.
#[derive(Debug, Clone, Default)]
pub struct LiveStats(Arc<Mutex<Bucket>>);

impl LiveStats {
    /// Returns and clears the statistics.
    pub fn drain(&self) -> Bucket {
        take(&mut self.lock())
    }

    /// Adds statistics.
    pub fn add(&self, bucket: &Bucket) {
        self.lock().merge(bucket);
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
