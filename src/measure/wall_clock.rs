//! Time of day of an [`Instant`].

use std::time::{Duration, Instant, SystemTime};

/// Time since the Unix epoch that is not affected by later changes of the system clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WallClock {
    created: Instant,
    created_since_epoch: Duration,
}

impl Default for WallClock {
    fn default() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            created: Instant::now(),
            created_since_epoch: since_epoch.unwrap_or_default(),
        }
    }
}

impl WallClock {
    /// Returns the time since the Unix epoch.
    pub(crate) fn since_epoch(self, at: Instant) -> Duration {
        match at.checked_duration_since(self.created) {
            Some(later) => self.created_since_epoch.saturating_add(later),
            None => self.created_since_epoch.saturating_sub(self.created - at),
        }
    }
}
