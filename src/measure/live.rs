//! Figures of a run that goes on, for whoever watches it.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::measure::timeline::Bucket;

/// What happened since somebody last looked. All clones are the same: those who do the work add,
/// from any thread, and one that watches takes.
#[derive(Debug, Clone, Default)]
pub struct LiveStats(Arc<Mutex<Bucket>>);

impl LiveStats {
    /// Takes what happened since the last time.
    pub fn drain(&self) -> Bucket {
        take(&mut self.lock())
    }

    /// Adds what happened.
    pub fn add(&self, bucket: &Bucket) {
        self.lock().merge(bucket);
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
