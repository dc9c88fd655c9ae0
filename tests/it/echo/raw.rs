//! `myapp echo --raw`.

use std::thread;
use std::time::Duration;

use super::{assert_error, echo};
use crate::harness::{Peer, raw_peer};

#[test]
fn raw_copies_every_byte_until_the_server_closes() {
    let peer = Peer::start(raw_peer::echo);
    let bytes: Vec<u8> = (0..8_000_000_u32)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect();
    let ran = echo(&peer, &["--raw"]).stdin(&bytes).run().code(0).silent();
    assert!(ran.stdout == bytes, "{} bytes received", ran.stdout.len());
    echo(&peer, &["--raw"])
        .stdin("")
        .run()
        .code(0)
        .prints("")
        .silent();
}

#[test]
fn raw_prints_replies_while_stdin_is_open() {
    let peer = Peer::start(raw_peer::echo);
    // The timeout does not apply while stdin is idle.
    let mut running = echo(&peer, &["--raw", "--timeout", "300ms"])
        .hold_stdin()
        .start();
    running.write("first\n");
    assert_eq!(running.line(), "first");
    thread::sleep(Duration::from_millis(600));
    running.write("second\n");
    assert_eq!(running.line(), "second");
    running.close_stdin();
    running.wait().code(0).silent();
}

#[test]
fn raw_reports_server_failures() {
    let peer = Peer::start(raw_peer::close_after(3));
    let mut running = echo(&peer, &["--raw"]).hold_stdin().start();
    running.write("hola");
    let causes = [
        "connection closed before the end of the input",
        "Connection reset by peer",
        "Broken pipe",
    ];
    assert_error(running.wait().code(4).prints("hol"), &peer, &causes);

    let peer = Peer::start(raw_peer::say_nothing);
    let ran = echo(&peer, &["--raw", "--timeout", "100ms"])
        .stdin("hola")
        .run()
        .code(10);
    assert_error(ran, &peer, &["timed out after 100ms without a byte"]);

    let peer = Peer::start(raw_peer::do_nothing);
    let ran = echo(&peer, &["--raw", "--timeout", "500ms"])
        .stdin(vec![0; 32 << 20])
        .run();
    assert_error(
        ran.code(10),
        &peer,
        &["timed out after 500ms without a byte"],
    );
}
