//! `myapp serve`, as its clients see it.

mod admission;
mod cost;
mod faults;
mod figures;
mod udp;
mod unix;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use myapp::limits::{descriptors, stop};
use myapp::net::address::Address;
use myapp::serve;
use rustix::net::{SendFlags, send, sockopt};
use rustix::process::Signal;

use crate::harness::serve::{ask, ends};
use crate::harness::{Server, myapp};

const MIB: u64 = 1 << 20;

/// Bytes that do not repeat soon, with every value and with lines of many lengths.
fn noise(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(length as u64);
    (0..length).map(|_| random.u8(..)).collect()
}

// --- what comes back

#[test]
fn all_that_was_sent_before_a_half_close_comes_back_then_the_end() {
    for mode in ["line", "chunk"] {
        let server = Server::start(&["--mode", mode, "-q"]);
        let before = server.descriptors();
        for length in [0, 1, 5, 100, 100_000, 4 << 20] {
            let bytes = noise(length);
            assert!(server.exchange(&bytes) == bytes, "{length} bytes in {mode} mode differ");
            server.until_descriptors(before);
        }
    }
}

#[test]
fn every_byte_comes_back_as_it_was() {
    let all: Vec<u8> = (0..=255).collect();
    let server = Server::start(&["--mode", "line"]);
    for bytes in [b"a\r\nb\rc\n\n\r\n\nlast".as_slice(), b"\n", b"\r", b"\0\n\0", b"\xff\xfe", &all]
    {
        assert_eq!(server.exchange(bytes), bytes);
    }
    assert_eq!(Server::start(&["--mode", "chunk"]).exchange(&all), all);
    assert_eq!(Server::start(&["--mode", "discard"]).exchange(&all), b"");
}

#[test]
fn a_line_is_answered_when_its_end_has_come_and_no_sooner() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for byte in b"one byte a segment" {
        client.write_all(&[*byte]).unwrap();
    }
    client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    client.write_all(b"\nnext").unwrap();
    let mut answer = [0; 19];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"one byte a segment\n");
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "next");
}

#[test]
fn a_chunk_is_answered_without_a_line_end() {
    let server = Server::start(&["--mode", "chunk"]);
    let client = server.connect();
    assert_eq!(ask(&client, b"no line end"), b"no line end");
    assert_eq!(ask(&client, "¡Hola, servidor!".as_bytes()), "¡Hola, servidor!".as_bytes());
}

#[test]
fn a_prefix_stands_before_each_line() {
    let server = Server::start(&["--prefix", "You said: "]);
    let answer = server.exchange(b"one\n\ntwo\r\nlast");
    assert_eq!(answer, b"You said: one\nYou said: \nYou said: two\r\nYou said: last");
    let many = noise(1 << 20);
    let lines = many.split_inclusive(|byte| *byte == b'\n');
    let wanted: Vec<u8> = lines.flat_map(|line| [b"You said: ", line].concat()).collect();
    assert!(server.exchange(&many) == wanted, "a megabyte with a prefix before each line differs");
}

#[test]
fn a_prefix_stands_before_each_piece_of_at_most_the_chunk() {
    let server = Server::start(&["--mode", "chunk", "--chunk", "100", "--prefix", "Dijiste: "]);
    let bytes = [b'x'; 250];
    let wanted =
        [b"Dijiste: ", &bytes[..100], b"Dijiste: ", &bytes[..100], b"Dijiste: ", &[b'x'; 50]];
    assert_eq!(server.exchange(&bytes), wanted.concat());
}

#[test]
fn data_and_end_in_one_segment_are_answered_a_thousand_times() {
    let server = Server::start(&["-q"]);
    for round in 0..1000 {
        let message = format!("round {round}\n");
        let client = server.connect();
        send(&client, message.as_bytes(), SendFlags::MORE).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        (&client).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, message);
    }
    assert!(server.stop().stderr.is_empty());
}

#[test]
fn urgent_data_stays_in_its_place_and_nothing_hangs() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..100 {
        client.write_all(b"before ").unwrap();
        send(&client, b"!", SendFlags::OOB).unwrap();
        client.write_all(b" after\n").unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"before ! after\n");
    }
}

// --- lines that are too long

