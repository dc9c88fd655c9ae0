//! Delivery state of a TCP connection (`TCP_INFO`, tcp(7)).

use std::time::Duration;

use nix::libc::{self, IPPROTO_TCP, TCP_INFO};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::GetStruct;
use rustix::fd::OwnedFd;

use crate::net::stream::Delivery;

/// `struct tcp_info` of Linux 4.6 in words of 32 bits. The one of the libc crate ends before
/// `tcpi_notsent_bytes`.
type Words = [u32; 37];

/// Index of `tcpi_unacked`, in segments.
const UNACKED: usize = 6;
/// Index of `tcpi_rtt`, in microseconds.
const RTT: usize = 17;
/// Index of `tcpi_notsent_bytes`.
const NOTSENT_BYTES: usize = 36;

#[derive(Debug, Clone, Copy)]
struct TcpInfo;

nix::getsockopt_impl!(TcpInfo, IPPROTO_TCP, TCP_INFO, Words, GetStruct<Words>);

/// Returns the delivery state, or the default for a socket of another kind.
pub(super) fn delivery(socket: &OwnedFd) -> Delivery {
    let Ok(info) = getsockopt(socket, TcpInfo) else {
        return Delivery::default();
    };
    Delivery {
        outstanding: info[UNACKED] > 0 || info[NOTSENT_BYTES] > 0,
        round_trip: Duration::from_micros(info[RTT].into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;

    #[test]
    fn unread_bytes_are_outstanding_until_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut receiver, _) = listener.accept().unwrap();
        sender.set_nonblocking(true).unwrap();
        let mut sent = 0;
        let full = loop {
            match sender.write(&[0; 1 << 16]) {
                Ok(count) => sent += count,
                Err(error) => break error.kind(),
            }
        };
        assert_eq!(full, ErrorKind::WouldBlock);
        let sender = OwnedFd::from(sender);
        assert!(delivery(&sender).outstanding);
        receiver.read_exact(&mut vec![0; sent]).unwrap();
        while delivery(&sender).outstanding {
            thread::yield_now();
        }
        let round_trip = delivery(&sender).round_trip;
        assert!((Duration::from_micros(1)..Duration::from_secs(10)).contains(&round_trip));
    }

    #[test]
    fn unix_socket_has_nothing_outstanding() {
        let (mut sender, _receiver) = UnixStream::pair().unwrap();
        sender.write_all(b"unread").unwrap();
        assert_eq!(delivery(&sender.into()), Delivery::default());
    }
}
