//! Timeouts of futures.

use std::future::Future;
use std::time::Duration;

use futures_lite::future;
use smol::Timer;

/// The time limit passed before the work completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out")]
pub struct TimedOut;

/// Runs `work` for at most `limit`, or without a limit.
///
/// # Errors
///
/// [`TimedOut`] if `limit` passed first; `work` is dropped then. A result that is ready when the
/// time is over is returned.
///
/// # Cancel safety
///
/// Same as `work`.
pub(crate) async fn timeout<T>(
    limit: Option<Duration>,
    work: impl Future<Output = T>,
) -> Result<T, TimedOut> {
    match limit {
        None => Ok(work.await),
        Some(limit) => race(Timer::after(limit), work).await,
    }
}

/// Runs `work` until `alarm` completes.
///
/// # Errors
///
/// `TimedOut` if `alarm` completed first; `work` is dropped then.
///
/// # Cancel safety
///
/// Same as `work`.
pub async fn race<T, A>(
    alarm: impl Future<Output = A>,
    work: impl Future<Output = T>,
) -> Result<T, TimedOut> {
    future::or(async { Ok(work.await) }, async {
        alarm.await;
        Err(TimedOut)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, pending};

    #[test]
    fn work_that_never_ends_times_out() {
        let short = Some(Duration::from_millis(5));
        assert_eq!(block_on(timeout(short, pending::<()>())), Err(TimedOut));
    }

    #[test]
    fn work_that_is_ready_counts_even_with_no_time_left() {
        assert_eq!(block_on(timeout(Some(Duration::ZERO), async { 7 })), Ok(7));
        assert_eq!(block_on(timeout(None, async { 7 })), Ok(7));
    }
}
