//! Retries: conditions, number, delays and deadlines.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use super::until;
use crate::harness::http::{Response, Server, seeded};
use crate::harness::ports::RefusingPort;
use crate::harness::{Folder, RunOutput};

/// Retries after a short delay.
const SHORT_DELAY: [&str; 3] = ["download", "--retry-delay", "10ms"];

#[track_caller]
fn fetch(folder: &Folder, arguments: &[&str]) -> RunOutput {
    folder.myapp([&SHORT_DELAY, arguments].concat()).run()
}

/// Starts a server with this response to the first `count` requests, and a file from then on.
fn respond_first(count: usize, response: Response) -> Server {
    let served = AtomicUsize::new(0);
    Server::start(move |_| match served.fetch_add(1, SeqCst) {
        before if before < count => response.clone(),
        _ => Response::body("good"),
    })
}

#[test]
fn transient_failures_are_retried() {
    for response in [
        202, 408, 423, 425, 429, 500, 502, 503, 504, 509, 520, 530, 598,
    ]
    .map(Response::status)
    .into_iter()
    .chain([403, 413].map(|status| Response::status(status).header("Retry-After", "0")))
    .chain([
        Response::body("good").truncated_at(2),
        Response::body("good").chunked().truncated_at(0),
    ]) {
        let folder = Folder::new();
        let server = respond_first(2, response);
        fetch(&folder, &[&server.url("/f")])
            .code(0)
            .prints("")
            .says("retrying");
        assert_eq!(folder.names(), ["f"]);
        assert_eq!(
            (folder.read("f"), server.requests().len()),
            (b"good".to_vec(), 3)
        );
    }
}

#[test]
fn permanent_statuses_are_not_retried() {
    for (status, code) in [(400, 8), (401, 6), (403, 8), (404, 8), (410, 8), (501, 8)] {
        let folder = Folder::new();
        let server = respond_first(1, Response::status(status));
        fetch(&folder, &[&server.url("/f")]).code(code);
        assert!(folder.names().is_empty());
        assert_eq!(server.requests().len(), 1);
    }
}

#[test]
fn stalled_response_is_retried() {
    let silent = Response::body(seeded(1, 5000)).stalled_at(100);
    let folder = Folder::new();
    let server = respond_first(1, silent);
    fetch(&folder, &["-T", "500ms", &server.url("/f")]).code(0);
    assert_eq!(folder.read("f"), b"good");
}

#[test]
fn refused_connection_is_retried_as_configured() {
    let port = RefusingPort::new();
    let closed = port.address();
    let ran = fetch(
        &Folder::new(),
        &["--retry", "3", &format!("http://{closed}/f")],
    )
    .code(4);
    assert_eq!(ran.stderr.matches("retrying").count(), 3, "{}", ran.stderr);
}

#[test]
fn refused_connection_is_given_up_after_two_seconds() {
    let port = RefusingPort::new();
    let url = format!("http://{}/f", port.address());
    let start = Instant::now();
    let ran = Folder::new().myapp(["download", &url]).run().code(4);
    // Five retries with the default delays take at least 4 s, on average 15.
    let retries = ran.stderr.matches("retrying").count();
    assert!((1..5).contains(&retries), "{}", ran.stderr);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn refused_connection_of_a_known_server_is_retried() {
    // The server responds to the first request with a truncated body and is gone afterwards.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/f", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        drop(listener);
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
        std::io::Write::write_all(&mut stream, head).unwrap();
        std::io::copy(&mut stream, &mut std::io::sink()).ok();
    });
    let folder = Folder::new();
    let ran = fetch(&folder, &["-T", "100ms", &url]).code(4);
    assert_eq!(ran.stderr.matches("retrying").count(), 5, "{}", ran.stderr);
    server.join().unwrap();
}

#[test]
fn named_statuses_are_retried() {
    for (option, status) in [
        ("--retry-on-http-error=401,404", 404),
        ("--retry-on-http-error=400-403", 401),
        ("--retry-all-errors", 410),
    ] {
        let folder = Folder::new();
        let server = respond_first(2, Response::status(status));
        fetch(&folder, &[option, &server.url("/f")]).code(0);
        assert_eq!(server.requests().len(), 3);
    }
    for list in ["", "40", "399", "600", "404-", "500-400", "4xx", "+404"] {
        let option = format!("--retry-on-http-error={list}");
        fetch(&Folder::new(), &[&option, "http://127.0.0.1:1/"])
            .code(2)
            .says("not a list of statuses from 400 to 599");
    }
}

/// Answers queries for names with `missing` with NXDOMAIN, others with SERVFAIL, and runs a command.
const NAME_SERVER: &str = r#"
import socket, subprocess, sys, threading
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
def answer():
    while True:
        query, peer = server.recvfrom(512)
        code = 3 if b"missing" in query else 2
        server.sendto(query[:2] + bytes([0x81, 0x80 | code]) + query[4:6] + bytes(6) + query[12:], peer)
