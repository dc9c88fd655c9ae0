//! Task of one connection.
//!
//! An idle connection owns no buffer: input is read into a buffer that all connections of the
//! worker share, and the reply is written from it. Only an incomplete line, or a reply that the
//! peer does not accept yet, is copied to memory of the connection. While a reply is pending,
//! nothing more is read.

mod buffer;
mod drain;
mod faults;
pub(super) mod guard;
pub(super) mod linger;
pub(super) mod table;

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::mem;
use std::ops::ControlFlow::Break;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite, future};
use tracing::{Level, enabled, info};

use crate::net::stream::SocketControl;
use crate::runtime::yield_to_reactor;
use crate::serve::connection::buffer::PendingBuffer;
use crate::serve::connection::guard::{ConnectionGuard, Counts};
use crate::serve::connection::linger::{MAX_READS_PER_POLL, drain_input};
use crate::serve::connection::table::CloseReason;
use crate::serve::context::WorkerContext;
use crate::serve::fault::replies::FaultEnd;
use crate::serve::fault::stream::FaultPolicy;
use crate::serve::framing::ReplyWriter;
use crate::serve::traffic_log::{TRAFFIC, trim_newline};

/// An open connection. Dropping it closes the connection and logs its end.
#[derive(Debug)]
pub(super) struct Connection<S, F> {
    stream: S,
    pending: Option<Box<PendingBuffer>>,
    /// With fault injection, the queued replies.
    faults: F,
    state: State,
    messages: u64,
    received: u64,
    sent: u64,
    guard: ConnectionGuard,
}

/// The future that serves a connection. It is no larger than the connection, as there is one for
/// each open connection; the state of closing is boxed.
pub(super) enum ConnectionTask<S, F> {
    Open(Connection<S, F>),
    Closing(Pin<Box<dyn Future<Output = ()>>>),
    Done,
}