#[test]
fn a_line_of_the_limit_is_answered_and_one_byte_more_is_refused() {
    let server = Server::start(&["--max-line", "10"]);
    assert_eq!(server.exchange(b"0123456789\n"), b"0123456789\n");
    assert_eq!(server.exchange(b"0123456789"), b"0123456789");
    let error = "error: line longer than 10 bytes\n";
    assert_eq!(server.exchange(b"0123456789a\n"), error.as_bytes());
    let answer = server.exchange(b"first\nsecond\n0123456789a\nnever\n");
    assert_eq!(String::from_utf8(answer).unwrap(), format!("first\nsecond\n{error}"));
    server.stop().says("too_long=2").says("why=\"line too long\"");
}

#[test]
fn a_refusal_has_no_prefix() {
    let server = Server::start(&["--max-line", "4", "--prefix", "> "]);
    assert_eq!(server.exchange(b"1234\n12345\n"), b"> 1234\nerror: line longer than 4 bytes\n");
}

#[test]
fn an_endless_line_is_refused_and_costs_no_memory() {
    let server = Server::start(&["-q"]);
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    assert_eq!(server.exchange(&vec![b'x'; 64 << 20]), b"error: line longer than 1048576 bytes\n");
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 3 * MIB, "grown by {grown} bytes");
}

#[test]
fn who_is_refused_but_goes_on_sending_is_closed_after_a_second() {
    let server = Server::start(&["--max-line", "10"]);
    let before = server.descriptors();
    let start = Instant::now();
    let mut client = server.connect();
    client.write_all(b"0123456789a").unwrap();
    while client.write_all(b"more").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "is not closed");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(start.elapsed() > Duration::from_millis(900), "{:?}", start.elapsed());
    server.until_descriptors(before);
}

// --- bad company

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

/// Sends as much as the other side and the systems between take.
fn fill(mut client: &TcpStream, most: usize) -> usize {
    let mut sent = 0;
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let bytes = [b'x'; 1 << 16];
    while sent < most {
        match client.write(&bytes[..bytes.len().min(most - sent)]) {
            Ok(count) => sent += count,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                break;
            }
        }
    }
    sent
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

#[test]
fn many_slow_readers_cost_no_more_than_a_read_each() {
    let server = Server::start(&["--mode", "chunk", "-q"]);
    ask(&server.connect(), b"hello");
    let before = server.memory();
    let slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    thread::scope(|scope| {
        for client in &slow {
            scope.spawn(|| fill(client, 64 << 20));
        }
    });
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 3 * MIB, "grown by {grown} bytes");
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
        let mut longest = Duration::ZERO;
        for client in others.iter().cycle().take(1000) {
            let start = Instant::now();
            ask(client, b"ping\n");
            longest = longest.max(start.elapsed());
        }
        assert!(!reader.is_finished(), "the bulk connection goes on meanwhile");
        assert!(longest < Duration::from_millis(500), "{longest:?}");
        bulk.shutdown(Shutdown::Both).unwrap();
        writer.join().unwrap();
    });
}

// --- limits

#[test]
fn a_silent_connection_is_closed_after_the_idle_timeout() {
    let server = Server::start(&["--idle-timeout", "1s"]);
    let client = server.connect();
    ask(&client, b"first\n");
    thread::sleep(Duration::from_millis(700));
    ask(&client, b"starts anew\n");
    let start = Instant::now();
    ends(&client);
    let waited = start.elapsed();
    assert!(waited > Duration::from_millis(990), "{waited:?}");
    // 1.125 s on a machine that is not busy.
    assert!(waited < Duration::from_millis(1500), "{waited:?}");
    server.stop().says("idle=1");
}

#[test]
fn a_connection_that_never_sends_is_closed_after_the_idle_timeout_too() {
    let server = Server::start(&["--idle-timeout", "200ms"]);
    ends(&server.connect());
    server.stop().says("idle=1").says("why=\"idle\"");
}

#[test]
fn many_silent_connections_with_a_timeout_cost_no_time() {
    let server = Server::start(&["--idle-timeout", "8s", "-q"]);
    let clients: Vec<_> = (0..1000).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| drop(ask(client, b"hello\n")));
    let before = server.cpu();
    thread::sleep(Duration::from_secs(2));
    let used = server.cpu() - before;
    assert!(used < Duration::from_millis(40), "{used:?} of two seconds");
}

