//! `myapp echo`: messages.

mod accounting;
mod bind;
mod load;
mod lossy;
mod merge;
mod ping;
mod raw;
mod report;
mod soak;
mod tls;
mod truth;
mod udp;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::ports::RefusingPort;
use crate::harness::program::Running;
use crate::harness::{Folder, Peer, Program, RunOutput, UNRESOLVABLE_HOST, myapp, raw_peer, until};

/// Returns `myapp echo` with a peer as its server.
fn echo(peer: &Peer, arguments: &[&str]) -> Program {
    let address = peer.address();
    myapp([&["echo", "-q", "-c", &address], arguments].concat())
}

/// Asserts that stderr is one line, with an optional hint, that names the peer and one of the
/// causes.
#[track_caller]
fn assert_error(ran: RunOutput, peer: &Peer, causes: &[&str]) {
    let (line, hint) = ran.stderr.split_once('\n').expect("a line");
    assert!(line.starts_with("myapp: "), "{line}");
    assert!(
        hint.is_empty() || hint.starts_with("hint: ") && hint.lines().count() == 1,
        "{hint}"
    );
    assert!(line.contains(&peer.address()), "{line}");
    assert!(causes.iter().any(|cause| line.ends_with(cause)), "{line}");
}

#[test]
fn replies_are_printed_in_message_order() {
    let peer = Peer::start(raw_peer::echo_late);
    echo(&peer, &["300", "150", "0", "200"])
        .run()
        .code(0)
        .prints("300\n150\n0\n200\n")
        .silent();
    assert_eq!(peer.connections(), 4);
}

#[test]
fn stdin_lines_are_messages_of_any_bytes() {
    let peer = Peer::start(raw_peer::echo);
    let lines = b"one\n\n\x00\xff\xfe\r\nlast without newline";
    let replies = b"one\n\n\x00\xff\xfe\r\nlast without newline\n";
    echo(&peer, &[])
        .stdin(lines)
        .run()
        .code(0)
        .prints(replies)
        .silent();
    assert_eq!(peer.connections(), 4);
}

#[test]
fn empty_stdin_succeeds_without_connecting() {
    myapp(["echo", "-c", "127.0.0.1:1"])
        .stdin("")
        .run()
        .code(0)
        .prints("")
        .silent();
}

#[test]
fn open_stdin_is_answered_line_by_line() {
    let peer = Peer::start(raw_peer::echo);
    let mut running = echo(&peer, &[]).hold_stdin().start();
    for line in ["first", "second"] {
        running.write(format!("{line}\n"));
        assert_eq!(running.line(), line);
    }
    running.close_stdin();
    running.wait().code(0).silent();
}

#[test]
fn jobs_limit_concurrent_connections() {
    let peer = Peer::start(raw_peer::echo_late);
    echo(&peer, &["-j", "3"])
        .stdin("20\n".repeat(30))
        .run()
        .code(0)
        .prints("20\n".repeat(30));
    assert_eq!(peer.connections(), 30);
    // A client may have opened its next connection before the peer has seen the last one end.
    assert!(
        (2..=6).contains(&peer.max_concurrent()),
        "{}",
        peer.max_concurrent()
    );
}

#[test]
fn one_connection_carries_all_messages() {
    let peer = Peer::start(raw_peer::echo);
    let lines: String = (0..5000).map(|number| format!("line {number}\n")).collect();
    let ran = echo(&peer, &["--one-connection", "--verify"])
        .stdin(&lines)
        .run();
    ran.code(0).prints(&lines).silent();
    assert_eq!(peer.connections(), 1);
}

#[test]
fn one_connection_reconnects_after_a_failure() {
    let peer = Peer::start(raw_peer::answer_and_close(b"hi\n"));
    let ran = echo(&peer, &["--one-connection", "a", "b", "c"])
        .run()
        .code(4);
    ran.prints("hi\nhi\n").says("message 2: ");
    assert_eq!(peer.connections(), 2);
}

#[test]
fn surplus_line_is_the_next_reply_on_one_connection() {
    let peer = Peer::start(raw_peer::answer(b"hi\nho\n"));
    let ran = echo(&peer, &["--one-connection", "a", "b", "c", "d"])
        .run()
        .code(0);
    ran.prints("hi\nho\nhi\nho\n").silent();
    assert_eq!(peer.connections(), 1);
}

#[test]
fn large_message_does_not_deadlock() {
    let peer = Peer::start(raw_peer::echo);
    let line = format!("{}\n", "x".repeat(15_000_000));
    let ran = echo(&peer, &["--verify"]).stdin(&line).run().code(0);
    assert!(
        ran.stdout == line.as_bytes(),
        "{} bytes received",
        ran.stdout.len()
    );
}

