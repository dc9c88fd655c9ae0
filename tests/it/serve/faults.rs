//! Fault injection.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{MIB, fill, random_bytes};
use crate::harness::serve::{ask, ends};
use crate::harness::tcp_queues::unread_to;
use crate::harness::{Server, myapp, until};

/// Returns numbered lines.
fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn delay_applies_to_each_reply() {
    let server = Server::start(&["--delay", "300ms", "--prefix", "> "]);
    let mut client = server.connect();
    let start = Instant::now();
    client.write_all(b"one\n").unwrap();
    std::thread::sleep(Duration::from_millis(150));
    client.write_all(b"two\nlast").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut first = [0; 6];
    client.read_exact(&mut first).unwrap();
    let early = start.elapsed();
    assert_eq!(&first, b"> one\n");
    assert!(early >= Duration::from_millis(300), "{early:?}");
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "> two\n> last");
    assert!(
        start.elapsed() >= Duration::from_millis(450),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn delayed_replies_are_complete_and_ordered() {
    for mode in ["line", "chunk"] {
        let server = Server::start(&["-q", "--mode", mode, "--delay=5ms", "--jitter=10ms"]);
        for length in [0, 1, 100_000, 2 << 20] {
            let bytes = random_bytes(length);
            assert!(
                server.exchange(&bytes) == bytes,
                "{length} bytes in {mode} mode differ"
            );
        }
    }
}

#[test]
fn same_seed_drops_the_same_replies() {
    let lost = |seed: &str, threads: &str| {
        let faults = [
            "--drop-rate=20%",
            "--jitter=5ms",
            "--seed",
            seed,
            "--threads",
            threads,
        ];
        let server = Server::start(&faults);
        let all = lines(500);
        let answers = [(); 3].map(|()| server.exchange(all.as_bytes()));
        let count: usize = answers
            .iter()
            .map(|answer| 500 - answer.split(is_end).count() + 1)
            .sum();
        server
            .stop()
            .says("summary connections=3 messages=1500")
            .says(&format!("fault_dropped={count} "));
        assert!((200..400).contains(&count), "{count} of 1500");
        answers
    };
    let first = lost("7", "1");
    assert_eq!(first, lost("7", "1"));
    assert_eq!(
        first,
        lost("7", "2"),
        "connections are counted over all threads"
    );
    assert_ne!(first[0], first[1], "each connection has faults of its own");
    assert_ne!(first, lost("8", "1"));
}

fn is_end(byte: &u8) -> bool {
    *byte == b'\n'
}

#[test]
fn random_seed_is_logged() {
    Server::start(&["--jitter", "1ms"])
        .stop()
        .says("repeat them with --seed seed=");
}

#[test]
fn connection_is_reset_after_configured_bytes() {
    let server = Server::start(&["--reset-after", "10"]);
    let mut client = server.connect();
    assert_eq!(ask(&client, b"12345\n"), b"12345\n");
    client.write_all(b"78\nabcdefgh\n").unwrap();
    let mut answer = Vec::new();
    let error = client.read_to_end(&mut answer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(answer, b"78\na");
    assert_eq!(
        server.exchange(b"123456789"),
        b"123456789",
        "each connection counts for itself"
    );
    server
        .stop()
        .says("fault_reset=1")
        .says("failed=0")
        .says("reason=\"fault reset\"");
}

#[test]
fn full_delay_queue_pauses_reading() {
    let server = Server::start(&["-q", "--mode", "chunk", "--delay", "1h", "--drain", "0"]);
    let before = server.memory();
    let client = server.connect();
    assert!(fill(&client, 64 << 20) < 64 << 20, "the server took all");
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 2 * MIB, "grown by {grown} bytes");
    let start = Instant::now();
    server.stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn line_error_follows_delayed_replies() {
    let server = Server::start(&["--delay", "100ms", "--max-line", "5"]);
    let answer = server.exchange(b"one\n123456\n");
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "one\nerror: line longer than 5 bytes\n"
    );
}

#[test]
fn shutdown_sends_delayed_replies() {
    let server = Server::start(&["--delay", "500ms"]);
    let mut client = server.connect();
    client.write_all(b"late\n").unwrap();
    until(|| unread_to(server.address().port()) == 0);
    server.signal(rustix::process::Signal::TERM);
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"late\n");
    ends(&client);
    drop(client);
    server
        .wait()
        .code(0)
        .says("reason=\"drained\"")
        .says("aborted_on_shutdown=0");
}

#[test]
fn invalid_or_ineffective_faults_are_usage_errors() {
    for rate in ["2", "-0.1", "101%", "NaN", "some", "%"] {
        let rate = format!("--drop-rate={rate}");
        myapp(["serve", &rate])
            .run()
            .code(2)
            .prints("")
            .says("not a share from 0 to 1");
    }
    let ran = myapp(["serve", "--seed", "7"]).run().code(2).prints("");
    ran.says("--seed has no effect without --jitter or --drop-rate");
    let ran = myapp(["serve", "--mode", "discard", "--delay", "1s"])
        .run()
        .code(2)
        .prints("");
    ran.says("hint: discard mode sends no replies");
}
