//! Fault injection over TLS: faults apply to messages, and TLS itself stays intact.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::StreamOwned;

use super::faults::{flipped_bits, lines};
use super::random_bytes;
use super::tls::{Server, ask, finish};
use crate::harness::RunOutput;

#[track_caller]
fn stop(server: Server) -> RunOutput {
    server.running.signal(Signal::TERM);
    server.running.wait().code(0)
}

#[test]
fn corrupt_tls_replies_differ_in_one_bit() {
    let server = Server::start(&["--mode=chunk", "--corrupt-rate=100%"]);
    let mut client = server.client();
    for length in [1, 100, 10_000] {
        let message = vec![b'x'; length];
        let reply = ask(&mut client, &message);
        assert_eq!(flipped_bits(&message, &reply), 1);
    }
    assert_eq!(finish(&mut client), b"");
    drop(client);
    stop(server).says("fault_corrupted=3 ").says(" failed=0");
}

#[test]
fn tls_connection_is_closed_in_place_of_a_reply() {
    let server = Server::start(&["-v", "--close-rate=20%", "--seed=7"]);
    let all = lines(100);
    let answers = [(); 3].map(|()| {
        let mut client = server.client();
        client.write_all(all.as_bytes()).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("close_notify");
        answer
    });
    for answer in &answers {
        assert!(all.starts_with(answer) && answer.len() < all.len());
        assert!(answer.is_empty() || answer.ends_with('\n'));
    }
    assert_ne!(answers[0], answers[1]);
    let ran = stop(server).says("fault_closed=3 ").says(" failed=0");
    ran.says("reason=\"fault closed\"");
}

#[test]
fn tls_connection_is_closed_at_its_age() {
    let server = Server::start(&["--mode=chunk", "--close-after=400ms"]);
    let start = Instant::now();
    let mut client = server.client();
    assert_eq!(ask(&mut client, b"early\n"), b"early\n");
    // A client that does not read is closed as well.
    let mut deaf = server.client();
    ask(&mut deaf, b"early\n");
    let limit = Some(Duration::from_millis(100));
    deaf.sock.set_write_timeout(limit).unwrap();
    while deaf.write_all(&[b'x'; 10_000]).is_ok() {}
    client.read_to_end(&mut Vec::new()).expect("close_notify");
    let age = start.elapsed();
    assert!(age >= Duration::from_millis(390), "{age:?}");
    assert!(age < Duration::from_secs(5), "{age:?}");
    stop(server).says("fault_closed_after=2 ");
}

#[test]
fn tls_connection_is_reset_after_configured_bytes() {
    let server = Server::start(&["--reset-after=10"]);
    let mut client = server.client();
    assert_eq!(ask(&mut client, b"12345\n"), b"12345\n");
    client.write_all(b"78\nabcdefgh\n").unwrap();
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    stop(server).says("fault_reset=1 ");
}

#[test]
fn tls_handshake_begins_after_the_accept_delay() {
    let server = Server::start(&["--accept-delay=300ms"]);
    let start = Instant::now();
    let mut client = server.client();
    assert_eq!(ask(&mut client, b"one\n"), b"one\n");
    let first = start.elapsed();
    assert!(first >= Duration::from_millis(300), "{first:?}");

    // The drain ends the delay.
    let server = Server::start(&["--accept-delay=1h"]);
    let mut client = server.client();
    client.conn.write_tls(&mut client.sock).unwrap();
    server.running.signal(Signal::TERM);
    client.read_to_end(&mut Vec::new()).expect("close_notify");
    drop(client);
    server.running.wait().code(0).says("reason=\"drained\"");
}

#[test]
fn bandwidth_paces_tls_replies() {
    let server = Server::start(&["-q", "--mode=chunk", "--bandwidth=100K"]);
    let start = Instant::now();
    let bytes = random_bytes(60_000);
    let mut client = server.client();
    client.write_all(&bytes).unwrap();
    let mut reply = vec![0; 60_000];
    client.read_exact(&mut reply[..30_000]).unwrap();
    let half = start.elapsed();
    client.read_exact(&mut reply[30_000..]).unwrap();
    let all = start.elapsed();
    assert!(reply == bytes);
    // The first 50 ms may pass at once.
    assert!(half >= Duration::from_millis(220), "{half:?}");
    assert!(all >= Duration::from_millis(510), "{all:?}");
    assert!(all < Duration::from_secs(5), "{all:?}");
}

/// Stream that keeps what it reads.
struct Tap<S> {
    stream: S,
    read: Vec<u8>,
}

impl<S: Read> Read for Tap<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.read.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}

impl<S: Write> Write for Tap<S> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

/// Returns the lengths of the content of TLS 1.3 records (RFC 8446 section 5.2): a header of five
/// bytes, the content, its type and a tag of 16 bytes.
fn content_lengths(mut records: &[u8]) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let [23, 3, 3, high, low, rest @ ..] = records {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        lengths.push(length - 17);
        records = &rest[length..];
    }
    assert_eq!(records, b"", "no application data");
    lengths
}

#[test]
fn slices_are_tls_records() {
    let server = Server::start(&["-q", "--slice=1000"]);
    let mut client = server.client();
    // After this reply, the handshake and its session tickets are complete.
    assert_eq!(ask(&mut client, b"warm\n"), b"warm\n");
    let mut client = StreamOwned {
        conn: client.conn,
        sock: Tap {
            stream: client.sock,
            read: Vec::new(),
        },
    };
    let line = [&[b'x'; 4499][..], b"\n"].concat();
    client.write_all(&line).unwrap();
    let mut reply = vec![0; line.len()];
    client.read_exact(&mut reply).unwrap();
    assert_eq!(reply, line);
    assert_eq!(
        content_lengths(&client.sock.read),
        [1000, 1000, 1000, 1000, 500]
    );
    drop(client);

    let bytes = random_bytes(50_000);
    let server = Server::start(&["-q", "--mode=chunk", "--slice=7"]);
    let mut client = server.client();
    assert!(ask(&mut client, &bytes) == bytes);
}
