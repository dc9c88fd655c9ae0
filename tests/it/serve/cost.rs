//! What serving costs: time of the processor.

use std::thread;
use std::time::Duration;

use crate::harness::Server;
use crate::harness::serve::ask;

/// The time of the processor that a server takes for being asked once and a second of silence.
fn silent_second(arguments: &[&str]) -> Duration {
    let server = Server::start(arguments);
    let client = server.connect();
    let before = server.cpu();
    assert_eq!(ask(&client, b"hello\n"), b"hello\n");
    thread::sleep(Duration::from_secs(1));
    server.cpu() - before
}

#[test]
fn polling_busily_takes_a_core_for_so_long_and_no_longer() {
    let asleep = silent_second(&["-q"]);
    assert!(asleep < Duration::from_millis(20), "{asleep:?}");
    let awhile = silent_second(&["-q", "--busy-poll", "50ms"]);
    assert!(
        (Duration::from_millis(10)..Duration::from_millis(300)).contains(&awhile),
        "{awhile:?}"
    );
    let always = silent_second(&["-q", "--busy-poll", "1h"]);
    assert!(always > Duration::from_millis(300), "{always:?}");
}
