//! Shutdown and drain.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::fill;
use crate::harness::serve::{ask, ends};
use crate::harness::{Folder, Server, until};

#[test]
fn shutdown_replies_to_received_input() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Server::start(&[]);
        let mut client = server.connect();
        ask(&client, b"whole\n");
        client.write_all(b"one\ntwo\nbegun").unwrap();
        server.signal(signal);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "one\ntwo\nbegun");
        drop(client);
        let ran = server.wait().code(0);
        ran.says("summary connections=1 messages=4 received=19 sent=19")
            .says("reason=\"drained\"");
    }
}

#[test]
fn shutdown_serves_backlog_and_refuses_new_clients() {
    let server = Server::start(&["--max-connections", "1"]);
    let first = server.connect();
    ask(&first, b"in\n");
    let waiting: Vec<_> = (0..3).map(|_| server.connect()).collect();
    waiting
        .iter()
        .for_each(|mut client| client.write_all(b"from the backlog\n").unwrap());
    server.signal(Signal::TERM);
    ends(&first);
    drop(first);
    for mut client in waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "from the backlog\n");
    }
    let address = server.address();
    server
        .wait()
        .code(0)
        .says("connections=4")
        .says("aborted_on_shutdown=0");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn open_connection_is_aborted_at_drain_timeout() {
    let server = Server::start(&["--mode", "chunk", "--drain", "500ms"]);
    let stubborn = server.connect();
    fill(&stubborn, 64 << 20);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let ran = server.wait().code(0);
    assert!(
        start.elapsed() > Duration::from_millis(490),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    ran.says("aborted_on_shutdown=1")
        .says("reason=\"aborted on shutdown\"");
}

#[test]
fn fast_sender_does_not_delay_drain_timeout() {
    let server = Server::start(&["--mode", "chunk", "--drain", "500ms", "-q"]);
    let clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let busy = AtomicUsize::new(0);
    let sent = thread::scope(|scope| {
        for mut client in &clients {
            let busy = &busy;
            scope.spawn(move || while client.write_all(&[b'x'; 1 << 16]).is_ok() {});
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                client.read_exact(&mut buffer).unwrap();
                busy.fetch_add(1, SeqCst);
                while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
                let _ = client.shutdown(Shutdown::Both);
            });
        }
        until(|| busy.load(SeqCst) == clients.len());
        let start = Instant::now();
        server.signal(Signal::TERM);
        server.wait().code(0);
        start.elapsed()
    });
    assert!(sent < Duration::from_secs(5), "{sent:?}");
}

#[test]
fn input_before_the_signal_always_gets_a_reply() {
    for _ in 0..20 {
        let server = Server::start(&["-q"]);
        let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        clients
            .iter()
            .for_each(|client| drop(ask(client, b"warm\n")));
        clients
            .iter()
            .for_each(|mut client| client.write_all(b"last\n").unwrap());
        server.signal(Signal::TERM);
        for mut client in clients {
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "last\n");
        }
        server.wait().code(0);
    }
}

#[test]
fn idle_client_delays_shutdown_by_a_second_at_most() {
    let server = Server::start(&[]);
    let silent = server.connect();
    ask(&silent, b"hello\n");
    let start = Instant::now();
    server.stop().says("aborted_on_shutdown=0");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn blocked_stdout_does_not_block_shutdown() {
    // The capacity of a pipe; and less, so that the address fits but the summary does not.
    for there in [65_536, 65_300] {
        let folder = Folder::new();
        let mut shell = Command::new("sh");
        shell
            .arg("-c")
            .arg(format!("head -c {there} /dev/zero; exec \"$0\" \"$@\""));
        let mut server = folder
            .myapp(["serve", "-q", "--json", "unix:socket"])
            .through(shell)
            .start();
        until(|| UnixStream::connect(folder.path("socket")).is_ok());
        if there < 65_536 {
            let mut client = UnixStream::connect(folder.path("socket")).unwrap();
            client.write_all(b"hello\n").unwrap();
            client.read_exact(&mut [0; 6]).unwrap();
        }
        server.signal(Signal::TERM);
        until(|| server.has_exited());
        assert_eq!(folder.names(), [""; 0], "no path is left behind");
        server.wait().code(0);
    }
}

#[test]
fn client_before_announcement_is_served() {
    let folder = Folder::new();
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg("head -c 65536 /dev/zero; exec \"$0\" \"$@\"");
    let mut server = folder
        .myapp(["serve", "unix:socket"])
        .through(shell)
        .start();
    until(|| UnixStream::connect(folder.path("socket")).is_ok());
    let mut client = UnixStream::connect(folder.path("socket")).unwrap();
    client.write_all(b"hello\n").unwrap();
    server.signal(Signal::TERM);
    assert!(server.line().ends_with("listening on unix:socket"));
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "hello\n");
    drop(client);
    server
        .wait()
        .code(0)
        .says("shutting down")
        .says("messages=1");
}

#[test]
fn second_signal_exits_immediately() {
    let server = Server::start(&["--mode", "chunk", "--drain", "1h"]);
    let stubborn = server.connect();
    fill(&stubborn, 64 << 20);
    server.signal(Signal::INT);
    // The server drains once new connections are refused.
    until(|| TcpStream::connect(server.address()).is_err());
    server.signal(Signal::TERM);
    server.wait().code(0).says("aborted_on_shutdown=1");
}
