//! Connector of ping and load, for threads of the epoll runtime.

use std::future::ready;
use std::io::ErrorKind;
use std::time::Duration;

use crate::echo::config::Target;
use crate::echo::error::Error;
use crate::echo::retry::retry;
use crate::echo::tls::{MaybeTls, TlsUpgrade};
use crate::limits::timeout::race;
use crate::net::address::Address;
use crate::net::connect::{ConnectError, connect_local, retry_while_backlog_full};
use crate::net::resolver::DnsCache;
use crate::net::stream::Stream;
use crate::net::udp::{AddressIter, UdpPeerSocket};
use crate::runtime::Timer;

/// Time between attempts to connect while all local ports are in use.
const PORT_INTERVAL: Duration = Duration::from_millis(20);

/// An established connection or UDP socket.
#[derive(Debug)]
pub(crate) enum Connected<S = MaybeTls<Stream>> {
    Stream(S),
    /// A socket, and the addresses to try next if this one refuses.
    Udp(UdpPeerSocket, AddressIter),
}

/// Opens connections to one server, whose name is resolved once.
#[derive(Debug)]
pub(crate) struct Connector {
    target: Target,
    dns: DnsCache,
    tls: TlsUpgrade,
}

impl Connector {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            dns: DnsCache::default(),
            tls: TlsUpgrade::default(),
        }
    }

    /// Connects, with the retries of the target. The socket belongs to the current thread.
    pub(crate) async fn connect(&self) -> Result<Connected, Error> {
        Ok(match retry(&self.target, || self.attempt()).await? {
            Connected::Stream(stream) => {
                Connected::Stream(self.tls.upgrade(&self.target, stream).await?)
            }
            Connected::Udp(socket, alternatives) => Connected::Udp(socket, alternatives),
        })
    }

    /// Connects once, within the time limit of the target.
    async fn attempt(&self) -> Result<Connected<Stream>, ConnectError> {
        let Target {
            address,
            timeout: limit,
            ..
        } = &self.target;
        let timed_out = ConnectError::TimedOut {
            address: address.clone(),
            limit: *limit,
        };
        // The last error, if the time limit is reached while no local port is free.
        let mut no_port = None;
        let connecting = async {
            loop {
                match self.connect_once().await {
                    Err(error) if is_without_port(&error) => no_port = Some(error),
                    connected => return connected,
                }
                // Ports of closed connections become free again.
                Timer::after(PORT_INTERVAL).await;
            }
        };
        let connected = race(Timer::after(*limit), connecting).await;
        let connected = connected.unwrap_or_else(|_| Err(no_port.unwrap_or(timed_out)));
        if let (Err(_), Some(endpoint)) = (&connected, address.endpoint()) {
            self.dns.invalidate(endpoint);
        }
        connected
    }

    async fn connect_once(&self) -> Result<Connected<Stream>, ConnectError> {
        let address = &self.target.address;
        let to_error = |source| ConnectError::Connect {
            address: address.clone(),
            source,
        };
        match address {
            Address::Tcp(endpoint) | Address::Tls(endpoint) => {
                let resolved = self.dns.resolve(endpoint).await?;
                connect_local(endpoint, resolved)
                    .await
                    .map(Connected::Stream)
            }
            Address::Unix(path) => {
                let stream = retry_while_backlog_full(|| ready(Stream::connect_unix(path))).await;
                stream.map(Connected::Stream).map_err(to_error)
            }
            Address::Udp(endpoint) => {
                let mut alternatives = AddressIter::new(self.dns.resolve(endpoint).await?);
                let socket = alternatives
                    .next(UdpPeerSocket::connect)
                    .unwrap_or_else(|| Err(ErrorKind::NotFound.into()));
                socket
                    .map(|socket| Connected::Udp(socket, alternatives))
                    .map_err(to_error)
            }
        }
    }
}

/// Returns whether all local ports for this server are in use.
fn is_without_port(error: &ConnectError) -> bool {
    if let ConnectError::Connect { source, .. } = error {
        source.kind() == ErrorKind::AddrNotAvailable
    } else {
        false
    }
}
