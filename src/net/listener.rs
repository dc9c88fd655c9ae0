//! Sockets that wait for connections.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream as StdStream};

use async_net::TcpStream;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, acceptfrom_with, bind, listen, socket_with, sockopt,
};
use smol::Async;

use crate::net::address::{Address, Host};
use crate::net::connect::{ConnectError, resolve};

/// Connections that the system accepts before we do. The 128 of the standard library stall a
/// burst of connections for a second; the system cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP socket that waits for connections.
#[derive(Debug)]
pub struct Listener {
    socket: Async<TcpListener>,
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
    /// Listens on `address`. [`Host::Any`] and `[::]` listen on IPv4 and IPv6, whatever the
    /// system's `bindv6only` says; [`Host::Any`] on IPv4 alone where there is no IPv6. Of a name
    /// with several addresses the first that can be had is taken.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; of several addresses, that of the first.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, nothing listens.
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
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
            match bind_socket(candidate) {
                Ok(listener) => return Ok(listener),
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

    /// Waits for the next connection.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`: of this one connection (`ECONNABORTED`), or of the process
    /// (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), which pass when others end.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost when this is dropped halfway.
    pub async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = self.socket.accept().await?;
        Ok((stream.into(), peer))
    }

    /// Waits until a connection waits.
    ///
    /// # Errors
    ///
    /// Those of the reactor.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped halfway.
    pub async fn ready(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// Takes a connection if one waits.
    ///
    /// # Errors
    ///
    /// As for [`Listener::accept`].
    pub fn try_accept(&self) -> io::Result<Option<(Async<StdStream>, SocketAddr)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (stream, peer) = match acceptfrom_with(&self.socket, flags) {
            Err(Errno::AGAIN) => return Ok(None),
            accepted => accepted?,
        };
        let peer = peer.ok_or(Errno::AFNOSUPPORT)?.try_into()?;
        Ok(Some((Async::new_nonblocking(stream.into())?, peer)))
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL, Errno::PROTONOSUPPORT]
        .into_iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn bind_socket(address: SocketAddr) -> io::Result<Listener> {
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
    bind(&socket, &address)?;
    listen(&socket, BACKLOG)?;
    let socket = TcpListener::from(socket);
    let local = socket.local_addr()?;
    Ok(Listener { socket: Async::new_nonblocking(socket)?, local })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream as Client;

    fn listen_on(text: &str) -> Result<Listener, ListenError> {
        smol::block_on(Listener::bind(&text.parse().unwrap()))
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
    fn a_connection_is_accepted_with_its_peer() {
        let listener = listen_on("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr()).unwrap();
        let (_, peer) = smol::block_on(listener.accept()).unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
    }
}
