//! Faults that `myapp serve` makes on purpose.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{MIB, fill, noise};
use crate::harness::serve::{ask, ends};
use crate::harness::{Server, myapp};

/// Numbered lines.
fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{number}\n")).collect()
}

#[test]
fn each_answer_comes_so_much_later_and_none_is_held_up_by_another() {
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
fn late_answers_are_whole_and_in_their_order() {
    for mode in ["line", "chunk"] {
        let server = Server::start(&["-q", "--mode", mode, "--delay=5ms", "--jitter=10ms"]);
        for length in [0, 1, 100_000, 2 << 20] {
            let bytes = noise(length);
            assert!(
                server.exchange(&bytes) == bytes,
                "{length} bytes in {mode} mode differ"
            );
        }
    }
}

#[test]
fn the_same_seed_loses_the_same_answers() {
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
            .says(&format!("lost={count} "));
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
fn a_seed_that_was_chosen_at_random_is_told() {
    Server::start(&["--jitter", "1ms"])
        .stop()
        .says("--seed repeats them seed=");
}

#[test]
fn a_connection_is_reset_after_so_many_bytes_of_answers() {
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
        .says("reset=1")
        .says("failed=0")
        .says("why=\"reset on purpose\"");
}

#[test]
fn while_too_much_waits_nothing_is_read() {
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
fn the_refusal_of_a_long_line_comes_behind_the_answers_that_wait() {
    let server = Server::start(&["--delay", "100ms", "--max-line", "5"]);
    let answer = server.exchange(b"one\n123456\n");
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        "one\nerror: line longer than 5 bytes\n"
    );
}

#[test]
fn at_the_end_late_answers_still_come() {
    let server = Server::start(&["--delay", "500ms"]);
    let mut client = server.connect();
    client.write_all(b"late\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    server.signal(rustix::process::Signal::TERM);
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"late\n");
    ends(&client);
    drop(client);
    server.wait().code(0).says("why=\"drained\"").says("cut=0");
}

#[test]
fn what_is_no_share_or_would_have_no_effect_is_a_usage_error() {
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
    ran.says("hint: they happen to answers, and it sends none");
}
