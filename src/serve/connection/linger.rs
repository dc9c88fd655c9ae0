//! Lingering close.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;

use crate::limits::timeout::race;
use crate::runtime::{Timer, yield_to_reactor};
use crate::serve::context::WorkerContext;

/// Reads of one connection in a row before it yields to the others.
pub(in crate::serve) const MAX_READS_PER_POLL: usize = 4;

/// Time limit of the lingering close. Closing with unread input would send a reset, which can
/// destroy the last reply in flight.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads and discards input until its end or the timeout.
pub(in crate::serve) async fn drain_input<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &WorkerContext,
) {
    // A timeout is no error: all replies are sent.
    let _ = race(
        Timer::after(LINGER_TIMEOUT),
        poll_fn(|cx| poll_drain(stream, context, cx)),
    )
    .await;
}

fn poll_drain<S: AsyncRead + Unpin>(
    stream: &mut S,
    context: &WorkerContext,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut buffer = context.buffer.borrow_mut();
    for _ in 0..MAX_READS_PER_POLL {
        match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            Ok(0) | Err(_) => return Poll::Ready(()),
            Ok(_) => {}
        }
    }
    yield_to_reactor(cx);
    Poll::Pending
}
