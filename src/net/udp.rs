//! UDP sockets (RFC 768), bound to a worker thread.

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::task::{Context, Poll, ready};
use std::vec;

use nix::cmsg_space;
use nix::libc::{c_int, in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::sockopt::{
    Ipv4PacketInfo, Ipv4RecvTtl, Ipv6RecvHopLimit, Ipv6RecvPacketInfo,
};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, RecvMsg, SockaddrStorage, recvmsg, sendmsg,
    setsockopt,
};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{SocketType, sockopt};

use crate::net::address::{Address, Endpoint};
use crate::net::listener::{ListenError, bind_first, bind_together, socket_for};
use crate::net::local::{LocalAddr, bind_error};
use crate::runtime::{Direction, Socket};

/// The longest datagram, that of IPv6 without jumbograms: a buffer of this size never truncates
/// one.
pub const MAX_DATAGRAM_LEN: usize = 65_527;

/// The size of the receive buffer, which the kernel limits to `net.core.rmem_max`. Further
/// datagrams are dropped.
const RECEIVE_BUFFER_LEN: usize = 4 << 20;

/// Maximum hop limit of a reply. A spoofed datagram has any hop limit, and would otherwise start a
/// reply loop of up to 254 rounds between two servers.
const MAX_REPLY_HOPS: u8 = 32;

/// Bound, non-blocking UDP socket that does not belong to a thread yet.
#[derive(Debug)]
pub(crate) struct BoundUdp {
    socket: UdpSocket,
    local: SocketAddr,
}

impl BoundUdp {
    /// Binds `count` sockets to `endpoint`, one per thread, like
    /// [`Listener::bind`](crate::net::listener::Listener). All datagrams of a peer arrive at the
    /// same socket, in order.
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
        let open = |address| {
            let socket = socket_for(address, SocketType::DGRAM)?;
            // Before datagrams can arrive: earlier ones would lack the control messages.
            prepare(&socket, address)?;
            Ok(socket)
        };
        let bound = bind_first(endpoint, |address| bind_together(address, count, open)).await?;
        let failed = |source| ListenError::Bind {
            address: Address::Udp(endpoint.clone()),
            source,
        };
        let (sockets, local) = bound.map_err(failed)?;
        let bound = |socket: OwnedFd| Self {
            socket: socket.into(),
            local,
        };
        Ok(sockets.into_iter().map(bound).collect())
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl BoundUdp {
    /// Takes over a bound socket. It becomes close-on-exec.
    ///
    /// # Errors
    ///
    /// [`ListenError::Adopt`] if it is not a UDP socket.
    pub(crate) fn adopt(socket: OwnedFd) -> Result<Self, ListenError> {
        let descriptor = socket.as_raw_fd();
        let adopt = || {
            fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
            Self::try_from(UdpSocket::from(socket))
        };
        adopt().map_err(|source| ListenError::Adopt { descriptor, source })
    }
}

/// Whether a socket receives datagrams.
pub(crate) fn is_datagram_socket(socket: &OwnedFd) -> bool {
    sockopt::socket_type(socket) == Ok(SocketType::DGRAM)
}

impl TryFrom<UdpSocket> for BoundUdp {
    type Error = io::Error;

    fn try_from(socket: UdpSocket) -> io::Result<Self> {
        let local = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        prepare(&socket, local)?;
        Ok(Self { socket, local })
    }
}

/// Whether an address is local: whether a socket can be bound to it.
pub(crate) fn is_local_address(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_ok()
}

/// UDP socket of a server.
#[derive(Debug)]
pub(crate) struct UdpServerSocket {
    socket: Socket<UdpSocket>,
    local: SocketAddr,
    control: Vec<u8>,
}

/// UDP socket that is connected to one peer.
#[derive(Debug)]
pub(crate) struct UdpPeerSocket {
    socket: Socket<UdpSocket>,
    /// Buffer for one control message.
    control: Box<[u8]>,
    /// Last value of the kernel's counter of dropped datagrams, which wraps around.
    dropped: u32,
}

/// A datagram that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReceivedDatagram {
    pub(crate) len: usize,
    /// Number of datagrams that were dropped before it, because the receive buffer was full.
    pub(crate) dropped_before: u32,
}

