//! `--mode whoami`: a JSON line about the connection per message.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::tls;
use crate::harness::serve::ends;
use crate::harness::{Folder, Server, myapp, schema, until};

const WHOAMI: [&str; 2] = ["--mode", "whoami"];

#[track_caller]
fn serve(arguments: &[&str]) -> Server {
    Server::start(&[&WHOAMI, arguments].concat())
}

/// Reads one reply.
#[track_caller]
fn reply(stream: &mut impl Read) -> Value {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("a reply");
        line.push(byte[0]);
    }
    schema::json("whoami", &String::from_utf8(line).unwrap())
}

/// Sends a message and reads the reply.
#[track_caller]
fn ask(mut stream: &TcpStream, message: &[u8]) -> Value {
    stream.write_all(message).unwrap();
    reply(&mut stream)
}

#[track_caller]
fn text(address: std::io::Result<SocketAddr>) -> String {
    address.unwrap().to_string()
}

#[test]
fn tcp_reply_describes_the_connection() {
    let server = serve(&["--threads", "1"]);
    for connection in 1..=2 {
        let stream = server.connect();
        for message in 1..=3 {
            let expected = json!({
                "transport": "tcp",
                "connection": connection,
                "message": message,
                "peer": text(stream.local_addr()),
                "local": server.address().to_string(),
                "announced": null,
                "tls": null,
                "unix": null,
            });
            assert_eq!(ask(&stream, b"hello\n"), expected);
        }
    }
    server.stop().says("bytes=6 text=hello").says("messages=6");
}

#[test]
fn each_message_gets_one_reply() {
    let server = serve(&["-q", "--prefix", "> ", "--max-line", "10"]);
    let mut stream = server.connect();
    stream.write_all(b"one\n\ntwo\nan end").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    let numbers: Vec<_> = replies
        .lines()
        .map(|line| schema::json("whoami", line.strip_prefix("> ").unwrap())["message"].as_u64())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4].map(Some));
    ends(&stream);

    let mut long = server.connect();
    long.write_all(b"fits\nlonger than ten\n").unwrap();
    let mut lines = BufReader::new(long).lines().map(Result::unwrap);
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("> {\"transport\":\"tcp\"")
    );
    assert_eq!(lines.next().unwrap(), "error: line longer than 10 bytes");
    assert_eq!(lines.next(), None);
}

#[test]
fn local_address_is_that_of_the_connection() {
    let arguments = ["serve", "--mode", "whoami", ":0"];
    let server = Server::of(myapp(arguments), 1);
    let port = server.address().port();
    for ip in ["127.0.0.3", "[::1]"] {
        let stream = TcpStream::connect(format!("{ip}:{port}")).unwrap();
        let reply = ask(&stream, b"\n");
        assert_eq!(reply["local"], format!("{ip}:{port}"));
        assert_eq!(reply["peer"], text(stream.local_addr()));
    }
}

#[test]
fn unix_reply_has_the_credentials() {
    let folder = Folder::new();
    let mut server = folder
        .myapp(["serve", "--mode=whoami", "unix:socket"])
        .start();
    server.line();
    let mut stream = UnixStream::connect(folder.path("socket")).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let own = fs::metadata("/proc/self").unwrap();
    let expected = json!({
        "transport": "unix",
        "connection": 1,
        "message": 1,
        "peer": null,
        "local": "unix:socket",
        "announced": null,
        "tls": null,
        "unix": { "pid": process::id(), "uid": own.uid(), "gid": own.gid() },
    });
    assert_eq!(reply(&mut stream), expected);
}

#[test]
fn udp_reply_describes_the_datagram() {
    let arguments = ["serve", "--mode", "whoami", "--threads", "1", "udp://:0"];
    let server = Server::of(myapp(arguments), 1);
    let port = server.address().port();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut buffer = [0; 2000];
    for (number, ip) in [(1, "127.0.0.1"), (2, "127.0.0.2")] {
        client.send_to(b"any\nthing", (ip, port)).unwrap();
        let (length, from) = client.recv_from(&mut buffer).unwrap();
        let local = format!("{ip}:{port}");
        assert_eq!(from.to_string(), local);
        let reply = schema::json("whoami", std::str::from_utf8(&buffer[..length]).unwrap());
        let expected = json!({
            "transport": "udp",
            "connection": null,
            "message": number,
            "peer": text(client.local_addr()),
            "local": local,
            "announced": null,
            "tls": null,
            "unix": null,
        });
        assert_eq!(reply, expected);
    }
    // Another server would reply to a reply.
    let (length, _) = {
        client.send_to(b"again", ("127.0.0.1", port)).unwrap();
        client.recv_from(&mut buffer).unwrap()
    };
    client
        .send_to(&buffer[..length], ("127.0.0.1", port))
        .unwrap();
    client.send_to(b"last", ("127.0.0.1", port)).unwrap();
    let (length, _) = client.recv_from(&mut buffer).unwrap();
    let reply: Value = serde_json::from_slice(&buffer[..length]).unwrap();
    assert_eq!(reply["message"], 4);
    server.stop().says("reason=\"loops_suppressed\"");
}