#[test]
fn verify_reports_the_offset_of_the_first_difference() {
    let peer = Peer::start(raw_peer::answer(b"hOla\n"));
    let ran = echo(&peer, &["--verify", "hola"])
        .run()
        .code(1)
        .prints("hOla\n");
    assert_error(ran, &peer, &["differs from its message at offset 1"]);
    echo(&peer, &["hola"])
        .run()
        .code(0)
        .prints("hOla\n")
        .silent();
}

#[test]
fn verify_stops_reading_an_overlong_reply() {
    let peer = Peer::start(raw_peer::babble);
    let ran = echo(&peer, &["--verify", "xxxx"]).run().code(1);
    assert!(ran.stdout.starts_with(b"xxxx") && ran.stdout.len() < 1 << 20);
    assert_error(ran, &peer, &["differs from its message at offset 4"]);
}

#[test]
fn endless_reply_is_limited() {
    let peer = Peer::start(raw_peer::babble);
    let ran = echo(&peer, &["--timeout", "1m", "hola"]).run().code(11);
    assert!(
        (16 << 20..17 << 20).contains(&ran.stdout.len()),
        "{}",
        ran.stdout.len()
    );
    assert_error(ran, &peer, &["longer than 16777216 bytes"]);
}

#[test]
fn overlong_stdin_line_is_reported_and_skipped() {
    let peer = Peer::start(raw_peer::echo);
    let lines = format!("a\n{}\nb\n", "x".repeat(17 << 20));
    let ran = echo(&peer, &[])
        .stdin(lines)
        .run()
        .code(11)
        .prints("a\nb\n");
    assert_eq!(
        ran.stderr,
        "myapp: read standard input: a line is longer than 16777215 bytes\n"
    );
}

#[test]
fn server_failures_are_reported_after_partial_replies() {
    let early = [
        "connection closed before the reply",
        "Connection reset by peer",
        "Broken pipe",
    ];
    let peer = Peer::start(raw_peer::close_first);
    assert_error(
        echo(&peer, &["hola"]).run().code(4).prints(""),
        &peer,
        &early,
    );

    let peer = Peer::start(raw_peer::reset);
    assert_error(
        echo(&peer, &["hola"]).run().code(4).prints(""),
        &peer,
        &early[1..],
    );

    let peer = Peer::start(raw_peer::answer_and_close(b"ho"));
    let ran = echo(&peer, &["hola"]).run().code(4).prints("ho\n");
    assert_error(ran, &peer, &["connection closed with 2 bytes of the reply"]);

    let peer = Peer::start(raw_peer::say_nothing);
    let ran = echo(&peer, &["--timeout", "50ms", "hola"])
        .run()
        .code(10)
        .prints("");
    assert_error(ran, &peer, &["timed out after 50ms before the reply"]);

    let peer = Peer::start(raw_peer::answer(b"ho"));
    let ran = echo(&peer, &["--timeout", "500ms", "hola"])
        .run()
        .code(10)
        .prints("ho\n");
    assert_error(
        ran,
        &peer,
        &["timed out after 500ms with 2 bytes of the reply"],
    );
}

#[test]
fn unreachable_server_is_named() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = format!("127.0.0.1:{port}");
    let ran = myapp(["echo", "-c", &address, "hola"])
        .run()
        .code(4)
        .prints("");
    assert_eq!(
        ran.stderr,
        format!("myapp: connect to {address}: Connection refused\n")
    );
    let address = format!("{UNRESOLVABLE_HOST}:7");
    let ran = myapp(["echo", "-c", &address, "hola"])
        .run()
        .code(4)
        .prints("");
    assert!(
        ran.stderr
            .starts_with(&format!("myapp: resolve {UNRESOLVABLE_HOST}: ")),
        "{}",
        ran.stderr
    );
}

#[test]
fn failures_are_independent_and_lowest_code_wins() {
    let peer = Peer::start(|stream| {
        let mut lines = 0;
        raw_peer::each_line(stream, |line| {
            lines += 1;
            match line {
                "cut\n" => stream.shutdown(std::net::Shutdown::Both).unwrap(),
                "late\n" => thread::sleep(Duration::from_secs(2)),
                _ => {}
            }
            line.into()
        })
    });
    let ran = echo(&peer, &["--timeout", "1s", "a", "late", "b", "cut", "c"])
        .run()
        .code(4);
    let ran = ran
        .prints("a\nb\nc\n")
        .says("message 2: ")
        .says("message 4: ");
    assert_eq!(ran.stderr.lines().count(), 2, "{}", ran.stderr);
}

