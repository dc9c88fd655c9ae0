//! Connector of ping and load, for threads of the epoll runtime.

use std::future::ready;
use std::io::ErrorKind;

use crate::echo::config::Target;
use crate::echo::error::Error;
use crate::echo::retry::retry;
use crate::echo::tls::{MaybeTls, TlsUpgrade};
use crate::net::address::Address;
use crate::net::connect::{ConnectError, connect_local, connect_within, retry_while_backlog_full};
use crate::net::local::LocalAddrs;
use crate::net::resolver::DnsCache;
use crate::net::stream::Stream;
use crate::net::udp::{AddressIter, UdpPeerSocket};
use crate::runtime::Timer;

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
    local: LocalAddrs,
    dns: DnsCache,
    tls: TlsUpgrade,
}

impl Connector {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            target: target.clone(),
            local: LocalAddrs::new(&target.bind),
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
        let attempt = || self.connect_once();
        let connected = connect_within(address, *limit, Timer::after, attempt).await;
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
                connect_local(endpoint, resolved, self.local.next())
                    .await
                    .map(Connected::Stream)
            }
            Address::Unix(_) if !self.local.is_empty() => {
                Err(to_error(ErrorKind::Unsupported.into()))
            }
            Address::Unix(path) => {
                let stream = retry_while_backlog_full(|| ready(Stream::connect_unix(path))).await;
                stream.map(Connected::Stream).map_err(to_error)
            }
            Address::Udp(endpoint) => {
                let found = self.dns.resolve(endpoint).await?;
                let alternatives = AddressIter::new(found, self.local.next());
                let mut alternatives = alternatives.map_err(to_error)?;
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
