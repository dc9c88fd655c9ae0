//! Figures of a run that goes on, for whoever watches it.

use std::mem::take;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::measure::timeline::Slice;

/// What happened since somebody last looked. All clones are the same: those who do the work add,
/// from any thread, and one that watches takes.
#[derive(Debug, Clone, Default)]
pub struct Live(Arc<Mutex<Slice>>);

impl Live {
    /// Takes what happened since the last time.
    pub fn take(&self) -> Slice {
        take(&mut self.lock())
    }

    /// Adds what happened.
    pub fn add(&self, slice: &Slice) {
        self.lock().merge(slice);
    }

    fn lock(&self) -> MutexGuard<'_, Slice> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
