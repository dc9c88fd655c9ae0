//! One connection, from its first byte to its last.
//!
//! While nothing comes, a connection holds no buffer: what can be read is read into a buffer that
//! all connections of the thread share, and answered out of it. Only what cannot be finished at
//! once, the begin of a line or an answer that the other side does not take, gets memory of its
//! own; while an answer waits, nothing more is read.

use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::mem;
use std::ops::ControlFlow::{self, Break, Continue};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite, future};
use tracing::{Level, enabled, info};

use crate::net::stream::ResetOnClose;
use crate::runtime::yield_to_reactor;
use crate::serve::connections::Call;
use crate::serve::held::Held;
use crate::serve::lateness::Lateness;
use crate::serve::modes::Answers;
use crate::serve::shard::Shared;
use crate::serve::visit::{TRAFFIC, TURNS, Visit, drop_rest, without_end};

/// A connection that is being served. When dropped, it is closed and its end is logged.
#[derive(Debug)]
pub(super) struct Session<S, L> {
    stream: S,
    held: Option<Box<Held>>,
    /// With faults, the answers that wait for their time.
    late: L,
    phase: Phase,
    messages: u64,
    received: u64,
    sent: u64,
    visit: Visit,
}

/// Serves a session to its end, in one task. No larger than the session, as there is one for each
/// that is open; what only the end needs is in a box.
pub(super) enum Service<S, L> {
    Open(Session<S, L>),
    Closing(Pin<Box<dyn Future<Output = ()>>>),
    Over,
}

