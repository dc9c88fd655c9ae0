//! Drain of one connection when the server shuts down.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::net::stream::SocketControl;
use crate::runtime::Timer;
use crate::serve::connection::{Connection, EndReason, State};
use crate::serve::fault::stream::FaultPolicy;

/// Minimum time without input after which a client is assumed to have sent everything.
const MIN_QUIET_PERIOD: Duration = Duration::from_millis(250);

/// Quiet period in round trips: the client learns that the window is open, and sends. Twice, as a
/// segment may be lost.
const QUIET_ROUND_TRIPS: u32 = 4;

/// Input in bytes from which more may wait in the client's kernel. Below the receive window with
/// which Linux opens a connection, 64 KB, as a short read may have emptied a full window.
const FULL_WINDOW_LEN: u64 = 32 << 10;

/// Progress of the drain of one connection.
#[derive(Debug)]
struct Drain {
    /// Bytes received before the drain.
    received: u64,
    /// Whether the client's kernel may hold more input: a reply was blocked, so nothing was read,
    /// or the receive window may have been full.
    needs_quiet_period: bool,
    /// Bytes transferred when the quiet period began.
    transferred: u64,
    quiet_end: Timer,
}

impl<S: AsyncRead + AsyncWrite + SocketControl + Unpin, F: FaultPolicy> Connection<S, F> {
    /// Replies to the input that was sent before the shutdown, and shuts down the write side.
    ///
    /// # Cancel safety
    ///
    /// Dropping the connection afterwards aborts it.
    pub(super) async fn drain(&mut self) -> EndReason {
        let mut drain = Drain {
            received: self.received,
            needs_quiet_period: false,
            transferred: u64::MAX,
            quiet_end: Timer::never(),
        };
        self.state = State::Draining;
        poll_fn(|cx| self.poll_drain(cx, &mut drain)).await
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>, drain: &mut Drain) -> Poll<EndReason> {
        loop {
            let polled = self.poll_bounded(cx);
            drain.needs_quiet_period |= self.received - drain.received >= FULL_WINDOW_LEN
                || polled.is_pending() && self.has_unsent_replies(cx);
            match (polled, self.state) {
                // No input is left for now.
                (Poll::Ready(EndReason::Drained), State::Draining) => {}
                _ => return polled,
            }
            if drain.needs_quiet_period {
                ready!(self.poll_quiet(cx, drain));
            }
            self.finish(EndReason::Drained);
        }
    }

    /// Returns whether replies are unsent, so that nothing is read.
    fn has_unsent_replies(&mut self, cx: &mut Context<'_>) -> bool {
        let pending = self.pending.as_deref();
        // TLS buffers what was written.
        pending.is_some_and(|pending| pending.complete_len > 0)
            || self
                .faults
                .get()
                .is_some_and(|faults| faults.queue.is_full())
            || Pin::new(&mut self.stream).poll_flush(cx).is_pending()
    }

    /// Waits until nothing was transferred for the quiet period, and all replies are acknowledged.
    fn poll_quiet(&self, cx: &mut Context<'_>, drain: &mut Drain) -> Poll<()> {
        loop {
            let transferred = self.received + self.sent;
            if drain.transferred == transferred {
                ready!(Pin::new(&mut drain.quiet_end).poll(cx));
                if !self.stream.delivery().outstanding {
                    return Poll::Ready(());
                }
            }
            drain.transferred = transferred;
            let round_trips = self.stream.delivery().round_trip * QUIET_ROUND_TRIPS;
            drain.quiet_end = Timer::after(MIN_QUIET_PERIOD.max(round_trips));
        }
    }
}