#[test]
fn one_more_than_the_most_waits_until_one_leaves() {
    let server = Server::start(&["--max-connections", "5"]);
    let mut five: Vec<_> = (0..5).map(|_| server.connect()).collect();
    five.iter().for_each(|client| drop(ask(client, b"in\n")));
    let mut sixth = server.connect();
    sixth.write_all(b"me too\n").unwrap();
    sixth.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(sixth.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    five.pop();
    sixth.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = [0; 7];
    sixth.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"me too\n");
}

#[test]
fn thousands_of_connections_are_taken_at_once_and_leave_nothing_behind() {
    descriptors::raise().unwrap();
    // Other tests of this process need descriptors beside this one.
    let count = descriptors::room().get().min(10_000 + 2_000).saturating_sub(2_000);
    assert!(count >= 1000, "the limit of descriptors is too low for this test");
    let server = Server::start(&["-q"]);
    let open = server.descriptors();
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    let mut longest = Duration::ZERO;
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let start = Instant::now();
            let client = server.connect();
            longest = longest.max(start.elapsed());
            client
        })
        .collect();
    clients.iter().step_by(97).for_each(|client| drop(ask(client, b"hello\n")));
    assert!(longest < Duration::from_millis(900), "the slowest connect took {longest:?}");
    server.until_descriptors(open + count);
    let each = server.memory().saturating_sub(before) / count as u64;
    assert!(each < 1024, "{each} bytes a connection");
    drop(clients);
    server.until_descriptors(open);
}

#[test]
fn without_descriptors_it_waits_quietly_and_recovers() {
    let program = myapp(["serve", "--max-connections", "1000", "127.0.0.1:0"]).descriptors(64);
    let server = Server::of(program, 1);
    let first = server.connect();
    ask(&first, b"in\n");
    let others: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let (before, start) = (server.cpu(), Instant::now());
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(ask(&first, b"goes on\n"), b"goes on\n");
        thread::sleep(Duration::from_millis(50));
    }
    let used = server.cpu() - before;
    assert!(used < start.elapsed() / 20, "{used:?} of {:?}", start.elapsed());
    drop(others);
    assert_eq!(server.exchange(b"recovered\n"), b"recovered\n");
    let ran = server.stop().says("Too many open files").says("fewer connections than wanted");
    let warned = ran.stderr.lines().filter(|line| line.contains("cannot accept")).count();
    assert!((1..=8).contains(&warned), "{warned} lines");
}

#[test]
fn by_default_so_many_are_taken_as_there_are_descriptors() {
    let server = Server::of(myapp(["serve", "127.0.0.1:0"]).descriptors(64), 1);
    let clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for client in clients {
        assert_eq!(ask(&client, b"in turn\n"), b"in turn\n");
    }
    assert!(!server.stop().stderr.contains("Too many open files"));
}

#[test]
fn several_threads_share_the_work_and_the_limits() {
    let server = Server::start(&["--threads", "3", "--max-connections", "30"]);
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    clients.iter().for_each(|client| drop(ask(client, b"hello\n")));
    let mut next = server.connect();
    next.write_all(b"next\n").unwrap();
    next.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(next.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.signal(Signal::TERM);
    for client in clients {
        ends(&client);
    }
    let mut answer = String::new();
    next.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    next.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "next\n");
    drop(next);
    server.wait().code(0).says("connections=31 messages=31").says("cut=0");
}

// --- the end

#[test]
fn at_the_end_what_has_been_received_is_answered() {
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
        ran.says("summary connections=1 messages=4 received=19 sent=19").says("why=\"drained\"");
    }
}

#[test]
fn at_the_end_those_in_the_backlog_are_served_and_new_ones_refused() {
    let server = Server::start(&["--max-connections", "1"]);
    let first = server.connect();
    ask(&first, b"in\n");
    let waiting: Vec<_> = (0..3).map(|_| server.connect()).collect();
    waiting.iter().for_each(|mut client| client.write_all(b"from the backlog\n").unwrap());
    server.signal(Signal::TERM);
    ends(&first);
    drop(first);
    for mut client in waiting {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "from the backlog\n");
    }
    let address = server.address();
    server.wait().code(0).says("connections=4").says("cut=0");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn who_does_not_end_is_cut_at_the_deadline() {
    let server = Server::start(&["--mode", "chunk", "--drain", "500ms"]);
    let stubborn = server.connect();
    fill(&stubborn, 64 << 20);
    let start = Instant::now();
    server.signal(Signal::TERM);
    let ran = server.wait().code(0);
    assert!(start.elapsed() > Duration::from_millis(490), "{:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    ran.says("cut=1").says("why=\"cut\"");
}