impl UdpPeerSocket {
    /// Creates a socket that is connected to `peer`, so that ICMP errors are reported.
    ///
    /// # Errors
    ///
    /// The errors of [`connect`]; also outside a thread of the runtime.
    pub(crate) fn connect(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<Self> {
        let socket = connect(peer, local)?;
        sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_LEN)?;
        #[cfg(target_os = "linux")]
        setsockopt(&socket, nix::sys::socket::sockopt::RxqOvfl, &1)?;
        Ok(Self {
            socket: Socket::new(socket)?,
            control: cmsg_space!(u32).into(),
            dropped: 0,
        })
    }

    /// Sends a datagram.
    ///
    /// # Errors
    ///
    /// The errors of `send(2)`, also of earlier datagrams.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        datagram: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket
            .poll(Direction::Write, cx, |socket| socket.send(datagram))
    }

    /// Receives a datagram into `buffer`, which should have [`MAX_DATAGRAM_LEN`] bytes.
    ///
    /// # Errors
    ///
    /// The errors of `recvmsg(2)`, mostly of datagrams that were sent earlier.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<ReceivedDatagram>> {
        let control = &mut self.control;
        let received = self.socket.poll(Direction::Read, cx, |socket| {
            let mut pieces = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let fd = socket.as_raw_fd();
            let message = recvmsg::<()>(fd, &mut pieces, Some(&mut **control), flags)?;
            Ok((message.bytes, drop_count(&message)))
        });
        let (len, dropped) = ready!(received)?;
        // Without a control message none was dropped so far.
        let dropped = dropped.unwrap_or(self.dropped);
        let dropped_before = dropped.wrapping_sub(self.dropped);
        self.dropped = dropped;
        Poll::Ready(Ok(ReceivedDatagram {
            len,
            dropped_before,
        }))
    }
}

/// Returns the number of datagrams dropped before this one since the socket was created, if it is not
/// zero (`SO_RXQ_OVFL`, socket(7)).
fn drop_count<S>(message: &RecvMsg<'_, '_, S>) -> Option<u32> {
    let mut messages = message.cmsgs().into_iter().flatten();
    messages.find_map(|message| match message {
        #[cfg(target_os = "linux")]
        ControlMessageOwned::RxqOvfl(count) => Some(count),
        _ => None,
    })
}

/// Addresses of a server. The next one is tried if one refuses, which UDP reports only after a
/// datagram was sent.
#[derive(Debug)]
pub(crate) struct AddressIter {
    peers: vec::IntoIter<SocketAddr>,
    local: LocalAddr,
}

impl AddressIter {
    /// Creates an iterator over the addresses that can be reached from the local one.
    ///
    /// # Errors
    ///
    /// No address can be reached.
    pub(crate) fn new(found: Vec<SocketAddr>, local: LocalAddr) -> io::Result<Self> {
        let peers = local.reachable(found)?.into_iter();
        Ok(Self { peers, local })
    }

