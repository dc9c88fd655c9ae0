//! Messages over one open connection, several on the way at once.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};

use crate::echo::config::Server;
use crate::echo::error::EchoError;
use crate::echo::load::in_flight::{Ledger, Sent};
use crate::echo::load::schedule::{Pace, Turn};
use crate::echo::load::verify::Difference;
use crate::echo::payload::Payload;
use crate::limits::timeout::race;
use crate::runtime::{Timer, yield_to_reactor};

/// Bytes written or read at once.
const PIECE: usize = 64 << 10;

/// Reads in a row after which the other connections have their turn.
pub(crate) const READS_A_TURN: usize = 16;

/// How long the server may take to close its side when ours is closed, or to send what tells more
/// of what it did to a byte. What comes behind the last reply is too much; a server that does not
/// close is no failure.
const LAST_WAIT: Duration = Duration::from_millis(250);

/// Bytes of messages that are begun and not yet written. With more, what is on the way would wait
/// here and not on the way.
const AHEAD: u64 = PIECE as u64;

/// A message that goes this long after it could have gone is late through our own doing.
pub(crate) const LATE: Duration = Duration::from_millis(1);

/// Room for a piece of what came and of what should have come. All connections of a thread share
/// one: nothing stays in it while a connection waits.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) found: Vec<u8>,
    pub(crate) wanted: Vec<u8>,
}

/// What happened to a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// It went; `late`, if it could have gone earlier.
    Sent { due: Instant, late: bool },
    /// Its reply is whole.
    Answered { sent: Sent, now: Instant },
    /// Its reply came behind that of a later message.
    Overtaken { sent: Sent },
    /// A reply came that had come before.
    Again,
    /// Its reply did not come in time, in a datagram.
    Lost { sent: Sent, now: Instant },
}

/// How the messages of a flow go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) server: &'a Server,
    pub(crate) payload: &'a Payload,
    pub(crate) verify: bool,
    pub(crate) in_flight: usize,
}

/// An open connection on which messages are on the way.
#[derive(Debug)]
pub(crate) struct Flow<'a, S> {
    stream: S,
    rules: &'a Rules<'a>,
    ledger: Ledger<'a>,
    /// Since when one more message may be on the way.
    free: Instant,
    /// Whether the system would take no more bytes.
    stuck: bool,
    timer: Timer,
}

