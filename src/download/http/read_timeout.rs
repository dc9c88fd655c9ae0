//! Inactivity timeout of a connection.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use smol::Timer;

/// Error of a wait that exceeded the limit.
#[derive(Debug, thiserror::Error)]
#[error("no data for {0:?}")]
pub(super) struct ReadTimedOut(pub(super) Duration);

/// Limits the duration of each wait.
///
/// Arming a timer wakes the reactor, which costs more than reading a small response. Therefore one
/// timer stays armed over many waits, including those of later requests, and is rearmed if it
/// fires before the current wait exceeds the limit. An operation that is ready costs nothing.
#[derive(Debug)]
pub(super) struct ReadTimeout {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Timer>,
    waiting: Arc<Waiting>,
}

/// Waker of the current task. The indirection lets another task use the same armed timer.
#[derive(Debug, Default)]
struct Waiting(Mutex<Option<Waker>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        let waker = self.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl ReadTimeout {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            timer: None,
            waiting: Arc::default(),
        }
    }

    /// Returns `polled`, or [`ReadTimedOut`] if it has been pending for longer than the limit.
    pub(super) fn check<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            if self.since.take().is_some() {
                *self.waiting.lock() = None;
            }
            return polled;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        *self.waiting.lock() = Some(cx.waker().clone());
        let waker = Waker::from(self.waiting.clone());
        while self.fires(&mut Context::from_waker(&waker)) {
            match self.limit.checked_sub(since.elapsed()) {
                None | Some(Duration::ZERO) => {
                    return Poll::Ready(Err(io::Error::other(ReadTimedOut(self.limit))));
                }
                Some(left) => self.timer = Some(Timer::after(left)),
            }
        }
        Poll::Pending
    }

    fn fires(&mut self, cx: &mut Context<'_>) -> bool {
        self.timer
            .as_mut()
            .is_none_or(|timer| Pin::new(timer).poll(cx).is_ready())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_fn, poll_once};

    const LIMIT: Duration = Duration::from_millis(50);

    async fn wait_in_vain(idle: &mut ReadTimeout) -> io::Error {
        poll_fn(|cx| idle.check::<()>(Poll::Pending, cx))
            .await
            .unwrap_err()
    }

    #[test]
    fn each_wait_gets_the_full_limit_with_a_reused_timer() {
        let mut idle = ReadTimeout::new(LIMIT);
        block_on(async {
            let _ = poll_once(wait_in_vain(&mut idle)).await;
            Timer::after(LIMIT / 2).await;
            poll_fn(|cx| idle.check(Poll::Ready(Ok(())), cx))
                .await
                .unwrap();
            assert!(idle.timer.is_some() && idle.waiting.lock().is_none());

            let start = Instant::now();
            let error = wait_in_vain(&mut idle).await;
            assert!(start.elapsed() >= LIMIT, "{:?}", start.elapsed());
            assert_eq!(error.to_string(), "no data for 50ms");
        });
    }

    #[test]
    fn ready_operation_arms_no_timer() {
        let mut idle = ReadTimeout::new(Duration::ZERO);
        let ready = block_on(poll_fn(|cx| idle.check(Poll::Ready(Ok(7)), cx)));
        assert_eq!(ready.unwrap(), 7);
        assert!(idle.timer.is_none());
    }
}
