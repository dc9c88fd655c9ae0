//! Connections to the server, bound to the thread that opens them.

use std::future::ready;
use std::io::ErrorKind;

use crate::echo::config::Server;
use crate::echo::error::EchoError;
use crate::echo::retrying;
use crate::echo::tls::{Gate, Link};
use crate::limits::timeout::race;
use crate::net::address::Address;
use crate::net::connect::{ConnectError, connect_local, retry_while_backlog_full};
use crate::net::resolver::DnsCache;
use crate::net::stream::Stream;
use crate::net::udp::{AddressIter, UdpPeerSocket};
use crate::runtime::Timer;

/// What messages go over.
#[derive(Debug)]
pub(crate) enum Opened<S = Link<Stream>> {
    Stream(S),
    /// A socket to an address, and those that come next where that one refuses.
    Datagrams(UdpPeerSocket, AddressIter),
}

/// Opens connections to one server, whose name is resolved once.
#[derive(Debug)]
pub(crate) struct Opener {
    server: Server,
    names: DnsCache,
    gate: Gate,
}

impl Opener {
    pub(crate) fn new(server: &Server) -> Self {
        Self {
            server: server.clone(),
            names: DnsCache::default(),
            gate: Gate::default(),
        }
    }

    /// Connects, as often as the server allows, on a thread of the runtime.
    pub(crate) async fn open(&self) -> Result<Opened, EchoError> {
        Ok(match retrying(&self.server, || self.attempt()).await? {
            Opened::Stream(stream) => Opened::Stream(self.gate.pass(&self.server, stream).await?),
            Opened::Datagrams(socket, others) => Opened::Datagrams(socket, others),
        })
    }

    async fn attempt(&self) -> Result<Opened<Stream>, ConnectError> {
        let Server {
            address,
            timeout: limit,
            ..
        } = &self.server;
        let failed = |source| ConnectError::Connect {
            address: address.clone(),
            source,
        };
        let work = async {
            match address {
                Address::Tcp(endpoint) | Address::Tls(endpoint) => {
                    let found = self.names.resolve(endpoint).await?;
                    connect_local(endpoint, found).await.map(Opened::Stream)
                }
                Address::Unix(path) => {
                    let stream =
                        retry_while_backlog_full(|| ready(Stream::connect_unix(path))).await;
                    stream.map(Opened::Stream).map_err(failed)
                }
                Address::Udp(endpoint) => {
                    let mut others = AddressIter::new(self.names.resolve(endpoint).await?);
                    let socket = others.next(UdpPeerSocket::connect);
                    let socket = socket.unwrap_or_else(|| Err(ErrorKind::NotFound.into()));
                    socket
                        .map(|socket| Opened::Datagrams(socket, others))
                        .map_err(failed)
                }
            }
        };
        let timed_out = ConnectError::TimedOut {
            address: address.clone(),
            limit: *limit,
        };
        let opened = race(Timer::after(*limit), work)
            .await
            .unwrap_or(Err(timed_out));
        if let (Err(_), Some(endpoint)) = (&opened, address.endpoint()) {
            self.names.invalidate(endpoint);
        }
        opened
    }
}