#[test]
fn who_sends_on_at_full_speed_does_not_put_the_deadline_off() {
    let server = Server::start(&["--mode", "chunk", "--drain", "500ms", "-q"]);
    let clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    let sent = thread::scope(|scope| {
        for mut client in &clients {
            scope.spawn(move || while client.write_all(&[b'x'; 1 << 16]).is_ok() {});
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while client.read(&mut buffer).is_ok_and(|count| count > 0) {}
                let _ = client.shutdown(Shutdown::Both);
            });
        }
        thread::sleep(Duration::from_millis(200));
        let start = Instant::now();
        server.signal(Signal::TERM);
        server.wait().code(0);
        start.elapsed()
    });
    assert!(sent < Duration::from_secs(5), "{sent:?}");
}

#[test]
fn what_was_sent_before_the_signal_is_answered_every_time() {
    for _ in 0..20 {
        let server = Server::start(&["-q"]);
        let clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
        clients.iter().for_each(|client| drop(ask(client, b"warm\n")));
        clients.iter().for_each(|mut client| client.write_all(b"last\n").unwrap());
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
fn who_is_silent_and_does_not_close_holds_the_end_up_for_a_second_at_most() {
    let server = Server::start(&[]);
    let silent = server.connect();
    ask(&silent, b"hello\n");
    let start = Instant::now();
    server.stop().says("cut=0");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = Server::start(&["--mode", "chunk", "--drain", "1h"]);
    let stubborn = server.connect();
    fill(&stubborn, 64 << 20);
    server.signal(Signal::INT);
    // The drain has begun when new connections are refused.
    let start = Instant::now();
    while TcpStream::connect(server.address()).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "still accepts");
        thread::sleep(Duration::from_millis(5));
    }
    server.signal(Signal::TERM);
    server.wait().code(0).says("cut=1");
}

// --- addresses

#[test]
fn every_address_is_announced_in_order_with_its_real_port() {
    let program = myapp(["serve", "127.0.0.2:0", "tcp://127.0.0.1:0", "[::1]:0", "localhost:0"]);
    let server = Server::of(program, 4);
    let ips: Vec<_> = server.addresses().iter().map(|address| address.ip().to_string()).collect();
    assert_eq!(ips[..3], ["127.0.0.2", "127.0.0.1", "::1"]);
    for address in server.addresses() {
        assert_eq!(ask(&TcpStream::connect(address).unwrap(), b"hello\n"), b"hello\n");
    }
    assert_eq!(server.stop().text(), "", "nothing else is on stdout");
}

#[test]
fn every_interface_means_both_families() {
    for address in [":0", "[::]:0"] {
        let server = Server::of(myapp(["serve", address]), 1);
        let port = server.address().port();
        let v4 = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert_eq!(ask(&v4, b"four\n"), b"four\n");
        let v6 = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        assert_eq!(ask(&v6, b"six\n"), b"six\n");
    }
}

#[test]
fn an_address_that_cannot_be_had_is_named_with_its_cause() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let in_use = format!("myapp: listen on {taken}: Address already in use\nhint: ");
    myapp(["serve", "127.0.0.1:0", &taken]).run().code(4).prints("").says(&in_use);
    let not_ours = "myapp: listen on 192.0.2.1:0: Cannot assign requested address\nhint: ";
    myapp(["serve", "192.0.2.1:0"]).run().code(4).prints("").says(not_ours);
    let unknown = "myapp: resolve no.such.host.invalid: ";
    myapp(["serve", "no.such.host.invalid:1"]).run().code(4).prints("").says(unknown);
}

#[test]
fn a_port_of_another_copy_of_the_program_is_in_use() {
    for threads in ["1", "2"] {
        let server = Server::start(&["--threads", threads]);
        let address = server.address().to_string();
        let copy = myapp(["serve", "--threads", threads, &address]);
        copy.run().code(4).says("Address already in use");
    }
}

