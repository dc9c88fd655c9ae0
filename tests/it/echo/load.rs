//! `myapp echo` as a load generator.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::echo;
use crate::harness::ports::RefusingPort;
use crate::harness::tcp_queues::unread_to;
use crate::harness::{Peer, RunOutput, Server, myapp, raw_peer, schema, until};

/// Runs a load and returns its report.
#[track_caller]
fn load(peer: &Peer, arguments: &str, code: i32) -> (RunOutput, Value) {
    let arguments: Vec<_> = ["--json"].into_iter().chain(arguments.split(' ')).collect();
    let ran = echo(peer, &arguments).run().code(code);
    let report = schema::json("echo", &ran.text());
    (ran, report)
}

#[track_caller]
fn seconds(report: &Value, pointer: &str) -> f64 {
    report
        .pointer(pointer)
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{pointer}: {report}"))
}

#[test]
fn load_reports_over_many_connections_as_json() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--connections 3 -n 100", 0);
    assert_eq!(
        (&report["sent"], &report["answered"], &report["size"]),
        (&100.into(), &100.into(), &64.into())
    );
    assert!(
        report["errors"]
            .as_object()
            .unwrap()
            .values()
            .all(|count| count == 0),
        "{report}"
    );
    assert_eq!(peer.connections(), 3);
    for times in ["connect", "response", "service"] {
        let names = ["min", "p50", "p75", "p90", "p95", "p99", "p99_9", "max"];
        let times = names.map(|name| seconds(&report, &format!("/{times}/{name}")));
        assert!(times[0] > 0.0 && times.is_sorted(), "{report}");
    }
    assert!(
        report["warnings"].to_string().contains("too_few_replies"),
        "{report}"
    );
}

#[test]
fn load_reports_as_text() {
    let peer = Peer::start(raw_peer::echo);
    let ran = echo(&peer, &["--connections", "2", "-n", "10", "hola"])
        .run()
        .code(0)
        .silent();
    let text = ran.text();
    let address = peer.address();
    let title = format!("--- {address}: 5 B 10 times, connections: 2, 1 in flight on each\n");
    assert!(text.starts_with(&title), "{text}");
    for part in [
        "10 sent, 10 answered in ",
        "     connect    response     service\nmin  ",
        "\np75 ",
        "\np99.9 ",
        "\nwarning: 10 replies are",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn load_ends_after_its_duration() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--duration 300ms --connections 2", 0);
    assert!(
        (0.3..5.0).contains(&seconds(&report, "/elapsed")),
        "{report}"
    );
    assert_eq!(report["sent"], report["answered"], "{report}");
}

#[test]
fn several_messages_are_in_flight() {
    // Replies only after receiving five messages.
    let peer = Peer::start(|mut stream| {
        let mut five = [0; 5 * 64];
        loop {
            stream.read_exact(&mut five)?;
            stream.write_all(&five)?;
        }
    });
    let (_, report) = load(&peer, "--in-flight 5 -n 20", 0);
    assert_eq!(report["answered"], 20);
    let (ran, report) = load(&peer, "--in-flight 4 -n 4 --timeout 100ms", 10);
    assert_eq!(
        (&report["answered"], &report["errors"]["timeout"]),
        (&0.into(), &1.into())
    );
    ran.says("timed out after 100ms before the reply");
}

#[test]
fn stalled_server_shows_in_response_times() {
    let stalled = std::sync::Mutex::new(false);
    let peer = Peer::start(raw_peer::echo_changed(move |offset, piece| {
        let mut stalled = stalled.lock().unwrap();
        if offset >= 64 * 200 && !*stalled {
            thread::sleep(Duration::from_secs(1));
            *stalled = true;
        }
        piece
    }));
    let (_, report) = load(&peer, "--rate 1000 --duration 1500ms", 0);
    assert!(seconds(&report, "/response/p99") >= 0.9, "{report}");
    assert!(seconds(&report, "/service/p99") < 0.5, "{report}");
    assert!(seconds(&report, "/service/max") >= 0.9, "{report}");
}

#[test]
fn unreached_rate_is_a_warning() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--rate 10M --duration 300ms", 0);
    let warnings = report["warnings"].to_string();
    for part in [
        "rate_not_reached",
        " of 10000000 messages per second, ",
        "% below",
    ] {
        assert!(warnings.contains(part), "{warnings}");
    }
    assert_eq!(report["rate_requested"], 1e7);
}

#[test]
#[ignore = "slow: measures memory over 8 s"]
fn memory_of_a_long_load_is_constant() {
    let server = Server::start(&["--mode", "chunk"]);
    let address = server.address().to_string();
    for more in [["--in-flight", "1"], ["--rate", "10M"]] {
        let arguments = [
            "echo",
            "-q",
            "--connections",
            "50",
            "--duration",
            "1h",
            "-c",
            &address,
        ];
        let running = myapp([&arguments[..], &more].concat()).start();
        let peak = |after: u64| {
            thread::sleep(Duration::from_secs(after));
            running.peak_memory()
        };
        let early = peak(1);
        let late = peak(3);
        assert!(
            late < early + 1024 && late < 32 << 10,
            "{early} KiB, then {late}"
        );
        running.signal(Signal::INT);
        let ran = running.wait().code(130);
        let text = ran.text();
        let sent = text
            .lines()
            .find_map(|line| line.split_once(" sent, "))
            .expect("a line")
            .0;
        assert!(sent.parse::<u64>().unwrap() > 10_000, "{text}");
    }
}

