//! `myapp download` over TLS: trusted and untrusted servers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use rustls::{ServerConnection, StreamOwned};

use super::*;
use crate::harness::http::Certificate;
use crate::harness::third_party::ListeningProgram;

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

/// Runs `openssl` in the folder.
fn openssl(folder: &Folder, line: &str) {
    let mut command = std::process::Command::new("openssl");
    command.args(line.split(' ')).current_dir(folder.path(""));
    let ran = command.output().unwrap();
    assert!(
        ran.status.success(),
        "openssl {line}: {}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

/// Makes a key and a self-signed certificate for 127.0.0.1.
fn make_certificate(folder: &Folder, name: &str, key: &str) {
    openssl(folder, &format!("genpkey -out {name}.key -algorithm {key}"));
    openssl(
        folder,
        &format!(
            "req -x509 -new -key {name}.key -out {name}.pem -days 30 -subj /CN=localhost -addext \
             subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
        ),
    );
}

/// Downloads from `openssl s_server` with these options.
fn fetch_from_s_server(folder: &Folder, server: &str, line: &[&str]) -> RunOutput {
    let server = ListeningProgram::start(|port| {
        let mut command = std::process::Command::new("openssl");
        command
            .args([
                "s_server",
                "-www",
                "-quiet",
                "-accept",
                &format!("127.0.0.1:{port}"),
            ])
            .args(server.split(' '))
            .current_dir(folder.path(""));
        command
    });
    download_from(folder, line, "127.0.0.1", server.port)
}

/// Makes certificates with supported and unsupported keys, and one of X.509 version 1.
fn make_unusual_certificates(folder: &Folder) {
    let ec = |curve: &str| format!("EC -pkeyopt ec_paramgen_curve:{curve}");
    for (name, key) in [
        ("p256", ec("P-256")),
        ("p521", ec("P-521")),
        ("rsa", "RSA -pkeyopt rsa_keygen_bits:2048".to_owned()),
        ("short", "RSA -pkeyopt rsa_keygen_bits:1024".to_owned()),
        ("pss", "RSA-PSS -pkeyopt rsa_keygen_bits:2048".to_owned()),
        ("ed448", "ED448".to_owned()),
    ] {
        make_certificate(folder, name, &key);
    }
    openssl(
        folder,
        "req -new -key p256.key -out v1.csr -subj /CN=localhost",
    );
    openssl(
        folder,
        "x509 -req -in v1.csr -CA rsa.pem -CAkey rsa.key -CAcreateserial -out v1.pem",
    );
}

#[test]
#[ignore = "peer: openssl"]
fn unsupported_algorithms_of_a_server_are_named() {
    let folder = Folder::new();
    make_unusual_certificates(&folder);
    let own = |name: &str| format!("-cert {name}.pem -key {name}.key");
    let none = "server accepts none of our TLS algorithms; it may require CBC cipher suites, RSA \
                or DHE key exchange, or have a P-521, Ed448, RSA-PSS or short RSA key\nhint: \
                supported: ECDHE";
    let weak = "-cipher DEFAULT@SECLEVEL=0";
    for (server, root, says) in [
        (own("p521"), "p521.pem", none),
        (own("ed448"), "ed448.pem", none),
        (own("pss"), "pss.pem", none),
        (
            own("rsa") + " -tls1_2 -cipher ECDHE-RSA-AES128-SHA256",
            "rsa.pem",
            none,
        ),
        (
            own("rsa") + " -tls1_2 -cipher AES128-GCM-SHA256",
            "rsa.pem",
            none,
        ),
        (
            own("rsa") + " -tls1_2 -cipher DHE-RSA-AES128-GCM-SHA256",
            "rsa.pem",
            none,
        ),
        (
            own("rsa") + " -tls1_1 " + weak,
            "rsa.pem",
            "server supports neither TLS 1.2 nor TLS 1.3",
        ),
        (
            own("short") + " " + weak,
            "short.pem",
            "unsupported certificate: RSA key of 1024 bits\nhint: supported: X.509 version 3",
        ),
        (
            "-cert v1.pem -key p256.key".to_owned(),
            "rsa.pem",
            "unsupported certificate: X.509 version 1\n",
        ),
    ] {
        let ran = fetch_from_s_server(&folder, &server, &["--cacert", root]).code(5);
        assert!(ran.stderr.contains(says), "{server}: {}", ran.stderr);
    }
    fetch_from_s_server(&folder, &own("p256"), &["--cacert", "p256.pem"]).code(0);
}

/// Makes key and certificate files in formats that are not read.
fn make_unusual_files(folder: &Folder) {
    make_certificate(folder, "rsa", "RSA -pkeyopt rsa_keygen_bits:2048");
    make_certificate(folder, "p521", "EC -pkeyopt ec_paramgen_curve:P-521");
    make_certificate(folder, "p256", "EC -pkeyopt ec_paramgen_curve:P-256");
    openssl(
        folder,
        "pkey -in rsa.key -aes128 -passout pass:x -out enc.key",
    );
    openssl(
        folder,
        "rsa -in rsa.key -aes128 -passout pass:x -traditional -out old.key",
    );
    openssl(folder, "pkey -in rsa.key -outform DER -out der.key");
    openssl(folder, "x509 -in rsa.pem -outform DER -out der.pem");
    openssl(
        folder,
        "pkcs12 -export -in rsa.pem -inkey rsa.key -passout pass:x -out id.p12",
    );
}

#[test]
#[ignore = "peer: openssl"]
fn unsupported_key_files_are_named() {
    let folder = Folder::new();
    make_unusual_files(&folder);
    for (line, code, says, hint) in [
        (
            &["--cert", "id.p12"][..],
            3,
            "PKCS#12 instead of PEM",
            "openssl pkcs12",
        ),
        (
            &["--cert", "rsa.pem", "--key", "enc.key"],
            3,
            "read private key from enc.key: the private key is encrypted",
            "openssl pkey",
        ),
        (
            &["--cert", "rsa.pem", "--key", "old.key"],
            3,
            "the private key is encrypted",
            "openssl pkey",
        ),
        (
            &["--cert", "rsa.pem", "--key", "der.key"],
            3,
            "a DER private key",
            "-inform DER",
        ),
        (
            &["--cert", "der.pem", "--key", "rsa.key"],
            3,
            "a DER certificate",
            "openssl x509",
        ),
        (
            &["--cacert", "der.pem"],
            3,
            "a DER certificate instead of PEM",
            "openssl x509",
        ),
        (
            &["--cert", "p521.pem", "--key", "p521.key"],
            3,
            "use certificate p521.pem with its private key: P-521 key is not supported\n",
            "",
        ),
        (
            &["--cert", "rsa.pem", "--key", "p256.key"],
            3,
            "the key does not belong to the certificate\n",
            "",
        ),
    ] {
        download_from(&folder, line, "127.0.0.1", 1)
            .code(code)
            .says(says)
            .says(hint);
    }
}

#[test]
fn missing_system_roots_name_the_package() {
    let folder = Folder::new();
    let ran = folder
        .myapp(["download", "https://127.0.0.1:1/"])
        .env("SSL_CERT_FILE", "/nonexistent/roots.pem")
        .env("SSL_CERT_DIR", "/nonexistent")
        .run()
        .code(3)
        .says("find system root certificates: ")
        .says("hint: install the package ca-certificates, or give the roots with --cacert FILE");
    assert_eq!(
        ran.stderr.matches("No such file").count(),
        1,
        "{}",
        ran.stderr
    );
}
