//! Outgoing connections.

use std::future::{Future, poll_fn, ready};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_net::TcpStream;
use async_net::unix::UnixStream;
use futures_lite::{AsyncRead, AsyncWrite};
use rustix::io::Errno;
use smol::{Async, Timer};

use crate::limits::backoff::Backoff;
use crate::limits::timeout::{race, timeout};
use crate::net::address::{Address, Endpoint};
use crate::net::local::{BindError, LocalAddr, LocalAddrs};
use crate::net::resolver::{ResolveError, resolve};
use crate::net::stream::{Stream, tcp_socket};
use crate::net::unix::connect_stream;

/// The delay before the next address is tried (RFC 8305 section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Maximum delay before the first retry on a Unix socket with a full backlog.
const MIN_BACKLOG_DELAY: Duration = Duration::from_millis(2);

/// Maximum delay before later retries on a Unix socket with a full backlog.
const MAX_BACKLOG_DELAY: Duration = Duration::from_millis(100);

/// Time between attempts to connect while all local ports are in use.
const PORT_INTERVAL: Duration = Duration::from_millis(20);

/// Error of connecting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The host could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// No address accepted the connection; the cause is that of the first address.
    #[error("connect to {address}")]
    Connect {
        /// The address.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// Resolving and connecting exceeded the time limit.
    #[error("connect to {address}: timed out after {limit:?}")]
    TimedOut {
        /// The address.
        address: Address,
        /// The time limit.
        limit: Duration,
    },
}

impl ConnectError {
    /// Returns whether all local ports for this server are in use.
    pub fn is_without_port(&self) -> bool {
        // An address of another machine has the same kind, but is wrapped.
        let number = self.cause().and_then(io::Error::raw_os_error);
        number == Some(Errno::ADDRNOTAVAIL.raw_os_error())
    }

    /// Returns whether a local address cannot be used.
    pub fn is_local(&self) -> bool {
        let inner = self.cause().and_then(io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<BindError>())
    }

    fn cause(&self) -> Option<&io::Error> {
        if let Self::Connect { source, .. } = self {
            Some(source)
        } else {
            None
        }
    }

    /// Returns whether a later attempt may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve(source) => source.is_transient(),
            Self::Connect { .. } | Self::TimedOut { .. } => true,
        }
    }

    /// Returns whether nothing listens at the address.
    pub fn is_refused(&self) -> bool {
        let kind = self.cause().map(io::Error::kind);
        kind == Some(io::ErrorKind::ConnectionRefused)
    }
}

/// Stream of bytes over TCP or a Unix socket, without TLS.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub(crate) enum TcpOrUnix {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// Connects to `address` within `limit`, from the next one of the local addresses. A TCP address is
/// resolved and connected to like [`connect_to`]; a Unix socket with a full backlog is retried, and so
/// is a server for which all local ports are in use. A TLS handshake is left to the caller.
///
/// # Errors
///
/// [`ConnectError`]; if all addresses fail, the error of the first. `Unsupported` for UDP, and for a
/// Unix socket with local addresses.
///
/// # Cancel safety
///
/// If the future is dropped, the sockets of all attempts are closed.
pub(crate) async fn connect(
    address: &Address,
    local: &LocalAddrs,
    limit: Duration,
) -> Result<TcpOrUnix, ConnectError> {
    let failed = |source| ConnectError::Connect {
        address: address.clone(),
        source,
    };
    let attempt = || async {
        match address {
            Address::Tcp(endpoint) | Address::Tls(endpoint) => {
                let found = resolve(endpoint).await?;
                let stream = dial(found, local.next()).await;
                stream.map(TcpOrUnix::Tcp).map_err(failed)
            }
            Address::Unix(path) if local.is_empty() => {
                let connect = || ready(connect_stream(path));
                let stream = retry_while_backlog_full(connect)
                    .await
                    .and_then(|socket| Async::new(StdUnixStream::from(socket)));
                stream
                    .map(|stream| TcpOrUnix::Unix(stream.into()))
                    .map_err(failed)
            }
            Address::Unix(_) | Address::Udp(_) => Err(failed(io::ErrorKind::Unsupported.into())),
        }
    };
    connect_within(address, limit, Timer::after, attempt).await
}

