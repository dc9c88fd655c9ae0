//! Shared by the tests: a temporary folder, the built program, a running server, and peers.

pub mod disk;
pub mod http;
pub mod ports;
pub mod program;
pub mod raw_peer;
pub mod schema;
pub mod serve;
pub mod strace;
pub mod tcp_queues;
pub mod third_party;

use std::thread;
use std::time::{Duration, Instant};

pub use program::{Folder, Program, RunOutput, Running, myapp};
pub use raw_peer::Peer;
pub use serve::Server;

/// Name with an empty label: it is looked up without success and without a query to a name server.
pub const UNRESOLVABLE_HOST: &str = "no..such.host.invalid";

/// Polls until a condition holds; fails after 20 seconds.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "the condition never became true"
        );
        thread::sleep(Duration::from_millis(2));
    }
}
