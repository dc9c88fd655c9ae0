//! A connection that counts as open, from when it was accepted to its end.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;
use tracing::info;

use crate::escape::Escaped;
use crate::limits::semaphore::Permit;
use crate::limits::timeout::race;
use crate::net::stream::Peer;
use crate::runtime::{Timer, yield_to_reactor};
use crate::serve::connections::Number;
use crate::serve::shard::Shared;

/// Where log lines about single connections and messages go.
pub(super) const TRAFFIC: &str = "myapp::traffic";

/// Reads in a row before others have their turn.
pub(super) const TURNS: usize = 4;

/// How long what still comes is read and dropped after the last answer. Closing with unread input
/// would send a reset, which can destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(1);

/// A connection that counts as open until this is dropped.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) shared: Rc<Shared>,
    pub(super) peer: Peer,
    /// In milliseconds after the start of the thread.
    opened: u32,
    /// Among all that are open.
    pub(super) place: Number,
}

impl Visit {
    /// Counts a connection from `peer`, which has been admitted, and returns how many there were
    /// before it.
    pub(super) fn begin(shared: Rc<Shared>, permit: Permit, peer: Peer) -> (Self, u64) {
        info!(target: TRAFFIC, %peer, "opened");
        let number = shared.figures.opened.fetch_add(1, Relaxed);
        let opened = shared.milliseconds();
        let place = shared.connections.join();
        // Given back when this is dropped: to hold it would take room in each that is open.
        permit.forget();
        (
            Self {
                shared,
                peer,
                opened,
                place,
            },
            number,
        )
    }

    /// For how long it has been open.
    pub(super) fn seconds(&self) -> f64 {
        f64::from(self.shared.milliseconds().wrapping_sub(self.opened)) / 1000.0
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.shared.connections.leave(self.place);
        self.shared.figures.closed.fetch_add(1, Relaxed);
        self.shared.admission.leave(&self.peer);
        self.shared.permits.release();
    }
}

/// A message as it stands in a log line: its end is no part of its text.
pub(super) fn without_end(message: &[u8]) -> Escaped<'_> {
    Escaped(message.strip_suffix(b"\n").unwrap_or(message))
}

/// Reads and drops what still comes, for a second at most.
pub(super) async fn drop_rest<S: AsyncRead + Unpin>(stream: &mut S, shared: &Shared) {
    // Whether it ended in time or not: all has been said.
    let _ = race(
        Timer::after(LINGER),
        poll_fn(|cx| poll_rest(stream, shared, cx)),
    )
    .await;
}

fn poll_rest<S: AsyncRead + Unpin>(
    stream: &mut S,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut buffer = shared.buffer.borrow_mut();
    for _ in 0..TURNS {
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    yield_to_reactor(cx);
    Poll::Pending
}
