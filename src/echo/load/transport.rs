//! How messages travel: over a stream, or as datagrams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;

use crate::echo::connector::Opened;
use crate::echo::error::EchoError;
use crate::echo::load::schedule::Pace;
use crate::echo::load::stream::{Event, Flow, Rules, Scratch};
use crate::echo::load::udp::DatagramFlow;
use crate::echo::tls::Link;
use crate::net::stream::Stream;

/// A connection, or a socket for datagrams, on which messages are on the way.
#[derive(Debug)]
pub(crate) enum Route<'a> {
    Stream(Flow<'a, Link<Stream>>),
    Datagrams(DatagramFlow<'a>),
}

impl<'a> Route<'a> {
    pub(crate) fn new(opened: Opened, rules: &'a Rules<'a>, number: u64) -> Self {
        match opened {
            Opened::Stream(stream) => Self::Stream(Flow::new(stream, rules, number)),
            Opened::Datagrams(socket, others) => {
                Self::Datagrams(DatagramFlow::new(socket, others, rules, number))
            }
        }
    }

    /// Sends at most `most` messages as they become due and waits for all replies.
    ///
    /// # Errors
    ///
    /// The first thing that goes wrong; what is on the way then is lost.
    pub(crate) async fn run(
        &mut self,
        pace: &mut Pace<'_>,
        mut most: u64,
        scratch: &RefCell<Scratch>,
        mut told: impl FnMut(Event),
    ) -> Result<(), EchoError> {
        // What is rare is in boxes: for each message all that a connection takes is brought into
        // the processor's cache, and of thousands little is there still.
        match self {
            Self::Stream(flow) => {
                let work = poll_fn(|cx| {
                    flow.poll(cx, pace, &mut most, &mut scratch.borrow_mut(), &mut told)
                });
                match work.await {
                    Ok(()) => Ok(()),
                    Err(broken) => Err(Box::pin(flow.give_up(broken, scratch)).await),
                }
            }
            Self::Datagrams(flow) => loop {
                let work = poll_fn(|cx| {
                    flow.poll(cx, pace, &mut most, &mut scratch.borrow_mut(), &mut told)
                });
                match work.await {
                    Ok(()) => return Ok(()),
                    Err(broken) => Box::pin(flow.recover(broken, scratch)).await?,
                }
            },
        }
    }

    /// Whether a message has been answered.
    pub(crate) fn was_answered(&self) -> bool {
        match self {
            Self::Stream(flow) => flow.was_answered(),
            Self::Datagrams(flow) => flow.was_answered(),
        }
    }

    /// Looks whether something comes behind the last reply, as [`Flow::finish`]; datagrams have
    /// no end to wait for.
    pub(crate) async fn finish(
        &mut self,
        scratch: &RefCell<Scratch>,
        deaf: &Cell<bool>,
    ) -> Result<(), EchoError> {
        match self {
            Self::Stream(flow) => flow.finish(scratch, deaf).await,
            Self::Datagrams(_) => Ok(()),
        }
    }
}
