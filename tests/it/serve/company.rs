//! Clients that reset, vanish, never read or never stop.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{MIB, fill, noise};
use crate::harness::Server;
use crate::harness::serve::ask;

#[test]
fn a_client_that_resets_is_dropped_and_counted() {
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
fn a_client_that_goes_without_reading_is_dropped() {
    let server = Server::start(&[]);
    let before = server.descriptors();
    for _ in 0..10 {
        server.connect().write_all(&noise(100_000)).unwrap();
    }
    server.until_descriptors(before);
    server.stop().says("connections=10");
}

#[test]
fn slow_readers_cost_little_memory_and_hold_up_nobody() {
    let server = Server::start(&["--mode", "chunk", "-q"]);
    let quick = server.connect();
    ask(&quick, b"hello");
    let before = server.memory();
    let slow = server.connect();
    let sent = thread::scope(|scope| {
        let filling = scope.spawn(|| fill(&slow, 64 << 20));
        while !filling.is_finished() {
            let start = Instant::now();
            ask(&quick, b"hello");
            assert!(start.elapsed() < Duration::from_secs(1), "held up: {:?}", start.elapsed());
        }
        filling.join().unwrap()
    });
    assert!(sent < 64 << 20, "the server took all, though nothing was read");
    let grown = server.memory().saturating_sub(before);
    assert!(grown < MIB, "grown by {grown} bytes");
    slow.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    (&slow).read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), sent);
}

/// So many clients offer 64 MiB each and read nothing; returns by how many bytes that makes the
/// server grow.
fn growth_by_slow_readers(count: usize) -> u64 {
    let server = Server::start(&["--mode", "chunk", "-q"]);
    let quick = server.connect();
    ask(&quick, b"hello");
    let before = server.memory();
    let slow: Vec<_> = (0..count).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        for client in &slow {
            // The system, too, is to take little of it.
            sockopt::set_socket_recv_buffer_size(client, 64 << 10).unwrap();
            scope.spawn(|| {
                let sent = fill(client, 64 << 20);
                assert!(sent < 64 << 20, "the server took all, though nothing was read");
            });
        }
    });
    assert_eq!(ask(&quick, b"hello"), b"hello", "others are answered");
    server.memory().saturating_sub(before)
}

#[test]
fn many_slow_readers_cost_no_more_than_a_read_each() {
    for (count, most) in [(20, 3 * MIB), (100, 12 * MIB)] {
        let grown = growth_by_slow_readers(count);
        assert!(grown < most, "{count} slow readers: grown by {grown} bytes");
    }
}

#[test]
fn one_at_full_speed_does_not_starve_fifty_others() {
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
        assert!(!reader.is_finished(), "the bulk connection goes on meanwhile");
        // The longest says more of the machine, which runs other tests beside this one.
        times.sort();
        let median = times[times.len() / 2];
        assert!(median < Duration::from_millis(100), "{median:?}");
        bulk.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
    });
}
