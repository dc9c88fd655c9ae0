//! Tests with other clients.

use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use super::random_bytes;
use crate::harness::Server;

/// Returns the output of a program for `input`. A program that ends without reading it, as a
/// refused client does, closes the pipe.
pub fn peer(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            if let Err(error) = stdin.write_all(input) {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            }
        });
        child.wait_with_output().unwrap().stdout
    })
}

/// Returns the reply to `message` while stdin of the program stays open.
#[track_caller]
pub fn talks(program: &str, arguments: &[&str], message: &[u8]) {
    let mut command = Command::new(program);
    let piped = command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = piped.spawn().expect("start the peer");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(message).unwrap();
    let mut answer = vec![0; message.len()];
    let read = child.stdout.take().unwrap().read_exact(&mut answer);
    child.kill().unwrap();
    child.wait().unwrap();
    read.expect("an answer");
    assert!(
        answer == message,
        "{program}: {} bytes differ",
        message.len()
    );
}

#[test]
#[ignore = "peer: ncat"]
fn ncat_gets_all_back_after_its_end_of_input() {
    let server = Server::start(&["-q"]);
    let port = server.address().port().to_string();
    for length in [5, 100, 100_000, 4 << 20] {
        let bytes = random_bytes(length);
        assert!(
            peer("ncat", &["127.0.0.1", &port], &bytes) == bytes,
            "{length} bytes differ"
        );
    }
}

#[test]
#[ignore = "peer: socat"]
fn socat_gets_all_back_after_its_end_of_input() {
    let server = Server::start(&["-q"]);
    let address = format!("TCP:{}", server.address());
    for length in [5, 100, 100_000, 4 << 20] {
        let bytes = random_bytes(length);
        assert!(
            peer("socat", &["-t", "10", "-", &address], &bytes) == bytes,
            "{length} differ"
        );
    }
}