/// Runs an attempt to connect within `limit`, and again while all local ports for the server are in
/// use: those of closed connections become free after a while.
///
/// # Errors
///
/// That of the attempt; [`ConnectError::TimedOut`].
///
/// # Cancel safety
///
/// Same as the attempt.
pub(crate) async fn connect_within<T, F, A>(
    address: &Address,
    limit: Duration,
    after: impl Fn(Duration) -> F,
    attempt: impl Fn() -> A,
) -> Result<T, ConnectError>
where
    F: Future,
    A: Future<Output = Result<T, ConnectError>>,
{
    let mut no_port = None;
    let work = async {
        loop {
            match attempt().await {
                Err(error) if error.is_without_port() => no_port = Some(error),
                connected => return connected,
            }
            after(PORT_INTERVAL).await;
        }
    };
    let connected = race(after(limit), work).await;
    connected.unwrap_or_else(|_| {
        Err(no_port.unwrap_or_else(|| ConnectError::TimedOut {
            address: address.clone(),
            limit,
        }))
    })
}

/// Retries an attempt to connect to a Unix socket while its backlog is full: the kernel then
/// returns EAGAIN (connect(2)) and sends no notification when there is room.
pub(crate) async fn retry_while_backlog_full<T, A: Future<Output = io::Result<T>>>(
    attempt: impl Fn() -> A,
) -> io::Result<T> {
    let mut backoff = Backoff::new(MIN_BACKLOG_DELAY, MAX_BACKLOG_DELAY);
    loop {
        match attempt().await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Timer::after(backoff.next_delay()).await;
            }
            result => return result,
        }
    }
}

/// Connects to `endpoint`, which was resolved to `found`.
///
/// The addresses are tried by [`happy_eyeballs`]. `TCP_NODELAY` is set.
///
/// # Errors
///
/// [`ConnectError::Connect`] if all addresses fail, with the cause of the first.
///
/// # Cancel safety
///
/// If the future is dropped, the sockets of all attempts are closed.
pub(crate) async fn connect_to(
    endpoint: &Endpoint,
    found: Vec<SocketAddr>,
) -> Result<TcpStream, ConnectError> {
    let stream = dial(found, LocalAddr::default()).await;
    stream.map_err(|source| {
        let address = Address::Tcp(endpoint.clone());
        ConnectError::Connect { address, source }
    })
}

async fn dial(found: Vec<SocketAddr>, local: LocalAddr) -> io::Result<TcpStream> {
    let attempt = |peer| connect_tcp(peer, local.for_peer(peer));
    let stream = happy_eyeballs(local.reachable(found)?, attempt).await;
    stream.unwrap_or_else(|| Err(no_address()))
}

