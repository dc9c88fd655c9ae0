//! Digests of files that servers send.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};

use super::compressed::gzip;
use super::*;

/// Length of a body that is written in several steps.
const LEN: usize = 3 << 20;

fn repr_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// Returns the body with one wrong byte near its start.
fn damaged(body: &[u8]) -> Vec<u8> {
    let mut damaged = body.to_vec();
    damaged[0] ^= 1;
    damaged
}

/// Starts a server of this body with its `Repr-Digest`. The first `bad` responses are damaged.
fn server(body: Vec<u8>, bad: usize) -> Server {
    let requests = AtomicUsize::new(0);
    let digest = repr_digest(&body);
    Server::start(move |request| {
        let is_bad = requests.fetch_add(1, SeqCst) < bad;
        let sent = if is_bad { damaged(&body) } else { body.clone() };
        let response = request.respond_with(&sent, "\"a\"");
        response.header("Repr-Digest", &digest)
    })
}

#[test]
fn repr_digest_mismatch_is_retried_once() {
    for len in [100, LEN] {
        for options in [&[][..], &["-s4", "-k256K"], &["--compressed"]] {
            let body = seeded(1, len);
            let folder = Folder::new();
            let server = server(body.clone(), 1);
            let url = server.url("/f");
            let line = [&["download"], options, &[&url]].concat();
            folder
                .myapp(line)
                .run()
                .code(0)
                .says("restarting: Repr-Digest of the server: sha256 mismatch: expected ");
            assert!(folder.names() == ["f"] && folder.read("f") == body);
        }
    }
}

#[test]
fn persistent_mismatch_leaves_no_file() {
    for len in [100, LEN] {
        let folder = Folder::new();
        let server = server(seeded(1, len), usize::MAX);
        fetch(&folder, ["-c", &server.url("/f")])
            .code(9)
            .says("hint: --no-server-digest accepts the file");
        assert_eq!((folder.names(), server.requests().len()), (vec![], 2));
    }
}

#[test]
fn stored_digest_verifies_a_resumed_file() {
    let body = seeded(1, LEN);
    let folder = Folder::new();
    let requests = AtomicUsize::new(0);
    let sent = body.clone();
    let server = Server::start(move |request| match requests.fetch_add(1, SeqCst) {
        0 => request
            .respond_with(&damaged(&sent), "\"a\"")
            .header("Repr-Digest", &repr_digest(&sent))
            .truncated_at(LEN / 2),
        // Without the digest.
        _ => request.respond_with(&sent, "\"a\""),
    });
    fetch(&folder, ["--retry=0", &server.url("/f")]).code(4);
    fetch(&folder, ["-c", &server.url("/f")])
        .code(0)
        .says("restarting: Repr-Digest");
    assert!(folder.names() == ["f"] && folder.read("f") == body);
    let ranges: Vec<_> = server
        .requests()
        .iter()
        .map(|one| one.range_start())
        .collect();
    assert_eq!(ranges, [None, Some(LEN / 2), None]);
}

#[test]
fn mismatch_of_a_stream_is_not_retried() {
    let body = seeded(1, LEN);
    let server = server(body.clone(), 1);
    let folder = Folder::new();
    let run = || fetch(&folder, ["-o-", &server.url("/f")]);
    assert!(run().code(9).stdout == damaged(&body));
    assert_eq!(server.requests().len(), 1);
    assert!(run().code(0).stdout == body);
}

#[test]
fn mismatch_of_other_fields_is_a_warning() {
    for (name, wrong, right) in [
        (
            "Digest",
            "md5=AAAAAAAAAAAAAAAAAAAAAA==",
            "md5=kAFQmDzST7DWlj99KOF/cg==",
        ),
        (
            "Content-MD5",
            "AAAAAAAAAAAAAAAAAAAAAA==",
            "kAFQmDzST7DWlj99KOF/cg==",
        ),
        ("x-goog-hash", "crc32c=AAAAAA==", "crc32c=Nks/tw=="),
        ("x-amz-checksum-crc32", "AAAAAA==", "NSRBwg=="),
    ] {
        let run = |value| {
            let (folder, ran) = fetch_f(Response::body("abc").header(name, value), &[]);
            assert_eq!(folder.read("f"), b"abc");
            ran.code(0)
        };
        let warning = "warning: the file may be damaged: ";
        let field = name.trim_end_matches("-crc32");
        run(wrong).says(&format!("{warning}{field} of the server: "));
        assert!(!run(right).stderr.contains("damaged"));
    }
}

#[test]
fn server_digests_can_be_ignored() {
    let folder = Folder::new();
    let server = server(b"abc".to_vec(), usize::MAX);
    let hex = "sha256=0000000000000000000000000000000000000000000000000000000000000000";
    fetch(&folder, ["--checksum", hex, &server.url("/f")])
        .code(9)
        .says("f: sha256 mismatch: expected 0000");
    fetch(&folder, ["--no-server-digest", &server.url("/g")]).code(0);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn digest_of_an_encoded_body_is_that_of_its_bytes() {
    let encoded = gzip(b"text");
    let response = |digest: &str| {
        Response::body(encoded.clone())
            .header("Content-Encoding", "gzip")
            .header("Repr-Digest", digest)
    };
    let (folder, ran) = fetch_f(response(&repr_digest(&encoded)), &[]);
    ran.code(0);
    assert_eq!(folder.read("f"), encoded);
    let (_, ran) = fetch_f(response(&repr_digest(b"text")), &[]);
    ran.code(9);
    // The second one is that of a proxy that has encoded the body.
    for digest in [&encoded[..], b"text"] {
        let (folder, ran) = fetch_f(response(&repr_digest(digest)), &["--compressed"]);
        ran.code(0);
        assert_eq!(folder.read("f"), b"text");
    }
}

#[test]
fn decoded_body_is_verified_by_the_digest_of_its_encoding() {
    let body = [seeded(1, LEN), vec![0; LEN]].concat();
    let encoded = gzip(&body);
    let other = gzip(b"other");
    for bad in [1, usize::MAX] {
        let requests = AtomicUsize::new(0);
        let [good, other] = [encoded.clone(), other.clone()];
        let server = Server::start(move |_| {
            let is_bad = requests.fetch_add(1, SeqCst) < bad;
            let sent = if is_bad { other.clone() } else { good.clone() };
            let response = Response::body(sent).header("Content-Encoding", "gzip");
            response.header("Repr-Digest", &repr_digest(&good))
        });
        let folder = Folder::new();
        let ran = fetch(&folder, ["--compressed", &server.url("/f")]);
        assert_eq!(server.requests().len(), 2);
        if bad == 1 {
            ran.code(0)
                .says("restarting: Repr-Digest of the server: sha256 mismatch");
            assert!(folder.read("f") == body);
            assert_eq!(folder.names(), ["f"]);
        } else {
            ran.code(9)
                .says("Repr-Digest of the server: sha256 mismatch");
            assert!(folder.names().is_empty());
        }
    }
    let response = Response::body(other).header("Content-Encoding", "gzip");
    let response = response.header("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg==");
    let (folder, ran) = fetch_f(response, &["--compressed"]);
    ran.code(0)
        .says("warning: the file may be damaged: Content-MD5");
    assert_eq!(folder.read("f"), b"other");
}
