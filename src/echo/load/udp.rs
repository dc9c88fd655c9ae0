//! Messages over one socket for datagrams, several on the way at once. What gets lost, comes twice
//! or in another order is counted: that is what datagrams do.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::echo::error::{EchoError, Mismatch};
use crate::echo::load::in_flight::Sent;
use crate::echo::load::schedule::{Pace, Turn};
use crate::echo::load::stream::{Event, LATE, READS_A_TURN, Rules, Scratch};
use crate::echo::load::udp_in_flight::{Came, Roll};
use crate::net::udp::{AddressIter, UdpPeerSocket};
use crate::runtime::{Timer, yield_to_reactor};

/// A socket on which messages are on the way.
#[derive(Debug)]
pub(crate) struct DatagramFlow<'a> {
    socket: UdpPeerSocket,
    /// Where the server may be if it is not there.
    others: AddressIter,
    rules: &'a Rules<'a>,
    /// Tells sockets apart; also the seed of their bytes.
    number: u64,
    roll: Roll<'a>,
    /// Since when one more message may be on the way.
    free: Instant,
    timer: Timer,
}

/// Why a socket is of no more use.
pub(crate) enum Broken {
    Write(io::Error),
    Read(io::Error),
    Mismatch(u64, Mismatch),
}

impl<'a> DatagramFlow<'a> {
    pub(crate) fn new(
        socket: UdpPeerSocket,
        others: AddressIter,
        rules: &'a Rules<'a>,
        number: u64,
    ) -> Self {
        let roll = Roll::new(rules.payload, number, rules.verify);
        let (free, timer) = (Instant::now(), Timer::never());
        Self {
            socket,
            others,
            rules,
            number,
            roll,
            free,
            timer,
        }
    }

    /// Whether a message has been answered.
    pub(crate) fn was_answered(&self) -> bool {
        self.roll.was_answered()
    }

    /// Goes on in spite of what went wrong, if there is a way.
    ///
    /// # Errors
    ///
    /// What went wrong; what is on the way is not counted any more.
    pub(crate) async fn recover(
        &mut self,
        broken: Broken,
        scratch: &RefCell<Scratch>,
    ) -> Result<(), EchoError> {
        if self.moves_on(&broken, scratch).await {
            Ok(())
        } else {
            Err(self.explain(broken))
        }
    }

    /// Goes on with the next address of the server, if this one has refused and never answered:
    /// what is on the way is sent there.
    async fn moves_on(&mut self, broken: &Broken, scratch: &RefCell<Scratch>) -> bool {
        let (Broken::Write(error) | Broken::Read(error)) = broken else {
            return false;
        };
        if error.kind() != io::ErrorKind::ConnectionRefused || self.roll.was_answered() {
            return false;
        }
        let Some(Ok(socket)) = self.others.next(UdpPeerSocket::connect) else {
            return false;
        };
        self.socket = socket;
        for number in self.roll.numbers() {
            let again = poll_fn(|cx| {
                let datagram = &mut scratch.borrow_mut().wanted;
                let length = self.roll.fill(number, datagram);
                self.socket.poll_send(cx, &datagram[..length])
            });
            // What comes of it is told when the answer is read.
            let _ = again.await;
        }
        true
    }

    /// Sends at most `most` messages as they become due and waits for all replies, each as long
    /// as the server's time limit; what has not come then is lost.
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
        for _ in 0..READS_A_TURN {
            let now = Instant::now();
            self.give_up(now, told);
            let next = self.send(cx, now, pace, most, scratch, told)?;
            if next == Some(Turn::Over) && self.roll.on_way() == 0 {
                return Poll::Ready(Ok(()));
            }
            if self.receive(cx, scratch, told)? {
                continue;
            }
            let due = if let Some(Turn::At(due)) = next {
                Some(due)
            } else {
                None
            };
            if self.waits(cx, due) {
                return Poll::Pending;
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    /// Gives up what has been on the way for too long.
    fn give_up(&mut self, now: Instant, told: &mut impl FnMut(Event)) {
        while self.expires().is_some_and(|expires| expires <= now) {
            let Some(sent) = self.roll.give_up() else {
                return;
            };
            told(Event::Lost { sent, now });
        }
    }

    /// When the message that has been on the way for longest is given up.
    fn expires(&self) -> Option<Instant> {
        self.roll
            .oldest()?
            .at
            .checked_add(self.rules.server.timeout)
    }

    /// Sends the messages whose turn it is, as far as they may be on the way and the system takes
    /// them, and tells whose turn comes then, if one more may be.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        pace: &mut Pace<'_>,
        most: &mut u64,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Result<Option<Turn>, Broken> {
        while self.roll.on_way() < self.rules.in_flight {
            let next = if *most == 0 {
                Turn::Over
            } else {
                pace.turn(now)
            };
            let Turn::Now(due) = next else {
                return Ok(Some(next));
            };
            let length = self.roll.write(&mut scratch.wanted);
            match self.socket.poll_send(cx, &scratch.wanted[..length]) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(Broken::Write(error)),
                Poll::Ready(Ok(_)) => {}
            }
            pace.take();
            *most -= 1;
            self.roll.start(Sent { due, at: now });
            told(Event::Sent {
                due,
                late: now - due.max(self.free).min(now) > LATE,
            });
        }
        Ok(None)
    }

    /// Receives once and tells whether something came.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        told: &mut impl FnMut(Event),
    ) -> Result<bool, Broken> {
        let Scratch { found, wanted } = scratch;
        let length = match self.socket.poll_receive(cx, found) {
            Poll::Pending => return Ok(false),
            Poll::Ready(result) => result.map_err(Broken::Read)?,
        };
        let now = Instant::now();
        if self.roll.on_way() == self.rules.in_flight {
            self.free = now;
        }
        let came = self.roll.received(&found[..length], wanted);
        match came.map_err(|(offset, mismatch)| Broken::Mismatch(offset, mismatch))? {
            Came::Answer { sent, overtaken } => {
                told(Event::Answered { sent, now });
                if overtaken {
                    told(Event::Overtaken { sent });
                }
            }
            Came::Again => told(Event::Again),
            Came::TooLate => {}
        }
        Ok(true)
    }

    /// Whether there is nothing to do before the next message is `due`; the task is woken then
    /// when there is.
    fn waits(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> bool {
        let Some(until) = self.expires().into_iter().chain(due).min() else {
            return true;
        };
        self.timer.set_at(until);
        Pin::new(&mut self.timer).poll(cx).is_pending()
    }

    fn explain(&self, broken: Broken) -> EchoError {
        let address = self.rules.server.address.clone();
        match broken {
            Broken::Write(source) => EchoError::Send { address, source },
            Broken::Read(source) => EchoError::Receive { address, source },
            Broken::Mismatch(offset, mismatch) => EchoError::Mismatch {
                address,
                connection: self.number,
                offset,
                mismatch,
            },
        }
    }
}
