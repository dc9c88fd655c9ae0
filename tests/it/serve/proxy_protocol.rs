//! PROXY protocol: headers of proxies, and what they change.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConnection, StreamOwned};

use super::access::{from, is_closed};
use super::{random_bytes, tls};
use crate::harness::serve::{ask, ends};
use crate::harness::{Folder, Server, myapp, until};

const REQUIRE: [&str; 2] = ["--proxy-protocol", "require"];

/// Starts a server that requires headers from 127.0.0.2 and 127.0.0.3.
#[track_caller]
fn serve(arguments: &[&str]) -> Server {
    let own = ["--proxy-from", "127.0.0.2/31"];
    Server::start(&[&REQUIRE, &own, arguments].concat())
}

/// Connects as a proxy.
#[track_caller]
fn proxy(server: &Server) -> TcpStream {
    from([127, 0, 0, 2], server)
}

/// Returns the header of a client, version 1.
fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 198.51.100.9 56324 443\r\n").into()
}

/// Returns a header of version 2: its command, its family and what follows.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).unwrap().to_be_bytes();
    let fixed = b"\r\n\r\n\0\r\nQUIT\n";
    [fixed.as_slice(), &[command, family], &len, body].concat()
}

/// The header of the client 192.0.2.7:56324, version 2, with a TLV.
fn v2_client() -> Vec<u8> {
    let body = [
        192, 0, 2, 7, 198, 51, 100, 9, 0xdc, 4, 1, 0xbb, 1, 0, 2, b'h', b'2',
    ];
    v2(0x21, 0x11, &body)
}

/// Sends a header and a message at once, and fails unless the reply is the message.
#[track_caller]
fn talk(mut stream: &TcpStream, header: &[u8]) {
    stream.write_all(&[header, b"first\n"].concat()).unwrap();
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).expect("a reply");
    assert_eq!(&answer, b"first\n");
    assert_eq!(ask(stream, b"second\n"), b"second\n");
}

#[test]
fn announced_client_replaces_the_proxy_in_the_log() {
    let server = serve(&[]);
    talk(&proxy(&server), &v1("192.0.2.1"));
    talk(&proxy(&server), &v2_client());
    let ran = server.stop();
    let mut ran = ran.says("summary connections=2 messages=4");
    for client in ["192.0.2.1:56324", "192.0.2.7:56324"] {
        ran = ran
            .says(&format!("opened peer={client} proxy=127.0.0.2:"))
            .says(&format!("received peer={client} bytes=6 text=first"))
            .says(&format!("closed peer={client} messages=2"));
    }
}

#[test]
fn real_endpoints_count_if_none_are_announced() {
    let server = serve(&[]);
    for header in [
        b"PROXY UNKNOWN\r\n".to_vec(),
        v2(0x20, 0, b""),
        v2(0x20, 0x11, &[0xff; 300]),
        v2(0x21, 0, b"whatever"),
        v2(0x21, 0x31, &[b'x'; 216]),
    ] {
        talk(&proxy(&server), &header);
    }
    let ran = server.stop().says("opened peer=127.0.0.2:");
    assert!(!ran.stderr.contains("proxy="), "{}", ran.stderr);
}

#[test]
fn header_may_arrive_in_any_pieces() {
    let server = serve(&["-q", "--mode", "chunk", "--chunk", "1"]);
    for header in [v1("192.0.2.1"), v2_client()] {
        for size in [1, 2, 7, 15] {
            let mut stream = proxy(&server);
            for piece in [&header, b"first\n".as_slice()].concat().chunks(size) {
                stream.write_all(piece).unwrap();
                thread::sleep(Duration::from_millis(1));
            }
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, b"first\n", "{size} bytes at a time");
        }
    }
}

