//! UDP driver: several messages in flight on one socket. Loss, duplicates and reordering are
//! counted and are no errors.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use super::driver::{Buffers, Event, LoadOptions, MAX_READS_PER_POLL, Sent, is_late};
use super::schedule::{Next, Schedule};
use super::udp_in_flight::{Received, UdpInFlight};
use crate::echo::error::{Error, Mismatch};
use crate::net::udp::{AddressIter, ReceivedDatagram, UdpPeerSocket};
use crate::runtime::{Timer, yield_to_reactor};

/// Maximum number of datagrams sent or received before the other direction is served: more would
/// fill the receive buffer of the client itself.
const MAX_BURST: usize = 16;

/// A socket with its messages in flight.
#[derive(Debug)]
pub(crate) struct UdpDriver<'a> {
    socket: UdpPeerSocket,
    /// Further addresses, tried if the current one refuses.
    alternatives: AddressIter,
    options: &'a LoadOptions<'a>,
    /// Number of the socket, which is also the seed of its payload.
    number: u64,
    in_flight: UdpInFlight<'a>,
    /// Time since which another message could be in flight.
    slot_free_since: Instant,
    timer: Timer,
}

/// Failure of a socket.
pub(crate) enum DriverError {
    Write(io::Error),
    Read(io::Error),
    Mismatch(u64, Mismatch),
}

impl<'a> UdpDriver<'a> {
    pub(crate) fn new(
        socket: UdpPeerSocket,
        alternatives: AddressIter,
        options: &'a LoadOptions<'a>,
        number: u64,
    ) -> Self {
        Self {
            socket,
            alternatives,
            options,
            number,
            in_flight: UdpInFlight::new(options.payload, number, options.verify),
            slot_free_since: Instant::now(),
            timer: Timer::never(),
        }
    }

    /// Returns whether a reply has been received.
    pub(crate) fn has_received_reply(&self) -> bool {
        self.in_flight.has_received_reply()
    }

    /// Removes the message whose reply differs.
    pub(crate) fn take_mismatched(&mut self) -> Option<Sent> {
        self.in_flight.take_mismatched()
    }

    /// Removes a message in flight, oldest first.
    pub(crate) fn take_in_flight(&mut self) -> Option<Sent> {
        self.in_flight.abandon_oldest()
    }

    /// Recovers from a failure if possible.
    ///
    /// # Errors
    ///
    /// The failure.
    pub(crate) async fn recover(
        &mut self,
        error: DriverError,
        buffers: &RefCell<Buffers>,
    ) -> Result<(), Error> {
        if self.try_next_address(&error, buffers).await {
            Ok(())
        } else {
            Err(self.to_error(error))
        }
    }

    /// Switches to the next address of the server if this one refused and never replied, and
    /// sends the messages in flight there. Returns whether it switched.
    async fn try_next_address(&mut self, error: &DriverError, buffers: &RefCell<Buffers>) -> bool {
        let (DriverError::Write(error) | DriverError::Read(error)) = error else {
            return false;
        };
        if error.kind() != io::ErrorKind::ConnectionRefused || self.has_received_reply() {
            return false;
        }
        let Some(Ok(socket)) = self.alternatives.next(UdpPeerSocket::connect) else {
            return false;
        };
        self.socket = socket;
        for number in self.in_flight.sequence_numbers() {
            let resend = poll_fn(|cx| {
                let datagram = &mut buffers.borrow_mut().expected;
                let len = self.in_flight.fill(number, datagram);
                self.socket.poll_send(cx, &datagram[..len])
            });
            // An error is reported by the next receive.
            let _ = resend.await;
        }
        true
    }

