//! Lines over the limit and endless lines.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use super::MIB;
use crate::harness::Server;
use crate::harness::serve::ask;

#[test]
fn line_limit_is_exact() {
    let server = Server::start(&["--max-line", "10"]);
    assert_eq!(server.exchange(b"0123456789\n"), b"0123456789\n");
    assert_eq!(server.exchange(b"0123456789"), b"0123456789");
    let error = "error: line longer than 10 bytes\n";
    assert_eq!(server.exchange(b"0123456789a\n"), error.as_bytes());
    let answer = server.exchange(b"first\nsecond\n0123456789a\nnever\n");
    assert_eq!(
        String::from_utf8(answer).unwrap(),
        format!("first\nsecond\n{error}")
    );
    server
        .stop()
        .says("line_too_long=2")
        .says("reason=\"line too long\"");
}

#[test]
fn error_reply_has_no_prefix() {
    let server = Server::start(&["--max-line", "4", "--prefix", "> "]);
    assert_eq!(
        server.exchange(b"1234\n12345\n"),
        b"> 1234\nerror: line longer than 4 bytes\n"
    );
}

#[test]
fn gibibyte_line_is_refused_in_bounded_memory() {
    let server = Server::start(&["-q"]);
    ask(&server.connect(), b"warm\n");
    let before = server.memory();
    let client = server.connect();
    let piece = vec![b'x'; MIB as usize];
    let mut answer = [0; 38];
    let mut most = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1024 {
                most = most.max(server.memory());
                // After the error reply the server reads for another second, then closes.
                if (&client).write_all(&piece).is_err() {
                    break;
                }
            }
        });
        (&client).read_exact(&mut answer).unwrap();
    });
    assert_eq!(&answer, b"error: line longer than 1048576 bytes\n");
    let grown = most.saturating_sub(before);
    assert!(grown < 3 * MIB, "grown by {grown} bytes");
}

#[test]
fn refused_client_still_sending_is_closed() {
    let server = Server::start(&["--max-line", "10"]);
    let before = server.descriptors();
    let start = Instant::now();
    let mut client = server.connect();
    client.write_all(b"0123456789a").unwrap();
    while client.write_all(b"more").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "is not closed");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(
        start.elapsed() > Duration::from_millis(900),
        "{:?}",
        start.elapsed()
    );
    server.until_descriptors(before);
}