threading.Thread(target=answer, daemon=True).start()
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"#;

#[test]
#[ignore = "peer: unshare, ip, python3"]
fn only_temporary_name_errors_are_retried() {
    for (host, retries) in [("missing.test", 0), ("busy.test", 2)] {
        let folder = Folder::new();
        folder.write("server.py", NAME_SERVER);
        folder.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1\n");
        let mut unshare = std::process::Command::new("unshare");
        let network = "ip link set lo up && mount --bind resolv.conf /etc/resolv.conf \
                       && exec python3 server.py \"$@\"";
        unshare.args(["--user", "--map-root-user", "--net", "--mount"]);
        unshare.args(["sh", "-c", network, "sh"]);
        let url = format!("http://{host}/f");
        let line = ["download", "--retry", "2", "--retry-delay", "1ms", &url];
        let ran = folder.myapp(line).through(unshare).run();
        let ran = ran.code(4).says(&format!("resolve {host}"));
        assert_eq!(
            ran.stderr.matches("retrying").count(),
            retries,
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn retry_log_line_names_url_and_cause() {
    let port = RefusingPort::new();
    let closed = port.address();
    let server = respond_first(1, Response::body("good").truncated_at(2));
    for (url, code, cause) in [
        (
            server.url("/f"),
            0,
            "incomplete response after 2 of 4 bytes".into(),
        ),
        (
            format!("http://{closed}/f"),
            4,
            format!("connect to {closed}: Connection refused"),
        ),
    ] {
        let ran = fetch(&Folder::new(), &["--retry", "1", &url]).code(code);
        // The log has its own thread, so its lines may follow the error.
        let warning = ran
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("warning: "));
        let line = warning.expect(&ran.stderr);
        assert!(
            line.starts_with(&format!("retrying: {cause} url={url} wait=")),
            "{line}"
        );
    }
}

#[test]
fn log_file_has_times_and_levels() {
    let folder = Folder::new();
    let server = respond_first(1, Response::status(503));
    let line = ["--log-file", "log", "--retry-delay", "1ms"];
    let ran = fetch(&folder, &[&line[..], &[&server.url("/f")]].concat()).code(0);
    assert!(ran.stderr.starts_with("saved f: "), "{}", ran.stderr);
    let log = String::from_utf8(folder.read("log")).unwrap();
    assert!(
        log.starts_with("20") && log.contains(" WARN retrying: "),
        "{log}"
    );
}

#[test]
fn unavailable_server_ends_after_all_retries() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::status(503));
    let urls: Vec<_> = (0..8)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let line = ["-j4", "--retry", "2"]
        .into_iter()
        .chain(urls.iter().map(String::as_str));
    fetch(&folder, &line.collect::<Vec<_>>())
        .code(8)
        .says("HTTP status 503");
    assert_eq!(server.requests().len(), 24);
    assert!(folder.names().is_empty());
}

#[test]
fn retry_after_pauses_only_its_host() {
    let busy = Response::status(429).header("Retry-After", "2");
    let folder = Folder::new();
    let server = respond_first(1, busy);
    let other = Server::start(|_| Response::body("good"));
    let start = Instant::now();
    let mut running = folder
        .myapp(["download", "-j3", "--retry-delay", "10ms", "-"])
        .hold_stdin()
        .start();
    running.write(format!("{}\n", server.url("/a")));
    server.wait_for(1);
    server.wait_until_idle();
    // The second request must not be sent before the client has read the response to the first.
    until(|| server.delivered() == server.sent() && running.sleeps());
    running.write(format!("{}\n{}\n", server.url("/b"), other.url("/c")));
    other.wait_for(1);
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(server.requests().len(), 1);
    running.close_stdin();
    running.wait().code(0).says("3 of 3 files saved");
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn paused_host_releases_its_job_slots() {
    let start = Instant::now();
    let held = Server::start(move |_| {
        if start.elapsed() < Duration::from_secs(2) {
            Response::status(429).header("Retry-After", "3")
        } else {
            Response::body("good")
        }
    });
    let folder = Folder::new();
    let other = Server::start(|_| Response::body("good"));
    let mut running = folder.myapp(["download", "-j2", "-"]).hold_stdin().start();
    let lines = |server: &Server, names: std::ops::Range<u32>| -> String {
        names
            .map(|name| server.url(&format!("/{name}\n")))
            .collect()
    };
    running.write(lines(&held, 0..40) + &lines(&other, 40..60));
    until(|| (40..60).all(|name| folder.path(&name.to_string()).exists()));
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "{:?}",
        start.elapsed()
    );
    // Two requests were sent before the first response arrived.
    let early = held.requests().len();
    assert!(early <= 2, "{early} requests");
    // The other files are downloaded in two job slots while the pipe is open.
    until(|| (0..60).all(|name| folder.path(&name.to_string()).exists()));
    assert!(start.elapsed() >= Duration::from_secs(3));
    assert_eq!(held.requests().len(), 40 + early);
    assert!(
        held.max_concurrent() <= 2,
        "{} at once",
        held.max_concurrent()
    );
    running.close_stdin();
    running.wait().code(0).says("60 of 60 files saved");
}

