//! Body framing, complete and truncated bodies, malformed responses.

use std::io::{BufRead as _, BufReader, Write as _};

use super::*;
use crate::harness::raw_peer::Peer;

#[test]
fn files_of_any_size_are_saved_completely() {
    for size in [
        0,
        1,
        1000,
        256 << 10,
        (256 << 10) + 1,
        1 << 20,
        (1 << 20) + 1,
        LARGE,
    ] {
        let body = seeded(size as u64, size);
        assert_saved(Response::body(body.clone()), &body);
    }
}

#[test]
fn every_framing_is_decoded() {
    for size in [0, 5000, 256 << 10, (256 << 10) + 1, LARGE] {
        let body = seeded(7, size);
        assert_saved(Response::body(body.clone()).chunked(), &body);
        assert_saved(Response::body(body.clone()).close_delimited(), &body);
        assert_saved(Response::body(body.clone()).http_1_0(), &body);
    }
}

#[test]
fn truncated_body_is_never_saved() {
    for at in [0, 1000, HALF] {
        assert_fails_with_part(
            Response::body(seeded(1, LARGE)).truncated_at(at),
            &[],
            4,
            "incomplete response",
        );
        assert_fails_with_part(
            Response::body(seeded(1, LARGE)).chunked().truncated_at(at),
            &[],
            4,
            "incomplete response",
        );
    }
}

#[test]
fn surplus_bytes_do_not_affect_any_file() {
    let folder = Folder::new();
    let server =
        Server::start(|request| Response::body(request.path.as_bytes()).surplus("HTTP/1.1 200 X"));
    fetch(&folder, ["-j1", &server.url("/a"), &server.url("/b")]).code(0);
    assert_eq!(
        (folder.read("a"), folder.read("b")),
        (b"/a".to_vec(), b"/b".to_vec())
    );
    assert_eq!(server.connections(), 2);
}

#[test]
fn unrequested_content_encoding_is_saved_with_a_warning() {
    let response = Response::body("not really gzip").header("Content-Encoding", "gzip");
    let (folder, ran) = fetch_f(response, &[]);
    ran.code(0).says("saved undecoded");
    assert_eq!(folder.read("f"), b"not really gzip");
}

#[test]
fn malformed_responses_are_refused() {
    let fields = (0..100_000).fold(ok(), |response, number| {
        response.header(&format!("X-{number}"), "")
    });
    for (response, says) in [
        (
            ok().header("X", &"x".repeat(10 << 20)),
            "longer than 256 KiB",
        ),
        (fields, "the head"),
        (
            Response::empty(100).surplus("HTTP/1.1 103 X\r\n\r\n".repeat(100_000)),
            "informational",
        ),
        (
            Response::body("zz\r\n").header("Transfer-Encoding", "chunked"),
            "invalid chunk size: \"zz\"",
        ),
        (
            Response::body("400000000000000000\r\n").header("Transfer-Encoding", "chunked"),
            "invalid chunk size",
        ),
    ] {
        assert_fails(response, &[], 7, says);
    }
}

/// Starts a server that sends these bytes to each request.
fn raw_server(response: &'static [u8]) -> Peer {
    Peer::start(move |mut stream| {
        for line in BufReader::new(stream).lines() {
            if line?.is_empty() {
                stream.write_all(response)?;
            }
        }
        Ok(())
    })
}

#[test]
fn unusual_responses_are_accepted_without_reusing_the_connection() {
    let status_line = "accepted a malformed status line";
    let field = "skipped a malformed header field";
    let coding = "ignored a repeated or empty Transfer-Encoding";
    for (response, says) in [
        (
            b"HTTP/2 200\r\nContent-Length: 4\r\n\r\ngood".as_slice(),
            status_line,
        ),
        (
            b"http/1.1  200  OK\r\nContent-Length: 4\r\n\r\ngood",
            status_line,
        ),
        (
            b"HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 4\r\n\r\ngood",
            field,
        ),
        (
            b"HTTP/1.1 200 OK\r\nX[\xc3\xa9]: y\rz\r\nContent-Length: 4\r\n\r\ngood",
            field,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\ngood\n0\n\n",
            "accepted chunk lines that end with LF alone",
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n",
            coding,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 4\r\n\r\ngood",
            coding,
        ),
    ] {
        let folder = Folder::new();
        let peer = raw_server(response);
        let urls = ["f", "g"].map(|name| format!("http://{}/{name}", peer.address()));
        let ran = fetch(&folder, ["-j1", "-v", &urls[0], &urls[1]])
            .code(0)
            .says(says);
        assert!(!ran.stderr.contains("warning:"), "{}", ran.stderr);
        assert_eq!(folder.read("f"), b"good", "{}", response.escape_ascii());
        assert_eq!(folder.read("g"), b"good", "{}", response.escape_ascii());
        assert_eq!(peer.connections(), 2, "{}", response.escape_ascii());
    }
}

#[test]
fn partial_response_with_all_bytes_is_saved() {
    let whole = Response::part(b"good", 0, 4);
    assert_saved(whole, b"good");
    assert_fails(Response::part(b"good", 0, 3), &[], 7, "206");
}

#[test]
fn many_processing_responses_are_skipped() {
    let bytes = [
        b"HTTP/1.1 102 Processing\r\n\r\n".repeat(50),
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood".to_vec(),
    ];
    let peer = raw_server(bytes.concat().leak());
    let folder = Folder::new();
    fetch(&folder, [&format!("http://{}/f", peer.address())]).code(0);
    assert_eq!(folder.read("f"), b"good");
}
