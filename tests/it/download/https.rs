//! `myapp download` over TLS: trusted and untrusted servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use rustls::{ServerConnection, StreamOwned};

use super::*;
use crate::harness::http::Certificate;

/// Starts a server for `localhost`, and writes its self-signed certificate to `ca.pem`.
pub fn serve(folder: &Folder) -> SocketAddr {
    let certificate = Certificate::of(&["localhost"]);
    folder.write("ca.pem", &certificate.pem);
    let config = certificate.config();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut tls = StreamOwned::new(connection, stream.unwrap());
            // Both fail if the client does not trust the certificate.
            let _ = tls.read(&mut [0; 4096]);
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        }
    });
    address
}

fn download_from(folder: &Folder, line: &[&str], host: &str, port: u16) -> RunOutput {
    let url = format!("https://{host}:{port}/f");
    folder
        .myapp([&["download", "-o", "-"], line, &[&url]].concat())
        .run()
}

#[test]
fn trust_follows_issuer_pin_or_insecure() {
    let folder = Folder::new();
    let port = serve(&folder).port();
    download_from(&folder, &[], "localhost", port)
        .code(5)
        .says("unknown certificate issuer")
        .says("hint: --cacert FILE");
    download_from(&folder, &["--cacert", "ca.pem"], "localhost", port)
        .code(0)
        .prints("good");
    download_from(&folder, &["--cacert", "ca.pem"], "127.0.0.1", port)
        .code(5)
        .says("certificate is not valid for this name, only for localhost");
    download_from(&folder, &["--insecure"], "127.0.0.1", port)
        .code(0)
        .prints("good");

    let wrong = "0".repeat(64);
    let ran = download_from(&folder, &["--pinned-sha256", &wrong], "127.0.0.1", port).code(5);
    let pin = ran.stderr.trim_end().rsplit(' ').next().unwrap();
    assert!(
        ran.stderr.contains("not the pinned one, its SHA-256 is"),
        "{}",
        ran.stderr
    );
    download_from(&folder, &["--pinned-sha256", pin], "127.0.0.1", port)
        .code(0)
        .prints("good");
}

#[test]
#[ignore = "peer: openssl"]
fn openssl_prints_the_same_fingerprint() {
    let folder = Folder::new();
    let port = serve(&folder).port();
    let printed = std::process::Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(folder.path("ca.pem"))
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let pin = printed.trim().rsplit('=').next().unwrap();
    download_from(&folder, &["--pinned-sha256", pin], "127.0.0.1", port)
        .code(0)
        .prints("good");
}

#[test]
fn invalid_tls_options_are_reported() {
    let folder = Folder::new();
    folder.write("empty", "");
    let pin = "0".repeat(64);
    for (line, code, says) in [
        (
            &["--cacert", "none"][..],
            3,
            "read certificates from none: No such file",
        ),
        (
            &["--cacert", "empty"],
            3,
            "read certificates from empty: no certificate in it",
        ),
        (
            &["--insecure", "--cert", "none"],
            3,
            "read certificates from none: No such file",
        ),
        (&["--key", "k"], 2, "--cert <FILE>"),
        (&["--pinned-sha256", "abc"], 2, "not the 64 hex digits"),
        (
            &["--pinned-sha256", &pin, "--insecure"],
            2,
            "cannot be used with",
        ),
        (
            &["--cacert", "empty", "--insecure"],
            2,
            "cannot be used with",
        ),
    ] {
        download_from(&folder, line, "127.0.0.1", 1)
            .code(code)
            .says(says);
    }
}

#[test]
fn untrusted_certificate_is_refused() {
    let certificate = Certificate::of(&["127.0.0.1"]);
    let body = seeded(4, LARGE);
    let response = Response::body(body.clone());
    let server = Server::start_tls(&certificate, move |_| response.clone());
    let folder = Folder::new();
    let url = server.url("/f");
    folder.write("ca.pem", &certificate.pem);
    fetch(&folder, [&url])
        .code(5)
        .says("unknown certificate issuer");
    fetch(&folder, ["--cacert", "ca.pem", &url]).code(0);
    assert!(folder.read("f") == body);
    folder.write("other.pem", &Certificate::of(&["127.0.0.1"]).pem);
    fetch(&folder, ["--cacert", "other.pem", &url]).code(5);
    fetch(&folder, ["--cacert", "missing.pem", &url])
        .code(3)
        .says("missing.pem: No such file");
    assert_eq!(folder.names(), ["ca.pem", "f", "other.pem"]);
}

#[test]
fn ca_certificate_is_accepted_by_the_pin_in_the_hint() {
    let certificate = Certificate::of_ca(&["127.0.0.1"]);
    let server = Server::start_tls(&certificate, |_| ok());
    let folder = Folder::new();
    let url = server.url("/f");
    folder.write("ca.pem", &certificate.pem);
    let ran = fetch(&folder, ["--cacert", "ca.pem", &url])
        .code(5)
        .says("(CA:TRUE)");
    let (_, hint) = ran
        .stderr
        .split_once("\nhint: --pinned-sha256 ")
        .expect(&ran.stderr);
    fetch(
        &folder,
        ["--pinned-sha256", hint.split_once(' ').unwrap().0, &url],
    )
    .code(0);
    assert_eq!(folder.names(), ["ca.pem", "f"]);
}

#[test]
fn certificate_error_is_reported_once() {
    let here = ["127.0.0.1"];
    for (certificate, trusted, says) in [
        (
            Certificate::of(&["example.com"]),
            true,
            "not valid for this name, only for example.com",
        ),
        (
            Certificate::valid_until(2001, &here),
            true,
            "certificate has expired",
        ),
        (Certificate::of(&here), false, "unknown certificate issuer"),
    ] {
        let server = Server::start_tls(&certificate, |_| ok()).may_be_idle();
        let folder = Folder::new();
        let url = server.url("/f");
        folder.write("ca.pem", &certificate.pem);
        let line = if trusted {
            &["--cacert", "ca.pem"][..]
        } else {
            &[]
        };
        folder
            .myapp([&["download"], line, &[&url]].concat())
            .run()
            .code(5)
            .says(says);
        assert_eq!(
            (folder.names(), server.connections()),
            (vec!["ca.pem".into()], 1)
        );
        assert!(server.requests().is_empty());
    }
}