#[test]
fn retry_after_date_uses_the_server_clock() {
    let busy = Response::status(503)
        .header("Retry-After", "Sun, 06 Nov 1994 08:49:38 GMT")
        .header("Date", "Sun, 06 Nov 1994 08:49:37 GMT");
    let folder = Folder::new();
    let server = respond_first(1, busy);
    let start = Instant::now();
    fetch(&folder, &[&server.url("/f")]).code(0);
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn invalid_retry_after_is_ignored() {
    for nonsense in ["soon", "-1", "", "Sun, 99 Nov 1994 08:49:37 GMT"] {
        let busy = Response::status(503).header("Retry-After", nonsense);
        let folder = Folder::new();
        let server = respond_first(1, busy);
        fetch(&folder, &[&server.url("/f")]).code(0);
    }
}

#[test]
fn retry_after_beyond_the_deadline_fails_at_once() {
    let busy = Response::status(503).header("Retry-After", "3600");
    let folder = Folder::new();
    let server = respond_first(1, busy);
    let start = Instant::now();
    fetch(&folder, &["--retry-max-time", "5s", &server.url("/f")])
        .code(8)
        .says("not retried: delay 3600s")
        .says("HTTP status 503");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(server.requests().len(), 1);
}

/// 126 years, the longest delay that a server was seen to request.
const FOREVER: &str = "4000000000";

#[test]
fn retry_after_of_a_final_status_delays_no_file() {
    for (status, code) in [(401, 6), (404, 8), (410, 8), (400, 8), (501, 8)] {
        let folder = Folder::new();
        let server = respond_first(1, Response::status(status).header("Retry-After", FOREVER));
        let line = [
            "-j1",
            "--max-time=20s",
            &server.url("/a"),
            &server.url("/b"),
        ];
        fetch(&folder, &line).code(code).says("1 of 2 files saved");
        assert_eq!(folder.read("b"), b"good", "{status}");
        assert_eq!(server.requests().len(), 2, "{status}");
    }
}

#[test]
fn excessive_retry_after_fails_the_files_of_its_host() {
    for status in [403, 413, 429, 503] {
        let folder = Folder::new();
        let busy = Response::status(status).header("Retry-After", FOREVER);
        let server = respond_first(1, busy);
        let other = Server::start(|_| Response::body("good"));
        let start = Instant::now();
        let urls = [server.url("/a"), server.url("/b"), other.url("/c")];
        let line = ["-j1", "--max-time=20s", &urls[0], &urls[1], &urls[2]];
        fetch(&folder, &line)
            .code(8)
            .says("1 of 3 files saved")
            .says("not retried: delay 4000000000s, time left 600s: HTTP status")
            .says("/b: host requested a delay: ")
            .says("time left 600s");
        assert!(start.elapsed() < Duration::from_secs(10), "{status}");
        assert_eq!(server.requests().len(), 1, "{status}");
        assert_eq!(folder.names(), ["c"], "{status}");
    }
}

#[test]
fn host_is_delayed_at_most_by_the_retry_deadline() {
    let folder = Folder::new();
    let server = respond_first(1, Response::status(503).header("Retry-After", FOREVER));
    let mut running = folder
        .myapp(["download", "-j1", "--retry-max-time", "1s", "-"])
        .hold_stdin()
        .start();
    running.write(format!("{}\n", server.url("/a")));
    server.wait_for(1);
    let mut number = 0;
    until(|| {
        number += 1;
        running.write(format!("{}\n", server.url(&format!("/{number}"))));
        server.requests().len() > 1
    });
    running.close_stdin();
    running.wait().code(8).says("host requested a delay");
    assert!(number > 1 && !folder.names().is_empty());
}

#[test]
fn host_delay_counts_towards_the_time_limits() {
    for (option, code, says) in [
        ("--max-time=1s", 10, "not complete after 1s"),
        ("--retry-max-time=1s", 8, "time left"),
    ] {
        let folder = Folder::new();
        let server = respond_first(1, Response::status(503).header("Retry-After", "30"));
        let start = Instant::now();
        fetch(
            &folder,
            &["-j1", option, &server.url("/a"), &server.url("/b")],
        )
        .code(code)
        .says(says)
        .says("0 of 2 files saved");
        assert!(start.elapsed() < Duration::from_secs(15), "{option}");
        assert_eq!(server.requests().len(), 1, "{option}");
    }
}

#[test]
fn host_delay_is_logged_once_with_its_length() {
    let folder = Folder::new();
    let server = respond_first(1, Response::status(503).header("Retry-After", "1"));
    let urls: Vec<_> = (0..5).map(|name| server.url(&format!("/{name}"))).collect();
    let line = ["-j1"].into_iter().chain(urls.iter().map(String::as_str));
    let ran = fetch(&folder, &line.collect::<Vec<_>>()).code(0);
    let lines: Vec<_> = ran
        .stderr
        .lines()
        .filter(|line| line.contains("waiting for the host"))
        .collect();
    assert_eq!(lines.len(), 1, "{}", ran.stderr);
    let host = server.url("").split_off("http://".len());
    assert!(
        lines[0].contains(&format!("host={host} wait=")),
        "{lines:?}"
    );
}

#[test]
fn retries_count_since_the_last_progress() {
    const MIB: usize = 1 << 20;
    let body = seeded(1, 10 * MIB);
    let folder = Folder::new();
    let whole = body.clone();
    let server = Server::start(move |request| {
        let response = request.respond_with(&whole, "\"a\"");
        let left = whole.len() - request.range_start().unwrap_or(0);
        if left > MIB {
            response.truncated_at(MIB)
        } else {
            response
        }
    });
    fetch(&folder, &["--retry", "2", &server.url("/f")]).code(0);
    assert!(folder.read("f") == body);
    assert_eq!(server.requests().len(), 10);
}

#[test]
fn restart_from_the_beginning_is_no_progress() {
    let body = seeded(1, 1 << 20);
    for etag in [None, Some("same"), Some("new")] {
        let folder = Folder::new();
        let whole = body.clone();
        let count = AtomicUsize::new(0);
        let server = Server::start(move |_| {
            let number = count.fetch_add(1, SeqCst);
            let response = Response::body(&whole[..]).truncated_at(300_000 + number);
            match etag {
                None => response,
                Some("same") => response.header("ETag", "\"a\""),
                Some(_) => response.header("ETag", &format!("\"{number}\"")),
            }
        });
        fetch(&folder, &["--retry", "2", &server.url("/f")]).code(4);
        let requests = server.requests().len();
        assert!((3..=6).contains(&requests), "{etag:?}: {requests} requests");
    }
}

#[test]
fn tiny_partial_responses_exhaust_the_retries() {
    let body = seeded(1, 1 << 20);
    let folder = Folder::new();
    let server = Server::start(move |request| match request.range_start() {
        None => request.respond_with(&body, "\"a\"").truncated_at(1000),
        Some(first) => Response::part(&body, first, first + 1).header("ETag", "\"a\""),
    });
    fetch(
        &folder,
        &["--retry", "3", "--max-time=20s", &server.url("/f")],
    )
    .code(4)
    .says("retrying: response to a range request has only 1 byte");
    assert_eq!(server.requests().len(), 4);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
}

#[test]
fn signal_ends_a_retry_delay() {
    let busy = Response::status(503).header("Retry-After", "300");
    let folder = Folder::new();
    let server = respond_first(1, busy);
    let running = folder.myapp(["download", &server.url("/f")]).start();
    server.wait_for(1);
    running.signal(rustix::process::Signal::INT);
    running.wait().code(130);
    assert!(folder.names().is_empty());
}

#[test]
fn slow_body_is_abandoned_and_resumed() {
    let body = seeded(1, 100_000);
    let folder = Folder::new();
    let whole = body.clone();
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let response = request.respond_with(&whole, "\"a\"");
        match count.fetch_add(1, SeqCst) {
            0 => response.throttled(1, Duration::from_millis(100)),
            _ => response,
        }
    });
    let line = ["--speed-limit", "1000", "--speed-time", "1"];
    fetch(&folder, &[&line[..], &[&server.url("/f")]].concat())
        .code(0)
        .says("fewer than 1000");
    assert!(folder.read("f") == body);
    assert!(
        server.requests()[1]
            .range_start()
            .is_some_and(|first| first > 0)
    );
}

#[test]
fn timed_out_download_keeps_its_part() {
    let stalled = Response::body(seeded(1, 8 << 20)).stalled_at(4 << 20);
    let folder = Folder::new();
    let server = Server::start(move |_| stalled.clone());
    fetch(&folder, &["--max-time", "1s", &server.url("/f")])
        .code(10)
        .says("not complete after 1s");
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    assert_eq!(server.requests().len(), 1);
    let drip = Response::body(seeded(1, 9000)).throttled(1, Duration::from_millis(100));
    let folder = Folder::new();
    let server = Server::start(move |_| drip.clone());
    let line = ["--retry=0", "--speed-limit=1000", "--speed-time=500ms"];
    fetch(&folder, &[&line[..], &[&server.url("/f")]].concat()).code(10);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
}
