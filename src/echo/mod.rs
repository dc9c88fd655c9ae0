//! An echo client: sends messages and collects the replies.
//!
//! [`send`] is for one message, [`run`] for many, in order, [`stream`] for bytes as they are,
//! [`ping()`] for the round-trip time, [`load()`] for what a server can bear.
//!
//! ```
//! use myapp::echo::{self, Config, Message, Server};
//! use myapp::net::address::Address;
//!
//! # smol::block_on(async {
//! // Nobody listens on port 1: the reply says so.
//! let server = Server { address: Address::loopback(1), ..Server::default() };
//! let config = Config { server, ..Config::default() };
//! let message = Message::new("¡Hola, servidor!")?;
//! let reply = echo::send(&message, &config).await;
//! assert!(reply.outcome.is_err_and(|error| error.is_refused()));
//! # Ok::<(), echo::MessageError>(())
//! # }).unwrap();
//! ```

mod client {
    pub(crate) mod line;
    pub(crate) mod pipe;
    pub(crate) mod udp;
}
mod config;
mod connector;
mod error;
mod load;
mod message;
mod payload;
mod report;
mod tls;

use std::error::Error;
use std::future::Future;
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite, Stream, StreamExt, future, pin};
use smol::channel::bounded;
use smol::lock::Mutex;
use smol::{Executor, Timer};
use tracing::{Instrument, info_span, warn};

use crate::error_chain::ErrorChain;
use crate::limits::backoff::Backoff;
use crate::limits::semaphore::Semaphore;
use crate::net::address::Address;
use crate::net::connect::{TcpOrUnix, connect};
use client::line::Connection;
use client::udp::Mailbox;
use tls::{Gate, Link};

pub use crate::net::udp::MAX_DATAGRAM_LEN as LONGEST_DATAGRAM;
pub use config::{Config, Connections, Length, LoadConfig, PingConfig, Server};
pub use error::{EchoError, Mismatch, Phase};
pub use load::load;
pub use load::ping::ping;
pub use load::udp_in_flight::NUMBER as SMALLEST_DATAGRAM;
pub use message::{LONGEST, Message, MessageError, Reply, without_end};
pub use payload::Payload;
pub use report::{Doubt, Failures, LoadReport, PingReport};

/// The longest wait before a failed connection is first tried again, and before any later time.
const RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Sends a message over a connection of its own and waits for the reply: the first line that
/// comes back. What the server sends behind that line is not read.
///
/// Over UDP the message is a datagram, and the reply is the first that comes back. Where none comes
/// in time, the message is sent again, as often as [`Server::retries`] says.
///
/// # Cancel safety
///
/// When this is dropped halfway, the connection is closed.
pub async fn send(message: &Message, config: &Config) -> Reply {
    answer(&mut None, message, config, &Gate::default()).await
}

/// Sends messages as they come and hands each reply with its number, counted from 1, to `sink`
/// in the order of the messages, whatever the order of arrival.
///
/// A message is asked for only when a connection is free for it. At most twice as many replies
/// as there are connections at once wait for an earlier one, so an endless stream of messages
/// costs no memory. The others go on while `sink` works.
///
/// # Errors
///
/// The first error of `sink`, which ends the run. What fails on the way is told in the
/// [`Reply`], and the others go on.
///
/// # Cancel safety
///
/// When this is dropped halfway, all connections are closed; replies that were not yet handed
/// to `sink` are lost.
pub async fn run<E>(
    messages: impl Stream<Item = Message>,
    config: &Config,
    mut sink: impl AsyncFnMut(u64, Reply) -> Result<(), E>,
) -> Result<(), E> {
    let at_once = config.connections.at_once();
    let permits = Semaphore::new(at_once);
    let kept = Mutex::new(None);
    let gate = Gate::default();
    let executor = Executor::new();
    let (started, window) = bounded(at_once.get());
    let (executor, kept, gate) = (&executor, &kept, &gate);
    let feed = async move {
        pin!(messages);
        let mut number = 0_u64;
        loop {
            let permit = permits.acquire().await;
            let Some(message) = messages.next().await else {
                return Ok(());
            };
            number += 1;
            let work = async move {
                let _permit = permit;
                match config.connections {
                    Connections::Each(_) => answer(&mut None, &message, config, gate).await,
                    Connections::One => {
                        answer(&mut *kept.lock().await, &message, config, gate).await
                    }
                }
            };
            let span = info_span!(target: "myapp::traffic", "message", number);
            let task = executor.spawn(work.instrument(span));
            if started.send((number, task)).await.is_err() {
                return Ok(());
            }
        }
    };
    let drain = async move {
        while let Ok((number, task)) = window.recv().await {
            sink(number, task.await).await?;
        }
        Ok(())
    };
    executor.run(future::try_zip(feed, drain)).await.map(|_| ())
}

