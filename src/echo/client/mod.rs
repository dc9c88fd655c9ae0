//! Messages and pipes over async-net sockets, on the caller's thread.

mod duplex;
mod line;
mod pipe;
mod udp;
mod verify;

use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncWrite, Stream, StreamExt, future, pin};
use smol::Executor;
use smol::Timer;
use smol::channel::bounded;
use smol::lock::Mutex;
use tracing::{Instrument, info_span};

use crate::echo::config::{Config, ConnectionMode, Target};
use crate::echo::error::Error;
use crate::echo::message::{Message, Reply};
use crate::echo::retry::retry;
use crate::echo::tls::{MaybeTls, TlsUpgrade};
use crate::limits::semaphore::Semaphore;
use crate::net::address::Address;
use crate::net::connect::{TcpOrUnix, connect};
use crate::net::local::LocalAddrs;
use line::LineClient;
use udp::UdpClient;

/// Maximum number of replies that wait for an earlier one; the channel allocates room for all.
const MAX_WINDOW: usize = 1 << 16;

/// Time between attempts to connect to a server that is not ready.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Sends a message over a new connection and waits for the reply: the first line received.
/// Anything the server sends after that line is not read.
///
/// Over UDP the message is one datagram, and the reply is the first datagram received. If none
/// arrives in time, the message is sent again, up to [`Target::retries`] times.
///
/// # Cancel safety
///
/// Dropping the future closes the connection.
pub async fn send(message: &Message, config: &Config) -> Reply {
    let opener = Opener::new(&config.target);
    exchange(&mut None, message, config, &opener).await
}

