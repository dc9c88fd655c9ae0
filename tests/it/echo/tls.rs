//! `myapp echo` over TLS, and against real peers over TLS and Unix sockets.

use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use rustls::{ServerConnection, StreamOwned};

use super::assert_error;
use crate::harness::http::Certificate;
use crate::harness::ports::{ChildGuard, start_on_free_port};
use crate::harness::{Folder, Peer, Program, myapp, raw_peer, schema, until};

/// Starts a TLS echo server and writes its certificate to `ca.pem`.
fn start(folder: &Folder, names: &[&str]) -> Peer {
    start_with(folder, Certificate::of(names))
}

fn start_with(folder: &Folder, certificate: Certificate) -> Peer {
    folder.write("ca.pem", &certificate.pem);
    Peer::start(move |stream| {
        let connection = ServerConnection::new(certificate.config()).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, stream);
        let mut piece = [0; 4096];
        loop {
            let count = tls.read(&mut piece)?;
            if count == 0 {
                break;
            }
            tls.write_all(&piece[..count])?;
        }
        tls.conn.send_close_notify();
        tls.flush()
    })
}

fn echo(folder: &Folder, peer: &Peer, arguments: &[&str]) -> Program {
    let address = format!("tls://{}", peer.address());
    folder.myapp([&["echo", "-q", "-c", &address], arguments].concat())
}

#[test]
fn every_mode_works_over_tls() {
    let folder = Folder::new();
    let peer = start(&folder, &["127.0.0.1"]);
    let ca = ["--tls-ca", "ca.pem"];
    let run = |arguments: &[&str]| echo(&folder, &peer, &[&ca, arguments].concat());
    run(&["--verify", "a", "b"])
        .run()
        .code(0)
        .prints("a\nb\n")
        .silent();
    run(&["--one-connection"])
        .stdin("a\nb\n")
        .run()
        .code(0)
        .prints("a\nb\n")
        .silent();
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    let ran = run(&["--raw"]).stdin(&bytes).run().code(0).silent();
    assert!(ran.stdout == bytes, "{} bytes received", ran.stdout.len());
    let ran = run(&["-n", "3", "--interval", "0"]).run().code(0).silent();
    assert!(ran.text().contains("3 sent, 3 answered"), "{}", ran.text());
    let load = [
        "--connections",
        "3",
        "-n",
        "30",
        "--in-flight",
        "2",
        "--size",
        "100K",
        "--json",
    ];
    let report = schema::json("echo", &run(&load).run().code(0).silent().text());
    assert_eq!(report["answered"], 30, "{report}");
}

#[test]
fn untrusted_certificate_is_rejected_with_cause() {
    let folder = Folder::new();
    let peer = start(&folder, &["localhost"]);
    let refused = |arguments: &[&str], cause: &str| {
        let ran = echo(&folder, &peer, &[arguments, &["hola"]].concat())
            .run()
            .code(5)
            .prints("");
        assert_error(ran, &peer, &[cause]);
    };
    refused(
        &["--tls-ca", "ca.pem"],
        "certificate is not valid for this name, only for localhost",
    );
    let pin = "00".repeat(32);
    let ran = echo(&folder, &peer, &["--pinned-sha256", &pin, "hola"])
        .run()
        .code(5)
        .prints("");
    let text = ran.stderr.trim_end();
    let (_, found) = text
        .split_once("not the pinned one, its SHA-256 is ")
        .expect(text);
    for trusting in [["--pinned-sha256", found].as_slice(), &["--insecure"]] {
        let ran = echo(&folder, &peer, &[trusting, &["hola"]].concat()).run();
        ran.code(0).prints("hola\n").silent();
    }
    let named = ["--tls-ca", "ca.pem", "--tls-name", "localhost", "hola"];
    echo(&folder, &peer, &named)
        .run()
        .code(0)
        .prints("hola\n")
        .silent();
    let other = Certificate::of(&["localhost"]);
    folder.write("other.pem", &other.pem);
    refused(
        &["--tls-ca", "other.pem", "--tls-name", "localhost"],
        "unknown certificate issuer",
    );
}

#[test]
fn load_counts_tls_failures() {
    let folder = Folder::new();
    let peer = start(&folder, &["localhost"]);
    let load = [
        "--tls-ca",
        "ca.pem",
        "--connections",
        "2",
        "-n",
        "4",
        "--json",
    ];
    let ran = echo(&folder, &peer, &load).run().code(5);
    let report = schema::json("echo", &ran.text());
    assert_eq!(
        (&report["errors"]["tls"], &report["answered"]),
        (&2.into(), &0.into())
    );
    ran.says("certificate is not valid for this name");
}

#[test]
fn certificate_errors_are_the_same_in_every_mode() {
    let folder = Folder::new();
    let authority = start_with(&folder, Certificate::of_ca(&["127.0.0.1"]));
    let cause = "certificate is a CA certificate (CA:TRUE), not a server certificate";
    let run = |arguments: &[&str]| {
        let arguments = [&["--tls-ca", "ca.pem"], arguments].concat();
        assert_error(
            echo(&folder, &authority, &arguments).run().code(5),
            &authority,
            &[cause, &format!("{cause} (2 times)")],
        );
    };
    run(&["hola"]);
    run(&["-n", "1"]);
    run(&["--connections", "2", "-n", "4"]);
    run(&["--connections", "2", "-n", "4", "--report", "new.html"]);
    let page = String::from_utf8(folder.read("new.html")).unwrap();
    assert!(page.contains(cause), "{page}");
}

