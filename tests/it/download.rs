//! `myapp download` against misbehaving servers.

mod bodies;
mod checksum;
mod compressed;
mod credentials;
mod files;
mod http_peers;
mod https;
mod limits;
mod lists;
mod machine;
mod many;
mod messages;
mod mirrors;
mod names;
mod outputs;
mod peers;
mod proxies;
mod redirects;
mod resume;
mod retry;
mod segments;
mod servers;
mod signals;

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::{Answer, Server, seeded};
use crate::harness::{Folder, Ran};

/// Longer than any one read or buffer, and no multiple of them.
const LARGE: usize = (8 << 20) + 12_345;

/// Longer than all a socket holds.
const HALF: usize = LARGE / 2;

#[track_caller]
fn fetch<const N: usize>(folder: &Folder, arguments: [&str; N]) -> Ran {
    folder.myapp([&["download"], &arguments[..]].concat()).run()
}

/// Fetches `/f` of a server that answers so, into an empty folder.
#[track_caller]
fn fetch_f(answer: Answer, arguments: &[&str]) -> (Folder, Ran) {
    let folder = Folder::new();
    let server = Server::with([("/f", answer)]);
    let url = server.url("/f");
    let ran = folder
        .myapp([&["download"], arguments, &[&url]].concat())
        .run();
    (folder, ran)
}

#[track_caller]
fn is_saved(answer: Answer, body: &[u8]) {
    let (folder, ran) = fetch_f(answer, &[]);
    ran.code(0).prints("");
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
    assert_eq!(folder.names(), ["f"]);
}

#[track_caller]
fn fails(answer: Answer, arguments: &[&str], code: i32, says: &str) {
    assert!(fails_with(answer, arguments, code, says).is_empty());
}

/// Like [`fails`], but what came stays as a part, if anything did.
#[track_caller]
fn breaks(answer: Answer, arguments: &[&str], code: i32, says: &str) {
    let names = fails_with(answer, arguments, code, says);
    assert!(
        names.is_empty() || names == ["f.part", "f.part.json"],
        "left behind: {names:?}"
    );
}

#[track_caller]
fn fails_with(answer: Answer, arguments: &[&str], code: i32, says: &str) -> Vec<String> {
    let (folder, ran) = fetch_f(answer, &[&["--retry", "0"], arguments].concat());
    ran.code(code).prints("").says(says);
    folder.names()
}

fn ok() -> Answer {
    Answer::body("good")
}

#[track_caller]
fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it never became so"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
