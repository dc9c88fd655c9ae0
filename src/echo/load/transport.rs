//! Transport of messages: a stream or UDP.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::time::Instant;

use super::driver::{Buffers, Event, LoadOptions, Sent, Unanswered};
use super::schedule::Schedule;
use super::stream::StreamDriver;
use super::udp::UdpDriver;
use crate::echo::connector::Connected;
use crate::echo::error::Error;
use crate::echo::tls::MaybeTls;
use crate::net::stream::Stream;

/// A connection or UDP socket with its messages in flight.
#[derive(Debug)]
pub(crate) enum Transport<'a> {
    Stream(StreamDriver<'a, MaybeTls<Stream>>),
    /// The box keeps the state of a stream small.
    Udp(Box<UdpDriver<'a>>),
}

impl<'a> Transport<'a> {
    /// Creates the driver of a connection. Its number, counted from 1, is the seed of its payload.
    pub(crate) fn new(connected: Connected, options: &'a LoadOptions<'a>, number: u64) -> Self {
        match connected {
            Connected::Stream(stream) => Self::Stream(StreamDriver::new(stream, options, number)),
            Connected::Udp(socket, alternatives) => {
                let driver = UdpDriver::new(socket, alternatives, options, number);
                Self::Udp(Box::new(driver))
            }
        }
    }

    /// Sends at most `max_messages` as they become due and waits for all replies.
    ///
    /// # Errors
    ///
    /// The first failure.
    pub(crate) async fn run(
        &mut self,
        schedule: &mut Schedule<'_>,
        mut max_messages: u64,
        buffers: &RefCell<Buffers>,
        mut on_event: impl FnMut(Event),
    ) -> Result<(), Error> {
        // Rare futures are boxed: each message brings the state of its connection into the
        // processor's cache, which does not hold that of thousands of connections.
        match self {
            Self::Stream(driver) => {
                let work = poll_fn(|cx| {
                    let buffers = &mut buffers.borrow_mut();
                    driver.poll(cx, schedule, &mut max_messages, buffers, &mut on_event)
                });
                match work.await {
                    Ok(()) => Ok(()),
                    Err(error) => Err(Box::pin(driver.diagnose(error, buffers)).await),
                }
            }
            Self::Udp(driver) => loop {
                let work = poll_fn(|cx| {
                    let buffers = &mut buffers.borrow_mut();
                    driver.poll(cx, schedule, &mut max_messages, buffers, &mut on_event)
                });
                match work.await {
                    Ok(()) => return Ok(()),
                    Err(error) => Box::pin(driver.recover(error, buffers)).await?,
                }
            },
        }
    }

    /// Removes the messages in flight when the connection ended, with `error` or by the end of the
    /// run, and passes each with its reason to `record`.
    pub(crate) fn take_unanswered(
        &mut self,
        error: Option<&Error>,
        now: Instant,
        mut record: impl FnMut(Sent, Unanswered),
    ) {
        match self {
            Self::Stream(driver) => {
                let timeout = driver.timeout();
                let is_expired = |sent: &Sent| now.saturating_duration_since(sent.at) >= timeout;
                let timed_out = matches!(error, Some(Error::ReplyTimeout { .. }));
                let mut mismatched = matches!(error, Some(Error::StreamCorruption { .. }));
                while let Some(sent) = driver.take_in_flight() {
                    let reason = if std::mem::take(&mut mismatched) {
                        Unanswered::Mismatched
                    } else if timed_out && is_expired(&sent) {
                        Unanswered::TimedOut
                    } else {
                        Unanswered::Failed
                    };
                    record(sent, reason);
                }
            }
            Self::Udp(driver) => {
                if let Some(sent) = driver.take_mismatched() {
                    record(sent, Unanswered::Mismatched);
                }
                while let Some(sent) = driver.take_in_flight() {
                    record(sent, Unanswered::Failed);
                }
            }
        }
    }

    /// Returns whether a reply has been received.
    pub(crate) fn has_received_reply(&self) -> bool {
        match self {
            Self::Stream(driver) => driver.has_received_reply(),
            Self::Udp(driver) => driver.has_received_reply(),
        }
    }

    /// Checks that nothing follows the last reply; see [`StreamDriver::finish`]. UDP has no end
    /// of stream to wait for.
    pub(crate) async fn finish(
        &mut self,
        buffers: &RefCell<Buffers>,
        ignores_half_close: &Cell<bool>,
    ) -> Result<(), Error> {
        match self {
            Self::Stream(driver) => driver.finish(buffers, ignores_half_close).await,
            Self::Udp(_) => Ok(()),
        }
    }
}