#[test]
fn ca_certificate_is_accepted_with_the_hinted_pin() {
    let folder = Folder::new();
    let authority = start_with(&folder, Certificate::of_ca(&["127.0.0.1"]));
    for load in [&["hola", "adiós"][..], &["--connections", "2", "-n", "4"]] {
        let arguments = [&["--tls-ca", "ca.pem"], load].concat();
        let ran = echo(&folder, &authority, &arguments).run().code(5);
        let (_, hint) = ran
            .stderr
            .split_once("\nhint: --pinned-sha256 ")
            .expect(&ran.stderr);
        let (pin, rest) = hint.split_once(' ').unwrap();
        assert!(!rest.contains("hint"), "one hint only: {}", ran.stderr);
        let pinned = [&["--pinned-sha256", pin], load].concat();
        echo(&folder, &authority, &pinned).run().code(0).silent();
    }
}

#[test]
fn missing_tls_and_handshake_timeout_are_reported() {
    let folder = Folder::new();
    let plain = Peer::start(raw_peer::echo);
    let ran = echo(&folder, &plain, &["--insecure", "hola"]).run().code(5);
    ran.says(": server does not speak TLS\n");
    let silent = Peer::start(raw_peer::say_nothing);
    let arguments = ["--insecure", "--timeout", "100ms", "hola"];
    let ran = echo(&folder, &silent, &arguments).run().code(10);
    assert_error(ran, &silent, &["timed out after 100ms"]);
}

#[test]
fn missing_tls_file_is_a_local_failure() {
    let folder = Folder::new();
    let peer = Peer::start(raw_peer::echo);
    let ran = echo(&folder, &peer, &["--tls-ca", "missing.pem", "hola"])
        .run()
        .code(3);
    ran.says("read certificates from missing.pem: No such file or directory");
}

/// Starts a program in a folder.
#[track_caller]
fn spawn(folder: &Folder, line: &str) -> ChildGuard {
    let words: Vec<_> = line.split(' ').collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(folder.path(""));
    ChildGuard::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))
}

#[test]
#[ignore = "peer: ncat, socat and openssl"]
fn ncat_socat_and_openssl_interoperate() {
    let folder = Folder::new();
    let openssl = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 \
                   -subj /CN=localhost -addext subjectAltName=DNS:localhost \
                   -addext basicConstraints=CA:FALSE";
    let words: Vec<_> = openssl.split_whitespace().collect();
    let made = Command::new(words[0])
        .args(&words[1..])
        .current_dir(folder.path(""))
        .output();
    assert!(made.unwrap().status.success());
    let trusting = ["--tls-ca", "cert.pem", "--tls-name", "localhost"];
    let servers = [
        (
            "ncat -l 127.0.0.1 PORT -k --ssl --ssl-cert cert.pem --ssl-key key.pem -e /bin/cat",
            true,
        ),
        (
            "socat OPENSSL-LISTEN:PORT,fork,cert=cert.pem,key=key.pem,verify=0 EXEC:cat",
            true,
        ),
        // Reverses each line.
        (
            "openssl s_server -accept PORT -cert cert.pem -key key.pem -rev -quiet",
            false,
        ),
    ];
    for (line, same) in servers {
        let (_server, port) =
            start_on_free_port(|port| spawn(&folder, &line.replace("PORT", &port.to_string())));
        let address = format!("tls://127.0.0.1:{port}");
        let say = |arguments: &[&str]| {
            folder.myapp([&["echo", "-q", "-c", &address], &trusting[..], arguments].concat())
        };
        let reply = if same { "hola\n" } else { "aloh\n" };
        say(&["hola"]).run().code(0).prints(reply);
        if same {
            say(&["--connections", "3", "-n", "300"]).run().code(0);
        }
    }
    let path = folder.path("socket");
    let _server = spawn(&folder, "socat UNIX-LISTEN:socket,fork EXEC:cat");
    until(|| path.exists());
    let over = |arguments: &[&str]| {
        folder.myapp([&["echo", "-q", "-c", "unix:socket"], arguments].concat())
    };
    over(&["hola"]).run().code(0).prints("hola\n");
    over(&["--connections", "3", "-n", "300"]).run().code(0);
    over(&["--raw"])
        .stdin("one\ntwo")
        .run()
        .code(0)
        .prints("one\ntwo");
}

#[test]
fn tls_option_without_tls_is_a_usage_error() {
    for option in ["--insecure", "--tls-ca=x", "--tls-name=x", "--tls-cert=x"] {
        let ran = myapp(["echo", "-c", "127.0.0.1:1", option, "hola"])
            .run()
            .code(2);
        ran.says(" requires a tls:// address\n")
            .says("hint: use -c tls://HOST:PORT");
    }
}
