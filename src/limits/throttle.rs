//! How seldom: what may be told again and again, but not each time.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Says yes once a period, however often and from however many threads it is asked.
#[derive(Debug)]
pub struct LogThrottle {
    period: Duration,
    last: Mutex<Option<Instant>>,
}

impl LogThrottle {
    /// Starts with a yes for the first who asks.
    pub fn new(period: Duration) -> Self {
        Self {
            period,
            last: Mutex::new(None),
        }
    }

    /// Whether the last yes is a period ago `now`, or there was none.
    pub fn allow(&self, now: Instant) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let allow = last.is_none_or(|last| now.saturating_duration_since(last) >= self.period);
        if allow {
            *last = Some(now);
        }
        allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_yes_once_a_period() {
        let second = Duration::from_secs(1);
        let (seldom, start) = (LogThrottle::new(second), Instant::now());
        let asked = [0.0, 0.5, 0.9, 1.0, 1.9, 2.5, 3.0, 3.5];
        let said = asked.map(|at| seldom.allow(start + second.mul_f64(at)));
        assert_eq!(said, [true, false, false, true, false, true, false, true]);
    }
}
