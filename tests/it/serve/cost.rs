//! Costs: CPU time, memory, system calls.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use myapp::internals::nofile;

use crate::harness::serve::ask;
use crate::harness::{Folder, Server, myapp, until};

/// Returns the CPU time of a server for one message and an idle second.
fn silent_second(arguments: &[&str]) -> Duration {
    let server = Server::start(arguments);
    let client = server.connect();
    let before = server.cpu();
    assert_eq!(ask(&client, b"hello\n"), b"hello\n");
    thread::sleep(Duration::from_secs(1));
    server.cpu() - before
}

#[test]
fn busy_poll_spins_only_for_its_duration() {
    let asleep = silent_second(&["-q"]);
    assert!(asleep < Duration::from_millis(20), "{asleep:?}");
    let awhile = silent_second(&["-q", "--busy-poll", "50ms"]);
    let some = Duration::from_millis(10)..Duration::from_millis(300);
    assert!(some.contains(&awhile), "{awhile:?}");
    let always = Server::start(&["-q", "--busy-poll", "1h"]);
    ask(&always.connect(), b"hello\n");
    always.until_cpu(always.cpu() + Duration::from_millis(300));
}

/// Connects clients one after another, and returns the longest connect time.
fn burst(server: &Server, count: usize) -> (Vec<TcpStream>, Duration) {
    let mut longest = Duration::ZERO;
    let connect = |_| {
        let start = Instant::now();
        let client = server.connect();
        longest = longest.max(start.elapsed());
        client
    };
    ((0..count).map(connect).collect(), longest)
}

/// Serializes tests that need most of the descriptors.
static MANY: Mutex<()> = Mutex::new(());

/// Returns 10,000, or what the descriptor limit allows beside other tests.
fn many() -> usize {
    nofile::raise_limit().unwrap();
    let count = nofile::available()
        .get()
        .min(10_000 + 2_000)
        .saturating_sub(2_000);
    assert!(
        count >= 1000,
        "the limit of descriptors is too low for this test"
    );
    count
}

/// Growing the descriptor table would stop the server for tens of milliseconds at each doubling.
/// With 4,096 connections in the backlog, the next SYN is dropped and repeated after a second.
#[test]
fn fd_table_is_preallocated() {
    // A child inherits the table size that its parent needs at that moment.
    let _one = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    let count = many();
    let all = Server::start(&["-q"]).room();
    assert!(all >= count, "room for {all}");
    let few = Server::start(&["-q", "--max-connections", "200"]).room();
    assert!((200..all).contains(&few), "room for {few}");
}

#[test]
fn connection_burst_is_accepted_and_released() {
    let _one = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    // Long enough to connect on a busy machine.
    let server = Server::start(&["-q", "--idle-timeout", "30s"]);
    let open = server.descriptors();
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    let count = many();
    let (clients, longest) = burst(&server, count);
    clients
        .iter()
        .step_by(97)
        .for_each(|client| drop(ask(client, b"hello\n")));
    // A lost SYN is repeated after a second.
    assert!(
        longest < Duration::from_millis(900),
        "the slowest connect took {longest:?}"
    );
    server.until_descriptors(open + count);
    let each = server.memory().saturating_sub(before) / count as u64;
    assert!(each < 512, "{each} bytes a connection");
    let before = server.cpu();
    thread::sleep(Duration::from_secs(2));
    let used = server.cpu() - before;
    assert!(
        used < Duration::from_millis(20),
        "{used:?} of two seconds with idle timeouts"
    );
    drop(clients);
    server.until_descriptors(open);
}

#[test]
#[ignore = "slow: needs an idle machine"]
fn ten_thousand_connections_are_fast_and_small() {
    let _one = MANY.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["-q", "--idle-timeout", "10s"]);
    let count = many();
    assert_eq!(
        count, 10_000,
        "the limit of descriptors is too low for this test"
    );
    let open = server.descriptors();
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    let (_clients, longest) = burst(&server, count);
    assert!(
        longest < Duration::from_millis(500),
        "the slowest connect took {longest:?}"
    );
    server.until_descriptors(open + count);
    let each = server.memory().saturating_sub(before) / count as u64;
    println!("{each} bytes a connection, slowest connect {longest:?}");
    assert!(each <= 256, "{each} bytes a connection");
    let before = server.cpu();
    thread::sleep(Duration::from_secs(4));
    let used = server.cpu() - before;
    assert!(
        used < Duration::from_millis(40),
        "{used:?} of four seconds with idle timeouts"
    );
}

/// Returns the number of system calls of a server for this many requests.
fn system_calls(requests: usize) -> u64 {
    let folder = Folder::new();
    let counts = folder.path("counts");
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-c", "-o"]).arg(&counts);
    let server = Server::of(myapp(["serve", "-q", "127.0.0.1:0"]).through(strace), 1);
    let idle = server.descriptors();
    let client = server.connect();
    // A server that finds a message at the first read does not call epoll_wait.
    server.until_descriptors(idle + 1);
    until(|| server.sleeps());
    for _ in 0..requests {
        ask(&client, b"hello\n");
    }
    drop(client);
    server.stop();
    // % time, seconds, microseconds per call, calls, errors if any, "total"
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(&counts).unwrap_or_default();
        if let Some(total) = text.lines().find(|line| line.ends_with("total")) {
            return total.split_whitespace().nth(3).unwrap().parse().unwrap();
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no total: {text}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "peer: strace"]
fn request_takes_three_system_calls() {
    let few = system_calls(100);
    let many = system_calls(2100);
    let each = (many - few) as f64 / 2000.0;
    assert!(
        (2.98..=3.02).contains(&each),
        "{each} system calls a request"
    );
}
