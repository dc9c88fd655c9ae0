//! Drains that lose nothing and end soon, over TCP and TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};

use super::{random_bytes, tls};
use crate::harness::{Server, until};

/// Time without progress after which a client's windows are full.
const FULL_TIMEOUT: Duration = Duration::from_millis(300);

/// Longest drain of a server in these tests.
const DRAIN: [&str; 3] = ["-q", "--drain", "60s"];

/// Input of the clients, sent again and again.
fn piece() -> Vec<u8> {
    random_bytes((1 << 14) - 1)
}

/// Fails unless `received` are `sent` bytes of the input.
#[track_caller]
fn assert_complete(received: &[u8], sent: usize) {
    assert!(sent > 1 << 20, "{sent} bytes fill no window");
    assert_eq!(received.len(), sent);
    let piece = piece();
    let mut pieces = received.chunks(piece.len());
    assert!(pieces.all(|part| piece.starts_with(part)), "other bytes");
}

/// Waits until the server drains, and longer than a client that reads at once.
fn wait_for_drain(address: SocketAddr) {
    until(|| TcpStream::connect(address).is_err());
    // Not for synchronization: the client reads late, as a busy one does.
    thread::sleep(Duration::from_millis(300));
}

/// Fills the windows of a client, stops the server, and compares what comes back.
fn drain_with_full_windows(arguments: &[&str]) {
    let server = Server::start(&[&DRAIN, arguments].concat());
    let mut client = server.connect();
    client.set_write_timeout(Some(FULL_TIMEOUT)).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let piece = piece();
    let mut sent = 0;
    while let Ok(count) = client.write(&piece[sent % piece.len()..]) {
        sent += count;
    }
    server.signal(Signal::TERM);
    wait_for_drain(server.address());
    let mut received = Vec::new();
    client.read_to_end(&mut received).expect("read the replies");
    assert_complete(&received, sent);
    drop(client);
    server.wait().code(0);
}

#[test]
fn drain_with_full_windows_loses_no_byte() {
    thread::scope(|scope| {
        for arguments in [
            &["--mode", "chunk"] as &[_],
            &["--mode", "chunk", "--threads", "2"],
            &["--max-line", "1G"],
            &["--mode", "chunk", "--delay", "1ms"],
        ] {
            scope.spawn(|| (0..5).for_each(|_| drain_with_full_windows(arguments)));
        }
    });
}

/// Writes what TLS has buffered. Returns whether the kernel took some of it.
fn write_buffered(client: &mut tls::Client) -> bool {
    let mut written = false;
    while client.conn.wants_write() {
        match client.conn.write_tls(&mut client.sock) {
            Ok(_) => written = true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    written
}

/// Reads and writes without blocking up to the `close_notify` of the server.
fn read_all(client: &mut tls::Client) -> Vec<u8> {
    let start = Instant::now();
    let mut received = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while start.elapsed() < Duration::from_secs(60) {
        write_buffered(client);
        let arrived = client.conn.read_tls(&mut client.sock).is_ok();
        client.conn.process_new_packets().unwrap();
        loop {
            match client.conn.reader().read(&mut buffer) {
                Ok(0) => return received,
                Ok(count) => received.extend_from_slice(&buffer[..count]),
                Err(_) => break,
            }
        }
        if !arrived {
            thread::sleep(Duration::from_millis(1));
        }
    }
    panic!("no close_notify after {} bytes", received.len());
}

fn drain_with_full_tls_windows(
    version: &'static rustls::SupportedProtocolVersion,
    arguments: &[&str],
) {
    let server = tls::Server::start(&[&DRAIN, arguments].concat());
    let mut client = server.connect(server.authority.client(version, None));
    client.conn.complete_io(&mut client.sock).unwrap();
    client.sock.set_nonblocking(true).unwrap();
    let piece = piece();
    let mut sent = 0;
    let mut last_write = Instant::now();
    while last_write.elapsed() < FULL_TIMEOUT {
        if !client.conn.wants_write() {
            client.conn.writer().write_all(&piece).unwrap();
            sent += piece.len();
        }
        if write_buffered(&mut client) {
            last_write = Instant::now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    server.running.signal(Signal::TERM);
    wait_for_drain(server.address);
    assert_complete(&read_all(&mut client), sent);
    drop(client);
    server.running.wait().code(0);
}

#[test]
fn drain_with_full_windows_loses_no_tls_byte() {
    thread::scope(|scope| {
        for version in [&TLS12, &TLS13] {
            for arguments in [
                &["--mode", "chunk"] as &[_],
                &["--max-line", "1G", "--threads", "2"],
            ] {
                scope.spawn(move || {
                    (0..5).for_each(|_| drain_with_full_tls_windows(version, arguments));
                });
            }
        }
    });
}

/// Exchanges a message every 10 ms until the end of the connection.
fn ping_pong(mut client: impl Read + Write) {
    while client.write_all(b"ping\n").is_ok() && client.read_exact(&mut [0; 5]).is_ok() {
        thread::sleep(Duration::from_millis(10));
    }
}

/// Returns the shortest time of several drains: the machine may be busy.
fn shortest(drain: impl Fn() -> Duration) -> Duration {
    (0..10).map(|_| drain()).min().unwrap()
}

#[test]
fn ping_pong_client_does_not_delay_the_drain() {
    let drain = || {
        let server = Server::start(&DRAIN);
        let mut client = server.connect();
        client.write_all(b"warm\n").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
        let client = thread::spawn(|| ping_pong(client));
        let start = Instant::now();
        server.signal(Signal::TERM);
        server.wait().code(0);
        client.join().unwrap();
        start.elapsed()
    };
    let shortest = shortest(drain);
    assert!(shortest < Duration::from_millis(100), "{shortest:?}");
}

#[test]
fn ping_pong_tls_client_does_not_delay_the_drain() {
    let drain = || {
        let server = tls::Server::start(&DRAIN);
        let mut client = server.client();
        tls::ask(&mut client, b"warm\n");
        let client = thread::spawn(|| ping_pong(client));
        let start = Instant::now();
        server.running.signal(Signal::TERM);
        server.running.wait().code(0);
        client.join().unwrap();
        start.elapsed()
    };
    let shortest = shortest(drain);
    assert!(shortest < Duration::from_millis(100), "{shortest:?}");
}