#[test]
fn a_restarted_server_gets_its_port_back_at_once() {
    let server = Server::start(&[]);
    let address = server.address();
    let client = server.connect();
    ask(&client, b"hello\n");
    server.stop();
    let again = Server::of(myapp(["serve", &address.to_string()]), 1);
    assert_eq!(again.address(), address);
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for arguments in [
        &["serve", "localhost"] as &[&str],
        &["serve", "--mode", "word"],
        &["serve", "--chunk", "100"],
        &["serve", "--max-line", "0"],
        &["serve", "--max-connections", "0"],
        &["serve", "--idle-timeout", "soon"],
        &["serve", "--no-such-option"],
    ] {
        myapp(arguments).run().code(2).prints("");
    }
    myapp(["serve", "--mode", "line", "--max-line", "2", "--chunk", "3"])
        .run()
        .code(2)
        .says("--chunk has no effect without --mode chunk");
}

#[test]
fn of_a_repeated_option_the_last_counts() {
    let server = Server::start(&["--prefix", "first", "--prefix", "-"]);
    assert_eq!(server.exchange(b"x\n"), b"-x\n");
}

// --- real clients

/// What a program prints for `input`.
fn peer(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

#[test]
#[ignore = "needs ncat"]
fn ncat_gets_all_back_after_its_end_of_input() {
    let server = Server::start(&["-q"]);
    let port = server.address().port().to_string();
    for length in [5, 100, 100_000, 4 << 20] {
        let bytes = noise(length);
        assert!(peer("ncat", &["127.0.0.1", &port], &bytes) == bytes, "{length} bytes differ");
    }
}

#[test]
#[ignore = "needs socat"]
fn socat_gets_all_back_after_its_end_of_input() {
    let server = Server::start(&["-q"]);
    let address = format!("TCP:{}", server.address());
    for length in [5, 100, 100_000, 4 << 20] {
        let bytes = noise(length);
        assert!(peer("socat", &["-t", "10", "-", &address], &bytes) == bytes, "{length} differ");
    }
}

// --- the library

#[track_caller]
fn bind(config: serve::Config) -> serve::Server {
    let addresses = [Address::loopback(0)];
    smol::block_on(serve::Server::bind(&addresses, config)).expect("listen")
}

/// Runs a server of the library beside `client`, then stops it.
#[track_caller]
fn beside<T>(config: serve::Config, client: impl FnOnce(SocketAddr) -> T) -> (T, serve::Summary) {
    let server = bind(config);
    let address = server.local_addrs()[0].socket_addr().unwrap();
    let (stopper, stop) = stop::stop();
    thread::scope(|scope| {
        let running = scope.spawn(move || smol::block_on(server.run(stop.stopped())));
        let result = client(address);
        stopper.stop();
        (result, running.join().unwrap())
    })
}

#[test]
fn when_unfinished_lines_take_too_much_together_the_longest_is_refused() {
    let config = serve::Config { max_partial: 100_000, ..serve::Config::default() };
    let (answer, summary) = beside(config, |address| {
        let connect = || TcpStream::connect(address).unwrap();
        let (mut long, mut short, mut last) = (connect(), connect(), connect());
        long.write_all(&[b'l'; 60_000]).unwrap();
        short.write_all(&[b's'; 30_000]).unwrap();
        // What was sent last may be read first.
        thread::sleep(Duration::from_millis(200));
        last.write_all(&[b'x'; 20_000]).unwrap();
        let mut answer = String::new();
        long.read_to_string(&mut answer).unwrap();
        drop(long);
        for (mut client, length) in [(short, 30_000), (last, 20_000)] {
            client.write_all(b"\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), length + 1);
        }
        answer
    });
    assert_eq!(answer, "error: line longer than 60000 bytes\n");
    assert_eq!((summary.connections, summary.too_long, summary.cut), (3, 1, 0));
}

#[test]
fn a_run_that_is_dropped_cuts_everything_at_once() {
    let server = bind(serve::Config::default());
    let (address, figures) = (server.local_addrs()[0].socket_addr().unwrap(), server.figures());
    let (stopper, stop) = stop::stop();
    thread::scope(|scope| {
        scope.spawn(move || {
            let run = async {
                let _ = server.run(std::future::pending()).await;
            };
            smol::block_on(future::or(run, stop.stopped()));
        });
        let client = TcpStream::connect(address).unwrap();
        ask(&client, b"hello\n");
        stopper.stop();
        ends(&client);
    });
    let summary = figures.summary();
    assert_eq!((summary.connections, summary.open, summary.cut), (1, 0, 1));
    assert!(TcpStream::connect(address).is_err());
}