impl<S, L> Future for Service<S, L>
where
    S: AsyncRead + AsyncWrite + ResetOnClose + Unpin + 'static,
    L: Lateness,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Open(session) = &mut *self {
            let end = ready!(session.poll_turns(cx));
            if let Self::Open(session) = mem::replace(&mut *self, Self::Over) {
                *self = Self::Closing(Box::pin(session.close(end)));
            }
        }
        match &mut *self {
            Self::Closing(closing) => closing.as_mut().poll(cx),
            Self::Open(_) | Self::Over => Poll::Ready(()),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Has not been polled yet: whom to wake is noted then, and stays the same.
    Opening,
    /// Reads and answers.
    Echoing,
    /// Is about to say that a line is longer than so many bytes.
    Refusing(u32),
    /// Writes what is left.
    Ending(End),
    Ended(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The other side has sent all.
    Input,
    /// The server stops, and what had come is answered.
    Drained,
    TooLong,
    /// It is reset on purpose.
    Reset,
    Idle,
    Failed(ErrorKind),
}

impl<S: AsyncRead + AsyncWrite + ResetOnClose + Unpin, L: Lateness> Session<S, L> {
    /// Starts to serve `stream`.
    pub(super) fn open(visit: Visit, stream: S, late: L) -> Self {
        visit.shared.connections.moved(visit.place, 0);
        Self {
            stream,
            held: None,
            late,
            phase: Phase::Opening,
            messages: 0,
            received: 0,
            sent: 0,
            visit,
        }
    }

    /// Serves the connection to its end.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the connection is cut.
    pub(super) fn run(self) -> Service<S, L> {
        Service::Open(self)
    }

    async fn close(mut self, end: End) {
        self.phase = Phase::Ended(end);
        match end {
            End::Drained | End::TooLong => {
                drop_rest(&mut self.stream, &self.visit.shared).await;
            }
            // Inside TLS the other side is told that this is the end.
            End::Idle => {
                let close = poll_fn(|cx| Pin::new(&mut self.stream).poll_close(cx));
                // What cannot be sent at once is not waited for.
                let _ = future::poll_once(close).await;
            }
            End::Input | End::Reset | End::Failed(_) => {}
        }
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..TURNS {
            match ready!(self.poll_turn(cx)) {
                Ok(None) => {}
                Ok(Some(end)) => return Poll::Ready(end),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(End::Failed(error.kind())),
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        match self.visit.shared.connections.call(self.visit.place) {
            Some(Call::Idle) => return Poll::Ready(Ok(Some(End::Idle))),
            Some(Call::Longest) if matches!(self.phase, Phase::Echoing) => self.give_up_line(),
            _ => {}
        }
        ready!(self.poll_held(cx))?;
        // Inside TLS, what was written may wait to be sent.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if let Break(end) = ready!(self.poll_late(cx))? {
            return Poll::Ready(Ok(end));
        }
        match self.phase {
            Phase::Opening => {
                self.visit
                    .shared
                    .connections
                    .attend(self.visit.place, cx.waker());
                self.phase = Phase::Echoing;
            }
            Phase::Echoing => ready!(self.poll_read(cx))?,
            Phase::Refusing(limit) => {
                self.held = Some(Held::refusal(&self.visit.shared.framing, limit));
                self.phase = Phase::Ending(End::TooLong);
            }
            Phase::Ending(end) => {
                ready!(Pin::new(&mut self.stream).poll_close(cx))?;
                return Poll::Ready(Ok(Some(end)));
            }
            Phase::Ended(end) => return Poll::Ready(Ok(Some(end))),
        }
        Poll::Ready(Ok(None))
    }

    /// Writes the answers that wait.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(held) = self.held.as_deref().filter(|held| held.whole > 0) else {
            return Poll::Ready(Ok(()));
        };
        let (whole, begin) = held.bytes.split_at(held.whole);
        let framing = &self.visit.shared.framing;
        let mut answers = Answers::new(framing, [whole, &[]], held.written);
        let result = poll_write(&mut self.stream, cx, &mut answers);
        let sent = answers.sent;
        if sent > 0 {
            let (left, written) = answers.rest();
            self.held = Held::new(left, begin, written);
            self.note_sent(sent);
        }
        result
    }

    /// Lets the next answer whose time has come be written, and ends the turn then. Waits when it
    /// is too early for all that there is to do.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<ControlFlow<Option<End>>>> {
        let Some(late) = self.late.late() else {
            return Poll::Ready(Ok(Continue(())));
        };
        if let Some(bytes) = late.answers.take(Instant::now()) {
            let begin = self.held.take().unwrap_or_default();
            self.held = Held::new([&bytes, &[]], &begin.bytes, 0);
            return Poll::Ready(Ok(Break(None)));
        }
        let Some(due) = late.answers.next_due() else {
            if !late.answers.breaks_off() {
                return Poll::Ready(Ok(Continue(())));
            }
            self.stream.set_reset_on_close()?;
            return Poll::Ready(Ok(Break(Some(End::Reset))));
        };
        late.timer.set_at(due);
        if Pin::new(&mut late.timer).poll(cx).is_ready() {
            return Poll::Ready(Ok(Break(None)));
        }
        let may_read = matches!(self.phase, Phase::Echoing) && !late.answers.is_full();
        if may_read {
            Poll::Ready(Ok(Continue(())))
        } else {
            Poll::Pending
        }
    }

    /// Lets the answers to messages wait, all but those that get lost.
    fn put_off(&mut self, parts: [&[u8]; 2]) {
        let shared = &self.visit.shared;
        let (Some(late), Some((_, prefix))) = (self.late.late(), &shared.faults) else {
            return;
        };
        let now = Instant::now();
        let messages = parts
            .into_iter()
            .flat_map(|part| shared.framing.messages(part));
        let lost = messages
            .filter(|message| !late.answers.put_off(now, prefix, message))
            .count();
        shared.figures.lost.fetch_add(lost as u64, Relaxed);
    }

    /// Reads what has come and answers it as far as the other side takes the answers.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shared = Rc::clone(&self.visit.shared);
        let mut buffer = shared.buffer.borrow_mut();
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending if shared.connections.is_draining() => self.finish(End::Drained),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(count) => match count? {
                0 => self.finish(End::Input),
                count => self.take_in(cx, &shared, &buffer[..count])?,
            },
        }
        Poll::Ready(Ok(()))
    }

    /// At the end of input, what was begun is a message too.
    fn finish(&mut self, end: End) {
        self.phase = Phase::Ending(end);
        if let Some(mut held) = self.held.take() {
            self.note_messages(&held.bytes);
            if self.late.late().is_some() {
                self.put_off([&held.bytes, &[]]);
            } else {
                held.whole = held.bytes.len();
                self.held = Some(held);
            }
        }
    }

    fn take_in(&mut self, cx: &mut Context<'_>, shared: &Shared, fresh: &[u8]) -> io::Result<()> {
        self.received += fresh.len() as u64;
        shared.traffic.add_received(fresh.len());
        let mut held = self.held.take();
        let begun = held.as_ref().map_or(0, |held| held.bytes.len());
        let cut = shared.framing.cut(begun, fresh);
        if cut.whole == 0 && !cut.too_long {
            let held = self.held.insert(held.unwrap_or_default());
            held.grow(fresh, shared.framing.max_line());
            self.note_sent(0);
            return Ok(());
        }
        let (whole, begin) = fresh.split_at(cut.whole);
        let (completing, whole) = whole.split_at(cut.completing);
        let first = match &mut held {
            Some(held) if !completing.is_empty() => {
                held.bytes.extend_from_slice(completing);
                held.bytes.as_slice()
            }
            _ => &[],
        };
        self.note_messages(first);
        self.note_messages(whole);
        let begin = if cut.too_long { &[] } else { begin };
        if cut.too_long {
            self.phase = Phase::refusing(shared.framing.max_line());
        }
        if self.late.late().is_some() {
            self.put_off([first, whole]);
            self.held = Held::new([&[]; 2], begin, 0);
            self.note_sent(0);
            return Ok(());
        }
        let mut answers = Answers::new(&shared.framing, [first, whole], 0);
        let result = poll_write(&mut self.stream, cx, &mut answers);
        let (left, written) = answers.rest();
        self.held = Held::new(left, begin, written);
        self.note_sent(answers.sent);
        // What the other side does not take now waits until it does.
        if let Poll::Ready(result) = result {
            result
        } else {
            Ok(())
        }
    }

    /// Drops the begin of a line, and will say that it has become too long.
    fn give_up_line(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.phase = Phase::refusing(held.bytes.len() - held.whole);
        held.bytes.truncate(held.whole);
        self.held = Some(held).filter(|held| held.whole > 0);
    }

    fn note_messages(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let Visit { shared, peer, .. } = &self.visit;
        let count = shared.framing.count(bytes) as u64;
        self.messages += count;
        shared.traffic.add_messages(count);
        if enabled!(target: TRAFFIC, Level::INFO) {
            for message in shared.framing.messages(bytes) {
                let (bytes, text) = (message.len(), without_end(message));
                info!(target: TRAFFIC, %peer, bytes, %text, "received");
            }
        }
    }

    /// Notes that bytes have moved, so many of them out.
    fn note_sent(&mut self, count: usize) {
        let shared = &self.visit.shared;
        self.sent += count as u64;
        shared.traffic.add_sent(count);
        let partial = self.held.as_ref().map_or(0, |held| held.partial());
        shared.connections.moved(self.visit.place, partial);
    }
}

