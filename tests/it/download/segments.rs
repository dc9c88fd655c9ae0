//! `myapp download -s`: one file over several connections.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use futures_lite::{future, stream};
use myapp::download::{Config, Downloader, Event, Item, Limits, OutputPolicy, RetryPolicy};
use myapp::runtime;
use rustix::process::Signal;

use super::resume::kill_and_resume;
use super::*;
use crate::harness::http::Request;

const ETAG: &str = "\"a\"";
const PAUSE: Duration = Duration::from_millis(2);

/// Starts a server of `body` that is slow enough for all connections to be used; `change` edits
/// responses and gets their number, from 0.
fn serve(
    body: &[u8],
    change: impl Fn(usize, &Request, Response) -> Response + Send + Sync + 'static,
) -> Server {
    let body = body.to_vec();
    let requests = Mutex::new(0);
    Server::start(move |request| {
        let mut requests = requests.lock().unwrap();
        *requests += 1;
        let response = request.respond_with(&body, ETAG).throttled(64 << 10, PAUSE);
        change(*requests - 1, request, response)
    })
}

fn honest(_: usize, _: &Request, response: Response) -> Response {
    response
}

#[track_caller]
fn split(folder: &Folder, server: &Server, arguments: &[&str]) -> RunOutput {
    let url = server.url("/f");
    let line = [
        "download",
        "-s",
        "4",
        "-k",
        "1M",
        "--retry-delay",
        "10ms",
        &url,
    ];
    folder.myapp([&line[..], arguments].concat()).run()
}

#[track_caller]
fn assert_exact(folder: &Folder, body: &[u8]) {
    assert_eq!(folder.names(), ["f"]);
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
}

/// Downloads over four connections from a server with edited responses, and checks the file.
#[track_caller]
fn assert_downloads(
    change: impl Fn(usize, &Request, Response) -> Response + Send + Sync + 'static,
) -> (Server, RunOutput) {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let server = serve(&body, change);
    let ran = split(&folder, &server, &[]).code(0).prints("");
    assert_exact(&folder, &body);
    (server, ran)
}

#[test]
fn large_file_uses_several_connections() {
    let (server, _) = assert_downloads(honest);
    assert_eq!(server.max_concurrent(), 4);
    let requests = server.requests();
    assert_eq!(requests[0].range(), None);
    for request in &requests[1..] {
        let (first, end) = request.range().unwrap();
        assert!(end.is_some_and(|end| end - first >= 1 << 20), "{request:?}");
        assert_eq!(request.field("If-Range"), Some(ETAG));
    }
    let mut quarters: Vec<_> = requests[1..4]
        .iter()
        .filter_map(Request::range_start)
        .collect();
    quarters.sort_unstable();
    for (number, first) in (1..).zip(quarters) {
        assert!(
            first.abs_diff(LARGE * number / 4) < LARGE / 8,
            "{number}: {first}"
        );
    }
}

#[test]
fn slow_segment_is_abandoned_and_retried() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let server = serve(&body, |number, _, response| match number {
        2 => response.throttled(1, Duration::from_millis(100)),
        _ => response,
    });
    let line = ["--speed-limit", "4000", "--speed-time", "1"];
    split(&folder, &server, &line)
        .code(0)
        .says("retrying a segment")
        .says("fewer than 1000");
    assert_exact(&folder, &body);
}

#[test]
fn speed_limit_applies_to_all_segments_together() {
    let body = seeded(1, HALF);
    // At most 400 KiB per second over each connection.
    let slowly =
        |_, _: &Request, response: Response| response.throttled(4096, Duration::from_millis(10));
    for (connections, code) in [(8, 0), (1, 10)] {
        let server = serve(&body, slowly);
        let folder = Folder::new();
        let room = format!("-x{connections}");
        let line = ["-s8", &room, "-k128K", "--retry=0", "--speed-limit=800K"];
        split(
            &folder,
            &server,
            &[&line[..], &["--speed-time=500ms"]].concat(),
        )
        .code(code);
        assert_eq!(folder.path("f").exists(), code == 0);
        assert!(server.max_concurrent() >= connections);
    }
}

#[test]
fn small_or_unversioned_file_uses_one_connection() {
    let body = seeded(1, LARGE);
    for (etag, arguments) in [
        ("W/\"a\"", &["-k1M"][..]),
        ("", &["-k1M"]),
        (ETAG, &["-k5M"]),
    ] {
        let folder = Folder::new();
        let whole = body.clone();
        let server = Server::start(move |request| request.respond_with(&whole, etag));
        let url = server.url("/f");
        folder
            .myapp([&["download", "-s4", &url], arguments].concat())
            .run()
            .code(0);
        assert_exact(&folder, &body);
        assert_eq!(server.requests().len(), 1, "{etag} {arguments:?}");
    }
}