    /// Sends at most `max_messages` as they become due and waits for all replies, each for the
    /// timeout of the target; later ones count as lost.
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
        for _ in 0..MAX_READS_PER_POLL {
            let now = Instant::now();
            self.abandon_expired(now, on_event);
            let next = self.send(cx, now, schedule, max_messages, buffers, on_event)?;
            if next == Some(Next::Done) && self.in_flight.len() == 0 {
                return Poll::Ready(Ok(()));
            }
            let received = self.receive_burst(cx, buffers, on_event)?;
            if received || matches!(next, Some(Next::SendNow(_))) {
                continue;
            }
            let due = if let Some(Next::WaitUntil(due)) = next {
                Some(due)
            } else {
                None
            };
            if self.arm_timer(cx, due) {
                return Poll::Pending;
            }
        }
        yield_to_reactor(cx);
        Poll::Pending
    }

    /// Removes the messages whose time limit has passed.
    fn abandon_expired(&mut self, now: Instant, on_event: &mut impl FnMut(Event)) {
        while self.next_expiry().is_some_and(|expiry| expiry <= now) {
            let Some(sent) = self.in_flight.abandon_oldest() else {
                return;
            };
            on_event(Event::Lost { sent, now });
        }
    }

    /// Returns the time limit of the oldest message in flight.
    fn next_expiry(&self) -> Option<Instant> {
        self.in_flight
            .oldest()?
            .at
            .checked_add(self.options.target.timeout)
    }

    /// Sends the messages that are due, as far as the in-flight limit, the length of a burst and
    /// the kernel permit. Returns the next step of the schedule if the in-flight limit and the
    /// kernel permit another message.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        mut now: Instant,
        schedule: &mut Schedule<'_>,
        max_messages: &mut u64,
        buffers: &mut Buffers,
        on_event: &mut impl FnMut(Event),
    ) -> Result<Option<Next>, DriverError> {
        let mut sent = 0;
        while self.in_flight.len() < self.options.in_flight {
            if sent > 0 {
                now = Instant::now();
            }
            let next = if *max_messages == 0 {
                Next::Done
            } else {
                schedule.next(now)
            };
            let Next::SendNow(due) = next else {
                return Ok(Some(next));
            };
            if sent == MAX_BURST {
                return Ok(Some(next));
            }
            let len = self.in_flight.fill_next(&mut buffers.expected);
            match self.socket.poll_send(cx, &buffers.expected[..len]) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Err(DriverError::Write(error)),
                Poll::Ready(Ok(_)) => {}
            }
            schedule.advance();
            *max_messages -= 1;
            sent += 1;
            self.in_flight.push(Sent { due, at: now });
            on_event(Event::Sent {
                due,
                late: is_late(now, due, self.slot_free_since),
            });
        }
        Ok(None)
    }

    /// Receives the datagrams that have arrived, at most as many as are sent before, and one more so
    /// that receiving keeps up. Returns whether there was one.
    fn receive_burst(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        on_event: &mut impl FnMut(Event),
    ) -> Result<bool, DriverError> {
        for received in 0..=MAX_BURST {
            if !self.receive(cx, buffers, on_event)? {
                return Ok(received > 0);
            }
        }
        Ok(true)
    }

    /// Receives one datagram and returns whether there was one.
    fn receive(
        &mut self,
        cx: &mut Context<'_>,
        buffers: &mut Buffers,
        on_event: &mut impl FnMut(Event),
    ) -> Result<bool, DriverError> {
        let Buffers { received, expected } = buffers;
        let ReceivedDatagram {
            len,
            dropped_before,
        } = match self.socket.poll_receive(cx, received) {
            Poll::Pending => return Ok(false),
            Poll::Ready(result) => result.map_err(DriverError::Read)?,
        };
        if dropped_before > 0 {
            on_event(Event::Dropped(dropped_before));
        }
        let now = Instant::now();
        if self.in_flight.len() == self.options.in_flight {
            self.slot_free_since = now;
        }
        let kind = self.in_flight.received(&received[..len], expected);
        match kind.map_err(|(offset, mismatch)| DriverError::Mismatch(offset, mismatch))? {
            Received::Reply { sent, out_of_order } => {
                on_event(Event::Answered { sent, now });
                if out_of_order {
                    on_event(Event::OutOfOrder { sent });
                }
            }
            Received::Duplicate => on_event(Event::Duplicate),
            Received::Late => on_event(Event::Late),
        }
        Ok(true)
    }

    /// Registers the task to be woken at `due` or at the next expiry. Returns whether the task has
    /// to wait.
    fn arm_timer(&mut self, cx: &mut Context<'_>, due: Option<Instant>) -> bool {
        let Some(wake_at) = self.next_expiry().into_iter().chain(due).min() else {
            return true;
        };
        self.timer.set_at(wake_at);
        Pin::new(&mut self.timer).poll(cx).is_pending()
    }

    fn to_error(&self, error: DriverError) -> Error {
        let address = self.options.target.address.clone();
        match error {
            DriverError::Write(source) => Error::Send { address, source },
            DriverError::Read(source) => Error::Receive { address, source },
            DriverError::Mismatch(offset, mismatch) => Error::StreamCorruption {
                address,
                connection: self.number,
                offset,
                mismatch,
            },
        }
    }
}