/// Sends `input` to the server byte for byte, shuts down writing at its end, and writes what
/// comes back to `output` as it comes, until the server closes its side.
///
/// The timeout of `server` is for connecting, and for a silent server once the input has ended
/// or while it does not take what is sent.
///
/// # Errors
///
/// [`EchoError`]; what came before has been written to `output`. A server that closes its side
/// before the input has ended is an error.
///
/// # Cancel safety
///
/// When this is dropped halfway, the connection is closed; bytes already read from `input` may
/// be lost.
pub async fn stream(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    server: &Server,
) -> Result<(), EchoError> {
    client::pipe::carry(open(server, &Gate::default()).await?, input, output, server).await
}

/// What is kept from one message to the next.
#[derive(Debug)]
enum Kept {
    Connection(Connection<Link<TcpOrUnix>>),
    Mailbox(Mailbox),
}

impl Kept {
    async fn open(server: &Server, gate: &Gate) -> Result<Self, EchoError> {
        match &server.address {
            Address::Udp(endpoint) => Ok(Self::Mailbox(Mailbox::open(endpoint).await?)),
            _ => open(server, gate)
                .await
                .map(|stream| Self::Connection(Connection::new(stream))),
        }
    }

    async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        match self {
            Self::Connection(connection) => connection.exchange(message, config).await,
            Self::Mailbox(mailbox) => mailbox.exchange(message, config).await,
        }
    }

    fn is_intact(&self) -> bool {
        match self {
            Self::Connection(connection) => connection.is_intact(),
            Self::Mailbox(mailbox) => mailbox.is_intact(),
        }
    }
}

/// Sends a message over the connection that was kept, or else a new one, and keeps it when
/// another message may follow.
async fn answer(kept: &mut Option<Kept>, message: &Message, config: &Config, gate: &Gate) -> Reply {
    let mut way = match kept.take() {
        Some(way) => way,
        None => match Kept::open(&config.server, gate).await {
            Ok(way) => way,
            Err(error) => {
                return Reply {
                    bytes: Vec::new(),
                    outcome: Err(error),
                };
            }
        },
    };
    let reply = way.exchange(message, config).await;
    *kept = Some(way).filter(Kept::is_intact);
    reply
}

/// Connects, as often as `server` allows.
async fn open(server: &Server, gate: &Gate) -> Result<Link<TcpOrUnix>, EchoError> {
    let stream = retrying(server, || connect(&server.address, server.timeout)).await?;
    gate.pass(server, stream).await
}

/// Makes an attempt, as often as `server` allows.
async fn retrying<T, E, F>(server: &Server, attempt: impl Fn() -> F) -> Result<T, E>
where
    E: Error + 'static,
    F: Future<Output = Result<T, E>>,
{
    let mut backoff = Backoff::new(RETRY_DELAY.0, RETRY_DELAY.1);
    for _ in 0..server.retries {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) => {
                let delay = backoff.next_delay();
                warn!(target: "myapp::traffic", ?delay, "trying again: {}", ErrorChain(&error));
                Timer::after(delay).await;
            }
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::stream::repeat_with;
    use std::cell::Cell;
    use std::num::NonZeroUsize;

    #[test]
    fn an_endless_stream_is_read_no_further_than_replies_may_wait() {
        let asked = Cell::new(0);
        let endless = repeat_with(|| {
            asked.set(asked.get() + 1);
            Message::new("hola").unwrap()
        });
        let jobs = NonZeroUsize::new(3).unwrap();
        let connections = Connections::Each(jobs);
        // Nobody listens there: each reply is an error, and comes at once.
        let server = Server {
            address: Address::loopback(1),
            ..Server::default()
        };
        let config = Config {
            server,
            connections,
            verify: false,
        };
        let stuck = run(endless, &config, async |_, _| {
            future::pending::<Result<(), ()>>().await
        });
        let enough = async {
            Timer::after(Duration::from_millis(300)).await;
            Ok(())
        };
        assert_eq!(smol::block_on(future::or(stuck, enough)), Ok(()));
        assert!((3..=8).contains(&asked.get()), "{}", asked.get());
    }
}