impl<S, F> Future for ConnectionTask<S, F>
where
    S: AsyncRead + AsyncWrite + SocketControl + Unpin + 'static,
    F: FaultPolicy,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Open(connection) = &mut *self {
            let end = ready!(connection.poll_bounded(cx));
            if let Self::Open(connection) = mem::replace(&mut *self, Self::Done) {
                *self = Self::Closing(Box::pin(connection.close(end)));
            }
        }
        match &mut *self {
            Self::Closing(closing) => closing.as_mut().poll(cx),
            Self::Open(_) | Self::Done => Poll::Ready(()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Initial state. The first poll registers the waker, which never changes.
    Init,
    /// Reads and replies.
    Open,
    /// Reads and replies until no input is left.
    Draining,
    /// About to send the error reply to a line longer than this many bytes.
    LineTooLong(u32),
    /// Writes the pending replies.
    Closing(EndReason),
    Closed(EndReason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndReason {
    EndOfInput,
    /// The server stops; what has been received may lack a reply.
    Shutdown,
    /// The server stops, and everything received has been replied to.
    Drained,
    LineTooLong,
    Fault(FaultEnd),
    IdleTimeout,
    Failed(ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + SocketControl + Unpin, F: FaultPolicy> Connection<S, F> {
    pub(super) fn new(guard: ConnectionGuard, stream: S, mut faults: F) -> Self {
        guard.context.connections.record_activity(guard.id, 0);
        // Faults such as a maximum age apply before the first message.
        faults.update(&guard.context, || guard.age(), 0);
        Self {
            stream,
            pending: None,
            faults,
            state: State::Init,
            messages: 0,
            received: 0,
            sent: 0,
            guard,
        }
    }

    /// Serves the connection to its end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future aborts the connection.
    pub(super) fn run(self) -> ConnectionTask<S, F> {
        ConnectionTask::Open(self)
    }

    async fn close(mut self, end: EndReason) {
        let end = if end == EndReason::Shutdown {
            self.drain().await
        } else {
            end
        };
        self.state = State::Closed(end);
        match end {
            EndReason::Drained | EndReason::LineTooLong => {
                drain_input(&mut self.stream, &self.guard.context).await;
            }
            EndReason::IdleTimeout => self.try_close().await,
            EndReason::Fault(FaultEnd::Closed | FaultEnd::ClosedAfter) => {
                self.try_close().await;
                drain_input(&mut self.stream, &self.guard.context).await;
            }
            EndReason::EndOfInput
            | EndReason::Shutdown
            | EndReason::Fault(FaultEnd::Reset)
            | EndReason::Failed(_) => {}
        }
    }

    /// Sends an end of the replies, with `close_notify` on TLS connections. A peer that does not
    /// read must not delay the close.
    async fn try_close(&mut self) {
        let close = poll_fn(|cx| Pin::new(&mut self.stream).poll_close(cx));
        let _ = future::poll_once(close).await;
    }

    fn poll_bounded(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        for _ in 0..MAX_READS_PER_POLL {
            match ready!(self.poll_step(cx)) {
                Ok(None) => {}
                Ok(Some(end)) => return Poll::Ready(end),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(EndReason::Failed(error.kind())),
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<EndReason>>> {
        match self.guard.context.connections.close_reason(self.guard.id) {
            Some(CloseReason::IdleTimeout) => {
                return Poll::Ready(Ok(Some(EndReason::IdleTimeout)));
            }
            Some(CloseReason::BufferLimit)
                if matches!(self.state, State::Open | State::Draining) =>
            {
                self.discard_partial_line();
            }
            Some(CloseReason::Shutdown) if matches!(self.state, State::Init | State::Open) => {
                return Poll::Ready(Ok(Some(EndReason::Shutdown)));
            }
            _ => {}
        }
        if self.faults.get().is_none() {
            ready!(self.poll_write_pending(cx))?;
            // TLS may have buffered what was written.
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        } else if let Break(end) = ready!(self.poll_faults(cx))? {
            return Poll::Ready(Ok(end));
        }
        match self.state {
            State::Init => {
                self.guard
                    .context
                    .connections
                    .register_waker(self.guard.id, cx.waker());
                self.state = State::Open;
            }
            State::Open => ready!(self.poll_read(cx))?,
            State::Draining => match self.poll_read(cx) {
                Poll::Ready(result) => result?,
                Poll::Pending => return Poll::Ready(Ok(Some(EndReason::Drained))),
            },
            State::LineTooLong(limit) => {
                // The last reply is sent without faults.
                self.faults.clear();
                let reply = PendingBuffer::line_too_long(&self.guard.context.framing, limit);
                self.pending = Some(reply);
                self.state = State::Closing(EndReason::LineTooLong);
            }
            State::Closing(end) => {
                ready!(Pin::new(&mut self.stream).poll_close(cx))?;
                return Poll::Ready(Ok(Some(end)));
            }
            State::Closed(end) => return Poll::Ready(Ok(Some(end))),
        }
        Poll::Ready(Ok(None))
    }

    /// Writes the pending replies.
    fn poll_write_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(pending) = self.pending.as_deref() else {
            return Poll::Ready(Ok(()));
        };
        if pending.complete_len == 0 {
            return Poll::Ready(Ok(()));
        }
        let (complete, partial) = pending.bytes.split_at(pending.complete_len);
        let framing = &self.guard.context.framing;
        let mut replies = ReplyWriter::new(framing, [complete, &[]], pending.written);
        let result = poll_write(&mut self.stream, cx, &mut replies);
        let sent = replies.sent;
        if sent > 0 {
            let (rest, written) = replies.rest();
            self.pending = PendingBuffer::new(rest, partial, written);
            self.record_write(sent);
        }
        result
    }

    /// Reads input and replies as far as the peer accepts the replies.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let context = Rc::clone(&self.guard.context);
        let mut buffer = context.buffer.borrow_mut();
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))? {
            0 => self.finish(EndReason::EndOfInput),
            count if context.sampler.is_due() => {
                self.process_measured(cx, &context, &buffer[..count])?;
            }
            count => self.process_input(cx, &context, &buffer[..count])?,
        }
        Poll::Ready(Ok(()))
    }

    /// Starts to close. An incomplete line counts as a message.
    fn finish(&mut self, end: EndReason) {
        self.state = State::Closing(end);
        if let Some(mut pending) = self.pending.take() {
            self.record_messages(&pending.bytes);
            self.update_faults();
            if let Some(whoami) = self.faults.whoami() {
                pending.bytes = whoami.reply();
            }
            pending.complete_len = pending.bytes.len();
            self.pending = Some(pending);
        }
    }

    /// Processes input and records the time until its replies are written or queued.
    #[cold]
    fn process_measured(
        &mut self,
        cx: &mut Context<'_>,
        context: &WorkerContext,
        input: &[u8],
    ) -> io::Result<()> {
        let start = Instant::now();
        let result = self.process_input(cx, context, input);
        context.traffic.handling.record(start.elapsed());
        result
    }

    fn process_input(
        &mut self,
        cx: &mut Context<'_>,
        context: &WorkerContext,
        input: &[u8],
    ) -> io::Result<()> {
        self.received += input.len() as u64;
        context.traffic.add_received(input.len());
        let mut pending = self.pending.take();
        let buffered = pending.as_ref().map_or(0, |pending| pending.bytes.len());
        let split = context.framing.split(buffered, input);
        if split.complete_len == 0 && !split.too_long {
            let pending = self.pending.insert(pending.unwrap_or_default());
            pending.grow(input, context.framing.max_line());
            self.record_write(0);
            return Ok(());
        }
        let (complete, partial) = input.split_at(split.complete_len);
        let (first_end, complete) = complete.split_at(split.first_len);
        let first = match &mut pending {
            Some(pending) if !first_end.is_empty() => {
                pending.bytes.extend_from_slice(first_end);
                pending.bytes.as_slice()
            }
            _ => &[],
        };
        self.record_messages(first);
        self.record_messages(complete);
        let replies = self.whoami_replies(context, [first, complete]);
        let parts = match &replies {
            Some(replies) => [replies.as_slice(), &[]],
            None => [first, complete],
        };
        let partial = if split.too_long { &[] } else { partial };
        if split.too_long {
            self.state = State::line_too_long(context.framing.max_line());
        }
        if self.update_faults() {
            // The replies are queued from the pending buffer.
            self.pending = PendingBuffer::new(parts, partial, 0);
            self.record_write(0);
            return Ok(());
        }
        let mut replies = ReplyWriter::new(&context.framing, parts, 0);
        let result = poll_write(&mut self.stream, cx, &mut replies);
        let (rest, written) = replies.rest();
        self.pending = PendingBuffer::new(rest, partial, written);
        self.record_write(replies.sent);
        // What the peer does not accept yet stays pending.
        if let Poll::Ready(result) = result {
            result
        } else {
            Ok(())
        }
    }

    /// Returns the replies to messages that are not echoed; each is one line.
    fn whoami_replies(&mut self, context: &WorkerContext, parts: [&[u8]; 2]) -> Option<Vec<u8>> {
        let whoami = self.faults.whoami()?;
        let messages = parts.map(|part| context.framing.messages(part));
        let messages = messages.into_iter().flatten();
        Some(messages.flat_map(|_| whoami.reply()).collect())
    }

    /// Discards an incomplete line; the error reply follows.
    fn discard_partial_line(&mut self) {
        let Some(mut pending) = self.pending.take() else {
            return;
        };
        self.state = State::line_too_long(pending.bytes.len() - pending.complete_len);
        pending.bytes.truncate(pending.complete_len);
        if pending.complete_len > 0 {
            self.pending = Some(pending);
        }
    }

    fn record_messages(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let ConnectionGuard { context, peer, .. } = &self.guard;
        let count = context.framing.count(bytes) as u64;
        self.messages += count;
        context.traffic.add_messages(count);
        if enabled!(target: TRAFFIC, Level::INFO) {
            for message in context.framing.messages(bytes) {
                let bytes = message.len();
                let text = trim_newline(message);
                info!(target: TRAFFIC, %peer, bytes, %text, "received");
            }
        }
    }

    /// Records activity, and the number of bytes written.
    fn record_write(&mut self, count: usize) {
        let context = &self.guard.context;
        self.sent += count as u64;
        context.traffic.add_sent(count);
        let partial_len = self
            .pending
            .as_ref()
            .map_or(0, |pending| pending.partial_len());
        context
            .connections
            .record_activity(self.guard.id, partial_len);
    }
}

impl State {
    /// Returns the state before the error reply to a line longer than `limit`, which is capped at
    /// 4 GiB.
    fn line_too_long(limit: usize) -> Self {
        Self::LineTooLong(u32::try_from(limit).unwrap_or(u32::MAX))
    }
}

/// Writes replies until all are written or the peer accepts no more.
fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    replies: &mut ReplyWriter<'_>,
) -> Poll<io::Result<()>> {
    while !replies.is_done() {
        let stream = Pin::new(&mut *stream);
        let count = ready!(replies.next(|slices| match slices {
            [slice] => stream.poll_write(cx, slice),
            slices => stream.poll_write_vectored(cx, slices),
        }))?;
        if count == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        replies.advance(count);
    }
    Poll::Ready(Ok(()))
}

impl<S, F> Drop for Connection<S, F> {
    fn drop(&mut self) {
        let stats = &self.guard.context.stats;
        let (counter, reason) = match self.state {
            State::Closed(EndReason::EndOfInput) => (None, "end of input".into()),
            State::Closed(EndReason::Drained) => (None, "drained".into()),
            State::Closed(EndReason::LineTooLong) => {
                (Some(&stats.line_too_long), "line too long".into())
            }
            State::Closed(EndReason::Fault(end)) => {
                let (counter, reason) = end.counter(&stats.faults);
                (Some(counter), reason.into())
            }
            State::Closed(EndReason::IdleTimeout) => {
                (Some(&stats.idle_timeouts), "idle timeout".into())
            }
            State::Closed(EndReason::Failed(kind)) => (Some(&stats.failed), kind.to_string()),
            _ => (
                Some(&stats.aborted_on_shutdown),
                "aborted on shutdown".into(),
            ),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        match self.state {
            State::Closed(EndReason::Failed(
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe,
            )) => {
                stats.reset_by_peer.fetch_add(1, Relaxed);
            }
            // TLS reports an end without `close_notify` (RFC 8446 section 6.1) this way.
            State::Closed(EndReason::Failed(ErrorKind::UnexpectedEof)) => {
                stats.tls.missing_close_notify.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        let counts = Counts {
            messages: self.messages,
            received: self.received,
            sent: self.sent,
        };
        self.guard.report_closed(counts, &reason);
    }
}

#[cfg(test)]
mod tests;
