//! Listening sockets.

pub(crate) mod accept;
mod unix;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, listen, socket_with, sockopt,
};

pub(super) use self::unix::SocketPathGuard;
use crate::net::address::{Address, Endpoint, Host, UnixPath};
use crate::net::resolver::{ResolveError, resolve};
use crate::net::unix::{socket_addr, stream_socket};

/// The backlog. The 128 of the standard library stall a burst of connections for a second. The
/// kernel limits it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Minimum and maximum of the kernel for the idle time of keepalive, in whole seconds.
const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
/// Maximum idle time of keepalive.
pub const MAX_KEEPALIVE: Duration = Duration::from_secs(32_767);

/// Interval of keepalive probes, and their number before the connection is aborted.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// Non-blocking listening socket, TCP or Unix.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Declared before the socket, so that it is dropped first: see [`SocketPathGuard`].
    pub(super) path_guard: Option<Arc<SocketPathGuard>>,
    pub(super) socket: OwnedFd,
    pub(super) local: Address,
}

/// Error of binding a listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The host could not be resolved.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The address cannot be bound: in use, not local, or not permitted.
    #[error("listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// A passed socket is unusable.
    #[error("use the inherited socket of descriptor {descriptor}")]
    Adopt {
        /// Its file descriptor.
        descriptor: i32,
        /// The cause.
        source: io::Error,
    },
}

impl ListenError {
    /// Replaces the address by the requested one: a TCP listener does not know whether its
    /// connections use TLS.
    pub(crate) fn of(self, asked: &Address) -> Self {
        match self {
            Self::Bind { source, .. } => Self::Bind {
                address: asked.clone(),
                source,
            },
            other => other,
        }
    }
}

impl Listener {
    /// Binds `endpoint` for TCP with `count` sockets, one per accepting thread, among which the
    /// kernel distributes the connections (`SO_REUSEPORT`). [`Host::Any`] and `[::]` listen on IPv4
    /// and IPv6 regardless of `bindv6only`; [`Host::Any`] listens on IPv4 alone where IPv6 is
    /// missing. Of a name with several addresses, the first one that can be bound is used.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; of several addresses, that of the first.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing stays bound.
    pub(crate) async fn bind(
        endpoint: &Endpoint,
        count: NonZeroUsize,
    ) -> Result<Vec<Self>, ListenError> {
        let bound = bind_first(endpoint, |address| listen_on(endpoint, address, count)).await?;
        bound.map_err(|source| ListenError::Bind {
            address: Address::Tcp(endpoint.clone()),
            source,
        })
    }

    /// Binds a Unix socket at `path`, or with an abstract name, for `count` accepting threads, with the permissions `mode`
    /// (`0o600`: only the owner may connect) regardless of the umask. The path never has more
    /// permissions. An abstract name has no permissions: every program in the network namespace may
    /// connect.
    ///
    /// A stale socket is replaced; any other file is kept. Dropping the last listener removes the
    /// path, if it still belongs to this socket.
    ///
    /// # Errors
    ///
    /// [`ListenError::Bind`].
    pub(crate) fn bind_unix(
        path: &UnixPath,
        mode: u32,
        count: NonZeroUsize,
    ) -> Result<Vec<Self>, ListenError> {
        let local = Address::Unix(path.clone());
        let bind = || {
            let socket = stream_socket()?;
            let path_guard = if path.abstract_name().is_some() {
                bind(&socket, &socket_addr(path)?)?;
                None
            } else {
                let mode = Mode::from_raw_mode(mode);
                Some(Arc::new(SocketPathGuard::bind(&socket, path, mode)?))
            };
            listen(&socket, BACKLOG)?;
            share(path_guard, socket, &local, count)
        };
        bind().map_err(|source| ListenError::Bind {
            address: local.clone(),
            source,
        })
    }

    /// Takes over a socket that listens already, TCP or Unix, for `count` accepting threads. It
    /// becomes close-on-exec. Dropping the listeners keeps its path.
    ///
    /// # Errors
    ///
    /// [`ListenError::Adopt`] if the socket does not listen, or is of another kind.
    pub(crate) fn adopt(socket: OwnedFd, count: NonZeroUsize) -> Result<Vec<Self>, ListenError> {
        let descriptor = socket.as_raw_fd();
        let adopt = || {
            let local = local_address(&socket)?;
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            fcntl_setfl(&socket, fcntl_getfl(&socket)? | OFlags::NONBLOCK)?;
            if matches!(local, Address::Tcp(_)) {
                prepare_accepted(&socket)?;
            }
            share(None, socket, &local, count)
        };
        adopt().map_err(|source| ListenError::Adopt { descriptor, source })
    }

