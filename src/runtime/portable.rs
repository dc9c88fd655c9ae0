//! What the driver is where there is no epoll: smol's reactor, behind the same face.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_lite::future;
use rustix::fd::AsFd;
use smol::Async;
use smol::channel::{Receiver, Sender, bounded};

use crate::runtime::Direction;

/// Has every socket of this thread tried anew: here, each try is a real one.
#[cfg(not(target_os = "linux"))]
pub(crate) fn look_again() {}

/// How long the driver of this thread has asked for events in vain: here it always sleeps.
#[cfg(not(target_os = "linux"))]
pub(crate) fn spun() -> std::time::Duration {
    std::time::Duration::ZERO
}

/// Has the task of `cx` polled again, after others.
#[cfg(not(target_os = "linux"))]
pub(crate) fn give_way(cx: &Context<'_>) {
    cx.waker().wake_by_ref();
}

/// Runs a future on a thread.
#[derive(Debug)]
pub(crate) struct Driver {
    unparker: Arc<Unparker>,
    cancelled: Receiver<()>,
}

/// Ends the run of a [`Driver`] from any thread.
#[derive(Debug)]
pub(crate) struct Unparker(Sender<()>);

impl Driver {
    pub(crate) fn new() -> io::Result<Self> {
        let (sender, cancelled) = bounded(1);
        Ok(Self { unparker: Arc::new(Unparker(sender)), cancelled })
    }

    pub(crate) fn unparker(&self) -> Arc<Unparker> {
        Arc::clone(&self.unparker)
    }

    /// Does nothing: smol's reactor always sleeps.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn busy_poll(self, _: std::time::Duration) -> Self {
        self
    }

    /// Runs the future that `make` makes on this thread to its end; `None` when it was cancelled
    /// before.
    pub(crate) fn run<F: Future>(self, make: impl FnOnce() -> F) -> Option<F::Output> {
        let run = async { Some(make().await) };
        let cancelled = async {
            // An answer or the end of the channel: nothing else is sent over it.
            let _ = self.cancelled.recv().await;
            None
        };
        smol::block_on(future::or(cancelled, run))
    }
}

impl Unparker {
    /// Ends the run of the driver: its future is dropped.
    pub(crate) fn cancel(&self) {
        self.0.close();
    }
}

/// A socket that does not block.
#[derive(Debug)]
pub(crate) struct Socket<T>(Async<T>);

impl<T: AsFd> Socket<T> {
    /// Takes over `io`, which must not block.
    ///
    /// # Errors
    ///
    /// Those of the reactor.
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

    /// Does `attempt`, again whenever the socket is ready for it, until it would not block.
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

    /// Takes note that an attempt has taken all that was there. The reactor does not need to know.
    pub(crate) fn exhausted(&self, _: Direction) {}
}
