//! Replies equal the input.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use rustix::net::{SendFlags, send};

use super::random_bytes;
use crate::harness::Server;
use crate::harness::serve::ask;

#[test]
fn half_close_returns_all_input_then_ends() {
    for mode in ["line", "chunk"] {
        let server = Server::start(&["--mode", mode, "-q"]);
        let before = server.descriptors();
        for length in [0, 1, 5, 100, 100_000, 4 << 20] {
            let bytes = random_bytes(length);
            assert!(
                server.exchange(&bytes) == bytes,
                "{length} bytes in {mode} mode differ"
            );
            server.until_descriptors(before);
        }
    }
}

#[test]
fn every_byte_value_is_echoed() {
    let all: Vec<u8> = (0..=255).collect();
    let server = Server::start(&["--mode", "line"]);
    for bytes in [
        b"a\r\nb\rc\n\n\r\n\nlast".as_slice(),
        b"\n",
        b"\r",
        b"\0\n\0",
        b"\xff\xfe",
        &all,
    ] {
        assert_eq!(server.exchange(bytes), bytes);
    }
    let prefixed = [b"> ", &all[..=10], b"> ", &all[11..]].concat();
    assert_eq!(Server::start(&["--prefix", "> "]).exchange(&all), prefixed);
    assert_eq!(Server::start(&["--mode", "chunk"]).exchange(&all), all);
    let piece = [b"> ", all.as_slice()].concat();
    assert_eq!(
        Server::start(&["--mode", "chunk", "--prefix", "> "]).exchange(&all),
        piece
    );
    assert_eq!(Server::start(&["--mode", "discard"]).exchange(&all), b"");
}

#[test]
fn line_gets_a_reply_at_its_newline() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for byte in b"one byte a segment" {
        client.write_all(&[*byte]).unwrap();
    }
    client
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    assert_eq!(
        client.read(&mut [0; 1]).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    client.write_all(b"\nnext").unwrap();
    let mut answer = [0; 19];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"one byte a segment\n");
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "next");
}

#[test]
fn chunk_gets_a_reply_without_newline() {
    let server = Server::start(&["--mode", "chunk"]);
    let client = server.connect();
    assert_eq!(ask(&client, b"no line end"), b"no line end");
    assert_eq!(
        ask(&client, "¡Hola, servidor!".as_bytes()),
        "¡Hola, servidor!".as_bytes()
    );
}

#[test]
fn each_line_gets_the_prefix() {
    let server = Server::start(&["--prefix", "You said: "]);
    let answer = server.exchange(b"one\n\ntwo\r\nlast");
    assert_eq!(
        answer,
        b"You said: one\nYou said: \nYou said: two\r\nYou said: last"
    );
    let many = random_bytes(1 << 20);
    let lines = many.split_inclusive(|byte| *byte == b'\n');
    let wanted: Vec<u8> = lines
        .flat_map(|line| [b"You said: ", line].concat())
        .collect();
    assert!(
        server.exchange(&many) == wanted,
        "a megabyte with a prefix before each line differs"
    );
}

#[test]
fn each_chunk_gets_the_prefix() {
    let server = Server::start(&["--mode", "chunk", "--chunk", "100", "--prefix", "Dijiste: "]);
    let bytes = [b'x'; 250];
    let wanted = [
        b"Dijiste: ",
        &bytes[..100],
        b"Dijiste: ",
        &bytes[..100],
        b"Dijiste: ",
        &[b'x'; 50],
    ];
    assert_eq!(server.exchange(&bytes), wanted.concat());
}

#[test]
fn data_with_fin_gets_a_reply() {
    let server = Server::start(&["-q"]);
    let before = server.descriptors();
    for round in 0..1000 {
        let message = format!("round {round}\n");
        let client = server.connect();
        // MSG_MORE holds the data back, so that the FIN follows in the same segment.
        send(&client, message.as_bytes(), SendFlags::MORE).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        (&client).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, message);
    }
    server.until_descriptors(before);
    assert!(server.stop().stderr.is_empty());
}

#[test]
fn thousand_half_closes_lose_no_byte() {
    let bytes = random_bytes(100_000);
    let server = Server::start(&["-q"]);
    let before = server.descriptors();
    for round in 0..1000 {
        let message = &bytes[round..][..99 * round];
        assert!(
            server.exchange(message) == message,
            "{} bytes differ",
            message.len()
        );
    }
    server.until_descriptors(before);
}

#[test]
fn urgent_data_stays_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..100 {
        client.write_all(b"before ").unwrap();
        send(&client, b"!", SendFlags::OOB).unwrap();
        client.write_all(b" after\n").unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"before ! after\n");
    }
}
