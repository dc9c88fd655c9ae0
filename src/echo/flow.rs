//! Messages over one open connection, several on the way at once.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite};
use smol::Timer;

use crate::echo::config::Server;
use crate::echo::error::{EchoError, Mismatch};
use crate::echo::ledger::{Ledger, Sent};
use crate::echo::pace::{Pace, Turn};
use crate::echo::payload::Payload;

/// Bytes written or read at once.
const PIECE: usize = 64 << 10;

/// Reads in a row after which the other connections have their turn.
const READS_A_TURN: usize = 16;

/// A message that goes this long after it could have gone is late through our own doing.
const LATE: Duration = Duration::from_millis(1);

/// Room for a piece of what came and of what should have come. All connections of a thread share
/// one: nothing stays in it while a connection waits.
#[derive(Debug)]
pub(crate) struct Scratch {
    found: Vec<u8>,
    wanted: Vec<u8>,
}

/// What happened to a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    /// It went; `late`, if it could have gone earlier.
    Sent { due: Instant, late: bool },
    /// Its reply is whole.
    Answered { sent: Sent, now: Instant },
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
    rules: Rules<'a>,
    /// Tells connections apart; also the seed of their bytes.
    number: u64,
    ledger: Ledger<'a>,
    /// Since when one more message may be on the way.
    free: Instant,
    timer: Timer,
    rings: Option<Instant>,
}

/// Why a connection is of no more use.
enum Broken {
    Write(io::Error),
    Read(io::Error),
    Closed,
    Late,
    Mismatch(u64, Mismatch),
}

impl Default for Scratch {
    fn default() -> Self {
        Self { found: vec![0; PIECE], wanted: vec![0; PIECE] }
    }
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Flow<'a, S> {
    pub(crate) fn new(stream: S, rules: Rules<'a>, number: u64) -> Self {
        let ledger = Ledger::new(rules.payload, number, rules.verify);
        let (free, timer) = (Instant::now(), Timer::never());
        Self { stream, rules, number, ledger, free, timer, rings: None }
    }

    /// Sends at most `most` messages as they become due and waits for all replies.
    ///
    /// # Errors
    ///
    /// The first thing that goes wrong; what is on the way then is lost.
    pub(crate) async fn run(
        &mut self,
        pace: &mut Pace,
        mut most: u64,
        scratch: &RefCell<Scratch>,
        mut told: impl FnMut(Event),
    ) -> Result<(), EchoError> {
        let work =
            poll_fn(|cx| self.poll(cx, pace, &mut most, &mut scratch.borrow_mut(), &mut told));
        let result = work.await;
        result.map_err(|broken| self.explain(broken))
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        pace: &mut Pace,
        most: &mut u64,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Poll<Result<(), Broken>> {
        for _ in 0..READS_A_TURN {
            let now = Instant::now();
            let next = self.start(now, pace, most, told);
            if next == Turn::Over && self.ledger.on_way() == 0 {
                return Poll::Ready(Ok(()));
            }
            self.write(cx, scratch)?;
            if self.read(cx, scratch, told)? {
                continue;
            }
            let timeout = self.rules.server.timeout;
            let late = self.ledger.oldest().and_then(|sent| sent.at.checked_add(timeout));
            if late.is_some_and(|late| late <= now) {
                return Poll::Ready(Err(Broken::Late));
            }
            let due = if let Turn::At(due) = next { Some(due) } else { None };
            if self.waits(cx, [late, due].into_iter().flatten().min()) {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Starts the messages whose turn it is, as far as they may be on the way, and tells whose
    /// turn comes then.
    fn start(
        &mut self,
        now: Instant,
        pace: &mut Pace,
        most: &mut u64,
        told: &mut impl FnMut(Event),
    ) -> Turn {
        while self.ledger.on_way() < self.rules.in_flight {
            match pace.turn(now) {
                _ if *most == 0 => return Turn::Over,
                Turn::Now(due) => {
                    pace.take();
                    *most -= 1;
                    self.ledger.start(Sent { due, at: now });
                    told(Event::Sent { due, late: now - due.max(self.free).min(now) > LATE });
                }
                turn => return turn,
            }
        }
        Turn::Now(now)
    }

    /// Writes what the system takes.
    fn write(&mut self, cx: &mut Context<'_>, scratch: &mut Scratch) -> Result<(), Broken> {
        let mut wrote = false;
        loop {
            let count = self.ledger.unwritten(&mut scratch.wanted);
            if count == 0 {
                break;
            }
            match Pin::new(&mut self.stream).poll_write(cx, &scratch.wanted[..count]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Err(Broken::Write(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.ledger.wrote(count),
                Poll::Ready(Err(error)) => return Err(Broken::Write(error)),
            }
            wrote = true;
        }
        match wrote.then(|| Pin::new(&mut self.stream).poll_flush(cx)) {
            Some(Poll::Ready(Err(error))) => Err(Broken::Write(error)),
            _ => Ok(()),
        }
    }

    /// Reads once and tells whether something came.
    fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Result<bool, Broken> {
        let Scratch { found, wanted } = scratch;
        let count = match Pin::new(&mut self.stream).poll_read(cx, found) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(Broken::Closed),
            Poll::Ready(Ok(count)) => count,
            Poll::Ready(Err(error)) => return Err(Broken::Read(error)),
        };
        let now = Instant::now();
        if self.ledger.on_way() == self.rules.in_flight {
            self.free = now;
        }
        self.ledger
            .received(&found[..count], wanted, |sent| told(Event::Answered { sent, now }))
            .map_err(|(offset, mismatch)| Broken::Mismatch(offset, mismatch))?;
        Ok(true)
    }

    /// Whether that moment is still to come; then the task is woken at it, or earlier.
    fn waits(&mut self, cx: &mut Context<'_>, until: Option<Instant>) -> bool {
        let Some(until) = until else { return true };
        // To set a timer costs more than to be woken once in vain: each message has its own time
        // limit, and nearly all are answered long before.
        if self.rings.is_none_or(|rings| until < rings) {
            self.timer.set_at(until);
            self.rings = Some(until);
        }
        if Pin::new(&mut self.timer).poll(cx).is_pending() {
            return true;
        }
        self.rings = None;
        false
    }

    fn explain(&self, broken: Broken) -> EchoError {
        let (address, limit) = (self.rules.server.address.clone(), self.rules.server.timeout);
        let received = self.ledger.partial();
        match broken {
            Broken::Write(source) => EchoError::Send { address, source },
            Broken::Read(source) => EchoError::Receive { address, source },
            Broken::Closed => EchoError::Closed { address, received },
            Broken::Late => EchoError::TimedOut { address, limit, received },
            Broken::Mismatch(offset, mismatch) => {
                EchoError::Mismatch { address, connection: self.number, offset, mismatch }
            }
        }
    }
}