#[test]
fn server_without_ranges_uses_the_first_connection() {
    let body = seeded(1, LARGE);
    let (server, _) = assert_downloads(move |number, _, response| match number {
        0 => response,
        _ => Response::body(&body[..])
            .header("ETag", ETAG)
            .throttled(64 << 10, PAUSE),
    });
    // Each other connection is tried once. If the first one has received its segment before they
    // are answered, it tries one range too, and the file is requested again, with If-Range and
    // without it.
    assert!(server.requests().len() <= 7, "{}", server.requests().len());
}

/// The first connection may continue the first version to its end. If it ends with its segment
/// before the others have received the second version, that is downloaded from its start.
#[test]
fn changed_file_is_one_complete_version() {
    let first = seeded(1, LARGE);
    let second = seeded(2, LARGE);
    let run = |delay: Duration| {
        let folder = Folder::new();
        let other = second.clone();
        let server = serve(&first, move |number, request, response| match number {
            0 => response,
            _ => request.respond_with(&other, "\"b\"").delayed(delay),
        });
        let ran = split(&folder, &server, &[]).code(0).prints("");
        assert_eq!(folder.names(), ["f"]);
        let saved = folder.read("f");
        let is_changed = ran.stderr.contains("changed on the server");
        let version = if is_changed { &second } else { &first };
        assert!(saved == *version, "other bytes, changed: {is_changed}");
        is_changed
    };
    run(Duration::ZERO);
    // The first segment takes a few milliseconds, and 3 s would be too late.
    assert!(run(Duration::from_secs(1)), "the first version was kept");
}

#[test]
fn mismatching_segments_are_not_used() {
    let other = seeded(2, LARGE + 1);
    assert_downloads(
        move |number, request, response| match (number, request.range()) {
            // A different ETag, a different length, a different offset.
            (1, Some((first, _))) => Response::part(&other, first, LARGE).header("ETag", "\"b\""),
            (2, Some((first, _))) => Response::part(&other, first, LARGE).header("ETag", ETAG),
            (3, Some((first, _))) => Response::part(&other, first + 1, LARGE).header("ETag", ETAG),
            _ => response,
        },
    );
}

#[test]
fn any_segment_response_gives_an_exact_file() {
    type Change = fn(usize, Response) -> Response;
    let silent: Change = |_, response| response.stalled_at(200_000);
    let whole: Change = |_, _| Response::body(seeded(1, LARGE)).header("ETag", ETAG);
    let other: Change = |_, _| Response::body(seeded(2, LARGE)).header("ETag", "\"b\"");
    let nothing: Change =
        |_, _| Response::status(416).header("Content-Range", &format!("bytes */{LARGE}"));
    let short: Change =
        |first, _| Response::part(&seeded(1, LARGE), first, first + 1000).header("ETag", ETAG);
    let cut: Change = |_, response| response.truncated_at(0);
    for change in [silent, whole, other, nothing, short, cut] {
        for changed in 1..4 {
            let body = seeded(1, LARGE);
            let folder = Folder::new();
            let server = serve(&body, move |number, request, response| {
                match request.range_start() {
                    Some(first) if number == changed => change(first, response),
                    _ => response,
                }
            });
            split(&folder, &server, &["-T", "500ms"]).code(0).prints("");
            assert_exact(&folder, &body);
        }
    }
}

/// Returns the start offsets and the progress events of a run with this number of connections.
fn progress_of(folder: &Folder, server: &Server, connections: usize) -> (Vec<u64>, Vec<u64>) {
    let config = Config {
        output: OutputPolicy {
            dir: folder.path("."),
            resume: true,
            ..OutputPolicy::default()
        },
        limits: Limits {
            connections_per_file: NonZeroUsize::new(connections).unwrap(),
            min_segment_len: 1 << 20,
            ..Limits::default()
        },
        retry: RetryPolicy {
            max_retries: 0,
            ..RetryPolicy::default()
        },
        ..Config::default()
    };
    let from = Mutex::new(Vec::new());
    let positions = Mutex::new(Vec::new());
    let observer = |_, event: Event<'_>| match event {
        Event::BodyStarted { offset: at, .. } => from.lock().unwrap().push(at),
        Event::Progress {
            downloaded: position,
        } => positions.lock().unwrap().push(position),
        _ => {}
    };
    let list = stream::iter([Item::parse(&server.url("/f"))]);
    let downloader = Downloader::new(config).unwrap();
    runtime::block_on(downloader.run(list, &observer, future::pending()));
    (from.into_inner().unwrap(), positions.into_inner().unwrap())
}

