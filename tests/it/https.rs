//! `myapp download` over TLS: which servers are trusted, and what is said of the others.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use rustls::{ServerConnection, StreamOwned};

use crate::harness::http::Certificate;
use crate::harness::{Folder, Ran};

/// A server for `localhost` whose certificate nobody vouches for but the file `ca.pem`.
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
            // Both fail where the client does not trust the certificate.
            let _ = tls.read(&mut [0; 4096]);
            let _ = tls.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
        }
    });
    address
}

fn fetch(folder: &Folder, line: &[&str], host: &str, port: u16) -> Ran {
    let url = format!("https://{host}:{port}/f");
    folder.myapp([&["download", "-o", "-"], line, &[&url]].concat()).run()
}

#[test]
fn a_server_is_trusted_for_its_issuer_its_pin_or_not_at_all() {
    let folder = Folder::new();
    let port = serve(&folder).port();
    fetch(&folder, &[], "localhost", port)
        .code(5)
        .says("the issuer of the certificate is unknown")
        .says("hint: --cacert FILE");
    fetch(&folder, &["--cacert", "ca.pem"], "localhost", port).code(0).prints("good");
    fetch(&folder, &["--cacert", "ca.pem"], "127.0.0.1", port)
        .code(5)
        .says("the certificate is not for this name, but for localhost");
    fetch(&folder, &["--insecure"], "127.0.0.1", port).code(0).prints("good");

    let wrong = "0".repeat(64);
    let ran = fetch(&folder, &["--pinned-sha256", &wrong], "127.0.0.1", port).code(5);
    let pin = ran.stderr.trim_end().rsplit(' ').next().unwrap();
    assert!(ran.stderr.contains("not the pinned one, its SHA-256 is"), "{}", ran.stderr);
    fetch(&folder, &["--pinned-sha256", pin], "127.0.0.1", port).code(0).prints("good");
}

#[test]
#[ignore = "needs openssl"]
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
    fetch(&folder, &["--pinned-sha256", pin], "127.0.0.1", port).code(0).prints("good");
}

#[test]
fn files_and_choices_that_make_no_sense_are_told() {
    let folder = Folder::new();
    folder.write("empty", "");
    let pin = "0".repeat(64);
    for (line, code, says) in [
        (&["--cacert", "none"][..], 3, "read certificates from none: No such file"),
        (&["--cacert", "empty"], 3, "read certificates from empty: no certificate in it"),
        (&["--insecure", "--cert", "none"], 3, "read certificates from none: No such file"),
        (&["--key", "k"], 2, "--cert <FILE>"),
        (&["--pinned-sha256", "abc"], 2, "not the 64 hex digits"),
        (&["--pinned-sha256", &pin, "--insecure"], 2, "cannot be used with"),
        (&["--cacert", "empty", "--insecure"], 2, "cannot be used with"),
    ] {
        fetch(&folder, line, "127.0.0.1", 1).code(code).says(says);
    }
}
