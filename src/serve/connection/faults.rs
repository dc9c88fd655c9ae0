//! Fault injection on one connection.

use std::future::Future as _;
use std::io::{self, ErrorKind};
use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite};

use crate::net::stream::SocketControl;
use crate::serve::connection::{Connection, EndReason, State};
use crate::serve::context::WorkerContext;
use crate::serve::fault::replies::{FaultEnd, Step};
use crate::serve::fault::stream::FaultPolicy;

impl<S: AsyncRead + AsyncWrite + SocketControl + Unpin, F: FaultPolicy> Connection<S, F> {
    /// Applies changes of the server's faults. Returns whether the connection has faults.
    pub(super) fn update_faults(&mut self) -> bool {
        let guard = &self.guard;
        let age = || guard.age();
        self.faults.update(&guard.context, age, self.sent).is_some()
    }

    /// Queues pending messages, and writes the next replies that are due, which ends the step.
    /// Waits if nothing can be written, and nothing may be read meanwhile.
    pub(super) fn poll_faults(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<ControlFlow<Option<EndReason>>>> {
        self.update_faults();
        self.queue_pending();
        let Some(faults) = self.faults.get() else {
            return Poll::Ready(Ok(Break(None)));
        };
        // TLS may have buffered what was written.
        let is_flushed = Pin::new(&mut self.stream).poll_flush(cx)?.is_ready();
        let now = Instant::now();
        let step = faults.queue.next_step(now);
        match step {
            Step::End(end) if is_flushed || end == FaultEnd::ClosedAfter => {
                if end == FaultEnd::Reset {
                    self.stream.set_reset_on_close()?;
                }
                return Poll::Ready(Ok(Break(Some(EndReason::Fault(end)))));
            }
            Step::Write if is_flushed => {
                let written = Pin::new(&mut self.stream).poll_write(cx, faults.queue.piece())?;
                if let Poll::Ready(count) = written {
                    faults.queue.record_written(count, now);
                    self.record_write(count);
                    return Poll::Ready(written_any(count));
                }
            }
            Step::End(_) | Step::Write | Step::Wait | Step::Idle => {}
        }
        if let Some(at) = faults.queue.wake_at(now) {
            faults.timer.set_at(at);
            if Pin::new(&mut faults.timer).poll(cx).is_ready() {
                return Poll::Ready(Ok(Break(None)));
            }
        }
        let may_proceed = match self.state {
            State::Open | State::Draining => !faults.queue.is_full(),
            _ => step == Step::Idle,
        };
        if is_flushed && may_proceed {
            Poll::Ready(Ok(Continue(())))
        } else {
            Poll::Pending
        }
    }

    /// Moves pending messages to the queue as far as it has room. With a long prefix, one read can
    /// bring more replies than that.
    fn queue_pending(&mut self) {
        let (Some(faults), Some(pending)) = (self.faults.get(), &mut self.pending) else {
            return;
        };
        let WorkerContext { framing, stats, .. } = &*self.guard.context;
        let complete = &pending.bytes[..pending.complete_len];
        let first = self.messages - framing.count(complete) as u64;
        let mut queued_len = 0;
        let now = Instant::now();
        for (number, message) in (first..).zip(framing.messages(complete)) {
            if faults.queue.is_full() {
                break;
            }
            let reply = [framing.prefix(), message];
            faults.queue.enqueue(now, number, reply, &stats.faults);
            queued_len += message.len();
        }
        pending.bytes.drain(..queued_len);
        pending.complete_len -= queued_len;
        if pending.bytes.is_empty() {
            self.pending = None;
        }
    }
}

/// Returns the end of a step that has written `count` bytes.
fn written_any(count: usize) -> io::Result<ControlFlow<Option<EndReason>>> {
    if count == 0 {
        return Err(ErrorKind::WriteZero.into());
    }
    Ok(Break(None))
}