/// Waits until a part of this process is unlocked: until its `exec`, a child that another test has
/// just forked shares the lock, and another run would choose another name.
#[track_caller]
fn wait_until_unlocked(part: &Path) {
    let file = fs::File::open(part).unwrap();
    until(|| file.try_lock().is_ok());
    // Closing the file does not unlock it while such a child has a copy.
    file.unlock().unwrap();
}

#[test]
fn segment_progress_is_monotonic_and_bounded() {
    for connections in [1, 4] {
        let body = seeded(1, LARGE);
        let folder = Folder::new();
        let server = serve(&body, |number, _, response| match number {
            0..4 => response.truncated_at(1 << 20),
            _ => response,
        });
        let (from, positions) = progress_of(&folder, &server, 4);
        assert_eq!((&from[..], *positions.last().unwrap()), (&[0][..], 4 << 20));
        wait_until_unlocked(&folder.path("f.part"));
        let (from, positions) = progress_of(&folder, &server, connections);
        assert_eq!(from[0], 4 << 20);
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!(*positions.last().unwrap(), LARGE as u64);
        assert_exact(&folder, &body);
    }
}

#[test]
fn segment_progress_follows_received_bytes() {
    let body = seeded(1, 2 << 20);
    let folder = Folder::new();
    // Less per second than one write to the file.
    let slowly =
        |_, _: &Request, response: Response| response.throttled(4096, Duration::from_millis(10));
    let (_, positions) = progress_of(&folder, &serve(&body, slowly), 2);
    assert_exact(&folder, &body);
    let mut steps: Vec<_> = positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    assert!(steps[steps.len() / 2] < 64 << 10, "{steps:?}");
}

#[test]
fn interrupted_segment_resumes() {
    for broken in 0..4 {
        let (server, _) = assert_downloads(move |number, _, response| match number {
            number if number == broken => response.truncated_at(300_000),
            _ => response,
        });
        assert!(server.requests().len() >= 5, "{broken}");
    }
}

#[test]
fn silent_segments_are_taken_over() {
    let body = seeded(1, LARGE);
    for retry in ["--retry=0", "--retry=5"] {
        let folder = Folder::new();
        // The seven further connections are accepted, but not answered.
        let server = serve(&body, |number, _, response| match number {
            1..8 => response.delayed(Duration::from_secs(90)),
            _ => response,
        });
        let start = Instant::now();
        split(&folder, &server, &["-s8", retry]).code(0).prints("");
        let elapsed = start.elapsed();
        assert_exact(&folder, &body);
        assert!(elapsed < Duration::from_secs(15), "{elapsed:?}");
        // Each of their segments is requested again, without further attempts on them.
        let requests = server.requests().len();
        assert!((9..40).contains(&requests), "{requests}");
    }
}

