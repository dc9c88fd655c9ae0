//! A socket over which messages go out and replies come back, a datagram each.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use smol::Async;
use tracing::info;

use crate::echo::config::{Config, Server};
use crate::echo::connection::verify;
use crate::echo::error::EchoError;
use crate::echo::message::{Message, Reply, without_end};
use crate::echo::retrying;
use crate::escape::Escaped;
use crate::limits::timeout::timeout;
use crate::net::address::{Address, Endpoint};
use crate::net::connect::ConnectError;
use crate::net::resolver::resolve;
use crate::net::udp::{AddressIter, MAX_DATAGRAM_LEN, connect};

/// A socket that sends to one server.
#[derive(Debug)]
pub(crate) struct Mailbox {
    socket: Async<UdpSocket>,
    /// Where the server may be if it is not there.
    others: AddressIter,
    intact: bool,
}

impl Mailbox {
    /// Opens a socket that sends to `endpoint`.
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Connect {
            address: Address::Udp(endpoint.clone()),
            source,
        };
        let mut others = AddressIter::new(resolve(endpoint).await?);
        let opened = others.next(socket_to);
        let opened = opened.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        Ok(Self {
            socket: opened.map_err(failed)?,
            others,
            intact: true,
        })
    }

    /// Whether another message may follow: the last one was answered, so that its reply cannot
    /// be taken for that of the next.
    pub(crate) fn is_intact(&self) -> bool {
        self.intact
    }

    /// Sends a message and waits for the datagram that answers it; where none comes in time, sends
    /// it again, as often as the server's retries say.
    pub(crate) async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        // Until the end, so that nobody goes on where this was dropped halfway.
        self.intact = false;
        let Self { socket, others, .. } = self;
        let mut answered =
            retrying(&config.server, || attempt(socket, message, &config.server)).await;
        while answered.as_ref().is_err_and(EchoError::is_refused) {
            let Some(Ok(next)) = others.next(socket_to) else {
                break;
            };
            *socket = next;
            answered = retrying(&config.server, || attempt(socket, message, &config.server)).await;
        }
        match answered {
            Ok(bytes) => {
                self.intact = true;
                let outcome = if config.verify {
                    verify(message, &bytes, config)
                } else {
                    Ok(())
                };
                Reply { bytes, outcome }
            }
            Err(error) => Reply {
                bytes: Vec::new(),
                outcome: Err(error),
            },
        }
    }
}

fn socket_to(peer: SocketAddr) -> io::Result<Async<UdpSocket>> {
    Async::new_nonblocking(connect(peer)?)
}

async fn attempt(
    socket: &Async<UdpSocket>,
    message: &Message,
    server: &Server,
) -> Result<Vec<u8>, EchoError> {
    let Server {
        address,
        timeout: limit,
        ..
    } = server;
    info!(target: "myapp::traffic", text = %Escaped(message.text()), "sending");
    let sent = socket.send(message.bytes()).await;
    sent.map_err(|source| EchoError::Send {
        address: address.clone(),
        source,
    })?;
    let mut bytes = vec![0; MAX_DATAGRAM_LEN];
    let received = timeout(Some(*limit), socket.recv(&mut bytes)).await;
    let timed_out = |_| EchoError::TimedOut {
        address: address.clone(),
        limit: *limit,
        received: 0,
    };
    let length = received
        .map_err(timed_out)?
        .map_err(|source| EchoError::Receive {
            address: address.clone(),
            source,
        })?;
    bytes.truncate(length);
    info!(target: "myapp::traffic", text = %Escaped(without_end(&bytes)), "received");
    Ok(bytes)
}
