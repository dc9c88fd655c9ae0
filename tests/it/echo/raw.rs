//! `myapp echo --raw`: bytes as they are.

use std::thread;
use std::time::Duration;

use super::{echo, one_line};
use crate::harness::{Peer, peer};

#[test]
fn raw_carries_every_byte_both_ways_and_ends_with_the_server() {
    let peer = Peer::start(peer::echo);
    let bytes: Vec<u8> = (0..8_000_000_u32)
        .map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8)
        .collect();
    let ran = echo(&peer, &["--raw"]).stdin(&bytes).run().code(0).silent();
    assert!(ran.stdout == bytes, "{} bytes came", ran.stdout.len());
    echo(&peer, &["--raw"])
        .stdin("")
        .run()
        .code(0)
        .prints("")
        .silent();
}

#[test]
fn raw_does_not_wait_for_the_end_of_stdin_with_what_comes() {
    let peer = Peer::start(peer::echo);
    // The timeout is not for a silence in which stdin is what is waited for.
    let mut running = echo(&peer, &["--raw", "--timeout", "300ms"])
        .hold_stdin()
        .start();
    running.write("first\n");
    assert_eq!(running.line(), "first");
    thread::sleep(Duration::from_secs(1));
    running.write("second\n");
    assert_eq!(running.line(), "second");
    running.close_stdin();
    running.wait().code(0).silent();
}

#[test]
fn raw_tells_how_a_server_failed_after_what_had_come() {
    let peer = Peer::start(peer::close_after(3));
    let mut running = echo(&peer, &["--raw"]).hold_stdin().start();
    running.write("hola");
    let causes = [
        "closed by the server before the input had ended",
        "Connection reset by peer",
        "Broken pipe",
    ];
    one_line(running.wait().code(4).prints("hol"), &peer, &causes);

    let peer = Peer::start(peer::say_nothing);
    let ran = echo(&peer, &["--raw", "--timeout", "100ms"])
        .stdin("hola")
        .run()
        .code(10);
    one_line(ran, &peer, &["timed out after 100ms without a byte"]);

    let peer = Peer::start(peer::do_nothing);
    let ran = echo(&peer, &["--raw", "--timeout", "500ms"])
        .stdin(vec![0; 32 << 20])
        .run();
    one_line(
        ran.code(10),
        &peer,
        &["timed out after 500ms without a byte"],
    );
}
