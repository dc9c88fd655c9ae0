//! Mirrors of one file: fallback, and segments from several sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::harness::http::{Request, Response, Server, seeded};
use crate::harness::{Folder, RunOutput};

const LARGE: usize = (8 << 20) + 12_345;

/// Length at which the first source truncates the file.
const CUT_LEN: usize = 3 << 20;

/// Downloads `/f` of the first server into `d`, with the second server as its mirror and these
/// list options.
#[track_caller]
fn fetch(folder: &Folder, servers: [&Server; 2], options: &str, arguments: &[&str]) -> RunOutput {
    let [first, second] = servers.map(|server| server.url("/f"));
    folder.write(
        "list",
        format!("{first}\t{}\n{options}", second.replace("/f", "/other")),
    );
    let line = [
        "download",
        "-i",
        "list",
        "-d",
        "d",
        "--retry",
        "1",
        "--retry-delay",
        "10ms",
    ];
    folder.myapp([&line[..], arguments].concat()).run()
}

fn checksum(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(" checksum=sha256={hex}\n")
}

/// Starts a server that truncates its first response at [`CUT_LEN`] and fails from then on.
fn truncating(body: &[u8], etag: &'static str) -> Server {
    let body = body.to_vec();
    Server::start(move |request| match request.range_start() {
        None => request.respond_with(&body, etag).truncated_at(CUT_LEN),
        Some(_) => Response::status(404),
    })
}

fn serving(body: &[u8], etag: &'static str) -> Server {
    let body = body.to_vec();
    Server::start(move |request| request.respond_with(&body, etag))
}

#[track_caller]
fn assert_exact(folder: &Folder, body: &[u8]) {
    assert!(
        folder.read("d/f") == body,
        "other bytes, {} of them",
        folder.read("d/f").len()
    );
    assert!(!folder.path("d/f.part").exists() && !folder.path("d/other").exists());
}

fn range_starts(server: &Server) -> Vec<Option<usize>> {
    server.requests().iter().map(Request::range_start).collect()
}

#[test]
fn mirror_is_used_when_the_first_source_fails() {
    let first = Server::start(|_| Response::status(404));
    let folder = Folder::new();
    let second = serving(b"good", "");
    let ran = fetch(&folder, [&first, &second], "", &["--json"]).code(0);
    assert_exact(&folder, b"good");
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    let stdout = String::from_utf8(ran.stdout).unwrap();
    let file: serde_json::Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!(file["url"], first.url("/f"));
    assert_eq!(file["final_url"], second.url("/other"));
    assert_eq!(
        (&file["status"], &file["retries"]),
        (&200.into(), &0.into())
    );
}

#[test]
fn mirror_with_the_same_strong_etag_resumes() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let first = truncating(&body, "\"a\"");
    let second = serving(&body, "\"a\"");
    fetch(&folder, [&first, &second], "", &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&second), [Some(CUT_LEN)]);
    assert_eq!(second.requests()[0].field("If-Range"), Some("\"a\""));
}

#[test]
fn versions_of_different_mirrors_are_never_mixed() {
    for (ours, theirs) in [("\"a\"", "\"b\""), ("W/\"a\"", "W/\"a\""), ("", "")] {
        let folder = Folder::new();
        let old = seeded(1, LARGE);
        let new = seeded(2, LARGE);
        let first = truncating(&old, ours);
        let second = serving(&new, theirs);
        fetch(&folder, [&first, &second], "", &[]).code(0);
        assert_exact(&folder, &new);
    }
}

#[test]
fn mirror_of_equal_length_resumes_with_a_checksum() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let first = truncating(&body, "\"a\"");
    let second = serving(&body, "\"b\"");
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&second), [Some(CUT_LEN - (32 << 10))]);
}

#[test]
fn mismatching_halves_are_refetched_from_the_mirror() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let mut wrong = body.clone();
    wrong[0] ^= 1;
    let first = truncating(&wrong, "");
    let second = serving(&body, "");
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(range_starts(&second), [Some(CUT_LEN - (32 << 10)), None]);
}

