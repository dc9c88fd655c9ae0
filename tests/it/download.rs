//! `myapp download` against conforming and misbehaving servers.

mod auto_jobs;
mod bodies;
mod checksum;
mod compressed;
mod credentials;
mod digest;
mod digests;
mod faults;
mod files;
mod foreign;
mod http_peers;
mod https;
mod https_proxies;
mod limits;
mod lists;
mod machine;
mod many;
mod media_types;
mod messages;
mod mirrors;
mod names;
mod other_query;
mod outputs;
pub(crate) mod peers;
mod proxies;
mod redirects;
mod resume;
mod retry;
mod safety;
mod segments;
mod servers;
mod signals;
mod soak;
mod validators;
mod web_peers;

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::http::{Response, Server, seeded};
use crate::harness::{Folder, RunOutput, until};

/// Larger than each buffer, and no multiple of a buffer size.
const LARGE: usize = (8 << 20) + 12_345;

/// Larger than the buffers of a connection.
const HALF: usize = LARGE / 2;

#[track_caller]
fn fetch<const N: usize>(folder: &Folder, arguments: [&str; N]) -> RunOutput {
    folder.myapp([&["download"], &arguments[..]].concat()).run()
}

/// Downloads `/f` from a server with this response into an empty folder.
#[track_caller]
fn fetch_f(response: Response, arguments: &[&str]) -> (Folder, RunOutput) {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", response)]);
    let url = server.url("/f");
    let ran = folder
        .myapp([&["download"], arguments, &[&url]].concat())
        .run();
    (folder, ran)
}

#[track_caller]
fn assert_saved(response: Response, body: &[u8]) {
    let (folder, ran) = fetch_f(response, &[]);
    ran.code(0).prints("");
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
    assert_eq!(folder.names(), ["f"]);
}

#[track_caller]
fn assert_fails(response: Response, arguments: &[&str], code: i32, says: &str) {
    assert!(assert_failure(response, arguments, code, says).is_empty());
}

/// Checks a failure as [`assert_fails`] does, but received bytes may stay as a part.
#[track_caller]
fn assert_fails_with_part(response: Response, arguments: &[&str], code: i32, says: &str) {
    let names = assert_failure(response, arguments, code, says);
    assert!(
        names.is_empty() || names == ["f.part", "f.part.json"],
        "left behind: {names:?}"
    );
}

#[track_caller]
fn assert_failure(response: Response, arguments: &[&str], code: i32, says: &str) -> Vec<String> {
    let (folder, ran) = fetch_f(response, &[&["--retry", "0"], arguments].concat());
    ran.code(code).prints("").says(says);
    folder.names()
}

fn ok() -> Response {
    Response::body("good")
}
