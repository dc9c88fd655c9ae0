//! How fast, and how many connections.

use std::time::{Duration, Instant};

use crate::download::LARGE;
use crate::harness::Folder;
use crate::harness::http::{Answer, Server, seeded};

/// Fetches so many files of this size, each from `/0` on; how long that took.
fn timed(count: usize, size: usize, flags: &[&str]) -> Duration {
    let (folder, body) = (Folder::new(), seeded(1, size));
    let answered = body.clone();
    let server = Server::start(move |_| Answer::body(answered.clone()));
    let urls: Vec<_> = (0..count).map(|number| server.url(&format!("/{number}"))).collect();
    let line = ["download"].iter().chain(flags).copied().chain(urls.iter().map(String::as_str));
    let start = Instant::now();
    folder.myapp(line).run().code(0);
    let elapsed = start.elapsed();
    for number in 0..count {
        assert!(folder.read(&number.to_string()) == body, "other bytes in {number}");
    }
    elapsed
}

#[test]
fn all_files_together_keep_the_rate() {
    // 4 × 512 KiB at 1 MiB a second.
    let took = timed(4, 512 << 10, &["-j4", "--limit-rate", "1M"]);
    assert!(took > Duration::from_millis(1850), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn each_file_keeps_its_rate() {
    let took = timed(3, 300_000, &["-j3", "--limit-rate-per-file", "200000"]);
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn a_high_rate_holds_up_nobody() {
    let took = timed(1, LARGE, &["--limit-rate", "100G"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn our_own_waiting_is_not_the_servers() {
    let flags = ["--limit-rate", "100000", "-T", "0.5", "--retry", "0", "--speed-limit", "1M"];
    let took = timed(1, 200_000, &[&flags[..], &["--speed-time", "0.5"]].concat());
    assert!(took > Duration::from_millis(1900), "{took:?}");
}