#[test]
fn corrupt_first_source_is_replaced_by_the_mirror() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let first = serving(&seeded(2, LARGE), "\"a\"");
    let second = serving(&body, "\"a\"");
    fetch(&folder, [&first, &second], &checksum(&body), &[]).code(0);
    assert_exact(&folder, &body);
    assert_eq!(
        (range_starts(&first), range_starts(&second)),
        (vec![None], vec![None])
    );
}

#[test]
fn failure_of_all_mirrors_names_the_last() {
    let response = |request: &Request| match &request.path[..] {
        "/good" => Response::body("good"),
        _ => Response::status(404),
    };
    let folder = Folder::new();
    let first = Server::start(response);
    let second = Server::start(|_| Response::status(401));
    let other = first.url("/good\n");
    let says = format!(
        "{}: last mirror {}: HTTP status 401",
        first.url("/f"),
        second.url("/other")
    );
    let ran = fetch(&folder, [&first, &second], &other, &[])
        .code(6)
        .says(&says);
    assert_eq!(
        ran.stderr.matches("myapp: download").count(),
        1,
        "{}",
        ran.stderr
    );
    assert_eq!(folder.read("d/good"), b"good");
}

#[test]
fn resume_validates_the_part_of_another_mirror() {
    let folder = Folder::new();
    let old = seeded(1, LARGE);
    let new = seeded(2, LARGE);
    let refusing = Server::start(|_| Response::status(404));
    let half = truncating(&old, "\"a\"");
    fetch(&folder, [&refusing, &half], "", &[]).code(8);
    assert!(folder.path("d/f.part").exists());
    let serving = serving(&new, "\"b\"");
    fetch(&folder, [&refusing, &serving], "", &["-c"]).code(0);
    assert_exact(&folder, &new);
    assert_eq!(serving.requests()[0].field("If-Range"), Some("\"a\""));
}

#[test]
fn credentials_are_not_sent_to_mirrors() {
    let first = Server::start(|_| Response::status(404));
    let folder = Folder::new();
    let second = serving(b"good", "");
    let headers = " header=Authorization: Bearer x\n header=X-One: 1\n";
    fetch(&folder, [&first, &second], headers, &[]).code(0);
    assert_eq!(first.requests()[0].field("Authorization"), Some("Bearer x"));
    let requested = &second.requests()[0];
    assert_eq!(
        (requested.field("Authorization"), requested.field("X-One")),
        (None, Some("1"))
    );
}

// Over four connections at the same time.

/// Calls [`fetch`] with four connections.
#[track_caller]
fn fetch_split(
    folder: &Folder,
    servers: [&Server; 2],
    options: &str,
    arguments: &[&str],
) -> RunOutput {
    fetch(
        folder,
        servers,
        options,
        &[&["-s4", "-k1M"], arguments].concat(),
    )
}

/// Starts a server that is slow enough for all connections to be used; `change` edits responses.
fn slow(
    body: &[u8],
    etag: &'static str,
    change: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
) -> Server {
    let body = body.to_vec();
    Server::start(move |request| {
        let response = request
            .respond_with(&body, etag)
            .throttled(64 << 10, Duration::from_millis(5));
        change(request, response)
    })
}

fn unchanged(_: &Request, response: Response) -> Response {
    response
}

#[test]
fn mirrors_with_the_same_etag_share_segments() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let servers = [(); 2].map(|()| slow(&body, "\"a\"", unchanged));
    fetch_split(&folder, [&servers[0], &servers[1]], "", &[]).code(0);
    assert_exact(&folder, &body);
    for server in &servers {
        assert_eq!(server.max_concurrent(), 2);
        assert!(server.sent() > LARGE / 4, "{} bytes", server.sent());
    }
    let conditions = servers[1].requests();
    assert!(
        conditions
            .iter()
            .all(|requested| requested.field("If-Range") == Some("\"a\""))
    );
}

