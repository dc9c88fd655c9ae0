//! UDP client: one datagram per message and per reply.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};

use smol::Async;
use tracing::debug;

use super::verify::verify;
use crate::echo::config::{Config, Target};
use crate::echo::error::Error;
use crate::echo::message::{Message, Reply, trim_newline};
use crate::echo::retry::retry;
use crate::escape::Escaped;
use crate::limits::timeout::timeout;
use crate::net::address::{Address, Endpoint};
use crate::net::connect::ConnectError;
use crate::net::local::LocalAddr;
use crate::net::resolver::resolve;
use crate::net::udp::{AddressIter, MAX_DATAGRAM_LEN, connect};

/// Maximum number of datagrams discarded before a message: a server that never stops sending must not
/// block the client. More than a receive buffer holds.
const MAX_DISCARDED: u64 = 100_000;

/// A socket connected to one server.
#[derive(Debug)]
pub(crate) struct UdpClient {
    socket: Async<UdpSocket>,
    /// Further addresses, tried if the current one refuses.
    alternatives: AddressIter,
    intact: bool,
}

impl UdpClient {
    /// Opens a socket that sends to `endpoint`.
    pub(crate) async fn open(endpoint: &Endpoint, local: LocalAddr) -> Result<Self, ConnectError> {
        let failed = |source| ConnectError::Connect {
            address: Address::Udp(endpoint.clone()),
            source,
        };
        let alternatives = AddressIter::new(resolve(endpoint).await?, local);
        let mut alternatives = alternatives.map_err(failed)?;
        let opened = alternatives
            .next(connect_socket)
            .unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
        let socket = opened.map_err(failed)?;
        Ok(Self {
            socket,
            alternatives,
            intact: true,
        })
    }

    /// Returns whether another message can follow: the last one has its reply, which therefore
    /// cannot be mistaken for that of the next.
    pub(crate) fn is_intact(&self) -> bool {
        self.intact
    }

    /// Sends a message and waits for the datagram in reply, with the retries of the target.
    pub(crate) async fn exchange(&mut self, message: &Message, config: &Config) -> Reply {
        // Cleared first, so that a socket is not reused after a cancelled exchange.
        self.intact = false;
        let target = &config.target;
        let discarded = AtomicU64::new(0);
        let attempt_on = async |socket: &Async<UdpSocket>| {
            let attempt = || {
                discarded.fetch_add(discard_pending(socket), Ordering::Relaxed);
                attempt(socket, message, target)
            };
            retry(target, attempt).await
        };
        let mut result = attempt_on(&self.socket).await;
        while result.as_ref().is_err_and(Error::is_refused) {
            let Some(Ok(next)) = self.alternatives.next(connect_socket) else {
                break;
            };
            self.socket = next;
            result = attempt_on(&self.socket).await;
        }
        let (bytes, outcome) = match result {
            Ok(bytes) => {
                self.intact = true;
                let outcome = verify(message, &bytes, config);
                (bytes, outcome)
            }
            Err(error) => (Vec::new(), Err(error)),
        };
        Reply {
            bytes,
            outcome,
            discarded: discarded.into_inner(),
        }
    }
}

fn connect_socket(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<Async<UdpSocket>> {
    Async::new_nonblocking(connect(peer, local)?)
}

/// Discards late and duplicate replies to earlier messages: one would be taken for the reply to the
/// next message. Returns their number.
fn discard_pending(socket: &Async<UdpSocket>) -> u64 {
    let mut datagrams = 0;
    // The socket is non-blocking. An error is reported by the next send or receive.
    while datagrams < MAX_DISCARDED && socket.get_ref().recv(&mut [0]).is_ok() {
        datagrams += 1;
    }
    datagrams
}

/// Sends a message once and waits for the reply.
async fn attempt(
    socket: &Async<UdpSocket>,
    message: &Message,
    target: &Target,
) -> Result<Vec<u8>, Error> {
    let Target {
        address,
        timeout: limit,
        ..
    } = target;
    debug!(target: "myapp::traffic", text = %Escaped(message.text()), "sending");
    let sent = socket.send(message.bytes()).await;
    sent.map_err(|source| Error::Send {
        address: address.clone(),
        source,
    })?;
    let mut bytes = vec![0; MAX_DATAGRAM_LEN];
    let received = timeout(Some(*limit), socket.recv(&mut bytes)).await;
    let timed_out = |_| Error::ReplyTimeout {
        address: address.clone(),
        limit: *limit,
        received: 0,
    };
    let length = received
        .map_err(timed_out)?
        .map_err(|source| Error::Receive {
            address: address.clone(),
            source,
        })?;
    bytes.truncate(length);
    debug!(target: "myapp::traffic", text = %Escaped(trim_newline(&bytes)), "received");
    Ok(bytes)
}
