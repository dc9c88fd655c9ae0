//! Connections over TCP and Unix sockets, bound to a worker thread.

#[cfg(target_os = "linux")]
mod tcp_info;

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny,
    SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, recv, send, sendmsg,
    shutdown, socket_with, sockopt,
};

use crate::net::address::UnixPath;
use crate::net::local::bind_error;
use crate::net::tls::{self, AcceptedStream};
use crate::net::unix;
use crate::runtime::{Direction, Socket};

/// Connection over TCP or a Unix socket.
#[derive(Debug)]
pub(crate) struct Stream(Socket<OwnedFd>);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let length = buffer.len();
        let attempt = |fd: &OwnedFd| Ok(recv(fd, &mut *buffer, RecvFlags::empty())?.0);
        let count = ready!(self.0.poll(Direction::Read, cx, attempt))?;
        if count < length {
            self.0.clear_readiness(Direction::Read);
        }
        Poll::Ready(Ok(count))
    }
}

impl Stream {
    /// Binds a connected, non-blocking socket to this thread.
    ///
    /// # Errors
    ///
    /// Fails on a thread that the runtime does not drive.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self(Socket::new(fd)?))
    }

    /// Connects to an address, from a local address if there is one, with `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// The errors of [`tcp_socket`] and `connect(2)`; also outside a thread of the runtime.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the socket is closed.
    pub(crate) async fn connect(address: SocketAddr, local: Option<IpAddr>) -> io::Result<Self> {
        let fd = tcp_socket(address, local)?;
        Self::connect_to(fd, &address).await
    }

    /// Connects to the Unix socket with a path or name without waiting.
    ///
    /// # Errors
    ///
    /// The errors of [`connect`](Self::connect); `WouldBlock` if the backlog is full.
    pub(crate) fn connect_unix(path: &UnixPath) -> io::Result<Self> {
        Self::new(unix::connect_stream(path)?)
    }

    async fn connect_to(fd: OwnedFd, address: &impl SocketAddrArg) -> io::Result<Self> {
        let socket = Socket::new(fd)?;
        // A second connect(2) returns the result of the first one (EINPROGRESS).
        let attempt = |fd: &OwnedFd| match connect(fd, address) {
            Err(Errno::INPROGRESS | Errno::ALREADY) => Err(Errno::WOULDBLOCK.into()),
            Ok(()) | Err(Errno::ISCONN) => Ok(()),
            Err(error) => Err(error.into()),
        };
        poll_fn(|cx| socket.poll(Direction::Write, cx, attempt)).await?;
        Ok(Self(socket))
    }

    /// Returns the local address, if it has one.
    pub(crate) fn local_addr(&self) -> Option<LocalAddr> {
        let address = getsockname(self.0.get_ref()).ok()?;
        if let Ok(address) = SocketAddr::try_from(address.clone()) {
            return Some(LocalAddr::Ip(address));
        }
        let address = SocketAddrUnix::try_from(address).ok()?;
        let path = address.path_bytes().map(<[u8]>::to_vec);
        let name = || address.abstract_name().map(|name| [b"\0", name].concat());
        path.or_else(name).map(LocalAddr::Unix)
    }

    /// Returns the GID of the process at the other end of a Unix socket.
    pub(crate) fn peer_group(&self) -> Option<u32> {
        let credentials = getsockopt(self.0.get_ref(), PeerCredentials).ok()?;
        Some(credentials.gid())
    }

    /// Reads bytes that the next read returns again.
    ///
    /// # Errors
    ///
    /// The errors of `recv(2)`.
    pub(crate) fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll(Direction::Read, cx, |fd| {
            Ok(recv(fd, &mut *buffer, RecvFlags::PEEK)?.0)
        })
    }

    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        attempt: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.0.poll(Direction::Write, cx, |fd| Ok(attempt(fd)?)))?;
        if count < length {
            self.0.clear_readiness(Direction::Write);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes.len(), |fd| send(fd, bytes, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.poll_send(cx, length, |fd| {
            sendmsg(
                fd,
                pieces,
                &mut SendAncillaryBuffer::default(),
                SendFlags::NOSIGNAL,
            )
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match shutdown(self.0.get_ref(), Shutdown::Write) {
            // The peer has reset the connection: nothing is left to shut down.
            Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            result => Poll::Ready(Ok(result?)),
        }
    }
}

/// Creates a non-blocking socket with `TCP_NODELAY` for a connection to `peer`, bound to a local
/// address if there is one. The port is chosen when it connects, so that connections to different
/// servers can share it.
///
/// # Errors
///
/// The errors of `socket(2)`; [`BindError`](crate::net::local::BindError) as the inner error.
pub(crate) fn tcp_socket(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<OwnedFd> {
    let fd = open(if peer.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    })?;
    sockopt::set_tcp_nodelay(&fd, true)?;
    if let Some(local) = local {
        #[cfg(target_os = "linux")]
        nix::sys::socket::setsockopt(&fd, nix::sys::socket::sockopt::IpBindAddressNoPort, &true)?;
        let bound = bind(&fd, &SocketAddr::new(local, 0));
        bound.map_err(|error| bind_error(local, error.into()))?;
    }
    Ok(fd)
}

fn open(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// Local address of a connection.
#[derive(Debug)]
pub(crate) enum LocalAddr {
    Ip(SocketAddr),
    /// The path of a Unix socket, or its abstract name after a NUL.
    Unix(Vec<u8>),
}

/// Control of the socket below a stream.
pub(crate) trait SocketControl {
    /// Makes the close discard unsent data and send a reset (RFC 9293 section 3.10.5). A Unix
    /// socket is simply closed.
    ///
    /// # Errors
    ///
    /// The errors of `setsockopt(2)`.
    fn set_reset_on_close(&self) -> io::Result<()>;

    /// Returns the delivery state of what was sent. A Unix socket delivers immediately.
    fn delivery(&self) -> Delivery;
}

/// Delivery state of what was sent over a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Whether the kernel holds bytes that the peer has not acknowledged.
    pub(crate) outstanding: bool,
    /// Smoothed round-trip time; zero if unknown.
    pub(crate) round_trip: Duration,
}

impl<S: SocketControl> SocketControl for Box<AcceptedStream<S>> {
    fn set_reset_on_close(&self) -> io::Result<()> {
        tls::transport(self).set_reset_on_close()
    }

    fn delivery(&self) -> Delivery {
        tls::transport(self).delivery()
    }
}

impl SocketControl for Stream {
    fn set_reset_on_close(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_linger(
            self.0.get_ref(),
            Some(Duration::ZERO),
        )?)
    }

    #[cfg(target_os = "linux")]
    fn delivery(&self) -> Delivery {
        tcp_info::delivery(self.0.get_ref())
    }

    #[cfg(not(target_os = "linux"))]
    fn delivery(&self) -> Delivery {
        Delivery::default()
    }
}

/// Peer of a connection.
///
/// Small, because each open connection has one; most are IPv4.
#[derive(Debug)]
pub(crate) enum Peer {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
    /// The PID (0 if it is not visible from here) and UID of the connected process.
    Unix {
        process: i32,
        user: u32,
    },
}

impl Peer {
    /// Returns the address of the peer. `None` for a Unix socket.
    pub(crate) fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(address) => Some((*address).into()),
            Self::V6(address) => Some((**address).into()),
            Self::Unix { .. } => None,
        }
    }

    /// Describes the peer of an accepted connection.
    ///
    /// # Errors
    ///
    /// The errors of `getsockopt(2)`.
    pub(crate) fn new(socket: &OwnedFd, address: Option<SocketAddrAny>) -> io::Result<Self> {
        if let Some(Ok(address)) = address.map(SocketAddr::try_from) {
            return Ok(address.into());
        }
        // rustix cannot represent PID 0.
        let credentials = getsockopt(socket, PeerCredentials)?;
        Ok(Self::Unix {
            process: credentials.pid(),
            user: credentials.uid(),
        })
    }

    /// Returns the IP address, if there is one.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some((*address.ip()).into()),
            Self::V6(address) => Some((*address.ip()).into()),
            Self::Unix { .. } => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        // A dual-stack socket reports IPv4 as ::ffff:192.0.2.1 (RFC 4291 section 2.5.5.2).
        match (address.ip().to_canonical(), address) {
            (IpAddr::V4(ip), _) => Self::V4(SocketAddrV4::new(ip, address.port())),
            (_, SocketAddr::V6(address)) => Self::V6(Box::new(address)),
            (_, SocketAddr::V4(address)) => Self::V4(address),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "{address}"),
            Self::Unix { process, user } => write!(f, "unix:pid={process},uid={user}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};

    use crate::runtime::Driver;

    #[test]
    fn client_sends_and_receives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let peer = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            stream.write_all(&all).unwrap();
        });
        let exchange = || async {
            let mut stream = Stream::connect(address, None).await.unwrap();
            stream.write_all(b"one way").await.unwrap();
            stream.close().await.unwrap();
            let mut back = String::new();
            stream.read_to_string(&mut back).await.unwrap();
            back
        };
        assert_eq!(Driver::new().unwrap().run(exchange).unwrap(), "one way");
        peer.join().unwrap();
    }

    #[test]
    fn refused_connection_reports_the_cause() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let refused = Driver::new()
            .unwrap()
            .run(|| Stream::connect(address, None))
            .unwrap();
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
    }
}
