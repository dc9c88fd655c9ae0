//! `raw-load ADDRESS CONNECTIONS SECONDS SIZE [--busy-poll] [--latency]`: load client with one
//! message in flight per connection. Prints the number of replies, the elapsed seconds, and with
//! `--latency` the median in nanoseconds (otherwise 0).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

struct Connection {
    stream: TcpStream,
    /// Received bytes of the current reply.
    received: usize,
    sent: Instant,
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, connections, seconds, size, flags @ ..] = arguments.as_slice() else {
        return Err(io::Error::other("ADDRESS CONNECTIONS SECONDS SIZE"));
    };
    let flag = |name: &str| flags.iter().any(|flag| flag == name);
    let busy = flag("--busy-poll");
    let latency = flag("--latency");
    let address: SocketAddr = address.parse().map_err(io::Error::other)?;
    let count: usize = connections.parse().map_err(io::Error::other)?;
    let seconds: f64 = seconds.parse().map_err(io::Error::other)?;
    let size: usize = size.parse().map_err(io::Error::other)?;
    let mut message = vec![b'x'; size];
    message[size - 1] = b'\n';

    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut connections = connect_all(&epoll, address, count)?;
    let start = Instant::now();
    for connection in &mut connections {
        send(&connection.stream, &message, SendFlags::NOSIGNAL)?;
        connection.sent = start;
    }
    let end = start + Duration::from_secs_f64(seconds);
    let mut answered = 0_u64;
    let mut times: Vec<u64> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(1024);
    let timeout = busy.then(Timespec::default);
    while Instant::now() < end {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), timeout.as_ref())?;
        for event in &events {
            let connection = &mut connections[event.data.u64() as usize];
            let count = match recv(&connection.stream, &mut buffer[..], RecvFlags::empty()) {
                Err(Errno::AGAIN) => continue,
                Ok((0, _)) => return Err(io::Error::other("connection closed by the server")),
                other => other?.0,
            };
            connection.received += count;
            if connection.received == size {
                connection.received = 0;
                answered += 1;
                if latency {
                    let now = Instant::now();
                    times.push((now - connection.sent).as_nanos() as u64);
                    connection.sent = now;
                }
                send(&connection.stream, &message, SendFlags::NOSIGNAL)?;
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    println!(
        "{answered} {seconds} {}",
        times.get(times.len() / 2).unwrap_or(&0)
    );
    Ok(())
}

/// Connects and registers `count` sockets.
fn connect_all(epoll: &OwnedFd, address: SocketAddr, count: usize) -> io::Result<Vec<Connection>> {
    let mut connections = Vec::with_capacity(count);
    for number in 0..count {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let number = EventData::new_u64(number as u64);
        epoll::add(epoll, &stream, number, EventFlags::IN | EventFlags::ET)?;
        connections.push(Connection {
            stream,
            received: 0,
            sent: Instant::now(),
        });
    }
    Ok(connections)
}
