//! Exponential backoff with full jitter.

use std::time::Duration;

/// Delays before new attempts: the n-th is random between zero and the smaller of `first · 2ⁿ` and
/// `longest` ("full jitter"), so that clients that failed together do not retry together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    ceiling: Duration,
    longest: Duration,
}

impl Backoff {
    /// Creates a backoff whose first delay is at most `first` and whose delays never exceed
    /// `longest`.
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            ceiling: first.min(longest),
            longest,
        }
    }

    /// Returns the delay before the next attempt, in whole milliseconds if it is at least one.
    pub(crate) fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(fastrand::f64());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.longest);
        match u64::try_from(delay.as_millis()) {
            Ok(whole @ 1..) => Duration::from_millis(whole),
            _ => delay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest() {
        let first = Duration::from_secs(1);
        let longest = Duration::from_secs(60);
        let mut backoff = Backoff::new(first, longest);
        for ceiling in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.ceiling, Duration::from_secs(ceiling));
            assert!(backoff.next_delay() <= Duration::from_secs(ceiling));
        }
    }

    #[test]
    fn delays_are_spread() {
        let draw = || Backoff::new(Duration::from_secs(1), Duration::MAX).next_delay();
        let first = draw();
        assert!((0..100).any(|_| draw() != first));
    }
}