#[test]
fn data_behind_the_header_is_complete() {
    let server = serve(&["-q", "--mode", "chunk"]);
    let bytes = random_bytes(1 << 20);
    let noop = [&[4, 15, 0][..], &[0; 15 << 8]].concat();
    let long = v2(0x21, 0x11, &[&[127; 12], noop.as_slice()].concat());
    for header in [v1("192.0.2.1"), v2_client(), long] {
        let stream = proxy(&server);
        let mut answer = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                (&stream)
                    .write_all(&[&header, bytes.as_slice()].concat())
                    .unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            });
            (&stream).read_to_end(&mut answer).unwrap();
        });
        assert!(answer == bytes, "{} bytes differ", answer.len());
    }
}

#[test]
fn header_of_other_peers_is_not_parsed() {
    let server = serve(&["--deny", "192.0.2.0/24"]);
    let stranger = from([127, 0, 0, 1], &server);
    assert_eq!(ask(&stranger, &v1("192.0.2.1")), v1("192.0.2.1"));
    assert_eq!(ask(&stranger, b"hello\n"), b"hello\n");
    server
        .stop()
        .says("opened peer=127.0.0.1:")
        .says("refused_acl=0")
        .says("refused_proxy_header=0");
}

#[test]
fn dual_stack_proxy_is_found_by_any_spelling() {
    for network in ["127.0.0.2", "::ffff:127.0.0.2/128"] {
        let arguments = ["serve", ":0", "--proxy-from", network];
        let server = Server::of(myapp([&arguments, REQUIRE.as_slice()].concat()), 1);
        talk(&proxy(&server), &v1("192.0.2.1"));
        server.stop().says("opened peer=192.0.2.1:56324");
    }
}

#[test]
fn access_lists_judge_the_announced_client() {
    let server = serve(&[
        "--allow=192.0.2.0/24",
        "--deny=192.0.2.66",
        "--deny=127.0.0.3",
    ]);
    talk(&proxy(&server), &v1("192.0.2.1"));
    talk(&proxy(&server), &v2_client());
    // The list concerns the clients, not the proxies.
    talk(&from([127, 0, 0, 3], &server), &v1("192.0.2.1"));
    for client in ["192.0.2.66", "203.0.113.1", "127.0.0.2"] {
        let mut stream = proxy(&server);
        stream.write_all(&v1(client)).unwrap();
        is_closed(stream);
    }
    // A proxy that announces nobody is its own client.
    let mut stream = proxy(&server);
    stream.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    is_closed(stream);
    is_closed(from([127, 0, 0, 1], &server));
    server
        .stop()
        .says("summary connections=3")
        .says("refused_acl=5")
        .says("refused peer=192.0.2.66:56324 reason=\"acl\"");
}

#[test]
fn max_per_ip_counts_announced_clients() {
    let server = serve(&["--max-per-ip", "1"]);
    let first = proxy(&server);
    talk(&first, &v1("192.0.2.1"));
    let other = proxy(&server);
    talk(&other, &v1("192.0.2.2"));
    let open = server.descriptors();
    let mut second = proxy(&server);
    second.write_all(&v1("192.0.2.1")).unwrap();
    is_closed(second);
    drop(first);
    server.until_descriptors(open - 1);
    talk(&proxy(&server), &v1("192.0.2.1"));
    server
        .stop()
        .says("refused peer=192.0.2.1:56324 reason=\"max_per_ip\"")
        .says("refused_max_per_ip=1");
}