#[test]
fn multi_line_message_is_rejected_before_sending() {
    let ran = myapp(["echo", "-c", "127.0.0.1:1", "a", "b\x1b\nc"])
        .run()
        .code(2)
        .prints("");
    let ran = ran.says("send message 'b\\x1b\\nc': line end at offset 2\n");
    ran.says("hint: each line is a separate message; --raw sends");
}

#[test]
fn conflicting_options_are_usage_errors() {
    for (arguments, named) in [
        ("--raw hola", "--raw"),
        ("--raw --verify", "--raw"),
        ("--one-connection -j 2", "--one-connection"),
        ("--timeout 0", "--timeout"),
        ("--timeout soon", "--timeout"),
        ("-j 0", "--jobs"),
        ("-j 18446744073709551615", "--jobs"),
        ("-j 1000001", "--jobs"),
        ("-c localhost", "--connect"),
        ("--no-such-flag", "--no-such-flag"),
        ("-n 3 -j 3", "--jobs"),
        ("-n 3 --raw", "--raw"),
        ("-n 0", "--count"),
        ("-n 1 one two", "ping and load send one message"),
        ("--interval never", "--interval"),
        ("--size 10", "--count"),
        ("--size 0 -n 1", "--size"),
        ("--size 10 -n 1 hola", "--size"),
        ("--no-verify", "--count"),
        ("--no-verify --verify -n 1", "--no-verify"),
        ("--json", "--count"),
        ("--report x.html -n 1", "--connections"),
        ("--warmup 1 -n 1 --rate 1", "--warmup"),
        ("--duration 1 -n 1", "--duration"),
        ("--duration 1 --interval 1", "--duration"),
        ("--duration 1 --one-connection", "--duration"),
        ("--new-connections --in-flight 2", "--new-connections"),
        ("--rate 0", "--rate"),
        ("--rate=-1", "--rate"),
        ("--rate inf", "--rate"),
        ("--rate 10MM", "--rate"),
    ] {
        let arguments = ["echo"].into_iter().chain(arguments.split(' '));
        myapp(arguments).run().code(2).prints("").says(named);
    }
}

#[test]
fn failed_connection_is_retried() {
    let port = RefusingPort::new();
    let address = port.address().to_string();
    let folder = Folder::new();
    let stderr = folder.write("stderr", "");
    let running = myapp(["echo", "--retry", "50", "-c", &address, "hola"])
        .stderr_to(&stderr)
        .start();
    until(|| fs::read_to_string(&stderr).unwrap().contains("retrying"));
    let _peer = Peer::on(port.listen(), raw_peer::echo);
    running.wait().code(0).prints("hola\n");
}

#[test]
fn log_has_escaped_messages() {
    let peer = Peer::start(raw_peer::answer(b"\x1b]0;x\x07\n"));
    let quiet = myapp(["echo", "-c", &peer.address(), "hola"]).run();
    quiet.code(0).prints("\x1b]0;x\x07\n").silent();
    let ran = myapp(["echo", "-v", "-c", &peer.address(), "hola"]).run();
    let ran = ran.code(0).prints("\x1b]0;x\x07\n");
    let lines: Vec<_> = ran
        .stderr
        .lines()
        .filter_map(|line| line.strip_prefix("debug: "))
        .collect();
    assert_eq!(
        lines,
        [
            "message{number=1}: sending text=hola",
            r"message{number=1}: received text=\x1b]0;x\x07",
            "message{number=1}: closed",
        ],
        "{}",
        ran.stderr
    );
}

#[test]
#[ignore = "peer: script"]
fn replies_are_escaped_on_a_terminal() {
    let peer = Peer::start(raw_peer::answer(b"\x1b]0;x\x07\n"));
    let program = env!("CARGO_BIN_EXE_myapp");
    let line = format!("{program} echo -q -c {} hola", peer.address());
    let output = std::process::Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .output();
    assert_eq!(
        String::from_utf8_lossy(&output.unwrap().stdout),
        "\\x1b]0;x\\x07\r\n"
    );
}

#[test]
fn signal_ends_a_wait_for_stdin_or_a_reply() {
    let peer = Peer::start(raw_peer::answer_and_close(b"hi\n"));
    let quiet = Peer::start(raw_peer::say_nothing);
    let echoing = Peer::start(raw_peer::echo);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut running = echo(&peer, &[]).hold_stdin().start();
        running.write("hola\n");
        assert_eq!(running.line(), "hi");
        ends(running, signal, code);

        let mut running = echo(&echoing, &["--raw"]).hold_stdin().start();
        running.write("hola\n");
        assert_eq!(running.line(), "hola");
        ends(running, signal, code);

        let before = quiet.connections();
        let running = echo(&quiet, &["--timeout", "1m", "hola"]).start();
        while quiet.connections() == before {
            thread::sleep(Duration::from_millis(2));
        }
        ends(running, signal, code);
    }
}

