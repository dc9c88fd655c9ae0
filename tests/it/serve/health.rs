//! Health checks and the delay of the shutdown.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::metrics::{measured, request};
use crate::harness::serve::ask;
use crate::harness::{myapp, until};

/// Returns the status line of a response.
#[track_caller]
fn status(address: SocketAddr, path: &str) -> String {
    let response = request(address, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
    response.lines().next().expect("a status line").to_owned()
}

const OK: &str = "HTTP/1.1 200 OK";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable";

#[test]
fn server_accepts_but_is_not_ready_during_the_shutdown_delay() {
    let (server, metrics) = measured(&["--shutdown-delay", "1500ms"]);
    until(|| status(metrics, "/readyz") == OK);
    assert_eq!(status(metrics, "/healthz"), OK);
    let start = Instant::now();
    server.signal(Signal::TERM);
    until(|| status(metrics, "/readyz") == UNAVAILABLE);
    assert_eq!(status(metrics, "/healthz"), OK);
    let late = server.connect();
    assert_eq!(ask(&late, b"late\n"), b"late\n");
    let address = server.address();
    server.wait().code(0).says("aborted_on_shutdown=0");
    assert!(
        start.elapsed() > Duration::from_millis(1400),
        "{:?}",
        start.elapsed()
    );
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn server_is_not_ready_but_alive_during_the_drain() {
    let (server, metrics) = measured(&["--delay", "2s"]);
    let mut client = server.connect();
    std::io::Write::write_all(&mut client, b"slow\n").unwrap();
    until(|| status(metrics, "/readyz") == OK);
    server.signal(Signal::TERM);
    until(|| status(metrics, "/readyz") == UNAVAILABLE);
    assert_eq!(status(metrics, "/healthz"), OK);
    server.wait().code(0);
}

#[test]
fn second_signal_ends_the_shutdown_delay() {
    let (server, metrics) = measured(&["--shutdown-delay", "1h"]);
    // It is not ready at first either, and two signals at once would count as one.
    until(|| status(metrics, "/readyz") == OK);
    server.signal(Signal::TERM);
    until(|| status(metrics, "/readyz") == UNAVAILABLE);
    server.signal(Signal::TERM);
    server.wait().code(0);
}

#[test]
fn shutdown_delay_must_be_a_duration() {
    myapp(["serve", "--shutdown-delay", "soon"])
        .run()
        .code(2)
        .prints("");
}
