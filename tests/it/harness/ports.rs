//! Ports that refuse connections, and ports for programs that cannot bind to port 0.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

use super::until;

/// TCP port that refuses connections. It stays bound until this is dropped, so that no other
/// test gets it; a socket that is bound but does not listen refuses connections.
pub struct RefusingPort {
    address: SocketAddr,
    socket: OwnedFd,
}

impl RefusingPort {
    pub fn new() -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("bind to loopback");
        let address = getsockname(&socket).expect("get the address");
        Self {
            address: address.try_into().expect("an IP address"),
            socket,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts connections from now on.
    pub fn listen(self) -> TcpListener {
        listen(&self.socket, 16).expect("listen");
        self.socket.into()
    }
}

/// Returns a UDP socket whose port refuses datagrams: it is connected to itself, and the kernel
/// reports the port as unreachable to all other senders.
pub fn refusing_udp() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind to loopback");
    socket
        .connect(socket.local_addr().unwrap())
        .expect("connect to itself");
    socket
}

/// Child process, killed when dropped.
pub struct ChildGuard(Child);

impl ChildGuard {
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let child = command.spawn();
        Self(child.unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }
}

impl AsMut<Child> for ChildGuard {
    fn as_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // Both fail if the program has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// First port that [`start_on_free_port`] tries, below the range of `ip_local_port_range`: the
/// kernel gives these ports neither to a client nor to a socket bound to port 0, so that other
/// tests cannot take one before the program has bound it.
const FIRST_PORT: u16 = 21_000;

static NEXT_PORT: AtomicU16 = AtomicU16::new(FIRST_PORT);

/// Starts a program that cannot bind to port 0, and waits until it listens. Another port is tried
/// if the port is taken or the program exits, which it does if the port was taken in the meantime.
#[track_caller]
pub fn start_on_free_port<P: AsMut<Child>>(start: impl Fn(u16) -> P) -> (P, u16) {
    for _ in 0..200 {
        let port = NEXT_PORT.fetch_add(1, Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            continue;
        }
        let mut program = start(port);
        let mut has_exited = false;
        until(|| {
            let child = program.as_mut();
            let listens = TcpStream::connect(("127.0.0.1", port)).is_ok();
            has_exited = child.try_wait().expect("look at the program").is_some();
            has_exited || listens
        });
        if !has_exited {
            return (program, port);
        }
    }
    panic!("the program listens on no port");
}