#[test]
fn busy_poll_has_no_wakeup_warning() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--busy-poll 1s --connections 2 -n 2000", 0);
    assert_eq!(report["answered"], 2000);
    assert!(
        !report["warnings"].to_string().contains("wakeup_latency"),
        "{report}"
    );
    let ran = echo(
        &peer,
        &["-n", "3", "--interval", "5ms", "--busy-poll", "1s"],
    )
    .run()
    .code(0);
    assert!(ran.text().contains("3 sent, 3 answered"), "{}", ran.text());
}

#[test]
fn warmup_is_excluded() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(
        &peer,
        "--rate 100 --connections 2 --warmup 1 --duration 500ms",
        0,
    );
    assert!(
        (30..=51).contains(&report["sent"].as_u64().unwrap()),
        "{report}"
    );
}

#[test]
fn ramp_up_spreads_connection_setup() {
    let peer = Peer::start(raw_peer::echo);
    load(&peer, "--connections 10 --ramp-up 1m --duration 300ms", 0);
    assert_eq!(peer.connections(), 1);
}

#[test]
fn new_connections_measure_connecting() {
    let peer = Peer::start(raw_peer::echo);
    let (_, report) = load(&peer, "--new-connections --connections 2 -n 20", 0);
    assert_eq!((peer.connections(), &report["answered"]), (20, &20.into()));
    let [connect, service, response] =
        ["connect", "service", "response"].map(|times| seconds(&report, &format!("/{times}/mean")));
    // Times have three significant digits.
    assert!(response >= 0.99 * (connect + service), "{report}");
}

#[test]
fn corrupted_byte_is_located_and_classified() {
    const AT: u64 = 777_777;
    type Change = fn(&mut Vec<u8>, usize);
    let changes: [(Change, &str); 3] = [
        (|piece, at| piece[at] ^= 1, "changed"),
        (|piece, at| piece.insert(at, 0x11), "added"),
        (|piece, at| _ = piece.remove(at), "dropped"),
    ];
    for (change, kind) in changes {
        let changed = move |offset: u64, mut piece: Vec<u8>| {
            if (offset..offset + piece.len() as u64).contains(&AT) {
                change(&mut piece, (AT - offset) as usize);
            }
            piece
        };
        let peer = Peer::start(raw_peer::echo_changed(changed));
        let (ran, report) = load(&peer, "--in-flight 1 -n 1 --size 1M", 1);
        assert_eq!(
            (&report["errors"]["mismatch"], &report["answered"]),
            (&1.into(), &0.into())
        );
        let counted = |name: &str| u64::from(name == kind);
        for name in ["changed", "added", "dropped"] {
            assert_eq!(report["mismatches"][name], counted(name), "{report}");
        }
        ran.says(&format!(
            "differs at offset {AT} of connection 1: a byte was {kind}\n"
        ));
    }
}

#[test]
fn corruption_is_counted_by_kind() {
    // Corrupts the second reply of each connection.
    let kinds = std::sync::atomic::AtomicUsize::new(0);
    let peer = Peer::start(move |mut stream| {
        let mut message = [0; 64];
        let kind = kinds.fetch_add(1, SeqCst) % 3;
        stream.read_exact(&mut message)?;
        stream.write_all(&message)?;
        stream.read_exact(&mut message)?;
        let mut reply = message.to_vec();
        match kind {
            0 => reply[50] ^= 0x80,
            1 => reply.insert(50, 0x80),
            _ => _ = reply.remove(50),
        }
        stream.write_all(&reply)?;
        raw_peer::echo(stream)
    });
    let (ran, report) = load(&peer, "--connections 3 -n 9", 1);
    let counted = ["changed", "added", "dropped"].map(|kind| &report["mismatches"][kind]);
    assert_eq!(
        (counted, &report["answered"]),
        ([1, 1, 1].map(Value::from).each_ref(), &6.into())
    );
    ran.says("differs at offset 114 of connection ");
    let ran = echo(&peer, &["--connections", "3", "-n", "9"])
        .run()
        .code(1);
    let text = ran.text();
    assert!(
        text.contains("3 × mismatch (1 changed, 1 added, 1 dropped) failed"),
        "{text}"
    );
}

/// Echoes, then sends more bytes after the end of the input.
fn echo_and_more(more: &'static [u8]) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync {
    move |mut stream| {
        raw_peer::echo(stream)?;
        stream.write_all(more)
    }
}

