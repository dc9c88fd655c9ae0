//! Stream driver: several messages in flight on one connection.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};

use super::driver::{Buffers, CHUNK_LEN, Event, LoadOptions, MAX_READS_PER_POLL, Sent, is_late};
use super::in_flight::InFlight;
use super::schedule::{Next, Schedule};
use super::verify::Divergence;
use crate::echo::error::Error;
use crate::limits::timeout::race;
use crate::runtime::{Timer, yield_to_reactor};

/// Time limit for the server to close its side after ours, or to send the bytes that decide the
/// classification of a mismatch. Bytes after the last reply are an error; a server that does not
/// close is none.
const END_OF_STREAM_TIMEOUT: Duration = Duration::from_millis(250);

/// Maximum number of bytes of messages started but not written. More would wait here instead of in
/// the kernel's buffers.
const MAX_UNWRITTEN: u64 = CHUNK_LEN as u64;

/// An open connection with its messages in flight.
#[derive(Debug)]
pub(crate) struct StreamDriver<'a, S> {
    stream: S,
    options: &'a LoadOptions<'a>,
    in_flight: InFlight<'a>,
    /// Time since which another message could be in flight.
    slot_free_since: Instant,
    /// Whether the kernel's send buffer is full.
    write_blocked: bool,
    timer: Timer,
}

/// Failure of a connection.
pub(crate) enum DriverError {
    Write(io::Error),
    Read(io::Error),
    Eof,
    Timeout,
    Mismatch(Divergence),
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> StreamDriver<'a, S> {
    /// Creates the driver of a connection. Its number is the seed of its payload.
    pub(crate) fn new(stream: S, options: &'a LoadOptions<'a>, number: u64) -> Self {
        Self {
            stream,
            options,
            in_flight: InFlight::new(options.payload, number, options.verify),
            slot_free_since: Instant::now(),
            write_blocked: false,
            timer: Timer::never(),
        }
    }

    /// Returns whether a reply has been received.
    pub(crate) fn has_received_reply(&self) -> bool {
        self.in_flight.has_received_reply()
    }

    /// Returns the time limit of a reply.
    pub(crate) fn timeout(&self) -> Duration {
        self.options.target.timeout
    }

    /// Removes a message in flight, oldest first.
    pub(crate) fn take_in_flight(&mut self) -> Option<Sent> {
        self.in_flight.take_oldest()
    }

    /// Converts a failure, and reads the bytes that classify a mismatch.
    pub(crate) async fn diagnose(
        &mut self,
        mut error: DriverError,
        buffers: &RefCell<Buffers>,
    ) -> Error {
        if let DriverError::Mismatch(divergence) = &mut error {
            self.read_until_decided(divergence, buffers).await;
        }
        self.to_error(error)
    }