#[test]
fn slow_first_byte_is_awaited_if_no_connection_is_idle() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    // The first connection is busy when the other one starts, after the time limit.
    let server = serve(&body, |number, _, response| match number {
        0 => response.throttled(LARGE / 100, Duration::from_millis(100)),
        _ => response.delayed(Duration::from_millis(3500)),
    });
    split(&folder, &server, &["-s2"]).code(0).prints("");
    assert_exact(&folder, &body);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn retry_after_of_extra_connections_is_not_awaited() {
    let start = Instant::now();
    assert_downloads(|number, _, response| match number {
        0 => response,
        _ => Response::status(503).header("Retry-After", "60"),
    });
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn later_run_fetches_only_missing_ranges() {
    for arguments in [&["-c"][..], &["-c", "-s", "1"]] {
        let body = seeded(1, LARGE);
        let folder = Folder::new();
        let server = serve(&body, |number, _, response| match number {
            0..4 => response.truncated_at(1 << 20),
            _ => response,
        });
        split(&folder, &server, &["--retry", "0"]).code(4);
        assert_eq!(folder.names(), ["f.part", "f.part.json"]);
        assert_eq!(server.requests().len(), 4);
        split(&folder, &server, arguments).code(0);
        assert_exact(&folder, &body);
        let first_run = &server.requests()[..4];
        let later = &server.requests()[4..];
        let range_starts = |requests: &[Request]| {
            requests
                .iter()
                .map(|request| request.range_start().unwrap_or(0))
                .collect::<Vec<_>>()
        };
        for at in range_starts(later) {
            // Each connection has received its first MiB.
            let had = range_starts(first_run)
                .into_iter()
                .any(|had| (had..had + (1 << 20)).contains(&at));
            assert!(!had, "{at} of {:?}", server.requests());
        }
    }
}

#[test]
fn part_with_gaps_of_another_version_restarts() {
    let old = seeded(1, LARGE);
    let new = seeded(2, LARGE);
    let folder = Folder::new();
    let whole = new.clone();
    let server = serve(&old, move |number, request, response| match number {
        0..4 => response.truncated_at(1 << 20),
        _ => request.respond_with(&whole, "\"b\""),
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    split(&folder, &server, &["-c"])
        .code(0)
        .says("changed on the server");
    assert_exact(&folder, &new);
}

#[test]
fn shortened_part_with_gaps_resumes() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let server = serve(&body, |number, _, response| match number {
        0..4 => response.truncated_at(1 << 20),
        _ => response,
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    let part = folder.read("f.part");
    folder.write("f.part", &part[..part.len() / 2]);
    split(&folder, &server, &["-c"]).code(0);
    assert_exact(&folder, &body);
}

#[test]
fn checksum_covers_all_segments() {
    let body = seeded(1, LARGE);
    let right = blake3::hash(&body).to_hex();
    for (digest, code) in [(right.as_str(), 0), (&"0".repeat(64), 9)] {
        let folder = Folder::new();
        let checksum = format!("blake3={digest}");
        split(&folder, &serve(&body, honest), &["--checksum", &checksum]).code(code);
        assert_eq!(folder.path("f").exists(), code == 0);
    }
}

#[test]
fn max_filesize_is_checked_before_splitting() {
    let folder = Folder::new();
    let server = serve(&seeded(1, LARGE), honest);
    split(&folder, &server, &["--max-filesize", "8M"]).code(11);
    assert_eq!((folder.names(), server.requests().len()), (vec![], 1));
}

#[test]
#[ignore = "peer: mount (tmpfs)"]
fn full_disk_is_reported_and_the_part_resumes() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let disk = folder.path("d");
    fs::create_dir(&disk).unwrap();
    let mount = |line: &[&str]| {
        let status = Command::new(line[0]).args(&line[1..]).arg(&disk).status();
        assert!(status.unwrap().success(), "{line:?}");
    };
    let server = serve(&body, |number, _, response| match number {
        0..4 => response.truncated_at(1 << 20),
        _ => response,
    });
    mount(&["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs"]);
    let run = |arguments: &[&str]| split(&folder, &server, &[&["-d", "d"], arguments].concat());
    let cut = run(&["--retry", "0"]);
    // Frees the preallocated blocks, and fills the disk.
    let part = fs::File::options()
        .write(true)
        .open(disk.join("f.part"))
        .unwrap();
    part.set_len(part.metadata().unwrap().len()).unwrap();
    drop(part);
    drop(fs::write(disk.join("other"), vec![1; 16 << 20]));
    let full = run(&["-c"]);
    let kept = disk.join("f.part.json").exists();
    fs::remove_file(disk.join("other")).unwrap();
    let whole = run(&["-c"]);
    let exact = fs::read(disk.join("f")).is_ok_and(|bytes| bytes == body);
    let requests = server.requests();
    mount(&["umount"]);
    cut.code(4);
    full.code(3).says("No space left on device");
    whole.code(0);
    assert!(kept && exact);
    assert!(
        requests[4..]
            .iter()
            .all(|request| request.range_start().is_some()),
        "{requests:?}"
    );
}

#[test]
fn signal_leaves_a_resumable_part() {
    let body = seeded(1, LARGE);
    let folder = Folder::new();
    let server = serve(&body, |number, _, response| match number {
        0..4 => response.stalled_at(1 << 20),
        _ => response,
    });
    let url = server.url("/f");
    let running = folder.myapp(["download", "-s4", "-k1M", &url]).start();
    until(|| server.delivered() == 4 << 20);
    running.signal(Signal::INT);
    running.wait().code(130);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    split(&folder, &server, &["-c"]).code(0);
    assert_exact(&folder, &body);
}

#[test]
fn killed_split_download_resumes_exactly() {
    kill_and_resume(6, &["-s4", "-k256K"]);
}

#[test]
#[ignore = "slow: minutes"]
fn split_download_killed_200_times_resumes_exactly() {
    kill_and_resume(200, &["-s4", "-k256K"]);
}
