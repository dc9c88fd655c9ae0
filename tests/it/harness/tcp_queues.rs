//! Bytes that the kernel holds for TCP connections, from `/proc/net/tcp`.

use std::fs;

/// Send and receive queue of one end of an IPv4 connection.
pub struct TcpQueues {
    pub local_port: u16,
    pub remote_port: u16,
    pub to_send: usize,
    pub to_read: usize,
}

impl TcpQueues {
    /// Returns the queues of both ends of all connections of this machine.
    pub fn all() -> impl Iterator<Item = Self> {
        let table = fs::read_to_string("/proc/net/tcp").expect("list the connections");
        let lines: Vec<_> = table.lines().skip(1).map(Self::parse).collect();
        lines.into_iter()
    }

    /// Parses `0: 0100007F:1F90 0100007F:9103 01 00000000:00000000 …`.
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split_whitespace().collect();
        let number = |text: &str| usize::from_str_radix(text, 16).expect("a hexadecimal number");
        let port = |at: usize| fields[at].rsplit(':').next().map(number).unwrap() as u16;
        let (to_send, to_read) = fields[4].split_once(':').expect("two queues");
        Self {
            local_port: port(1),
            remote_port: port(2),
            to_send: number(to_send),
            to_read: number(to_read),
        }
    }
}

/// Returns the bytes that were sent to a port and are not read yet. The queues change while they
/// are added up: the sum can be too large, but not too small.
pub fn unread_to(port: u16) -> usize {
    let to_send: usize = TcpQueues::all()
        .filter(|queues| queues.remote_port == port)
        .map(|queues| queues.to_send)
        .sum();
    let to_read: usize = TcpQueues::all()
        .filter(|queues| queues.local_port == port)
        .map(|queues| queues.to_read)
        .sum();
    to_send + to_read
}

/// Returns the bytes that were sent from a port and are not read yet; see [`unread_to`].
pub fn unread_from(port: u16) -> usize {
    let to_send: usize = TcpQueues::all()
        .filter(|queues| queues.local_port == port)
        .map(|queues| queues.to_send)
        .sum();
    let to_read: usize = TcpQueues::all()
        .filter(|queues| queues.remote_port == port)
        .map(|queues| queues.to_read)
        .sum();
    to_send + to_read
}