    /// Makes the kernel probe the peers of accepted connections that are silent for `idle`, and
    /// abort the connections of those that do not respond (RFC 9293 section 3.8.4); zero turns this
    /// off. Has no effect on Unix sockets.
    ///
    /// # Errors
    ///
    /// The errors of setsockopt(2).
    pub(crate) fn set_keepalive(&self, idle: Duration) -> io::Result<()> {
        if !matches!(self.local, Address::Tcp(_)) {
            return Ok(());
        }
        // Accepted sockets inherit the options.
        sockopt::set_socket_keepalive(&self.socket, !idle.is_zero())?;
        if !idle.is_zero() {
            let idle = idle.clamp(MIN_KEEPALIVE, MAX_KEEPALIVE);
            sockopt::set_tcp_keepidle(&self.socket, idle)?;
            sockopt::set_tcp_keepintvl(&self.socket, idle.min(KEEPALIVE_INTERVAL))?;
            sockopt::set_tcp_keepcnt(&self.socket, KEEPALIVE_PROBES)?;
        }
        Ok(())
    }

    /// Returns the bound address, with the assigned port where port 0 was requested.
    pub(crate) fn local_addr(&self) -> &Address {
        &self.local
    }
}

/// Duplicates a socket for `count` threads, each of which is notified of every connection.
fn share(
    path_guard: Option<Arc<SocketPathGuard>>,
    socket: OwnedFd,
    local: &Address,
    count: NonZeroUsize,
) -> io::Result<Vec<Listener>> {
    let listener = |socket| Listener {
        path_guard: path_guard.clone(),
        socket,
        local: local.clone(),
    };
    let mut listeners = Vec::new();
    for _ in 1..count.get() {
        listeners.push(listener(socket.try_clone()?));
    }
    listeners.push(listener(socket));
    Ok(listeners)
}