    /// Opens a socket to the next address that has a route. Returns `None` if there is no other
    /// address.
    ///
    /// # Errors
    ///
    /// If no address has a route, the error of the first.
    pub(crate) fn next<T>(
        &mut self,
        open: impl Fn(SocketAddr, Option<IpAddr>) -> io::Result<T>,
    ) -> Option<io::Result<T>> {
        let mut failed = None;
        for peer in &mut self.peers {
            match open(peer, self.local.for_peer(peer)) {
                Ok(opened) => return Some(Ok(opened)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map(Err)
    }
}

/// Creates a non-blocking socket that is connected to `peer`, from a local address if there is one.
///
/// # Errors
///
/// The errors of `socket(2)` and `connect(2)`; [`BindError`](crate::net::local::BindError) as the
/// inner error.
pub(crate) fn connect(peer: SocketAddr, local: Option<IpAddr>) -> io::Result<UdpSocket> {
    let any: IpAddr = match peer {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = match local {
        Some(local) => UdpSocket::bind((local, 0)).map_err(|error| bind_error(local, error)),
        None => UdpSocket::bind((any, 0)),
    }?;
    socket.connect(peer)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Source and destination of a received datagram, which its reply requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PacketInfo {
    /// The address of the sender.
    pub(crate) peer: SocketAddr,
    /// The local destination address, if the socket has several.
    local_ip: Option<IpAddr>,
    /// The remaining hop limit of the datagram (TTL of IPv4).
    hops: Option<u8>,
}

impl UdpServerSocket {
    /// Binds a socket to this thread.
    ///
    /// # Errors
    ///
    /// Fails on a thread that the runtime does not drive.
    pub(crate) fn new(bound: BoundUdp) -> io::Result<Self> {
        let BoundUdp { socket, local } = bound;
        let control = cmsg_space!(in_pktinfo, in6_pktinfo, c_int, c_int);
        Ok(Self {
            socket: Socket::new(socket)?,
            local,
            control,
        })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Returns the address to which a datagram was sent.
    pub(crate) fn destination(&self, origin: &PacketInfo) -> SocketAddr {
        let ip = origin.local_ip.unwrap_or(self.local.ip());
        SocketAddr::new(ip, self.local.port())
    }

    /// Waits until a datagram or an error may be available.
    ///
    /// # Errors
    ///
    /// The errors of the reactor.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_ready(Direction::Read, cx)).await
    }

    /// Receives a datagram into `buffer`, which should have [`MAX_DATAGRAM_LEN`] bytes. Returns its
    /// length.
    ///
    /// # Errors
    ///
    /// The errors of `recvmsg(2)`, mostly of datagrams that were sent earlier.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, PacketInfo)>> {
        let control = self.control.as_mut_slice();
        self.socket.poll(Direction::Read, cx, |socket| {
            let mut pieces = [IoSliceMut::new(buffer)];
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg(socket.as_raw_fd(), &mut pieces, Some(&mut *control), flags)?;
            let origin = PacketInfo::of(&message).ok_or(io::ErrorKind::AddrNotAvailable)?;
            Ok((message.bytes, origin))
        })
    }

    /// Sends a reply in one datagram from the destination address of the request. Returns its
    /// length. Its hop limit is less than the remaining limit of the request and at most
    /// [`MAX_REPLY_HOPS`], so that replies between two servers die out.
    ///
    /// # Errors
    ///
    /// The errors of `sendmsg(2)`.
    pub(crate) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        origin: &PacketInfo,
    ) -> Poll<io::Result<usize>> {
        let PacketInfo {
            peer,
            local_ip,
            hops,
        } = *origin;
        let hops = hops.map(|hops| c_int::from(hops.saturating_sub(1).min(MAX_REPLY_HOPS)));
        let hops = hops.as_ref().map(|hops| match peer.ip().to_canonical() {
            IpAddr::V4(_) => ControlMessage::Ipv4Ttl(hops),
            IpAddr::V6(_) => ControlMessage::Ipv6HopLimit(hops),
        });
        let v4 = from_v4(local_ip);
        let v6 = from_v6(local_ip);
        let v4 = v4.as_ref().map(ControlMessage::Ipv4PacketInfo);
        let v6 = v6.as_ref().map(ControlMessage::Ipv6PacketInfo);
        let control: Vec<_> = [hops, v4, v6].into_iter().flatten().collect();
        let peer = SockaddrStorage::from(peer);
        let flags = MsgFlags::MSG_DONTWAIT;
        self.socket.poll(Direction::Write, cx, |socket| {
            Ok(sendmsg(
                socket.as_raw_fd(),
                pieces,
                &control,
                flags,
                Some(&peer),
            )?)
        })
    }
}

/// Sets the receive buffer of a socket, and requests the control messages of each datagram.
fn prepare(socket: &impl AsFd, local: SocketAddr) -> io::Result<()> {
    sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_LEN)?;
    setsockopt(socket, Ipv4RecvTtl, &true)?;
    if local.is_ipv6() {
        setsockopt(socket, Ipv6RecvHopLimit, &true)?;
    }
    if local.ip().is_unspecified() {
        // A dual-stack socket also receives IPv4, whose own control message reports a local address
        // even for a broadcast.
        setsockopt(socket, Ipv4PacketInfo, &true)?;
        if local.is_ipv6() {
            setsockopt(socket, Ipv6RecvPacketInfo, &true)?;
        }
    }
    Ok(())
}

fn from_v4(local_ip: Option<IpAddr>) -> Option<in_pktinfo> {
    let Some(IpAddr::V4(ip)) = local_ip else {
        return None;
    };
    let address = |ip: Ipv4Addr| in_addr {
        s_addr: u32::from_ne_bytes(ip.octets()),
    };
    let ipi_spec_dst = address(ip);
    let ipi_addr = address(Ipv4Addr::UNSPECIFIED);
    Some(in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst,
        ipi_addr,
    })
}

fn from_v6(local_ip: Option<IpAddr>) -> Option<in6_pktinfo> {
    let Some(IpAddr::V6(ip)) = local_ip else {
        return None;
    };
    Some(in6_pktinfo {
        ipi6_addr: in6_addr {
            s6_addr: ip.octets(),
        },
        ipi6_ifindex: 0,
    })
}

impl PacketInfo {
    fn of(message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Self> {
        let peer = message.address.as_ref()?;
        let v4 = || Some(SocketAddrV4::from(*peer.as_sockaddr_in()?).into());
        let v6 = || Some(SocketAddrV6::from(*peer.as_sockaddr_in6()?).into());
        let mut origin = Self {
            peer: v4().or_else(v6)?,
            local_ip: None,
            hops: None,
        };
        for message in message.cmsgs().into_iter().flatten() {
            origin.record(message);
        }
        Some(origin)
    }

    fn record(&mut self, message: ControlMessageOwned) {
        match message {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                self.local_ip = Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                // IPv4 has its own control message. Replies cannot be sent from a multicast
                // address.
                if ip.to_ipv4_mapped().is_none() && !ip.is_multicast() {
                    self.local_ip = Some(ip.into());
                }
            }
            ControlMessageOwned::Ipv4Ttl(hops) | ControlMessageOwned::Ipv6HopLimit(hops) => {
                self.hops = u8::try_from(hops).ok();
            }
            _ => {}
        }
    }

