//! Error statuses, unreachable servers, and timeouts.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;

use super::*;
use crate::harness::UNRESOLVABLE_HOST;
use crate::harness::ports::RefusingPort;

#[test]
fn error_pages_are_never_saved() {
    for (status, code) in [(400, 8), (404, 8), (500, 8), (503, 8), (401, 6), (407, 6)] {
        assert_fails(
            Response::status(status),
            &[],
            code,
            &format!("HTTP status {status}"),
        );
    }
    assert_fails(Response::status(206), &[], 7, "unexpected HTTP status 206");
    assert_fails(Response::status(304), &[], 7, "unexpected HTTP status 304");
}

#[test]
fn success_statuses_without_a_file_are_errors() {
    for response in [
        Response::status(202),
        Response::empty(204).truncated_at(0),
        Response::status(205),
        Response::status(300),
    ] {
        assert_fails(response, &[], 8, "HTTP status ");
    }
}

#[test]
fn accepted_request_is_retried_until_the_file_is_ready() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::status(202).header("Retry-After", "0"));
    let line = ["--retry=2", "--retry-delay=10ms", &server.url("/f")];
    fetch(&folder, line).code(8).says("HTTP status 202");
    assert_eq!(server.requests().len(), 3);
    assert!(folder.names().is_empty());
}

#[test]
fn unreachable_host_is_reported_with_its_cause() {
    let port = RefusingPort::new();
    let closed = port.address();
    let folder = Folder::new();
    fetch(&folder, ["--retry", "0", &format!("http://{closed}/f")])
        .code(4)
        .says(&format!("connect to {closed}: Connection refused"));
    let url = format!("http://{UNRESOLVABLE_HOST}/f");
    fetch(&folder, ["--retry=0", &url])
        .code(4)
        .says(&format!("resolve {UNRESOLVABLE_HOST}"));
    assert!(folder.names().is_empty());
}

#[test]
fn resolve_option_overrides_the_address() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", ok())]);
    let port = server.url("").rsplit(':').next().unwrap().to_owned();
    let url = format!("http://no.such.host.invalid:{port}/f");
    let closed = format!("No.such.host.invalid:{port}:127.0.0.2");
    let open = format!("no.such.host.invalid:{port}:127.0.0.1");
    fetch(&folder, ["--resolve", &closed, "--resolve", &open, &url]).code(0);
    assert_eq!(server.requests()[0].field("Host"), url.split('/').nth(2));
    fetch(&folder, ["--retry=0", "--resolve", &open, "-6", &url])
        .code(4)
        .says("it has no IPv6 address");
    fetch(&folder, ["-4", &server.url("/f")]).code(0);
    fetch(&folder, ["--retry=0", "-4", "http://[::1]:1/f"])
        .code(4)
        .says("resolve [::1]: it has no IPv4");
    fetch(&folder, ["--resolve", "a:1", "u"])
        .code(2)
        .says("not of the form HOST:PORT:IP");
}

#[test]
fn stalled_server_times_out() {
    for response in [
        Response::body(seeded(1, LARGE)).stalled_at(1 << 20),
        Response::body(seeded(1, LARGE)).stalled_at(10),
        ok().delayed(Duration::from_secs(2)),
    ] {
        let start = Instant::now();
        assert_fails_with_part(response, &["-T", "500ms"], 10, "no data for 500ms");
        assert!(start.elapsed() >= Duration::from_millis(500));
    }
}

#[test]
fn slow_server_does_not_time_out() {
    let drip = Response::body(seeded(2, 30)).throttled(1, Duration::from_millis(50));
    let (folder, ran) = fetch_f(drip, &["-T", "1"]);
    ran.code(0);
    assert_eq!(folder.read("f"), seeded(2, 30));
}

/// Serves one connection on `[::1]`: a redirect, then a file. Returns the port and the requests.
fn serve_ipv6() -> (u16, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("[::1]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut requests = Vec::new();
        for response in [
            "HTTP/1.1 302 Found\r\nLocation: /f\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ngood",
        ] {
            let head = lines.by_ref().map(Result::unwrap);
            let head: Vec<_> = head.take_while(|line| !line.is_empty()).collect();
            requests.push(head.join("\n"));
            stream.write_all(response.as_bytes()).unwrap();
        }
        requests
    });
    (port, serving)
}

#[test]
fn zone_of_an_address_selects_the_interface() {
    for zone in ["%25lo", "%lo", "%251"] {
        let folder = Folder::new();
        let (port, serving) = serve_ipv6();
        let url = format!("http://[::1{zone}]:{port}/");
        fetch(&folder, ["-o", "f", &url]).code(0);
        assert_eq!(folder.read("f"), b"good");
        let requests = serving.join().unwrap();
        assert_eq!(requests.len(), 2, "{requests:?}");
        for request in requests {
            assert!(
                request.contains(&format!("\nHost: [::1]:{port}\n")),
                "{request}"
            );
        }
    }
    fetch(&Folder::new(), ["http://[fe80::1%25nowhere]/f"])
        .code(4)
        .says("find the interface of [fe80::1%nowhere]: ");
    fetch(&Folder::new(), ["http://[fe80::1%]/f"])
        .code(2)
        .says("invalid IPv6 address");
}