#[test]
fn tls_reply_describes_the_session() {
    let server = tls::Server::start(&[&WHOAMI[..], &["--tls-client-ca", "ca.pem"]].concat());
    let identity = server.authority.issue_to("alice, \"root\"");
    for (version, name, cipher) in [
        (&TLS12, "TLSv1.2", "TLS_ECDHE_"),
        (&TLS13, "TLSv1.3", "TLS_AES_"),
    ] {
        for protocols in [vec![], vec![b"h2".to_vec(), b"a\"\xff".to_vec()]] {
            let mut config = server.authority.client(version, Some(&identity));
            Arc::get_mut(&mut config)
                .unwrap()
                .alpn_protocols
                .clone_from(&protocols);
            let mut client = server.connect(config.clone());
            client.write_all(b"hello\n").unwrap();
            let reply = reply(&mut client);
            assert_eq!(reply["transport"], "tls");
            assert_eq!(reply["peer"], text(client.sock.local_addr()));
            let alpn = if protocols.is_empty() {
                Value::Null
            } else {
                json!(["h2", "a\"\u{fffd}"])
            };
            let session = &reply["tls"];
            assert_eq!(session["version"], name);
            assert_eq!(session["server_name"], "localhost");
            assert_eq!(session["alpn"], alpn);
            assert_eq!(session["client_subject"], "CN=alice\\, \\\"root\\\"");
            let suite = session["cipher"].as_str().unwrap();
            assert!(suite.starts_with(cipher), "{suite}");
            // A resumed session has the same properties, except its messages.
            let mut again = server.connect(config);
            again.write_all(b"hello\n").unwrap();
            assert_eq!(self::reply(&mut again)["tls"], *session);
        }
    }
}

#[test]
fn tls_reply_without_client_certificate_has_no_subject() {
    let server = tls::Server::start(&WHOAMI);
    let mut client = server.client();
    client.write_all(b"hello\n").unwrap();
    let session = &reply(&mut client)["tls"];
    assert_eq!(session["client_subject"], Value::Null);
    assert_eq!(session["alpn"], Value::Null);
}

#[test]
fn announced_client_is_separate_from_the_peer() {
    let server = serve(&["--proxy-protocol=require", "--proxy-from=127.0.0.1"]);
    let fixed = b"\r\n\r\n\0\r\nQUIT\n";
    let mut paths = [0; 216];
    paths[..8].copy_from_slice(b"/a\"\\\n\xff b");
    for (header, announced) in [
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n".to_vec(),
            json!({ "source": "[2001:db8::7]:56324", "destination": "[2001:db8::1]:443" }),
        ),
        (
            [fixed.as_slice(), &[0x21, 0x31, 0, 216], &paths].concat(),
            json!({ "source": "unix:/a\"\\\n\u{fffd} b", "destination": null }),
        ),
        ([fixed.as_slice(), &[0x20, 0, 0, 0]].concat(), Value::Null),
    ] {
        let stream = server.connect();
        let reply = ask(&stream, &[header.as_slice(), b"hello\n"].concat());
        assert_eq!(reply["announced"], announced);
        assert_eq!(reply["peer"], text(stream.local_addr()));
    }
}

#[test]
fn faults_apply_to_replies() {
    let server = serve(&["--delay", "300ms", "--drop-rate", "50%", "--seed", "7"]);
    let stream = server.connect();
    let start = std::time::Instant::now();
    (&stream).write_all(&b"x\n".repeat(100)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let replies: Vec<_> = BufReader::new(&stream)
        .lines()
        .map(|line| {
            schema::json("whoami", &line.unwrap())["message"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert!(start.elapsed() >= Duration::from_millis(300));
    assert!((25..75).contains(&replies.len()), "{replies:?}");
    assert!(replies.is_sorted() && replies.iter().any(|number| *number > 90));
}

/// A reply is much longer than an empty line.
#[test]
fn unread_replies_take_bounded_memory() {
    let server = serve(&["-q", "--threads", "1"]);
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    let clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    let lines = vec![b'\n'; 1 << 20];
    for mut client in &clients {
        client.set_nonblocking(true).unwrap();
        until(|| client.write(&lines).is_err());
    }
    until(|| server.sleeps());
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 10 << 20, "grown by {grown} bytes");
    let other = server.connect();
    assert_eq!(ask(&other, b"served\n")["message"], 1);
}

#[test]
fn whoami_drains_on_shutdown() {
    let server = serve(&["-q"]);
    let mut stream = server.connect();
    ask(&stream, b"one\n");
    stream.write_all(b"two\nthree").unwrap();
    server.signal(Signal::TERM);
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    assert_eq!(replies.lines().count(), 2, "{replies}");
    server.wait().code(0);
}

#[test]
fn chunk_has_no_effect_with_whoami() {
    let ran = myapp(["serve", "--mode", "whoami", "--chunk", "10"]).run();
    ran.code(2).prints("").says("--chunk has no effect");
}