/// Connects to a peer, from a local address if there is one.
async fn connect_tcp(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = tcp_socket(peer, local)?;
    match rustix::net::connect(&socket, &peer) {
        Ok(()) | Err(Errno::INPROGRESS) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = Async::new_nonblocking(std::net::TcpStream::from(socket))?;
    stream.writable().await?;
    match stream.get_ref().take_error()? {
        Some(error) => Err(error),
        None => Ok(stream.into()),
    }
}

/// Connects to `endpoint`, which was resolved to `found`, with a stream of the current worker
/// thread.
///
/// # Errors
///
/// The errors of [`connect_to`].
///
/// # Cancel safety
///
/// The same as [`connect_to`].
pub(crate) async fn connect_local(
    endpoint: &Endpoint,
    found: Vec<SocketAddr>,
    local: LocalAddr,
) -> Result<Stream, ConnectError> {
    let work = async {
        let attempt = |peer| Stream::connect(peer, local.for_peer(peer));
        let stream = happy_eyeballs(local.reachable(found)?, attempt).await;
        stream.unwrap_or_else(|| Err(no_address()))
    };
    work.await.map_err(|source| {
        let address = Address::Tcp(endpoint.clone());
        ConnectError::Connect { address, source }
    })
}

/// Alternates the address families, starting with that of the first address (RFC 8305 section 4).
fn interleave(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = found
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut second = second.into_iter();
    let mut all = Vec::new();
    for address in first {
        all.push(address);
        all.extend(second.next());
    }
    all.extend(second);
    all
}

/// Runs `attempt` on these addresses until one succeeds (RFC 8305, "Happy Eyeballs"): the families
/// alternate, the next attempt starts after 250 ms or when one has failed, and the first success
/// drops the other attempts. Returns `None` if there is no address.
///
/// # Errors
///
/// If all attempts fail, the error of the first.
///
/// # Cancel safety
///
/// If the future is dropped, all attempts are dropped.
pub(crate) async fn happy_eyeballs<T, E, A: Future<Output = Result<T, E>>>(
    found: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> A,
) -> Option<Result<T, E>> {
    let mut waiting = interleave(found).into_iter();
    let mut running = Vec::new();
    let mut failed = None;
    loop {
        running.extend(waiting.next().map(|address| Box::pin(attempt(address))));
        if running.is_empty() {
            return failed.map(Err);
        }
        let lead = (waiting.len() > 0).then_some(ATTEMPT_DELAY);
        match timeout(lead, first_of(&mut running)).await {
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Ok(success) => return Some(success),
            // The attempt continues beside the next one.
            Err(_) => {}
        }
    }
}

/// Returns the output of the first future that completes, and removes it.
async fn first_of<F: Future + Unpin>(running: &mut Vec<F>) -> F::Output {
    poll_fn(|cx| {
        for index in 0..running.len() {
            if let Poll::Ready(output) = Pin::new(&mut running[index]).poll(cx) {
                drop(running.remove(index));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

fn no_address() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no address")
}

/// Byte stream in both directions, for dynamic dispatch.
trait Transport: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Transport for T {}

impl TcpOrUnix {
    fn transport(&mut self) -> Pin<&mut dyn Transport> {
        match self {
            Self::Tcp(stream) => Pin::new(stream),
            Self::Unix(stream) => Pin::new(stream),
        }
    }
}

impl AsyncRead for TcpOrUnix {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().transport().poll_read(cx, buffer)
    }

    fn poll_read_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().transport().poll_read_vectored(cx, buffers)
    }
}

impl AsyncWrite for TcpOrUnix {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().transport().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().transport().poll_write_vectored(cx, buffers)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport().poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().transport().poll_close(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, future};

    use crate::net::address::{Host, UnixPath};

    const LIMIT: Duration = Duration::from_secs(10);

    async fn connect(address: &Address, limit: Duration) -> Result<TcpOrUnix, ConnectError> {
        super::connect(address, &LocalAddrs::default(), limit).await
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_are_tried_in_turn() {
        let found = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        let order = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"];
        assert_eq!(interleave(found.map(address).into()), order.map(address));
    }

    #[test]
    fn refusing_address_does_not_hide_a_working_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = TcpListener::bind("127.0.0.2:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let stream = smol::block_on(happy_eyeballs(vec![closed, open], TcpStream::connect));
        let stream = stream.unwrap().unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open);
    }

    #[test]
    fn first_cause_is_reported_if_all_addresses_fail() {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = smol::block_on(connect(&Address::loopback(port), LIMIT)).unwrap_err();
        let ConnectError::Connect { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(error.to_string(), format!("connect to 127.0.0.1:{port}"));
    }

    #[test]
    fn host_name_is_resolved() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let named = |name: &str| {
            Address::Tcp(Endpoint {
                host: Host::Name(name.into()),
                port,
            })
        };
        let localhost = named("localhost");
        assert!(smol::block_on(connect(&localhost, LIMIT)).is_ok());
        let nowhere = named("no.such.host.invalid");
        let error = smol::block_on(connect(&nowhere, LIMIT)).unwrap_err();
        assert!(matches!(error, ConnectError::Resolve(_)), "{error:?}");
    }

    #[test]
    fn unix_socket_transfers_in_both_directions() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let address = Address::Unix(UnixPath::new(path).unwrap());
        smol::block_on(async {
            let mut stream = connect(&address, LIMIT).await.unwrap();
            stream.write_all(b"one way").await.unwrap();
            stream.close().await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            std::io::copy(&mut peer.try_clone().unwrap(), &mut peer).unwrap();
            drop(peer);
            let mut back = Vec::new();
            stream.read_to_end(&mut back).await.unwrap();
            assert_eq!(back, b"one way");
        });
        drop(listener);
        let error = smol::block_on(connect(&address, LIMIT)).unwrap_err();
        assert_eq!(error.to_string(), format!("connect to {address}"));
    }

    #[test]
    fn full_backlog_is_retried_within_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let address = Address::Unix(UnixPath::new(path).unwrap());
        let limit = Duration::from_millis(200);
        smol::block_on(async {
            let first = connect(&address, LIMIT).await.unwrap();
            let error = connect(&address, limit).await.unwrap_err();
            assert!(matches!(error, ConnectError::TimedOut { .. }), "{error:?}");
            let accept = async {
                Timer::after(limit).await;
                smol::unblock(move || [listener.accept().unwrap(), listener.accept().unwrap()])
                    .await
            };
            let (second, _) = future::zip(connect(&address, LIMIT), accept).await;
            drop((first, second.unwrap()));
        });
    }

    #[test]
    fn udp_address_is_not_connected() {
        let udp = "udp://127.0.0.1:1".parse().unwrap();
        let error = smol::block_on(connect(&udp, LIMIT)).unwrap_err();
        let ConnectError::Connect { source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), io::ErrorKind::Unsupported);
    }
}