#[test]
fn mirror_with_another_etag_serves_no_segment() {
    let folder = Folder::new();
    let ours = seeded(1, LARGE);
    let theirs = seeded(2, LARGE);
    let first = slow(&ours, "\"a\"", unchanged);
    let second = slow(&theirs, "\"b\"", unchanged);
    fetch_split(&folder, [&first, &second], "", &[]).code(0);
    assert_exact(&folder, &ours);
    assert!(second.requests().len() <= 2, "{:?}", second.requests());
    assert_eq!(first.max_concurrent(), 4);
}

#[test]
fn mirror_of_equal_length_shares_segments_with_a_checksum() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let cut_once = |requested: &Request, response: Response| match requested.field("If-Range") {
        None => response.truncated_at(100_000),
        Some(_) => response,
    };
    let first = slow(&body, "\"a\"", unchanged);
    let second = slow(&body, "\"b\"", cut_once);
    fetch_split(&folder, [&first, &second], &checksum(&body), &["-x1"]).code(0);
    assert_exact(&folder, &body);
    // A connection that was closed before the end of its body is active at the server until that
    // notices it.
    for server in [&first, &second] {
        assert!(server.max_concurrent() <= 2, "{}", server.max_concurrent());
    }
    let requested = second.requests();
    assert_eq!(requested[0].field("If-Range"), None);
    assert!(
        requested.len() > 1
            && requested[1..]
                .iter()
                .all(|a| a.field("If-Range") == Some("\"b\""))
    );
}

#[test]
fn remaining_mirror_completes_the_segments() {
    let breaks = |request: &Request, response: Response| match request.range_start() {
        None => response.truncated_at(1 << 20),
        Some(_) => Response::status(404),
    };
    let refuses = |_: &Request, _| Response::status(404);
    let has_no_ranges = |request: &Request, response: Response| match request.range_start() {
        None => response,
        Some(_) => Response::body(seeded(1, LARGE)).header("ETag", "\"a\""),
    };
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let serving = || slow(&body, "\"a\"", unchanged);
    for (first, second) in [
        (slow(&body, "\"a\"", breaks), serving()),
        (slow(&body, "\"a\"", has_no_ranges), serving()),
        (serving(), slow(&body, "\"a\"", refuses)),
        (serving(), slow(&body, "\"a\"", has_no_ranges)),
        (
            serving(),
            slow(&body, "\"a\"", |_, response| response.truncated_at(100_000)),
        ),
    ] {
        fetch_split(&folder, [&first, &second], "", &["--overwrite"]).code(0);
        assert_exact(&folder, &body);
    }
}

#[test]
fn mismatching_segments_are_refetched_from_one_source() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let first = slow(&body, "\"a\"", unchanged);
    let second = slow(&seeded(2, LARGE), "\"a\"", unchanged);
    fetch_split(&folder, [&first, &second], &checksum(&body), &[])
        .code(0)
        .says("restarting: ");
    assert_exact(&folder, &body);
    assert!(
        second
            .requests()
            .iter()
            .all(|requested| requested.range_start().is_some())
    );
    assert_eq!(
        range_starts(&first)
            .iter()
            .filter(|first| first.is_none())
            .count(),
        2
    );
}

#[test]
fn mixed_part_resumes_only_with_the_same_checksum() {
    for is_same in [true, false] {
        let folder = Folder::new();
        let body = seeded(1, LARGE);
        let is_mended = Arc::new(AtomicBool::new(false));
        let [first, second] = ["\"a\"", "\"b\""].map(|etag| {
            let is_mended = Arc::clone(&is_mended);
            slow(&body, etag, move |_, response| {
                if is_mended.load(SeqCst) {
                    response
                } else {
                    response.truncated_at(1 << 20)
                }
            })
        });
        let sum = checksum(&body);
        fetch_split(&folder, [&first, &second], &sum, &["--retry", "0"]).code(4);
        let requested = first.requests().len();
        is_mended.store(true, SeqCst);
        fetch_split(
            &folder,
            [&first, &second],
            if is_same { &sum } else { "" },
            &["-c"],
        )
        .code(0);
        assert_exact(&folder, &body);
        assert_eq!(first.requests()[requested].range_start().is_some(), is_same);
    }
}
