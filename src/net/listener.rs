//! Sockets that wait for connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};

use crate::net::address::{Address, Host};
use crate::net::connect::{ConnectError, resolve};

/// Connections that the system accepts before we do. The 128 of the standard library stall a
/// burst of connections for a second; the system cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP socket that listens. It does not block.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    local: SocketAddr,
}

/// Why a [`Listener`] cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The name does not resolve.
    #[error(transparent)]
    Resolve(#[from] ConnectError),
    /// The address cannot be had: in use, not ours, not permitted.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
}

impl Listener {
    /// Listens on `address`, with `count` sockets between which the system shares the connections
    /// out (`SO_REUSEPORT`), one for each thread that accepts. [`Host::Any`] and `[::]` listen on
    /// IPv4 and IPv6, whatever the system's `bindv6only` says; [`Host::Any`] on IPv4 alone where
    /// there is no IPv6. Of a name with several addresses the first that can be had is taken.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; of several addresses, that of the first.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, nothing listens.
    pub async fn bind(address: &Address, count: NonZeroUsize) -> Result<Vec<Self>, ListenError> {
        let candidates = match &address.host {
            Host::Any => {
                let both: [IpAddr; 2] =
                    [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
                both.map(|ip| SocketAddr::new(ip, address.port)).into()
            }
            _ => resolve(address).await?,
        };
        let mut failed = None;
        for candidate in candidates {
            match listen_on(candidate, count) {
                Ok(listeners) => return Ok(listeners),
                // An address in use must not send `:PORT` silently to IPv4 alone.
                Err(error) if address.host == Host::Any && !lacks_ipv6(&error) => {
                    failed = Some(error);
                    break;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let source = failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
        Err(ListenError::Bind { address: address.clone(), source })
    }

    /// The address that the socket has: with the port that the system chose where 0 was asked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl From<Listener> for TcpListener {
    fn from(listener: Listener) -> Self {
        listener.socket
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn listen_on(address: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<Listener>> {
    let first = open_socket(address)?;
    bind(&first, &address)?;
    let first = TcpListener::from(first);
    let local = first.local_addr()?;
    let mut sockets = vec![first];
    if count.get() > 1 {
        // Not before the first is bound: with the option, it would share a port that is in use
        // with another program of ours instead of failing.
        sockopt::set_socket_reuseport(&sockets[0], true)?;
        for _ in 1..count.get() {
            let sibling = open_socket(local)?;
            sockopt::set_socket_reuseport(&sibling, true)?;
            bind(&sibling, &local)?;
            sockets.push(sibling.into());
        }
    }
    for socket in &sockets {
        listen(socket, BACKLOG)?;
    }
    Ok(sockets.into_iter().map(|socket| Listener { socket, local }).collect())
}

fn open_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    // A restart must not wait for the connections of the last run to be forgotten (TIME-WAIT).
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    // Accepted connections inherit both: small answers are sent at once, and urgent data stays
    // in its place in the stream (RFC 6093 section 5).
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_oobinline(&socket, true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Client;

    fn listen_on(text: &str) -> Result<Listener, ListenError> {
        shards(text, 1).map(|mut listeners| listeners.remove(0))
    }

    fn shards(text: &str, count: usize) -> Result<Vec<Listener>, ListenError> {
        let count = NonZeroUsize::new(count).unwrap();
        smol::block_on(Listener::bind(&text.parse().unwrap(), count))
    }

    #[test]
    fn every_interface_means_both_families() {
        let port = listen_on(":0").map(|listener| {
            let port = listener.local_addr().port();
            Client::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            if listener.local_addr().is_ipv6() {
                Client::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            }
            port
        });
        assert_ne!(port.unwrap(), 0);
    }

    #[test]
    fn an_address_in_use_is_refused_by_name() {
        let first = listen_on("127.0.0.1:0").unwrap();
        let address = first.local_addr().to_string();
        let error = listen_on(&address).unwrap_err();
        assert_eq!(error.to_string(), format!("listen on {address}"));
        let ListenError::Bind { source, .. } = error else { panic!("{error:?}") };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_port_in_use_on_every_interface_does_not_fall_back_to_one_family() {
        let first = listen_on(":0").unwrap();
        assert!(listen_on(&format!(":{}", first.local_addr().port())).is_err());
    }

    #[test]
    fn several_sockets_share_a_port_but_not_with_those_of_another() {
        let listeners = shards("127.0.0.1:0", 3).unwrap();
        let address = listeners[0].local_addr();
        assert!(listeners.iter().all(|listener| listener.local_addr() == address));
        for count in [1, 3] {
            let error = shards(&address.to_string(), count).unwrap_err();
            let ListenError::Bind { source, .. } = error else { panic!("{error:?}") };
            assert_eq!(source.kind(), io::ErrorKind::AddrInUse, "{count} sockets");
        }
        let clients: Vec<_> = (0..100).map(|_| Client::connect(address).unwrap()).collect();
        let waiting =
            |listener: &Listener| std::iter::from_fn(|| listener.socket.accept().ok()).count();
        let shares: Vec<_> = listeners.iter().map(waiting).collect();
        assert_eq!(shares.iter().sum::<usize>(), clients.len());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    }
}