#[test]
fn bytes_after_the_last_reply_are_detected() {
    let peer = Peer::start(echo_and_more(b"x"));
    let (ran, report) = load(&peer, "--in-flight 2 -n 3", 1);
    assert_eq!(
        (&report["errors"]["mismatch"], &report["answered"]),
        (&1.into(), &3.into())
    );
    ran.says("differs at offset 192 of connection 1: a byte was added\n");
    let (_, report) = load(&peer, "--new-connections --connections 1 -n 2", 1);
    assert_eq!(report["errors"]["mismatch"], 2, "{report}");
    load(&peer, "--in-flight 2 -n 3 --no-verify", 0);
    let ran = echo(&peer, &["-n", "2", "--interval", "0"]).run().code(1);
    ran.says("message 2: reply from ")
        .says(" at offset 128 of connection 1: a byte was added\n");
}

#[test]
fn server_that_ignores_half_close_does_not_delay() {
    let peer = Peer::start(|mut stream| {
        raw_peer::echo(stream)?;
        thread::sleep(Duration::from_secs(300));
        stream.write_all(b"too late")
    });
    let start = Instant::now();
    load(&peer, "--new-connections --connections 1 -n 100", 0);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn connections_are_distributed_over_threads() {
    let peer = Peer::start(raw_peer::echo);
    let arguments = [
        "--duration",
        "1h",
        "--connections",
        "5",
        "--threads",
        "3",
        "--json",
    ];
    let running = echo(&peer, &arguments).start();
    peer.wait_for_connections(5);
    let tasks = fs::read_dir(format!("/proc/{}/task", running.id())).unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
    assert_eq!(names.filter(|name| name == "load\n").count(), 3);
    running.signal(Signal::INT);
    schema::json("echo", &running.wait().code(130).text());
}

#[test]
fn unread_messages_need_bounded_memory() {
    let peer = Peer::start(raw_peer::do_nothing);
    let arguments = [
        "--in-flight",
        "1000000000",
        "--duration",
        "1h",
        "--timeout",
        "1h",
    ];
    let running = echo(&peer, &arguments).start();
    // The client has filled the socket buffers and waits.
    let mut unread = 0;
    until(|| {
        let before = std::mem::replace(&mut unread, unread_to(peer.port()));
        unread > 0 && unread == before && running.sleeps()
    });
    assert!(
        running.peak_memory() < 64 << 10,
        "{} KiB",
        running.peak_memory()
    );
    running.signal(Signal::INT);
    running.wait().code(130);
}

#[test]
fn descriptor_limit_is_checked_before_connecting() {
    // Each thread needs descriptors too.
    for (threads, limit, room) in [("1", 64, 31), ("16", 128, 48)] {
        let arguments = ["echo", "-q", "--connections", "49", "--threads", threads];
        let load = myapp(arguments.into_iter().chain(["-c", "127.0.0.1:1"]));
        let ran = load.descriptors(limit).run().code(2).prints("");
        ran.says(&format!(
            "open 49 connections: the descriptor limit allows {room}\n"
        ))
        .says("hint: see 'ulimit -Hn'");
    }
}

#[test]
fn ten_useless_connections_end_the_load() {
    let peer = Peer::start(raw_peer::close_after(63));
    let (_, report) = load(&peer, "--connections 1 --duration 1h", 4);
    assert_eq!(
        (peer.connections(), &report["answered"]),
        (10, &0.into()),
        "{report}"
    );
}

#[test]
fn failed_connection_is_replaced_and_counted() {
    let peer = Peer::start(raw_peer::close_after(10 * 64));
    let (ran, report) = load(&peer, "--in-flight 1 -n 33", 4);
    // Each connection answers ten messages; the next one finds it closed.
    assert_eq!(
        (peer.connections(), &report["answered"]),
        (3, &30.into()),
        "{report}"
    );
    let errors: u64 = report["errors"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(errors, 3, "{report}");
    ran.says("times)\n");
}

#[test]
fn unreachable_server_ends_the_load() {
    let port = RefusingPort::new();
    let address = port.address().to_string();
    let ran = myapp(["echo", "-q", "--duration", "1h", "-c", &address])
        .run()
        .code(4);
    let text = ran.text();
    assert!(
        text.contains("0 sent, 0 answered") && text.contains("1 × connect failed"),
        "{text}"
    );
    assert_eq!(
        ran.stderr,
        format!("myapp: connect to {address}: Connection refused\n")
    );
}

#[test]
fn signal_ends_the_load_with_a_report() {
    let echoed = Arc::new(AtomicU64::new(0));
    let offsets = echoed.clone();
    let peer = Peer::start(raw_peer::echo_changed(move |offset, piece| {
        offsets.fetch_max(offset, SeqCst);
        piece
    }));
    let running = echo(&peer, &["--duration", "1h", "--json"]).start();
    // A message is sent after the reply to the one before it.
    until(|| echoed.load(SeqCst) > 0);
    running.signal(Signal::INT);
    let ran = running.wait().code(130).silent();
    let report = schema::json("echo", &ran.text());
    assert!(report["answered"].as_u64().unwrap() > 0, "{report}");

    let before = peer.connections();
    let running = echo(&peer, &["--duration", "1h"]).start();
    peer.wait_for_connections(before + 1);
    running.signal(Signal::INT);
    let text = running.wait().code(130).silent().text();
    assert!(
        text.contains(" sent, ") && text.contains(" messages per second"),
        "{text}"
    );
}
