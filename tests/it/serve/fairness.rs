//! Fairness and isolation: clients that reset, never read or never stop.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{MIB, fill, random_bytes};
use crate::harness::Server;
use crate::harness::serve::ask;

#[test]
fn reset_by_client_is_counted() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    for _ in 0..10 {
        let client = server.connect();
        ask(&client, b"hello\n");
        sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
        drop(client);
    }
    server.until_descriptors(before);
    assert_eq!(server.exchange(b"still here\n"), b"still here\n");
    server.stop().says("failed=10").says("connections=11");
}

#[test]
fn client_closing_without_reading_is_dropped() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    for _ in 0..10 {
        server.connect().write_all(&random_bytes(100_000)).unwrap();
    }
    server.until_descriptors(before);
    server.stop().says("connections=10");
}

/// Sends messages while `work` runs; returns its result and the median round-trip time. (The
/// maximum depends on other tests on the same machine.)
fn asking_meanwhile<T: Send>(quick: &TcpStream, work: impl FnOnce() -> T + Send) -> (T, Duration) {
    thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut times = Vec::new();
        while !working.is_finished() {
            let start = Instant::now();
            ask(quick, b"hello");
            times.push(start.elapsed());
            thread::sleep(Duration::from_millis(5));
        }
        times.sort();
        (working.join().unwrap(), times[times.len() / 2])
    })
}

/// Shuts down writing, and returns the number of remaining bytes.
fn rest(mut client: &TcpStream) -> usize {
    client.shutdown(Shutdown::Write).unwrap();
    client.read_to_end(&mut Vec::new()).unwrap()
}

#[test]
fn slow_reader_is_bounded_and_isolated() {
    let server = Server::start(&["--mode", "chunk", "-q"]);
    let quick = server.connect();
    ask(&quick, b"hello");
    let before = server.memory();
    let slow = server.connect();
    let (sent, time) = asking_meanwhile(&quick, || {
        let sent = fill(&slow, 64 << 20);
        thread::sleep(Duration::from_secs(2));
        sent
    });
    assert!(
        (4 << 20..64 << 20).contains(&sent),
        "the server took {sent} bytes"
    );
    assert!(time < Duration::from_millis(50), "others wait {time:?}");
    let grown = server.memory().saturating_sub(before);
    assert!(grown < MIB, "grown by {grown} bytes");
    assert_eq!(rest(&slow), sent);
}

/// Returns the memory growth of a server with clients that send 64 MiB each and read nothing.
#[track_caller]
fn growth_by_slow_readers(count: usize) -> u64 {
    let server = Server::start(&["--mode", "chunk", "-q"]);
    let quick = server.connect();
    ask(&quick, b"hello");
    let before = server.memory();
    let slow: Vec<_> = (0..count).map(|_| server.connect()).collect();
    // Limits the buffers of the kernel as well.
    let small = |client| sockopt::set_socket_recv_buffer_size(client, 64 << 10).unwrap();
    slow.iter().for_each(small);
    let fill_all = || in_parallel(&slow, |client| fill(client, 64 << 20));
    let (sent, time) = asking_meanwhile(&quick, fill_all);
    assert!(
        sent.iter().all(|sent| *sent < 64 << 20),
        "the server took all, though nothing was read"
    );
    assert!(time < Duration::from_millis(50), "others wait {time:?}");
    let grown = server.memory().saturating_sub(before);
    assert_eq!(in_parallel(&slow, rest), sent, "all bytes are delivered");
    grown
}

/// Runs `work` for all clients concurrently.
fn in_parallel(clients: &[TcpStream], work: impl Fn(&TcpStream) -> usize + Sync) -> Vec<usize> {
    thread::scope(|scope| {
        let all: Vec<_> = clients
            .iter()
            .map(|client| scope.spawn(|| work(client)))
            .collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

#[test]
fn many_slow_readers_use_one_read_each() {
    for (count, most) in [(20, 3 * MIB), (100, 12 * MIB)] {
        let grown = growth_by_slow_readers(count);
        assert!(grown < most, "{count} slow readers: grown by {grown} bytes");
    }
}

#[test]
fn fast_connection_does_not_starve_others() {
    let server = Server::start(&["-q"]);
    let bulk = server.connect();
    let others: Vec<_> = (0..50).map(|_| server.connect()).collect();
    let line = [vec![b'x'; 999], vec![b'\n']].concat().repeat(64);
    thread::scope(|scope| {
        let writer = scope.spawn(|| while (&bulk).write_all(&line).is_ok() {});
        let reader = scope.spawn(|| {
            let mut buffer = vec![0; 1 << 16];
            while (&bulk).read(&mut buffer).is_ok_and(|count| count > 0) {}
        });
        let answer = |client| {
            let start = Instant::now();
            ask(client, b"ping\n");
            start.elapsed()
        };
        let mut times: Vec<_> = others.iter().map(answer).collect();
        assert!(!reader.is_finished(), "the bulk connection makes progress");
        // The maximum depends on other tests on the same machine.
        times.sort();
        let median = times[times.len() / 2];
        assert!(median < Duration::from_millis(100), "{median:?}");
        bulk.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
    });
}
