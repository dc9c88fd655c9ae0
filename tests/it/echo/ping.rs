//! `myapp echo` as a ping.

use rustix::process::Signal;
use serde_json::Value;

use super::echo;
use crate::harness::{Peer, raw_peer, schema};

/// Splits the time off the line of a ping.
#[track_caller]
fn ping_line(line: &str) -> &str {
    let (line, time) = line
        .split_once(" time=")
        .unwrap_or_else(|| panic!("{line:?}"));
    assert!(time.ends_with('s') && time.contains(' '), "{time}");
    line
}

#[test]
fn ping_reuses_one_connection() {
    let peer = Peer::start(raw_peer::echo);
    let ran = echo(&peer, &["-n", "3", "--interval", "10ms"])
        .run()
        .code(0)
        .silent();
    let text = ran.text();
    let lines: Vec<_> = text.lines().collect();
    for (number, line) in (1..).zip(&lines[..3]) {
        assert_eq!(
            ping_line(line),
            format!("64 bytes from {}: seq={number}", peer.address())
        );
    }
    let head = format!(
        "--- {}: 3 sent, 3 answered, 0.00% lost, in ",
        peer.address()
    );
    assert!(lines[3].starts_with(&head), "{text}");
    assert!(
        lines[4].starts_with("round trip min/avg/p99/max = "),
        "{text}"
    );
    assert_eq!((lines.len(), peer.connections()), (5, 1), "{text}");
}

#[test]
fn ping_measures_the_server_delay() {
    let peer = Peer::start(raw_peer::echo_late);
    let ran = echo(&peer, &["-n", "1", "50"]).run().code(0);
    let text = ran.text();
    let time = text.lines().next().unwrap().rsplit_once("time=").unwrap().1;
    let millis = time.strip_suffix(" ms").unwrap_or_else(|| panic!("{text}"));
    assert!(
        (50.0..2000.0).contains(&millis.parse::<f64>().unwrap()),
        "{text}"
    );
    assert!(text.starts_with("3 bytes from "), "{text}");
}

#[test]
fn ping_verifies_messages_of_any_size() {
    let peer = Peer::start(raw_peer::echo);
    for size in ["1", "2", "1000", "3M"] {
        echo(&peer, &["-n", "2", "--interval", "0", "--size", size])
            .run()
            .code(0)
            .silent();
    }
    let peer = Peer::start(raw_peer::answer(b"hOla\n"));
    let ran = echo(&peer, &["-n", "2", "--interval", "0", "hola"])
        .run()
        .code(1);
    let ran = ran
        .says("message 1: reply from ")
        .says("message 2: reply from ");
    let ran = ran.says(" differs at offset 1 of connection 1: a byte was changed\n");
    assert!(
        ran.text().contains("2 sent, 0 answered, 100.00% lost"),
        "{}",
        ran.text()
    );
    let ran = echo(
        &peer,
        &["-n", "2", "--interval", "0", "--no-verify", "hola"],
    )
    .run()
    .code(0);
    assert!(
        ran.text().contains("2 sent, 2 answered, 0.00% lost"),
        "{}",
        ran.text()
    );
}

#[test]
fn ping_continues_after_a_failure() {
    let peer = Peer::start(raw_peer::close_after(64));
    let ran = echo(&peer, &["-n", "3", "--interval", "10ms"])
        .run()
        .code(4);
    let text = ran.text();
    assert!(
        text.contains(": seq=1 ") && text.contains(": seq=3 "),
        "{text}"
    );
    assert!(text.contains("3 sent, 2 answered, 33.33% lost"), "{text}");
    ran.says("message 2: ");

    let peer = Peer::start(raw_peer::say_nothing);
    let ran = echo(&peer, &["-n", "2", "--interval", "0", "--timeout", "50ms"])
        .run()
        .code(10);
    assert!(
        ran.says("timed out after 50ms before the reply")
            .text()
            .contains("2 sent, 0 answered")
    );
}

#[test]
fn signal_ends_the_ping_with_a_summary() {
    let peer = Peer::start(raw_peer::echo);
    // Ctrl-C is the normal end of an endless ping.
    for (signal, code) in [(Signal::INT, 0), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut running = echo(&peer, &["--interval", "1h"]).start();
        assert!(running.line().starts_with("64 bytes from "));
        running.signal(signal);
        let text = running.wait().code(code).silent().text();
        assert!(
            text.contains(": 1 sent, 1 answered, 0.00% lost, in "),
            "{text}"
        );
    }
}

/// timeout(1) sends its signal to the process and to its group.
#[test]
fn repeated_signal_keeps_the_summary() {
    let peer = Peer::start(raw_peer::echo);
    for _ in 0..20 {
        let mut running = echo(&peer, &["--interval", "1h"]).start();
        running.line();
        running.signal(Signal::INT);
        running.signal(Signal::INT);
        let text = running.wait().code(0).silent().text();
        assert!(text.contains(": 1 sent, 1 answered, "), "{text}");
    }
}

#[test]
fn signal_interrupts_a_counted_ping() {
    let peer = Peer::start(raw_peer::echo);
    let mut running = echo(&peer, &["--interval", "1h", "-n", "2"]).start();
    assert!(running.line().starts_with("64 bytes from "));
    running.signal(Signal::INT);
    running.wait().code(130);
}

#[test]
fn ping_summary_is_available_as_json() {
    let peer = Peer::start(raw_peer::close_after(64));
    let ran = echo(&peer, &["-n", "3", "--interval", "10ms", "--json"])
        .run()
        .code(4);
    let report = schema::json("echo", &ran.text());
    let values = ["sent", "answered", "interval", "size"].map(|name| report[name].to_string());
    assert_eq!(values, ["3", "2", "0.01", "64"], "{report}");
    let times = ["min", "p50", "p90", "p99", "p99_9", "max"];
    let times = times.map(|name| report["round_trip"][name].as_f64().unwrap());
    assert!(times[0] > 0.0 && times.is_sorted(), "{report}");
    let errors = report["errors"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64);
    assert_eq!(errors.sum::<u64>(), 1, "{report}");

    let peer = Peer::start(raw_peer::say_nothing);
    let running = echo(&peer, &["--interval", "1h", "--json"]).start();
    peer.wait_for_connections(1);
    running.signal(Signal::INT);
    let report = schema::json("echo", &running.wait().code(130).silent().text());
    assert_eq!(
        (&report["sent"], &report["round_trip"]),
        (&0.into(), &Value::Null)
    );
}