/// Returns invalid headers, and a part of the error that is logged for each.
fn invalid_headers() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (b"hello\n".to_vec(), "no PROXY protocol header"),
        (
            b"PROXY TCP4 1.2.3.4\r\n".to_vec(),
            "malformed version 1 header: not six fields",
        ),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
            "invalid port",
        ),
        (
            [b"PROXY UNKNOWN ", [b'x'; 100].as_slice()].concat(),
            "without CRLF in its first 107",
        ),
        (v2(0x31, 0x11, &[0; 12]), "unknown version 3"),
        (v2(0x22, 0x11, &[0; 12]), "unknown command 2"),
        (
            v2(0x21, 0x41, &[0; 12]),
            "unknown address family and protocol 0x41",
        ),
        (v2(0x21, 0x11, &[0; 11]), "too short for its addresses"),
        (v2(0x21, 0x11, &[0; 13]), "TLV ends after the header"),
        (
            v2(0x21, 0x11, &[0; 5000]),
            "header of 5016 bytes is longer than 4096",
        ),
        (
            v2(
                0x21,
                0x11,
                &[[0; 12].as_slice(), &[3, 0, 4, 1, 2, 3, 4]].concat(),
            ),
            "CRC32c mismatch",
        ),
    ]
}

#[test]
fn invalid_header_closes_and_is_counted() {
    let server = serve(&[]);
    let invalid = invalid_headers();
    let count = invalid.len();
    for (header, _) in &invalid {
        let mut stream = proxy(&server);
        stream.write_all(header).unwrap();
        is_closed(stream);
    }
    for part in [
        b"".as_slice(),
        b"PROXY",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c",
    ] {
        let mut stream = proxy(&server);
        stream.write_all(part).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        is_closed(stream);
    }
    talk(&proxy(&server), &v1("192.0.2.1"));
    let mut ran = server.stop();
    for (_, cause) in invalid {
        ran = ran.says(cause);
    }
    ran.says("refused peer=127.0.0.2:")
        .says("connection closed before the end of the header")
        .says(&format!("refused_proxy_header={}", count + 3))
        .says("summary connections=1");
}

#[test]
fn incomplete_header_times_out_alone() {
    let server = serve(&[]);
    let start = Instant::now();
    let silent = proxy(&server);
    let mut partial = proxy(&server);
    partial.write_all(b"PROXY TCP4 192.0.2.1").unwrap();
    talk(&proxy(&server), &v1("192.0.2.1"));
    talk(&from([127, 0, 0, 1], &server), b"");
    // More bytes do not extend the limit.
    thread::sleep(Duration::from_secs(3));
    partial.write_all(b" 192").unwrap();
    is_closed(silent);
    is_closed(partial);
    let elapsed = start.elapsed();
    let expected = Duration::from_millis(4900)..Duration::from_millis(7500);
    assert!(expected.contains(&elapsed), "closed after {elapsed:?}");
    server
        .stop()
        .says("timeout before the end of the header")
        .says("refused_proxy_header=2");
}

#[test]
fn waiting_header_holds_a_permit() {
    let server = serve(&["--max-connections", "1"]);
    let open = server.descriptors();
    let mut first = proxy(&server);
    server.until_descriptors(open + 1);
    let mut second = proxy(&server);
    second.write_all(&v1("192.0.2.2")).unwrap();
    first.write_all(&v1("192.0.2.1")).unwrap();
    talk(&first, b"");
    assert_eq!(server.descriptors(), open + 1, "the second one waits");
    drop(first);
    talk(&second, b"");
}

#[test]
fn header_without_data_is_served_until_its_end() {
    let server = serve(&[]);
    let mut stream = proxy(&server);
    stream.write_all(&v1("192.0.2.1")).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    ends(&stream);
    server.stop().says("closed peer=192.0.2.1:56324 messages=0");
}

