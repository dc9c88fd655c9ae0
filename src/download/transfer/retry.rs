//! Retry decisions: whether and when a failed transfer is retried.

use std::time::Duration;

use crate::download::config::RetryPolicy;
use crate::limits::backoff::Backoff;

/// Maximum delay between two attempts, unless the server requests a longer one.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Decision after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Retry after this delay.
    Retry(Duration),
    /// The failure is final.
    GiveUp,
    /// The retry would be due after `wait`, but only `left` is allowed.
    DeadlineExceeded { wait: Duration, left: Duration },
}

/// Retry state of one transfer.
#[derive(Debug)]
pub(crate) struct RetryState {
    retries_left: u32,
    backoff: Backoff,
    policy: RetryPolicy,
}

impl RetryState {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            retries_left: policy.max_retries,
            backoff: Backoff::new(policy.base_delay, MAX_DELAY.max(policy.base_delay)),
            policy: policy.clone(),
        }
    }

    /// Decides after a failure, `elapsed` after the start of the transfer. `retry_after` is the
    /// delay requested by the server.
    pub(crate) fn after_failure(
        &mut self,
        is_transient: bool,
        retry_after: Option<Duration>,
        elapsed: Duration,
    ) -> RetryDecision {
        if !is_transient || self.retries_left == 0 {
            return RetryDecision::GiveUp;
        }
        self.retries_left -= 1;
        let delay = self.backoff.next_delay();
        let wait = delay.max(retry_after.unwrap_or_default());
        let left = match self.policy.max_elapsed {
            Some(limit) => limit.saturating_sub(elapsed),
            // Applies to the server, not to the delay of the user.
            None => self.policy.max_retry_after().max(delay),
        };
        if wait > left {
            RetryDecision::DeadlineExceeded { wait, left }
        } else {
            RetryDecision::Retry(wait)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn state(max_retries: u32, max_elapsed: Option<Duration>) -> RetryState {
        RetryState::new(&RetryPolicy {
            max_retries,
            max_elapsed,
            ..RetryPolicy::default()
        })
    }

    #[test]
    fn retries_are_limited() {
        let mut state = state(2, None);
        for _ in 0..2 {
            let decision = state.after_failure(true, None, SECOND);
            assert!(matches!(decision, RetryDecision::Retry(_)), "{decision:?}");
        }
        let decision = state.after_failure(true, None, SECOND);
        assert_eq!(decision, RetryDecision::GiveUp);
    }

    #[test]
    fn permanent_failures_are_not_retried() {
        let decision = state(2, None).after_failure(false, Some(SECOND), SECOND);
        assert_eq!(decision, RetryDecision::GiveUp);
    }

    #[test]
    fn retry_after_is_a_minimum_delay() {
        let decision = state(1, None).after_failure(true, Some(90 * SECOND), SECOND);
        assert_eq!(decision, RetryDecision::Retry(90 * SECOND));
    }

    #[test]
    fn retry_beyond_the_deadline_is_refused() {
        let exceeded = |wait, left| RetryDecision::DeadlineExceeded { wait, left };
        let wait = 9 * SECOND;
        let after = |elapsed| state(1, Some(10 * SECOND)).after_failure(true, Some(wait), elapsed);
        assert_eq!(after(SECOND), RetryDecision::Retry(wait));
        assert_eq!(after(2 * SECOND), exceeded(wait, 8 * SECOND));
        assert_eq!(after(20 * SECOND), exceeded(wait, Duration::ZERO));
        let decision = state(1, None).after_failure(true, Some(Duration::MAX), SECOND);
        assert_eq!(decision, exceeded(Duration::MAX, 600 * SECOND));
    }
}