/// Sends a stream of messages and passes each reply with its number, counted from 1, to `sink`
/// in the order of the messages, regardless of the order of arrival.
///
/// A message is taken from the stream only when a connection is free for it. At most twice as
/// many replies as there are concurrent connections wait for an earlier one, so an endless stream
/// of messages needs bounded memory. Other messages proceed while `sink` works.
///
/// # Errors
///
/// The first error of `sink`, which ends the run. The failure of a message is part of its
/// [`Reply`] and does not affect the others.
///
/// # Cancel safety
///
/// Dropping the future closes all connections; replies not yet passed to `sink` are lost.
pub async fn run<E>(
    messages: impl Stream<Item = Message>,
    config: &Config,
    mut sink: impl AsyncFnMut(u64, Reply) -> Result<(), E>,
) -> Result<(), E> {
    let max_concurrent = config.connection_mode.max_concurrent();
    let permits = Semaphore::new(max_concurrent);
    let reusable = &Mutex::new(None);
    let opener = &Opener::new(&config.target);
    // Declared last, because its tasks borrow the values above.
    let executor = &Executor::new();
    let (started, window) = bounded(max_concurrent.get().min(MAX_WINDOW));
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
                match config.connection_mode {
                    ConnectionMode::PerMessage { .. } => {
                        exchange(&mut None, &message, config, opener).await
                    }
                    ConnectionMode::Single => {
                        exchange(&mut *reusable.lock().await, &message, config, opener).await
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

/// Sends `input` to the server byte for byte, shuts down writing at its end, and copies the
/// received bytes to `output` as they arrive, until the server closes its side.
///
/// The timeout of `target` applies to connecting, and to a server that neither reads nor writes
/// while it has unread or unanswered input.
///
/// # Errors
///
/// [`Error`]; bytes received before it have been written to `output`. It is an error if the server
/// closes its side before the end of the input.
///
/// # Cancel safety
///
/// Dropping the future closes the connection; bytes already read from `input` may be lost.
pub async fn pipe(
    input: impl AsyncRead + Unpin,
    output: impl AsyncWrite + Unpin,
    target: &Target,
) -> Result<(), Error> {
    let stream = Opener::new(target).open_stream(target).await?;
    pipe::run(stream, input, output, target).await
}

/// Waits until the server accepts a connection, at most for `limit`. Nothing is sent. Over UDP there
/// is no connection, so this returns at once.
///
/// # Errors
///
/// The last error.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn wait_ready(target: &Target, limit: Duration) -> Result<(), Error> {
    if let Address::Udp(_) = target.address {
        return Ok(());
    }
    let local = LocalAddrs::new(&target.bind);
    let start = Instant::now();
    loop {
        let left = limit.saturating_sub(start.elapsed());
        match connect(&target.address, &local, left.min(target.timeout)).await {
            Ok(_) => return Ok(()),
            Err(error) if left <= READY_INTERVAL => return Err(error.into()),
            Err(_) => _ = Timer::after(READY_INTERVAL).await,
        }
    }
}

/// A connection or UDP socket that the next message can use.
#[derive(Debug)]
enum ReusableConnection {
    Line(LineClient<MaybeTls<TcpOrUnix>>),
    Udp(UdpClient),
}

impl ReusableConnection {
    async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        match self {
            Self::Line(client) => client.exchange(message, config).await,
            Self::Udp(client) => client.exchange(message, config).await,
        }
    }

    fn is_intact(&self) -> bool {
        match self {
            Self::Line(client) => client.is_intact(),
            Self::Udp(client) => client.is_intact(),
        }
    }
}

/// Sends a message over the reusable connection or a new one, and stores the connection if another
/// message can follow.
async fn exchange(
    reusable: &mut Option<ReusableConnection>,
    message: &Message,
    config: &Config,
    opener: &Opener,
) -> Reply {
    let mut connection = match reusable.take() {
        Some(connection) => connection,
        None => match opener.open(&config.target).await {
            Ok(connection) => connection,
            Err(error) => {
                return Reply {
                    bytes: Vec::new(),
                    outcome: Err(error),
                    discarded: 0,
                };
            }
        },
    };
    let reply = connection.exchange(message, config).await;
    *reusable = connection.is_intact().then_some(connection);
    reply
}

/// Opens connections to one server.
#[derive(Debug)]
struct Opener {
    local: LocalAddrs,
    tls: TlsUpgrade,
}

impl Opener {
    fn new(target: &Target) -> Self {
        Self {
            local: LocalAddrs::new(&target.bind),
            tls: TlsUpgrade::default(),
        }
    }

    async fn open(&self, target: &Target) -> Result<ReusableConnection, Error> {
        Ok(match &target.address {
            Address::Udp(endpoint) => {
                ReusableConnection::Udp(UdpClient::open(endpoint, self.local.next()).await?)
            }
            _ => ReusableConnection::Line(LineClient::new(self.open_stream(target).await?)),
        })
    }

    /// Connects, with the retries of `target`, and performs the TLS handshake if required.
    async fn open_stream(&self, target: &Target) -> Result<MaybeTls<TcpOrUnix>, Error> {
        let attempt = || connect(&target.address, &self.local, target.timeout);
        let stream = retry(target, attempt).await?;
        self.tls.upgrade(target, stream).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::stream::repeat_with;
    use std::cell::Cell;
    use std::num::NonZeroUsize;

    #[test]
    fn endless_input_is_read_within_the_reply_window() {
        let read = Cell::new(0);
        let endless = repeat_with(|| {
            read.set(read.get() + 1);
            Message::new("hola").unwrap()
        });
        let max = NonZeroUsize::new(3).unwrap();
        // No server listens there, so each reply is an immediate error.
        let target = Target {
            address: Address::loopback(1),
            ..Target::default()
        };
        let config = Config {
            target,
            connection_mode: ConnectionMode::PerMessage { max },
            verify: false,
        };
        let blocked = run(endless, &config, async |_, _| {
            future::pending::<Result<(), ()>>().await
        });
        let stop = async {
            Timer::after(Duration::from_millis(300)).await;
            Ok(())
        };
        assert_eq!(smol::block_on(future::or(blocked, stop)), Ok(()));
        assert!((3..=8).contains(&read.get()), "{}", read.get());
    }
}