#[test]
fn shutdown_serves_headers_that_have_arrived() {
    let server = serve(&["--threads", "1"]);
    let mut complete = proxy(&server);
    let partial = proxy(&server);
    (&partial).write_all(b"PROXY").unwrap();
    talk(&from([127, 0, 0, 1], &server), b"");
    complete
        .write_all(&[v1("192.0.2.1"), b"last".to_vec()].concat())
        .unwrap();
    let start = Instant::now();
    server.signal(Signal::TERM);
    let mut answer = Vec::new();
    complete.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"last");
    is_closed(partial);
    server.wait().code(0).says("refused_proxy_header=1");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn unix_peers_always_send_a_header() {
    let folder = Folder::new();
    let arguments = [
        "serve",
        "unix:socket",
        "--proxy-from",
        "127.0.0.2",
        "--deny",
        "192.0.2.66",
    ];
    let mut server = folder
        .myapp([&arguments, REQUIRE.as_slice()].concat())
        .start();
    assert_eq!(server.line(), "listening on unix:socket");
    let exchange = |bytes: &[u8]| {
        let mut stream = UnixStream::connect(folder.path("socket")).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A connection that is closed with unread input is reset.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut answer);
        answer
    };
    assert_eq!(
        exchange(&[v1("192.0.2.1"), b"hello\n".to_vec()].concat()),
        b"hello\n"
    );
    assert_eq!(
        exchange(&[v2(0x20, 0, b""), b"hello\n".to_vec()].concat()),
        b"hello\n"
    );
    assert_eq!(
        exchange(&[v1("192.0.2.66"), b"hello\n".to_vec()].concat()),
        b""
    );
    assert_eq!(exchange(b"hello\n"), b"");
    server.signal(Signal::TERM);
    server
        .wait()
        .code(0)
        .says("opened peer=192.0.2.1:56324 proxy=unix:pid=")
        .says("opened peer=unix:pid=")
        .says("refused_acl=1")
        .says("refused_proxy_header=1");
}

#[test]
fn header_precedes_the_tls_handshake() {
    let server = tls::Server::start(&[&REQUIRE[..], &["--proxy-from", "127.0.0.1"]].concat());
    for version in [&TLS12, &TLS13] {
        let name = ServerName::try_from("localhost").unwrap();
        let config = server.authority.client(version, None);
        let mut client = ClientConnection::new(config, name).unwrap();
        let mut first = v1("192.0.2.1");
        client.write_tls(&mut first).unwrap();
        let mut stream = server.plain();
        stream.write_all(&first).unwrap();
        let mut client = StreamOwned::new(client, stream);
        assert_eq!(tls::ask(&mut client, b"hello\n"), b"hello\n");
    }
    let mut bare = server.client();
    let refused = bare
        .write_all(b"hello\n")
        .and_then(|()| bare.read(&mut [0; 1]).map(drop));
    refused.expect_err("a handshake without a header is refused");
    server.running.signal(Signal::TERM);
    server
        .running
        .wait()
        .code(0)
        .says("opened peer=192.0.2.1:56324 proxy=127.0.0.1:")
        .says("error=no PROXY protocol header")
        .says("refused_proxy_header=1");
}

#[test]
fn thousand_headers_leave_nothing_open() {
    let server = serve(&["-q"]);
    let open = server.descriptors();
    for round in 0..1000 {
        let mut stream = proxy(&server);
        match round % 4 {
            0 => talk(&stream, &v1("192.0.2.1")),
            1 => talk(&stream, &v2_client()),
            2 => stream.write_all(b"PROXY").unwrap(),
            _ => stream.write_all(b"no header").unwrap(),
        }
    }
    server.until_descriptors(open);
    until(|| server.sleeps());
}

#[test]
fn incomplete_proxy_options_are_usage_errors() {
    for (arguments, cause) in [
        (&["--proxy-protocol", "require"] as &[_], "--proxy-from"),
        (&["--proxy-from", "127.0.0.1"], "--proxy-protocol"),
        (
            &["--proxy-protocol", "maybe", "--proxy-from", "::1"],
            "require",
        ),
        (
            &["--proxy-protocol", "require", "--proxy-from", "proxy"],
            "not a network",
        ),
        (
            &[
                "--proxy-protocol",
                "require",
                "--proxy-from",
                "::1",
                "udp://127.0.0.1:0",
            ],
            "no effect on udp:// addresses",
        ),
    ] {
        let ran = myapp([&["serve"], arguments].concat()).run();
        ran.code(2).prints("").says(cause);
    }
}