impl Phase {
    /// A line longer than so many bytes is to be refused. It is longer than 4 GiB, too, if it is
    /// longer than more.
    fn refusing(limit: usize) -> Self {
        Self::Refusing(u32::try_from(limit).unwrap_or(u32::MAX))
    }
}

/// Writes answers until all are written, or the other side takes no more.
fn poll_write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    answers: &mut Answers<'_>,
) -> Poll<io::Result<()>> {
    while !answers.is_done() {
        let stream = Pin::new(&mut *stream);
        let count = ready!(answers.next(|pieces| match pieces {
            [piece] => stream.poll_write(cx, piece),
            pieces => stream.poll_write_vectored(cx, pieces),
        }))?;
        if count == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        answers.advance(count);
    }
    Poll::Ready(Ok(()))
}

impl<S, L> Drop for Session<S, L> {
    fn drop(&mut self) {
        let figures = &self.visit.shared.figures;
        let (counter, why) = match self.phase {
            Phase::Ended(End::Input) => (None, "end of input".into()),
            Phase::Ended(End::Drained) => (None, "drained".into()),
            Phase::Ended(End::TooLong) => (Some(&figures.too_long), "line too long".into()),
            Phase::Ended(End::Reset) => (Some(&figures.reset), "reset on purpose".into()),
            Phase::Ended(End::Idle) => (Some(&figures.idle), "idle".into()),
            Phase::Ended(End::Failed(kind)) => (Some(&figures.failed), kind.to_string()),
            _ => (Some(&figures.cut), "cut".into()),
        };
        if let Some(counter) = counter {
            counter.fetch_add(1, Relaxed);
        }
        match self.phase {
            Phase::Ended(End::Failed(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)) => {
                figures.broken.fetch_add(1, Relaxed);
            }
            // Inside TLS an end must be told (RFC 8446 section 6.1).
            Phase::Ended(End::Failed(ErrorKind::UnexpectedEof)) => {
                figures.tls.truncated.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        let Self {
            messages,
            received,
            sent,
            visit,
            ..
        } = self;
        let (peer, seconds) = (&visit.peer, visit.seconds());
        info!(target: TRAFFIC, %peer, messages, received, sent, seconds, why, "closed");
    }
}

#[cfg(test)]
mod tests;
