//! Timeouts and limits.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::serve::{ask, ends};
use crate::harness::{Server, myapp};

#[test]
fn idle_connection_is_closed() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    let client = server.connect();
    ask(&client, b"first\n");
    thread::sleep(Duration::from_millis(700));
    ask(&client, b"starts anew\n");
    let start = Instant::now();
    ends(&client);
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(990), "{waited:?}");
    // 1.125 s on an idle machine.
    assert!(waited < Duration::from_millis(1500), "{waited:?}");
    server.stop().says("idle_timeouts=1");
}

#[test]
#[ignore = "slow: needs an idle machine"]
fn input_restarts_the_idle_timeout() {
    for mode in ["line", "chunk", "discard"] {
        let server = Server::start(&["--idle-timeout", "1s", "--mode", mode]);
        let client = server.connect();
        for _ in 0..3 {
            thread::sleep(Duration::from_millis(900));
            (&client).write_all(b"\n").unwrap();
        }
        let start = Instant::now();
        (&client).read_to_end(&mut Vec::new()).unwrap();
        let waited = start.elapsed().as_millis();
        assert!((1000..1300).contains(&waited), "{waited} ms in {mode} mode");
    }
}

#[test]
fn connection_without_input_is_closed_when_idle() {
    let server = Server::start(&["--idle-timeout", "200ms"]);
    ends(&server.connect());
    server
        .stop()
        .says("idle_timeouts=1")
        .says("reason=\"idle timeout\"");
}

#[test]
fn connection_over_the_limit_waits_for_a_slot() {
    let server = Server::start(&["--max-connections", "5"]);
    let mut five: Vec<_> = (0..5).map(|_| server.connect()).collect();
    five.iter().for_each(|client| drop(ask(client, b"in\n")));
    let mut sixth = server.connect();
    sixth.write_all(b"me too\n").unwrap();
    sixth
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(
        sixth.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    five.pop();
    sixth
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut answer = [0; 7];
    sixth.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"me too\n");
}

#[test]
fn accept_recovers_from_missing_descriptors() {
    let arguments = [
        "serve",
        "--max-connections",
        "1000",
        "--threads",
        "2",
        "0",
        "0",
        "0",
    ];
    let server = Server::of(myapp(arguments).descriptors(64), 3);
    let first = server.connect();
    ask(&first, b"in\n");
    // For the sockets of all addresses and both workers.
    let addresses = server.addresses().iter().cycle().take(200);
    let others: Vec<_> = addresses
        .map(|address| TcpStream::connect(address).unwrap())
        .collect();
    let before = server.cpu();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        assert_eq!(ask(&first, b"goes on\n"), b"goes on\n");
        thread::sleep(Duration::from_millis(50));
    }
    let used = server.cpu() - before;
    assert!(
        used < start.elapsed() / 20,
        "{used:?} of {:?}",
        start.elapsed()
    );
    let short = start.elapsed();
    drop(others);
    assert_eq!(server.exchange(b"recovered\n"), b"recovered\n");
    let ran = server
        .stop()
        .says("Too many open files")
        .says("the limit of open files is lower");
    let warned = ran
        .stderr
        .lines()
        .filter(|line| line.contains("accept failed"))
        .count();
    assert!(
        (1..=2 * short.as_secs() as usize).contains(&warned),
        "{warned} lines in {short:?}"
    );
}

#[test]
fn default_connection_limit_follows_descriptors() {
    // The server's own sockets and threads need descriptors as well.
    for (threads, listening, limit) in [("1", 1, 64), ("8", 1, 128), ("2", 20, 128)] {
        let arguments = ["serve", "-v", "--threads", threads];
        let addresses = ["127.0.0.1:0"].repeat(listening);
        let program = myapp([&arguments, addresses.as_slice()].concat()).descriptors(limit);
        let server = Server::of(program, listening);
        let clients: Vec<_> = (0..150).map(|_| server.connect()).collect();
        // The order depends on the worker of each connection.
        thread::scope(|scope| {
            for client in clients {
                scope.spawn(move || assert_eq!(ask(&client, b"in turn\n"), b"in turn\n"));
            }
        });
        let ran = server.stop();
        assert!(
            !ran.stderr.contains("Too many open files"),
            "{threads} threads: {}",
            ran.stderr
        );
    }
}

#[test]
fn threads_share_work_and_limits() {
    let server = Server::start(&["--threads", "3", "--max-connections", "30"]);
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    clients
        .iter()
        .for_each(|client| drop(ask(client, b"hello\n")));
    let mut next = server.connect();
    next.write_all(b"next\n").unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert_eq!(
        next.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    server.signal(Signal::TERM);
    for client in clients {
        ends(&client);
    }
    let mut answer = String::new();
    next.set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    next.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "next\n");
    drop(next);
    server
        .wait()
        .code(0)
        .says("connections=31 messages=31")
        .says("aborted_on_shutdown=0");
}