#[track_caller]
fn ends(running: Running, signal: Signal, code: i32) {
    let start = Instant::now();
    running.signal(signal);
    running.wait().code(code).silent();
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn signal_ends_the_program_itself() {
    let peer = Peer::start(raw_peer::say_nothing);
    for (signal, arguments) in [
        (Signal::INT, ["--timeout", "1m", "hola"]),
        (Signal::TERM, ["--rate", "10", "--json"]),
        (Signal::INT, ["-n", "1", "--json"]),
    ] {
        let before = peer.connections();
        let running = echo(&peer, &arguments).start();
        peer.wait_for_connections(before + 1);
        running.signal(signal);
        let status = running.wait().status;
        assert_eq!(status.signal(), Some(signal.as_raw()), "{arguments:?}");
    }
}

#[test]
fn ignored_signal_stays_ignored() {
    let peer = Peer::start(raw_peer::echo);
    let mut env = Command::new("env");
    env.arg("--ignore-signal=INT");
    let mut running = echo(&peer, &["--interval", "10ms"]).through(env).start();
    assert!(running.line().contains(": seq=1 "));
    assert!(running.catches(Signal::TERM) && !running.catches(Signal::INT));
    running.signal(Signal::INT);
    (0..5).for_each(|_| assert!(running.line().contains(": seq=")));
    running.signal(Signal::TERM);
    running.wait().code(143);
}

#[test]
#[ignore = "peer: unshare"]
fn signal_ends_the_first_process_of_a_container() {
    let peer = Peer::start(raw_peer::echo);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--pid", "--fork"]);
        let arguments = ["-n", "2", "--interval", "1h"];
        let mut running = echo(&peer, &arguments).through(unshare).start();
        assert!(running.line().contains(": seq=1 "));
        running.signal_child(signal);
        assert_eq!(running.wait().status.code(), Some(code));
    }
}

#[test]
fn closed_stdout_ends_quietly() {
    let peer = Peer::start(raw_peer::echo);
    for arguments in [["--one-connection"].as_slice(), &["-j", "2"], &["--raw"]] {
        let mut running = echo(&peer, arguments).hold_stdin().start();
        running.write("first\n");
        assert_eq!(running.line(), "first");
        running.close_stdout();
        running.write_until_exit("again\n");
        running.wait().code(141).silent();
    }
}

#[test]
fn full_disk_is_reported() {
    let peer = Peer::start(raw_peer::echo);
    let address = peer.address();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_myapp"))
        .args(["echo", "-q", "-c", &address, "hola"])
        .stdout(std::fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        stderr,
        "myapp: write standard output: No space left on device\n"
    );
}

#[test]
fn full_unix_backlog_is_retried_until_timeout() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.path("s")).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(folder.path("s")).unwrap();
    for load in [["--jobs", "1"], ["--connections", "1"]] {
        let late = [
            &["echo", "-q", "-c", "unix:s", "--timeout", "200ms"],
            &load[..],
        ]
        .concat();
        let ran = folder.myapp(late).stdin("x\n").run().code(10);
        ran.says("connect to unix:s: timed out after 200ms\n");
    }
    let running = folder.myapp([
        "echo",
        "-q",
        "-c",
        "unix:s",
        "-n",
        "9",
        "--connections",
        "9",
    ]);
    let running = running.start();
    thread::sleep(Duration::from_millis(300));
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let stream = stream.unwrap();
                io::copy(&mut &stream, &mut &stream)
            });
        }
    });
    assert!(running.wait().code(0).text().contains("9 sent, 9 answered"));
}

#[test]
fn unix_socket_works_in_every_mode() {
    let folder = Folder::new();
    let mut server = folder.myapp(["serve", "-q", "unix:s"]).start();
    assert_eq!(server.line(), "listening on unix:s");
    folder
        .myapp(["echo", "-c", "unix:s", "one", "two"])
        .run()
        .code(0)
        .prints("one\ntwo\n");
    let raw = folder
        .myapp(["echo", "-c", "unix:s", "--raw"])
        .stdin("as it is");
    raw.run().code(0).prints("as it is").silent();
    let ran = folder
        .myapp(["echo", "-q", "-c", "unix:s", "-n", "9", "--in-flight", "3"])
        .run();
    assert!(ran.code(0).text().contains("9 sent, 9 answered"));
    drop(server);
    let ran = folder.myapp(["echo", "-c", "unix:s", "x"]).run().code(4);
    ran.says("myapp: connect to unix:s: Connection refused");
}
