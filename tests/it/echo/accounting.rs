//! Accounting of a load: each message that was due is counted once, with its response time.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::echo;
use crate::harness::ports::RefusingPort;
use crate::harness::{Peer, RunOutput, Server, myapp, raw_peer, schema, until};

/// Length of a generated message.
const SIZE: usize = 64;

#[track_caller]
fn count(report: &Value, name: &str) -> u64 {
    report[name]
        .as_u64()
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

#[track_caller]
fn response(report: &Value, name: &str) -> f64 {
    report["response"][name]
        .as_f64()
        .unwrap_or_else(|| panic!("{name}: {report}"))
}

/// Asserts that the counts of a report add up.
#[track_caller]
pub(super) fn assert_adds_up(report: &Value) {
    let sent = ["answered", "mismatched", "timeouts", "lost", "failed"];
    let sent: u64 = sent.iter().map(|name| count(report, name)).sum();
    assert_eq!(count(report, "sent"), sent, "{report}");
    let due = count(report, "sent") + count(report, "unsent");
    assert_eq!(count(report, "due"), due, "{report}");
}

/// Runs a load and returns its report, whose counts add up.
#[track_caller]
fn load(peer: &Peer, arguments: &str, code: i32) -> (RunOutput, Value) {
    let arguments: Vec<_> = ["--json"].into_iter().chain(arguments.split(' ')).collect();
    let ran = echo(peer, &arguments).run().code(code);
    let report = schema::json("echo", &ran.text());
    assert_adds_up(&report);
    (ran, report)
}

#[track_caller]
fn assert_warning(report: &Value, code: &str) {
    let warnings = report["warnings"].as_array().unwrap();
    let found = warnings.iter().any(|warning| warning["code"] == code);
    assert!(found, "{report}");
}

/// Echoes message by message; `is_answered` gets the number of each message in the run.
fn echo_some(
    is_answered: impl Fn(u64) -> bool + Send + Sync + 'static,
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    let received = AtomicU64::new(0);
    move |mut stream| {
        let mut message = [0; SIZE];
        loop {
            stream.read_exact(&mut message)?;
            if is_answered(received.fetch_add(1, SeqCst)) {
                stream.write_all(&message)?;
            }
        }
    }
}

#[test]
fn messages_due_during_a_final_stall_are_sent() {
    let stalled = Mutex::new(false);
    let peer = Peer::start(raw_peer::echo_changed(move |offset, piece| {
        let mut stalled = stalled.lock().unwrap();
        if offset >= SIZE as u64 * 500 && !*stalled {
            thread::sleep(Duration::from_millis(1500));
            *stalled = true;
        }
        piece
    }));
    let (_, report) = load(&peer, "--rate 1000 --duration 1s --timeout 1m", 0);
    assert_eq!(count(&report, "answered"), 1000, "{report}");
    assert!(response(&report, "p99") >= 1.3, "{report}");
}

#[test]
fn unsent_messages_count_until_the_run_stops() {
    // No message after the 500th is answered: those sent time out, and the others are unsent.
    let peer = Peer::start(echo_some(|number| number < 500));
    let (_, report) = load(&peer, "--rate 1000 --duration 1s --timeout 300ms", 10);
    assert_eq!(count(&report, "due"), 1000, "{report}");
    assert_eq!(count(&report, "answered"), 500, "{report}");
    assert!(count(&report, "timeouts") > 0, "{report}");
    assert!(count(&report, "unsent") > 100, "{report}");
    assert!(response(&report, "max") >= 0.6, "{report}");
    assert!(response(&report, "p90") >= 0.3, "{report}");
    assert_warning(&report, "unsent");
    assert_warning(&report, "timeouts");
}

#[test]
fn signal_during_a_stall_counts_what_was_due() {
    let stalled_since = Arc::new(Mutex::new(None));
    let since = stalled_since.clone();
    let peer = Peer::start(echo_some(move |number| {
        if number < 200 {
            return true;
        }
        since.lock().unwrap().get_or_insert_with(Instant::now);
        false
    }));
    let arguments = "--json --rate 1000 --duration 1h --timeout 1h";
    let arguments: Vec<_> = arguments.split(' ').collect();
    let running = echo(&peer, &arguments).start();
    until(|| {
        let since: Option<Instant> = *stalled_since.lock().unwrap();
        since.is_some_and(|since| since.elapsed() >= Duration::from_secs(1))
    });
    running.signal(Signal::INT);
    let report = schema::json("echo", &running.wait().code(130).text());
    assert_adds_up(&report);
    assert_eq!(count(&report, "answered"), 200, "{report}");
    assert_eq!(count(&report, "failed"), 1, "{report}");
    assert!(count(&report, "unsent") >= 900, "{report}");
    assert!(response(&report, "max") >= 1.0, "{report}");
    assert!(response(&report, "p50") >= 0.2, "{report}");
}

#[test]
fn timed_out_messages_count_with_their_timeout() {
    let peer = Peer::start(echo_some(|number| number % 20 != 19));
    let (ran, report) = load(&peer, "--connections 1 -n 200 --timeout 300ms", 10);
    // On a busy machine a reply may take longer than the timeout.
    assert!(count(&report, "timeouts") >= 10, "{report}");
    assert!(response(&report, "p99") >= 0.29, "{report}");
    assert!(report["service"]["p50"].as_f64().unwrap() < 0.3, "{report}");
    assert_eq!(count(&report, "due"), 200, "{report}");
    assert_warning(&report, "timeouts");
    ran.says("timed out after 300ms");
}

#[test]
fn number_of_scheduled_messages_is_exact() {
    let peer = Peer::start(raw_peer::echo);
    for (arguments, due) in [
        ("--rate 1000 --duration 700ms", 700),
        ("--rate 1000 --connections 200 --duration 500ms", 500),
        (
            "--rate 1000 --connections 7 --duration 500ms --warmup 100ms",
            500,
        ),
        (
            "--rate 1000 --connections 3 --duration 300ms --ramp-up 200ms",
            300,
        ),
        (
            "--rate 500 --connections 4 --duration 200ms --new-connections",
            100,
        ),
        ("--rate 2000 -n 321 --connections 10", 321),
    ] {
        let (_, report) = load(&peer, arguments, 0);
        assert_eq!(count(&report, "answered"), due, "{arguments}: {report}");
        assert_eq!(count(&report, "due"), due, "{arguments}: {report}");
    }
}

#[test]
fn schedule_starts_when_connections_are_open() {
    // The server accepts nothing at first, but the kernel opens the connections.
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--rate 100 --connections 50 --duration 500ms", 0);
    assert_eq!(peer.connections(), 50);
    assert_eq!(count(&report, "answered"), 50, "{report}");
}

#[test]
fn messages_of_a_refused_connection_stay_with_it() {
    // Only the first connection is served, as with a limit per address.
    let accepted = AtomicUsize::new(0);
    let peer = Peer::start(move |stream| match accepted.fetch_add(1, SeqCst) {
        0 => raw_peer::echo(stream),
        _ => raw_peer::close_first(stream),
    });
    let arguments = "--rate 100 --connections 2 --duration 1s --timeout 200ms";
    let (_, report) = load(&peer, arguments, 4);
    assert_eq!(count(&report, "due"), 100, "{report}");
    assert_eq!(count(&report, "answered"), 50, "{report}");
    let others = count(&report, "failed") + count(&report, "unsent");
    assert_eq!(others, 50, "{report}");
    assert!(count(&report, "reconnects") > 0, "{report}");
}

#[test]
fn server_that_is_away_is_reconnected_until_the_end() {
    // After 20 messages the server closes all connections for longer than ten failures take.
    let away_until = Mutex::new(None);
    let served = Arc::new(AtomicU64::new(0));
    let counted = served.clone();
    let peer = Peer::start(move |mut stream| {
        let mut message = [0; SIZE];
        loop {
            if counted.load(SeqCst) == 20 {
                let away = Duration::from_secs(5);
                let mut until = away_until.lock().unwrap();
                if Instant::now() < *until.get_or_insert_with(|| Instant::now() + away) {
                    return Ok(());
                }
            }
            stream.read_exact(&mut message)?;
            stream.write_all(&message)?;
            counted.fetch_add(1, SeqCst);
        }
    });
    let (_, report) = load(&peer, "--rate 100 --duration 10s --timeout 20s", 4);
    assert_eq!(count(&report, "due"), 1000, "{report}");
    assert_eq!(count(&report, "answered"), served.load(SeqCst), "{report}");
    assert!(count(&report, "answered") > 900, "{report}");
    assert_eq!(count(&report, "given_up"), 0, "{report}");
    let reconnects = count(&report, "reconnects");
    assert!(reconnects > 5, "{report}");
    assert!(response(&report, "max") >= 4.0, "{report}");
    let samples = report["timeline"].as_array().unwrap();
    let total: u64 = samples
        .iter()
        .map(|sample| count(sample, "reconnects"))
        .sum();
    assert_eq!(total, reconnects, "{report}");
    let down = |sample: &Value| sample["connections_down"].as_f64().unwrap();
    assert!(
        samples
            .iter()
            .all(|sample| (0.0..1.001).contains(&down(sample))),
        "{report}"
    );
    let width = |sample: &Value| sample["to"].as_f64().unwrap() - sample["from"].as_f64().unwrap();
    let downtime: f64 = samples
        .iter()
        .map(|sample| down(sample) * width(sample))
        .sum();
    assert!((4.0..6.5).contains(&downtime), "{report}");
}

#[test]
fn useless_connections_are_given_up_with_a_warning() {
    let peer = Peer::start(raw_peer::close_first);
    let (_, report) = load(&peer, "--connections 2 --rate 100 --duration 1h", 4);
    assert_eq!(count(&report, "given_up"), 2, "{report}");
    assert!(count(&report, "unsent") > 0, "{report}");
    assert_warning(&report, "connections_given_up");
    // Both are down until the end.
    let last = report["timeline"].as_array().unwrap().last().unwrap();
    let down = last["connections_down"].as_f64().unwrap();
    assert!(down > 1.5, "{report}");
}

#[test]
fn messages_of_a_corrupted_connection_are_counted() {
    let peer = Peer::start(raw_peer::echo_changed(|offset, mut piece| {
        if offset + piece.len() as u64 > 64 * 100 {
            piece[0] ^= 1;
        }
        piece
    }));
    let (_, report) = load(&peer, "--in-flight 20 -n 500", 1);
    assert_eq!(count(&report, "due"), 500, "{report}");
    assert!(count(&report, "mismatched") > 0, "{report}");
    assert!(count(&report, "failed") > 0, "{report}");
}

#[test]
fn rejected_line_is_named() {
    let server = Server::start(&["-q", "--max-line", "100"]);
    let address = server.address().to_string();
    for more in ["--connections 1 -n 3", "-n 1"] {
        let arguments = ["echo", "-q", "-c", &address, "--size", "200"];
        let ran = myapp(arguments.into_iter().chain(more.split(' '))).run();
        ran.code(11)
            .says("the server rejected a line as too long")
            .says("hint: send shorter messages");
    }
    let long = "x".repeat(200);
    for mode in [["--one-connection"].as_slice(), &[], &["--verify"]] {
        let arguments = ["echo", "-q", "-c", &address, "hola", &long, "adiós"];
        let ran = myapp(arguments.iter().chain(mode)).run().code(11);
        ran.prints("hola\nadiós\n")
            .says("message 2: send to")
            .says("the server rejected a line as too long");
    }
}

#[test]
fn wait_ready_waits_for_the_server() {
    let port = RefusingPort::new();
    let address = port.address().to_string();
    let refused = ["echo", "-c", &address, "--wait-ready", "300ms", "hola"];
    let start = Instant::now();
    myapp(refused).run().code(4).says("Connection refused");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let arguments = [
        "echo",
        "-q",
        "-c",
        &address,
        "--wait-ready",
        "1m",
        "-n",
        "3",
    ];
    let running = myapp(arguments.into_iter().chain(["--connections", "1"])).start();
    until(|| running.sleeps());
    let peer = Peer::on(port.listen(), raw_peer::echo);
    running.wait().code(0);
    assert_eq!(peer.connections(), 2, "the first one is the attempt");
    let arguments = [
        "echo",
        "-q",
        "-c",
        "127.0.0.1:1",
        "--wait-ready",
        "1h",
        "-n",
        "3",
    ];
    let running = myapp(arguments).start();
    until(|| running.catches(Signal::INT) && running.sleeps());
    running.signal(Signal::INT);
    running.wait().code(130);
}
