//! How long a connection may be silent.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use smol::Timer;

/// Nothing came for this long.
#[derive(Debug, thiserror::Error)]
#[error("nothing came for {0:?}")]
pub(super) struct Silent(pub(super) Duration);

/// Ends each wait that takes longer than a limit.
///
/// Setting a timer wakes the reactor, which costs more than reading a small answer. So one timer
/// stays set over many waits, those of later requests too: when it fires too early for the wait
/// of the moment, it is set anew. A wait that is over at once costs nothing.
#[derive(Debug)]
pub(super) struct Idle {
    limit: Duration,
    since: Option<Instant>,
    timer: Option<Timer>,
    waiting: Arc<Waiting>,
}

/// Whom the timer wakes. Were it the task itself, each new task would have to set the timer anew.
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

impl Idle {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            timer: None,
            waiting: Arc::default(),
        }
    }

    /// Passes on what a poll gave, but ends with [`Silent`] when there has been nothing for too
    /// long.
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
                    return Poll::Ready(Err(io::Error::other(Silent(self.limit))));
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

    async fn wait_in_vain(idle: &mut Idle) -> io::Error {
        poll_fn(|cx| idle.check::<()>(Poll::Pending, cx))
            .await
            .unwrap_err()
    }

    #[test]
    fn each_wait_has_the_whole_limit_though_the_timer_is_from_an_earlier_one() {
        let mut idle = Idle::new(LIMIT);
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
            assert_eq!(error.to_string(), "nothing came for 50ms");
        });
    }

    #[test]
    fn what_is_ready_sets_no_timer() {
        let mut idle = Idle::new(Duration::ZERO);
        let ready = block_on(poll_fn(|cx| idle.check(Poll::Ready(Ok(7)), cx)));
        assert_eq!(ready.unwrap(), 7);
        assert!(idle.timer.is_none());
    }
}
