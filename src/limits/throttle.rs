//! Throttling of repeated log lines.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Allows one log line per period, for all threads together.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    period: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    /// Creates a throttle that allows the first line.
    pub(crate) fn new(period: Duration) -> Self {
        Self {
            period,
            last: Mutex::new(None),
        }
    }

    /// Returns whether a line is allowed `now`: the last one is at least a period ago.
    pub(crate) fn allow(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_allowed = last.is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if is_allowed {
            *last = Some(now);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_once_per_period() {
        let second = Duration::from_secs(1);
        let throttle = LogThrottle::new(second);
        let start = Instant::now();
        let asked = [0.0, 0.5, 0.9, 1.0, 1.9, 2.5, 3.0, 3.5];
        let said = asked.map(|at| throttle.allow(start + second.mul_f64(at)));
        assert_eq!(said, [true, false, false, true, false, true, false, true]);
    }
}
