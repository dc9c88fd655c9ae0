//! Driver for platforms without epoll: smol's reactor behind the same interface.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::fd::AsFd;
use smol::Async;
use smol::channel::{Receiver, Sender, bounded};

use crate::runtime::direction::Direction;

/// Does nothing here: each attempt is a system call.
#[cfg(not(target_os = "linux"))]
pub(crate) fn mark_all_readable() {}

/// Returns zero: this driver does not busy-poll.
#[cfg(not(target_os = "linux"))]
pub(crate) fn busy_poll_time() -> Duration {
    Duration::ZERO
}

/// Reschedules the task of `cx` after others.
#[cfg(not(target_os = "linux"))]
pub(crate) fn yield_to_reactor(cx: &Context<'_>) {
    cx.waker().wake_by_ref();
}

/// Runs a future on the current thread.
#[derive(Debug)]
pub(crate) struct Driver {
    unparker: Arc<Unparker>,
    cancelled: Receiver<()>,
}

/// Cancels the run of a [`Driver`] from any thread.
#[derive(Debug)]
pub(crate) struct Unparker(Sender<()>);

impl Driver {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, cancelled) = bounded(1);
        Ok(Self {
            unparker: Arc::new(Unparker(sender)),
            cancelled,
        })
    }

    pub(crate) fn unparker(&self) -> Arc<Unparker> {
        Arc::clone(&self.unparker)
    }

    /// Does nothing: smol's reactor always blocks.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn busy_poll(self, _: Duration) -> Self {
        self
    }

    /// Runs the future that `make` creates on this thread. Returns `None` if it was cancelled.
    pub(crate) fn run<F: Future>(self, make: impl FnOnce() -> F) -> Option<F::Output> {
        let run = async { Some(make().await) };
        let cancelled = async {
            // A message or the end of the channel: nothing else is sent.
            let _ = self.cancelled.recv().await;
            None
        };
        smol::block_on(future::or(cancelled, run))
    }
}

impl Unparker {
    /// Cancels the run of the driver; its future is dropped.
    pub(crate) fn cancel(&self) {
        self.0.close();
    }
}

/// Non-blocking socket.
#[derive(Debug)]
pub(crate) struct Socket<T>(Async<T>);

impl<T: AsFd> Socket<T> {
    /// Wraps `io`, which must not block.
    ///
    /// # Errors
    ///
    /// The errors of the reactor.
    pub(crate) fn new(io: T) -> io::Result<Self> {
        Ok(Self(Async::new_nonblocking(io)?))
    }

    /// Waits until the socket is ready.
    pub(crate) fn poll_ready(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match direction {
            Direction::Read => self.0.poll_readable(cx),
            Direction::Write => self.0.poll_writable(cx),
        }
    }

    /// Runs `attempt`, again whenever the socket is ready, until it does not block.
    pub(crate) fn poll<R>(
        &self,
        direction: Direction,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&T) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            match attempt(self.0.get_ref()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(self.poll_ready(direction, cx))?;
        }
    }

    pub(crate) fn get_ref(&self) -> &T {
        self.0.get_ref()
    }

    /// Does nothing: smol's reactor tracks readiness itself.
    pub(crate) fn clear_readiness(&self, _: Direction) {}
}

/// Timer of smol that also stores its deadline.
#[derive(Debug)]
pub(crate) struct Timer {
    timer: smol::Timer,
    at: Option<Instant>,
}

impl Timer {
    /// Creates a timer that expires at a time.
    pub(crate) fn at(at: Instant) -> Self {
        Self {
            timer: smol::Timer::at(at),
            at: Some(at),
        }
    }

    /// Creates a timer that expires after a duration.
    pub(crate) fn after(duration: Duration) -> Self {
        Instant::now()
            .checked_add(duration)
            .map_or_else(Self::never, Self::at)
    }

    /// Creates a timer that never expires unless it is set.
    pub(crate) fn never() -> Self {
        Self {
            timer: smol::Timer::never(),
            at: None,
        }
    }

    /// Returns the deadline.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// Changes the deadline.
    pub(crate) fn set_at(&mut self, at: Instant) {
        self.timer.set_at(at);
        self.at = Some(at);
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        let at = ready!(Pin::new(&mut self.timer).poll(cx));
        self.at = None;
        Poll::Ready(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_lite::future::poll_once;

    #[test]
    fn timer_reports_its_deadline_until_it_fires() {
        let mut timer = Timer::after(Duration::from_secs(3600));
        let soon = Instant::now() + Duration::from_millis(1);
        assert!(timer.due().is_some_and(|due| due > soon));
        timer.set_at(soon);
        assert_eq!(timer.due(), Some(soon));
        assert_eq!(smol::block_on(&mut timer), soon);
        assert_eq!(timer.due(), None);
        let mut never = Timer::never();
        assert!(smol::block_on(poll_once(&mut never)).is_none() && never.due().is_none());
    }
}
