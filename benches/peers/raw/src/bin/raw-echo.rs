//! `raw-echo [--busy-poll]`: echo server without abstractions.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with, sockopt,
};

struct Connection {
    fd: OwnedFd,
    /// Unsent bytes. Nothing is read while there are any.
    pending: Vec<u8>,
}

fn main() -> io::Result<()> {
    let busy = std::env::args().any(|argument| argument == "--busy-poll");
    let timeout = busy.then_some(Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    });
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    sockopt::set_tcp_nodelay(&listener, true)?;
    listen(&listener, 4096)?;
    let listener = TcpListener::from(listener);
    println!("listening on tcp://{}", listener.local_addr()?);
    io::stdout().flush()?;

    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(
        &epoll,
        &listener,
        EventData::new_u64(u64::MAX),
        EventFlags::IN | EventFlags::ET,
    )?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), timeout.as_ref())?;
        for event in &events {
            let number = event.data.u64();
            let flags_seen = event.flags;
            if number == u64::MAX {
                while let Ok(fd) = accept_with(&listener, flags) {
                    let at = fd.as_raw_fd() as usize;
                    let interest =
                        EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                    epoll::add(&epoll, &fd, EventData::new_u64(at as u64), interest)?;
                    connections.resize_with(connections.len().max(at + 1), || None);
                    connections[at] = Some(Connection {
                        fd,
                        pending: Vec::new(),
                    });
                }
            } else if let Some(Some(connection)) = connections.get_mut(number as usize) {
                let ended = flags_seen.intersects(EventFlags::RDHUP | EventFlags::HUP);
                let reads = ended || flags_seen.contains(EventFlags::IN);
                if !connection.echo(&mut buffer, reads, ended) {
                    connections[number as usize] = None;
                }
            }
        }
    }
}

impl Connection {
    /// Reads and sends until a call would block; returns `false` at the end.
    fn echo(&mut self, buffer: &mut [u8], reads: bool, ended: bool) -> bool {
        let had_pending = !self.pending.is_empty();
        let pending = std::mem::take(&mut self.pending);
        if !self.send(&pending) {
            return false;
        }
        if !reads && !had_pending {
            return true;
        }
        while self.pending.is_empty() {
            match recv(&self.fd, &mut *buffer, RecvFlags::empty()) {
                Err(Errno::AGAIN) => return true,
                Ok((count, _)) if count > 0 => {
                    if !self.send(&buffer[..count]) {
                        return false;
                    }
                    if count < buffer.len() && !ended {
                        return true;
                    }
                }
                _ => return false,
            }
        }
        true
    }

    fn send(&mut self, bytes: &[u8]) -> bool {
        let mut sent = 0;
        while sent < bytes.len() {
            match send(&self.fd, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => {
                    self.pending = bytes[sent..].into();
                    return true;
                }
                Err(_) => return false,
            }
        }
        true
    }
}