/// Returns the address of a passed socket.
fn local_address(socket: &OwnedFd) -> io::Result<Address> {
    let wrong = |text| io::Error::new(io::ErrorKind::InvalidInput, text);
    if sockopt::socket_type(socket)? != SocketType::STREAM || !sockopt::socket_acceptconn(socket)? {
        return Err(wrong("it does not listen for connections"));
    }
    let local = getsockname(socket)?;
    if let Ok(address) = SocketAddr::try_from(local.clone()) {
        return Ok(Address::Tcp(address.into()));
    }
    let path = unix::name(local).ok_or_else(|| wrong("neither of TCP nor a Unix socket"))?;
    UnixPath::new(path)
        .map(Address::Unix)
        .map_err(io::Error::other)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    [
        Errno::AFNOSUPPORT,
        Errno::ADDRNOTAVAIL,
        Errno::PROTONOSUPPORT,
    ]
    .into_iter()
    .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Runs `bind` with the first address of `endpoint` that succeeds.
///
/// # Errors
///
/// The outer error if the name cannot be resolved; the inner one is that of `bind` for the first
/// address.
pub(super) async fn bind_first<T>(
    endpoint: &Endpoint,
    bind: impl Fn(SocketAddr) -> io::Result<T>,
) -> Result<io::Result<T>, ResolveError> {
    let candidates = match &endpoint.host {
        Host::Any => {
            let both: [IpAddr; 2] = [Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
            both.map(|ip| SocketAddr::new(ip, endpoint.port)).into()
        }
        _ => resolve(endpoint).await?,
    };
    let mut failed = None;
    for candidate in candidates {
        let bound = if candidate.ip().is_multicast() {
            Err(multicast_refused())
        } else {
            bind(candidate)
        };
        match bound {
            Ok(bound) => return Ok(Ok(bound)),
            // An address in use must not make `:PORT` silently listen on IPv4 alone.
            Err(error) if endpoint.host == Host::Any && !lacks_ipv6(&error) => {
                return Ok(Err(error));
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Ok(Err(
        failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    ))
}

/// A server cannot reply from the address of a group, and would have to join it.
fn multicast_refused() -> io::Error {
    let text = "multicast addresses are not supported";
    io::Error::new(io::ErrorKind::Unsupported, text)
}

/// Binds `count` sockets, created by `open`, to one address with `SO_REUSEPORT`. Returns the bound
/// address.
pub(super) fn bind_together(
    address: SocketAddr,
    count: NonZeroUsize,
    open: impl Fn(SocketAddr) -> io::Result<OwnedFd>,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let first = open(address)?;
    bind(&first, &address)?;
    let local = SocketAddr::try_from(getsockname(&first)?)?;
    let mut sockets = vec![first];
    if count.get() > 1 {
        // Set after the first bind: otherwise a port in use by another instance of this program
        // would be shared instead of refused.
        sockopt::set_socket_reuseport(&sockets[0], true)?;
        for _ in 1..count.get() {
            let sibling = open(local)?;
            sockopt::set_socket_reuseport(&sibling, true)?;
            bind(&sibling, &local)?;
            sockets.push(sibling);
        }
    }
    Ok((sockets, local))
}

fn listen_on(
    asked: &Endpoint,
    address: SocketAddr,
    count: NonZeroUsize,
) -> io::Result<Vec<Listener>> {
    let (sockets, local) = bind_together(address, count, open_socket)?;
    for socket in &sockets {
        listen(socket, BACKLOG)?;
    }
    let local = Address::Tcp(asked.bound(local));
    let listener = |socket| Listener {
        path_guard: None,
        socket,
        local: local.clone(),
    };
    Ok(sockets.into_iter().map(listener).collect())
}

fn open_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket_for(address, SocketType::STREAM)?;
    // A restart must not wait for connections in TIME-WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    prepare_accepted(&socket)?;
    Ok(socket)
}

/// Creates a socket for an address; an IPv6 socket also serves IPv4.
pub(super) fn socket_for(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    Ok(socket)
}

/// Sets the options that TCP connections inherit: `TCP_NODELAY`, and urgent data in line (RFC 6093
/// section 5).
fn prepare_accepted(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    Ok(sockopt::set_socket_oobinline(socket, true)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream as Client, UdpSocket};
    use std::os::unix::net::{UnixListener, UnixStream};

    fn listen_on(text: &str) -> Result<Listener, ListenError> {
        shards(text, 1).map(|mut listeners| listeners.remove(0))
    }

    fn shards(text: &str, count: usize) -> Result<Vec<Listener>, ListenError> {
        let count = NonZeroUsize::new(count).unwrap();
        smol::block_on(Listener::bind(&text.parse().unwrap(), count))
    }

    fn address(listener: &Listener) -> SocketAddr {
        listener.local_addr().socket_addr().unwrap()
    }

    #[test]
    fn wildcard_address_listens_on_both_families() {
        let port = listen_on(":0").map(|listener| {
            let port = address(&listener).port();
            Client::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            if address(&listener).is_ipv6() {
                Client::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            }
            port
        });
        assert_ne!(port.unwrap(), 0);
    }

    #[test]
    fn address_in_use_is_named_in_the_error() {
        let first = listen_on("127.0.0.1:0").unwrap();
        let address = first.local_addr().to_string();
        let error = listen_on(&address).unwrap_err();
        assert_eq!(error.to_string(), format!("listen on {address}"));
        let ListenError::Bind { source, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn port_in_use_does_not_fall_back_to_one_family() {
        let first = listen_on(":0").unwrap();
        assert!(listen_on(&format!(":{}", address(&first).port())).is_err());
    }

    #[test]
    fn reuseport_listeners_share_a_port_exclusively() {
        let listeners = shards("127.0.0.1:0", 3).unwrap();
        let address = address(&listeners[0]);
        let same = |listener: &Listener| listener.local_addr().socket_addr() == Some(address);
        assert!(listeners.iter().all(same));
        for count in [1, 3] {
            let error = shards(&address.to_string(), count).unwrap_err();
            let ListenError::Bind { source, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(source.kind(), io::ErrorKind::AddrInUse, "{count} sockets");
        }
        let clients: Vec<_> = (0..100)
            .map(|_| Client::connect(address).unwrap())
            .collect();
        let accept = |listener: &Listener| rustix::net::accept(&listener.socket).ok();
        let waiting = |listener: &Listener| std::iter::from_fn(|| accept(listener)).count();
        let shares: Vec<_> = listeners.iter().map(waiting).collect();
        assert_eq!(shares.iter().sum::<usize>(), clients.len());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    }

    fn adopt(socket: impl Into<OwnedFd>) -> Result<Listener, ListenError> {
        let mut all = Listener::adopt(socket.into(), NonZeroUsize::MIN)?;
        Ok(all.remove(0))
    }

    #[test]
    fn inherited_listener_is_used_and_closed_on_exec() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let bound = tcp.local_addr().unwrap();
        fcntl_setfd(&tcp, FdFlags::empty()).unwrap();
        let adopted = adopt(tcp).unwrap();
        assert_eq!(address(&adopted), bound);
        assert_eq!(
            rustix::io::fcntl_getfd(&adopted.socket).unwrap(),
            FdFlags::CLOEXEC
        );
        let accept = || rustix::net::accept(&adopted.socket);
        assert_eq!(accept().unwrap_err(), Errno::AGAIN, "it does not block");
        let _client = Client::connect(bound).unwrap();
        let accepted = accept().unwrap();
        assert!(sockopt::tcp_nodelay(accepted).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let adopted = adopt(UnixListener::bind(&path).unwrap()).unwrap();
        assert_eq!(
            adopted.local_addr().to_string(),
            format!("unix:{}", path.display())
        );
        drop(adopted);
        assert!(path.exists(), "its path stays: it is not ours");
    }

    #[test]
    fn inherited_socket_must_listen() {
        let (stream, _) = UnixStream::pair().unwrap();
        let file = tempfile::tempfile().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for socket in [OwnedFd::from(stream), file.into(), udp.into()] {
            let error = adopt(socket).unwrap_err();
            let text = error.to_string();
            assert!(
                text.starts_with("use the inherited socket of descriptor "),
                "{text}"
            );
        }
    }
}