/// Why a connection is of no more use.
pub(crate) enum Broken {
    Write(io::Error),
    Read(io::Error),
    Closed,
    Late,
    Differs(Difference),
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            found: vec![0; PIECE],
            wanted: vec![0; PIECE],
        }
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Flow<'a, S> {
    /// Starts the connection with this number, which tells it from others; it is also the seed of
    /// its bytes.
    pub(crate) fn new(stream: S, rules: &'a Rules<'a>, number: u64) -> Self {
        let ledger = Ledger::new(rules.payload, number, rules.verify);
        let (free, timer) = (Instant::now(), Timer::never());
        Self {
            stream,
            rules,
            ledger,
            free,
            stuck: false,
            timer,
        }
    }

    /// Whether a message has been answered.
    pub(crate) fn was_answered(&self) -> bool {
        self.ledger.was_answered()
    }

    /// What went wrong, looked at more closely; what is on the way is lost.
    pub(crate) async fn give_up(
        &mut self,
        mut broken: Broken,
        scratch: &RefCell<Scratch>,
    ) -> EchoError {
        if let Broken::Differs(difference) = &mut broken {
            self.find_out(difference, scratch).await;
        }
        self.explain(broken)
    }

    /// Waits for a little of what comes behind a difference.
    async fn find_out(&mut self, difference: &mut Difference, scratch: &RefCell<Scratch>) {
        let stream = &mut self.stream;
        let more = poll_fn(|cx| {
            let found = &mut scratch.borrow_mut().found;
            while !difference.is_told() {
                match ready!(Pin::new(&mut *stream).poll_read(cx, found)) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => difference.add(&found[..count]),
                }
            }
            Poll::Ready(())
        });
        // If nothing more comes, what has come must do.
        let _ = race(Timer::at(Instant::now() + LAST_WAIT), more).await;
    }

    /// Shuts down writing when all replies have come, and reads to the end: what still comes is
    /// too much. A server that does not close its side is `deaf` from then on.
    ///
    /// # Errors
    ///
    /// [`EchoError::Mismatch`] if something comes.
    pub(crate) async fn finish(
        &mut self,
        scratch: &RefCell<Scratch>,
        deaf: &Cell<bool>,
    ) -> Result<(), EchoError> {
        let limit = if deaf.get() {
            Duration::ZERO
        } else {
            LAST_WAIT
        };
        let stream = &mut self.stream;
        let end = poll_fn(|cx| {
            // A connection that is broken by now brings nothing more.
            let _ = ready!(Pin::new(&mut *stream).poll_close(cx));
            Pin::new(&mut *stream).poll_read(cx, &mut scratch.borrow_mut().found)
        });
        match race(Timer::at(Instant::now() + limit), end).await {
            Ok(Ok(0) | Err(_)) => Ok(()),
            Ok(Ok(_)) => Err(self.explain(Broken::Differs(self.ledger.difference(&[])))),
            Err(_) => {
                deaf.set(true);
                Ok(())
            }
        }
    }

    /// Sends at most `most` messages as they become due and waits for all replies.
    ///
    /// # Errors
    ///
    /// The first thing that goes wrong.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pace: &mut Pace<'_>,
        most: &mut u64,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Poll<Result<(), Broken>> {
        // A moment that has just been taken does for what follows: to ask for the time is a good
        // part of what a message costs here.
        let mut now = None;
        for _ in 0..READS_A_TURN {
            let next = self.start(&mut now, pace, most, told);
            if next == Some(Turn::Over) && self.ledger.on_way() == 0 {
                return Poll::Ready(Ok(()));
            }
            self.write(cx, scratch)?;
            match self.read(cx, scratch, told)? {
                Some(read) => now = Some(read),
                None if self.waits(cx, now.unwrap_or_else(Instant::now), next)? => {
                    return Poll::Pending;
                }
                None => now = None,
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    /// Starts the messages whose turn it is, as far as they may be on the way, and tells whose
    /// turn comes then, if one more may be.
    fn start(
        &mut self,
        now: &mut Option<Instant>,
        pace: &mut Pace<'_>,
        most: &mut u64,
        told: &mut impl FnMut(Event),
    ) -> Option<Turn> {
        let mut next = None;
        while self.ledger.on_way() < self.rules.in_flight && self.ledger.unwritten() < AHEAD {
            let now = *now.get_or_insert_with(Instant::now);
            let turn = if *most == 0 {
                Turn::Over
            } else {
                pace.turn(now)
            };
            next = Some(turn);
            let Turn::Now(due) = turn else { break };
            pace.take();
            *most -= 1;
            self.ledger.start(Sent { due, at: now });
            told(Event::Sent {
                due,
                late: now - due.max(self.free).min(now) > LATE,
            });
        }
        next
    }

    /// Writes what the system takes.
    fn write(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), Broken> {
        let mut wrote = false;
        while self.ledger.unwritten() > 0 {
            let count = self.ledger.fill(&mut scratch.wanted);
            match Pin::new(&mut self.stream).poll_write(cx, &scratch.wanted[..count]) {
                Poll::Pending => {
                    self.stuck = true;
                    break;
                }
                Poll::Ready(Ok(0)) => return Err(Broken::Write(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.ledger.wrote(count),
                Poll::Ready(Err(error)) => return Err(Broken::Write(error)),
            }
            if std::mem::take(&mut self.stuck) {
                self.free = Instant::now();
            }
            wrote = true;
        }
        match wrote.then(|| Pin::new(&mut self.stream).poll_flush(cx)) {
            Some(Poll::Ready(Err(error))) => Err(Broken::Write(error)),
            _ => Ok(()),
        }
    }

    /// Reads once and tells when, if something came.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Result<Option<Instant>, Broken> {
        let Scratch { found, wanted } = scratch;
        let count = match Pin::new(&mut self.stream).poll_read(cx, found) {
            Poll::Pending => return Ok(None),
            Poll::Ready(Ok(0)) => return Err(Broken::Closed),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Err(Broken::Read(error)),
        };
        let now = Instant::now();
        if self.ledger.on_way() == self.rules.in_flight {
            self.free = now;
        }
        self.ledger
            .received(&found[..count], wanted, |sent| {
                told(Event::Answered { sent, now })
            })
            .map_err(Broken::Differs)?;
        Ok(Some(now))
    }

    /// Whether there is nothing to do now; the task is woken then when there is.
    fn waits(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        next: Option<Turn>,
    ) -> Result<bool, Broken> {
        let timeout = self.rules.server.timeout;
        let late = self
            .ledger
            .oldest()
            .and_then(|sent| sent.at.checked_add(timeout));
        if late.is_some_and(|late| late <= now) {
            return Err(Broken::Late);
        }
        let due = if let Some(Turn::At(due)) = next {
            Some(due)
        } else {
            None
        };
        let Some(until) = late.into_iter().chain(due).min() else {
            return Ok(true);
        };
        // To set a timer costs more than to be woken once in vain: each message has its own time
        // limit, and nearly all are answered long before.
        if self
            .timer
            .due()
            .is_some_and(|armed_for| now < armed_for && armed_for <= until)
        {
            return Ok(true);
        }
        self.timer.set_at(until);
        Ok(Pin::new(&mut self.timer).poll(cx).is_pending())
    }

    fn explain(&self, broken: Broken) -> EchoError {
        let (address, limit) = (self.rules.server.address.clone(), self.rules.server.timeout);
        let received = self.ledger.partial();
        match broken {
            Broken::Write(source) => EchoError::send(address, source),
            Broken::Read(source) => EchoError::receive(address, source),
            Broken::Closed => EchoError::Closed { address, received },
            Broken::Late => EchoError::TimedOut {
                address,
                limit,
                received,
            },
            Broken::Differs(difference) => {
                let (offset, mismatch) = (difference.offset, difference.kind());
                EchoError::Mismatch {
                    address,
                    connection: self.ledger.seed(),
                    offset,
                    mismatch,
                }
            }
        }
    }
}