    /// Whether a reply could not travel a single hop.
    pub(crate) fn ttl_exhausted(&self) -> bool {
        self.hops.is_some_and(|hops| hops <= 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Driver;

    fn bind(text: &str, count: usize) -> Result<Vec<BoundUdp>, ListenError> {
        let count = NonZeroUsize::new(count).unwrap();
        smol::block_on(BoundUdp::bind(&text.parse().unwrap(), count))
    }

    #[test]
    fn reuseport_sockets_share_a_port_exclusively() {
        let sockets = bind("127.0.0.1:0", 3).unwrap();
        let address = sockets[0].local_addr();
        for others in [1, 3] {
            let error = bind(&address.to_string(), others).unwrap_err();
            assert_eq!(error.to_string(), format!("listen on udp://{address}"));
            let ListenError::Bind { source, .. } = error else {
                panic!("{error:?}")
            };
            assert_eq!(source.kind(), io::ErrorKind::AddrInUse, "{others} sockets");
        }
        let clients: Vec<_> = (0..100)
            .map(|_| UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        for client in &clients {
            client.send_to(b"x", address).unwrap();
        }
        let waiting =
            |bound: &BoundUdp| std::iter::from_fn(|| bound.socket.recv(&mut [0]).ok()).count();
        let shares: Vec<_> = sockets.iter().map(waiting).collect();
        assert_eq!(shares.iter().sum::<usize>(), clients.len());
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    }

    /// Checks the local address reported for a datagram to `destination` on a socket at `bound`.
    #[track_caller]
    fn reports_local_ip(bound: &str, destination: &str, known: Option<&str>) {
        let receive = async {
            let mut datagrams = UdpServerSocket::new(bind(bound, 1).unwrap().remove(0)).unwrap();
            let destination: IpAddr = destination.parse().unwrap();
            let any = if destination.is_ipv4() {
                "127.0.0.1:0"
            } else {
                "[::1]:0"
            };
            let client = UdpSocket::bind(any).unwrap();
            client.set_broadcast(true).unwrap();
            client
                .send_to(b"hello", (destination, datagrams.local_addr().port()))
                .unwrap();
            let mut buffer = [0; 100];
            let receive = poll_fn(|cx| datagrams.poll_receive(cx, &mut buffer));
            let (length, origin) = receive.await.unwrap();
            assert_eq!(&buffer[..length], b"hello");
            let [peer, sender] = [origin.peer, client.local_addr().unwrap()]
                .map(|address| (address.ip().to_canonical(), address.port()));
            assert_eq!(peer, sender);
            assert!(origin.hops.is_some_and(|hops| hops > 1), "{origin:?}");
            assert_eq!(
                origin.local_ip,
                known.map(|ip| ip.parse().unwrap()),
                "{destination} at {bound}"
            );
        };
        Driver::new().unwrap().run(|| receive).unwrap();
    }

    #[test]
    fn local_ip_of_datagram_is_reported_on_wildcard_sockets() {
        reports_local_ip("0.0.0.0:0", "127.0.0.2", Some("127.0.0.2"));
        reports_local_ip("[::]:0", "127.0.0.2", Some("127.0.0.2"));
        reports_local_ip("[::]:0", "::1", Some("::1"));
        reports_local_ip("127.0.0.1:0", "127.0.0.1", None);
        reports_local_ip("[::1]:0", "::1", None);
        // A broadcast comes to an address of ours, too.
        reports_local_ip("0.0.0.0:0", "127.255.255.255", Some("127.0.0.1"));
    }

    /// Returns the hop limit of the reply to a datagram with this hop limit.
    fn reply_hops(at: &str, hops: u8) -> Option<u8> {
        let exchange = async {
            let [mut server, mut client] =
                [(); 2].map(|()| UdpServerSocket::new(bind(at, 1).unwrap().remove(0)).unwrap());
            let request = PacketInfo {
                peer: server.local_addr(),
                local_ip: None,
                hops: None,
            };
            let socket = client.socket.get_ref();
            match request.peer {
                SocketAddr::V4(_) => sockopt::set_ip_ttl(socket, hops.into()),
                SocketAddr::V6(_) => sockopt::set_ipv6_unicast_hops(socket, Some(hops)),
            }
            .unwrap();
            let mut buffer = [0; 1];
            let pieces = [IoSlice::new(b"x")];
            poll_fn(|cx| client.poll_send(cx, &pieces, &request))
                .await
                .unwrap();
            let receive = poll_fn(|cx| server.poll_receive(cx, &mut buffer));
            let (_, origin) = receive.await.unwrap();
            assert_eq!(origin.hops, Some(hops));
            poll_fn(|cx| server.poll_send(cx, &pieces, &origin))
                .await
                .unwrap();
            let receive = poll_fn(|cx| client.poll_receive(cx, &mut buffer));
            receive.await.unwrap().1.hops
        };
        Driver::new().unwrap().run(|| exchange).unwrap()
    }

    #[test]
    fn hop_limit_of_replies_decreases_and_is_bounded() {
        for at in ["127.0.0.1:0", "[::1]:0"] {
            for (received, sent) in [(2, 1), (32, 31), (33, 32), (34, 32), (64, 32), (255, 32)] {
                assert_eq!(reply_hops(at, received), Some(sent), "{received} at {at}");
            }
        }
    }

    #[test]
    fn local_addresses_are_recognised() {
        for (address, ours) in [
            ("127.0.0.9:7", true),
            ("[::1]:7", true),
            ("192.0.2.1:7", false),
            ("[2001:db8::1]:7", false),
        ] {
            assert_eq!(
                is_local_address(address.parse().unwrap()),
                ours,
                "{address}"
            );
        }
    }
}