    /// Reads until a mismatch can be classified, or the time limit.
    async fn read_until_decided(
        &mut self,
        divergence: &mut Divergence,
        buffers: &RefCell<Buffers>,
    ) {
        let stream = &mut self.stream;
        let read = poll_fn(|cx| {
            let received = &mut buffers.borrow_mut().received;
            while !divergence.is_decided() {
                match ready!(Pin::new(&mut *stream).poll_read(cx, received)) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => divergence.add(&received[..count]),
                }
            }
            Poll::Ready(())
        });
        // After the time limit the bytes received so far are classified.
        let _ = race(Timer::at(Instant::now() + END_OF_STREAM_TIMEOUT), read).await;
    }

    /// Shuts down writing after the last reply and reads to the end of the stream, to detect
    /// surplus bytes. Sets `ignores_half_close` if the server does not close its side, so that
    /// later calls do not wait.
    ///
    /// # Errors
    ///
    /// [`Error::StreamCorruption`] if a byte is received.
    pub(crate) async fn finish(
        &mut self,
        buffers: &RefCell<Buffers>,
        ignores_half_close: &Cell<bool>,
    ) -> Result<(), Error> {
        let limit = if ignores_half_close.get() {
            Duration::ZERO
        } else {
            END_OF_STREAM_TIMEOUT
        };
        let stream = &mut self.stream;
        let end = poll_fn(|cx| {
            // A connection that fails now delivers no more bytes.
            let _ = ready!(Pin::new(&mut *stream).poll_close(cx));
            Pin::new(&mut *stream).poll_read(cx, &mut buffers.borrow_mut().received)
        });
        match race(Timer::at(Instant::now() + limit), end).await {
            Ok(Ok(0) | Err(_)) => Ok(()),
            Ok(Ok(_)) => Err(self.to_error(DriverError::Mismatch(self.in_flight.divergence(&[])))),
            Err(_) => {
                ignores_half_close.set(true);
                Ok(())
            }
        }
    }

    /// Sends at most `max_messages` as they become due and waits for all replies.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        schedule: &mut Schedule<'_>,
        max_messages: &mut u64,
        buffers: &mut Buffers,
        on_event: &mut impl FnMut(Event),
    ) -> Poll<Result<(), DriverError>> {
        // The time of the last read is reused, because reading the clock is a considerable part of
        // the cost per message.
        let mut now = None;
        for _ in 0..MAX_READS_PER_POLL {
            let next = self.start_due(&mut now, schedule, max_messages, on_event);
            if next == Some(Next::Done) && self.in_flight.len() == 0 {
                return Poll::Ready(Ok(()));
            }
            self.write(cx, buffers)?;
            match self.read(cx, buffers, on_event)? {
                Some(read_at) => now = Some(read_at),
                None if self.arm_timer(cx, now.unwrap_or_else(Instant::now), next)? => {
                    return Poll::Pending;
                }
                None => now = None,
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    /// Starts the messages that are due, as far as the in-flight limit permits. Returns the next
    /// step of the schedule if the limit permits another message.
    fn start_due(
        &mut self,
        now: &mut Option<Instant>,
        schedule: &mut Schedule<'_>,
        max_messages: &mut u64,
        on_event: &mut impl FnMut(Event),
    ) -> Option<Next> {
        let mut next = None;
        while self.in_flight.len() < self.options.in_flight
            && self.in_flight.unwritten() < MAX_UNWRITTEN
        {
            let now = *now.get_or_insert_with(Instant::now);
            let step = if *max_messages == 0 {
                Next::Done
            } else {
                schedule.next(now)
            };
            next = Some(step);
            let Next::SendNow(due) = step else { break };
            schedule.advance();
            *max_messages -= 1;
            self.in_flight.push(Sent { due, at: now });
            on_event(Event::Sent {
                due,
                late: is_late(now, due, self.slot_free_since),
            });
        }
        next
    }

    /// Writes until the kernel's buffer is full or nothing is left.
    fn write(&mut self, cx: &mut Context<'_>, buffers: &mut Buffers) -> Result<(), DriverError> {
        let mut wrote = false;
        while self.in_flight.unwritten() > 0 {
            let count = self.in_flight.fill(&mut buffers.expected);
            match Pin::new(&mut self.stream).poll_write(cx, &buffers.expected[..count]) {
                Poll::Pending => {
                    self.write_blocked = true;
                    break;
                }
                Poll::Ready(Ok(0)) => {
                    return Err(DriverError::Write(io::ErrorKind::WriteZero.into()));
                }
                Poll::Ready(Ok(count)) => self.in_flight.record_write(count),
                Poll::Ready(Err(error)) => return Err(DriverError::Write(error)),
            }
            if std::mem::take(&mut self.write_blocked) {
                self.slot_free_since = Instant::now();
            }
            wrote = true;
        }
        match wrote.then(|| Pin::new(&mut self.stream).poll_flush(cx)) {
            Some(Poll::Ready(Err(error))) => Err(DriverError::Write(error)),
            _ => Ok(()),
        }
    }

    /// Reads once and returns the time if bytes were received.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        on_event: &mut impl FnMut(Event),
    ) -> Result<Option<Instant>, DriverError> {
        let Buffers { received, expected } = buffers;
        let count = match Pin::new(&mut self.stream).poll_read(cx, received) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Ok(0)) => return Err(DriverError::Eof),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Err(DriverError::Read(error)),
        };
        let now = Instant::now();
        if self.in_flight.len() == self.options.in_flight {
            self.slot_free_since = now;
        }
        self.in_flight
            .received(&received[..count], expected, |sent| {
                on_event(Event::Answered { sent, now })
            })
            .map_err(DriverError::Mismatch)?;
        Ok(Some(now))
    }

    /// Registers the task to be woken when the next message is due or the oldest one times out.
    /// Returns whether the task has to wait.
    fn arm_timer(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        next: Option<Next>,
    ) -> Result<bool, DriverError> {
        let timeout = self.options.target.timeout;
        let expiry = self
            .in_flight
            .oldest()
            .and_then(|sent| sent.at.checked_add(timeout));
        if expiry.is_some_and(|expiry| expiry <= now) {
            return Err(DriverError::Timeout);
        }
        let due = if let Some(Next::WaitUntil(due)) = next {
            Some(due)
        } else {
            None
        };
        let Some(wake_at) = expiry.into_iter().chain(due).min() else {
            return Ok(true);
        };
        // Setting a timer costs more than a spurious wake-up: each message has its own time limit,
        // and nearly all replies arrive long before it.
        if self
            .timer
            .due()
            .is_some_and(|armed_for| now < armed_for && armed_for <= wake_at)
        {
            return Ok(true);
        }
        self.timer.set_at(wake_at);
        Ok(Pin::new(&mut self.timer).poll(cx).is_pending())
    }

    fn to_error(&self, error: DriverError) -> Error {
        let address = self.options.target.address.clone();
        let received = self.in_flight.partial_len();
        match error {
            DriverError::Write(source) => Error::send(address, source),
            DriverError::Read(source) => Error::receive(address, source),
            DriverError::Eof => Error::UnexpectedEof { address, received },
            DriverError::Timeout => Error::ReplyTimeout {
                address,
                limit: self.options.target.timeout,
                received,
            },
            DriverError::Mismatch(divergence) if divergence.is_line_rejection() => {
                Error::LineRejected { address }
            }
            DriverError::Mismatch(divergence) => Error::StreamCorruption {
                address,
                connection: self.in_flight.seed(),
                offset: divergence.offset,
                mismatch: divergence.classify(),
            },
        }
    }
}
