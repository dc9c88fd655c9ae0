//! Retry decisions: whether and when a failed transfer is retried.

use std::time::Duration;

use crate::download::config::RetryPolicy;
use crate::download::error::Error;
use crate::limits::backoff::Backoff;

/// Maximum delay between two attempts, unless the server requests a longer one.
const MAX_DELAY: Duration = Duration::from_secs(60);

/// Growth in bytes that is progress.
const PROGRESS_LEN: u64 = 64 * 1024;

/// Growth that is progress, as a fraction of the missing bytes.
const PROGRESS_FRACTION: u64 = 100;

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

/// Stored bytes of one version of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct StoredBytes {
    pub(crate) count: u64,
    /// Length of the file, if known.
    pub(crate) total: Option<u64>,
    /// Number of times that the bytes were discarded.
    pub(crate) restarts: u32,
}

/// Retry state of one transfer.
#[derive(Debug)]
pub(crate) struct RetryState {
    policy: RetryPolicy,
    retries_left: u32,
    backoff: Backoff,
    /// State at the last progress.
    stored: StoredBytes,
    /// Number of restarts before this transfer.
    earlier_restarts: u32,
}

impl StoredBytes {
    /// Returns whether the bytes have grown by enough to count as progress since `earlier`. The
    /// bytes after a restart are compared with none.
    pub(crate) fn is_progress_since(&self, earlier: &Self) -> bool {
        let before = if self.restarts == earlier.restarts {
            earlier.count
        } else {
            0
        };
        let rest = self.total.map(|total| total.saturating_sub(before));
        let required = rest.map_or(PROGRESS_LEN, |rest| {
            rest.div_ceil(PROGRESS_FRACTION).clamp(1, PROGRESS_LEN)
        });
        self.count >= before.saturating_add(required)
    }
}

impl RetryState {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        Self {
            policy: policy.clone(),
            retries_left: policy.max_retries,
            backoff: backoff(policy),
            stored: StoredBytes::default(),
            earlier_restarts: 0,
        }
    }

    /// Creates the state of a transfer that starts with these bytes.
    pub(crate) fn with_stored(policy: &RetryPolicy, stored: StoredBytes) -> Self {
        Self {
            stored,
            earlier_restarts: stored.restarts,
            ..Self::new(policy)
        }
    }

    /// Records the bytes that are stored after a failure. After progress, retries and delays count
    /// anew. Each restart takes one retry, so that a server that changes the file with each
    /// request, or has no ranges, cannot cause requests forever.
    pub(crate) fn record(&mut self, stored: StoredBytes) {
        if stored.is_progress_since(&self.stored) {
            let restarts = stored.restarts.saturating_sub(self.earlier_restarts);
            let renewed = self.policy.max_retries.saturating_sub(restarts);
            self.retries_left = self.retries_left.max(renewed);
            self.backoff = backoff(&self.policy);
            self.stored = stored;
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

/// Returns whether the policy retries a failed request.
pub(crate) fn is_retryable(policy: &RetryPolicy, error: &Error) -> bool {
    match error {
        Error::Status {
            status,
            retry_after,
            ..
        } => policy.retries_status(*status, retry_after.is_some()),
        _ => error.is_transient(),
    }
}

fn backoff(policy: &RetryPolicy) -> Backoff {
    Backoff::new(policy.base_delay, MAX_DELAY.max(policy.base_delay))
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

    #[test]
    fn policy_adds_statuses() {
        let is_retried = |policy: &RetryPolicy, status| {
            let retry_after = None;
            let url = None;
            let error = Error::Status {
                status,
                url,
                retry_after,
            };
            is_retryable(policy, &error)
        };
        let named = RetryPolicy {
            http_statuses: vec![401, 404],
            ..RetryPolicy::default()
        };
        let all = RetryPolicy {
            all_http_errors: true,
            ..RetryPolicy::default()
        };
        for (status, by_default, if_named, if_all) in [
            (204, false, false, false),
            (401, false, true, true),
            (404, false, true, true),
            (410, false, false, true),
            (503, true, true, true),
        ] {
            for (policy, wanted) in [
                (&RetryPolicy::default(), by_default),
                (&named, if_named),
                (&all, if_all),
            ] {
                assert_eq!(is_retried(policy, status), wanted, "{status} {policy:?}");
                assert!(!wanted || policy.delays_host(status), "{status}");
            }
        }
    }

    #[test]
    fn final_statuses_do_not_delay_a_host() {
        for status in [202, 300, 400, 401, 404, 407, 410, 416, 501] {
            assert!(!RetryPolicy::default().delays_host(status), "{status}");
        }
        for status in [403, 413, 423, 429, 503] {
            assert!(RetryPolicy::default().delays_host(status), "{status}");
        }
    }

    fn stored(count: u64, total: Option<u64>) -> StoredBytes {
        StoredBytes {
            count,
            total,
            restarts: 0,
        }
    }

    #[test]
    fn progress_is_64_kib_or_one_percent_of_the_rest() {
        for (before, after, total, is_progress) in [
            (0, PROGRESS_LEN, None, true),
            (0, PROGRESS_LEN - 1, None, false),
            (0, PROGRESS_LEN, Some(1 << 30), true),
            (0, PROGRESS_LEN - 1, Some(1 << 30), false),
            (0, 10, Some(1000), true),
            (0, 9, Some(1000), false),
            (900, 901, Some(1000), true),
            (899, 900, Some(1000), false),
            (999, 999, Some(1000), false),
            (1000, 1000, Some(1000), false),
        ] {
            let now = stored(after, total);
            assert_eq!(
                now.is_progress_since(&stored(before, total)),
                is_progress,
                "{before} to {after} of {total:?}"
            );
        }
    }

    #[test]
    fn progress_renews_the_retries_and_restarts_do_not() {
        let total = Some(1 << 30);
        let mut retry = state(2, None);
        let mut retries = |step: fn(u64) -> StoredBytes| {
            let mut is_retry = |number| {
                retry.record(step(number));
                let decision = retry.after_failure(true, None, SECOND);
                matches!(decision, RetryDecision::Retry(_))
            };
            (1..100)
                .map_while(|number| is_retry(number).then_some(()))
                .count()
        };
        assert_eq!(retries(|number| stored(number << 20, Some(1 << 30))), 99);
        let restarted = retries(|number| StoredBytes {
            restarts: number as u32,
            ..stored(1 << 20, Some(1 << 30))
        });
        assert_eq!(restarted, 1);
        let mut fresh = RetryState::with_stored(
            &RetryPolicy {
                max_retries: 1,
                ..RetryPolicy::default()
            },
            stored(1 << 20, total),
        );
        for is_retried in [true, false] {
            fresh.record(stored((1 << 20) + 1, total));
            let decision = fresh.after_failure(true, None, SECOND);
            assert_eq!(matches!(decision, RetryDecision::Retry(_)), is_retried);
        }
    }
}
