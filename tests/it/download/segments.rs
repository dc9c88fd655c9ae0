//! `myapp download -s`: one file over several connections.

use std::fs;
use std::num::NonZeroUsize;
use std::process::Command;
use std::sync::Mutex;

use futures_lite::{future, stream};
use myapp::download::{Config, Downloader, Event, Item, Limits, OutputPolicy, RetryPolicy};
use myapp::runtime;
use rustix::process::Signal;

use super::resume::killed;
use super::*;
use crate::harness::http::Request;

const ETAG: &str = "\"a\"";
const PAUSE: Duration = Duration::from_millis(2);

/// A server of `body`, which sends it slowly enough for all connections to take part; `change` is
/// what happens to the n-th answer, from 0.
fn serve(
    body: &[u8],
    change: impl Fn(usize, &Request, Answer) -> Answer + Send + Sync + 'static,
) -> Server {
    let (body, asked) = (body.to_vec(), Mutex::new(0));
    Server::start(move |request| {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        let answer = request.honestly(&body, ETAG).dripping(64 << 10, PAUSE);
        change(*asked - 1, request, answer)
    })
}

fn honest(_: usize, _: &Request, answer: Answer) -> Answer {
    answer
}

#[track_caller]
fn split(folder: &Folder, server: &Server, arguments: &[&str]) -> Ran {
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
fn is_exact(folder: &Folder, body: &[u8]) {
    assert_eq!(folder.names(), ["f"]);
    assert!(
        folder.read("f") == body,
        "other bytes, {} of them",
        folder.read("f").len()
    );
}

/// Fetches from a server whose answers change so, over four connections; the file is exact.
#[track_caller]
fn gives_the_file(
    change: impl Fn(usize, &Request, Answer) -> Answer + Send + Sync + 'static,
) -> (Server, Ran) {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, change);
    let ran = split(&folder, &server, &[]).code(0).prints("");
    is_exact(&folder, &body);
    (server, ran)
}

#[test]
fn large_file_uses_several_connections() {
    let (server, _) = gives_the_file(honest);
    assert_eq!(server.most_at_once(), 4);
    let requests = server.requests();
    assert_eq!(requests[0].range(), None);
    for request in &requests[1..] {
        let (first, end) = request.range().unwrap();
        assert!(end.is_some_and(|end| end - first >= 1 << 20), "{request:?}");
        assert_eq!(request.field("If-Range"), Some(ETAG));
    }
    let mut quarters: Vec<_> = requests[1..4].iter().filter_map(Request::first).collect();
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
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, |number, _, answer| match number {
        2 => answer.dripping(1, Duration::from_millis(100)),
        _ => answer,
    });
    let line = ["--speed-limit", "4000", "--speed-time", "1"];
    split(&folder, &server, &line)
        .code(0)
        .says("retrying a segment")
        .says("fewer than 1000");
    is_exact(&folder, &body);
}

#[test]
fn speed_limit_applies_to_all_segments_together() {
    let body = seeded(1, LARGE);
    // At most 400 KiB a second over each connection.
    let slowly = |_, _: &Request, answer: Answer| answer.dripping(4096, Duration::from_millis(10));
    for (connections, code) in [(8, 0), (1, 10)] {
        let (server, folder) = (serve(&body, slowly), Folder::new());
        let room = format!("-x{connections}");
        let line = ["-s8", &room, "-k128K", "--retry=0", "--speed-limit=800K"];
        split(
            &folder,
            &server,
            &[&line[..], &["--speed-time=500ms"]].concat(),
        )
        .code(code);
        assert_eq!(folder.path("f").exists(), code == 0);
        assert!(server.most_at_once() >= connections);
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
        let (folder, whole) = (Folder::new(), body.clone());
        let server = Server::start(move |request| request.honestly(&whole, etag));
        let url = server.url("/f");
        folder
            .myapp([&["download", "-s4", &url], arguments].concat())
            .run()
            .code(0);
        is_exact(&folder, &body);
        assert_eq!(server.requests().len(), 1, "{etag} {arguments:?}");
    }
}

#[test]
fn server_without_ranges_uses_the_first_connection() {
    let body = seeded(1, LARGE);
    let (server, _) = gives_the_file(move |number, _, answer| match number {
        0 => answer,
        _ => Answer::body(&body[..])
            .header("ETag", ETAG)
            .dripping(64 << 10, PAUSE),
    });
    assert!(server.requests().len() <= 4, "{}", server.requests().len());
}

#[test]
fn changed_file_keeps_its_first_version() {
    let other = seeded(2, LARGE);
    gives_the_file(move |number, request, answer| match number {
        0 => answer,
        _ => request.honestly(&other, "\"b\""),
    });
}

#[test]
fn mismatching_segments_are_not_used() {
    let other = seeded(2, LARGE + 1);
    gives_the_file(
        move |number, request, answer| match (number, request.range()) {
            // Another ETag, another total, another place.
            (1, Some((first, _))) => Answer::part(&other, first, LARGE).header("ETag", "\"b\""),
            (2, Some((first, _))) => Answer::part(&other, first, LARGE).header("ETag", ETAG),
            (3, Some((first, _))) => Answer::part(&other, first + 1, LARGE).header("ETag", ETAG),
            _ => answer,
        },
    );
}

#[test]
fn any_segment_response_gives_an_exact_file() {
    type Change = fn(usize, Answer) -> Answer;
    let silent: Change = |_, answer| answer.stalled_at(200_000);
    let whole: Change = |_, _| Answer::body(seeded(1, LARGE)).header("ETag", ETAG);
    let other: Change = |_, _| Answer::body(seeded(2, LARGE)).header("ETag", "\"b\"");
    let nothing: Change =
        |_, _| Answer::status(416).header("Content-Range", &format!("bytes */{LARGE}"));
    let short: Change =
        |first, _| Answer::part(&seeded(1, LARGE), first, first + 1000).header("ETag", ETAG);
    let cut: Change = |_, answer| answer.cut_at(0);
    for change in [silent, whole, other, nothing, short, cut] {
        for changed in 1..4 {
            let (body, folder) = (seeded(1, LARGE), Folder::new());
            let server = serve(&body, move |number, request, answer| {
                match request.first() {
                    Some(first) if number == changed => change(first, answer),
                    _ => answer,
                }
            });
            split(&folder, &server, &["-T", "1"]).code(0).prints("");
            is_exact(&folder, &body);
        }
    }
}

/// What a run over so many connections tells: where it begins, and each position.
fn told(folder: &Folder, server: &Server, connections: usize) -> (Vec<u64>, Vec<u64>) {
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
    let (from, positions) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
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

#[test]
fn segment_progress_is_monotonic_and_bounded() {
    for connections in [1, 4] {
        let (body, folder) = (seeded(1, LARGE), Folder::new());
        let server = serve(&body, |number, _, answer| match number {
            0..4 => answer.cut_at(1 << 20),
            _ => answer,
        });
        let (from, positions) = told(&folder, &server, 4);
        assert_eq!((&from[..], *positions.last().unwrap()), (&[0][..], 4 << 20));
        let (from, positions) = told(&folder, &server, connections);
        assert_eq!(from[0], 4 << 20);
        assert!(positions.is_sorted(), "{positions:?}");
        assert_eq!(*positions.last().unwrap(), LARGE as u64);
        is_exact(&folder, &body);
    }
}

#[test]
fn segment_progress_follows_received_bytes() {
    let (body, folder) = (seeded(1, 2 << 20), Folder::new());
    // In a second less than is written at once.
    let slowly = |_, _: &Request, answer: Answer| answer.dripping(2048, Duration::from_millis(10));
    let (_, positions) = told(&folder, &serve(&body, slowly), 2);
    is_exact(&folder, &body);
    let mut steps: Vec<_> = positions.windows(2).map(|pair| pair[1] - pair[0]).collect();
    steps.sort_unstable();
    assert!(steps[steps.len() / 2] < 64 << 10, "{steps:?}");
}

#[test]
fn interrupted_segment_resumes() {
    for broken in 0..4 {
        let (server, _) = gives_the_file(move |number, _, answer| match number {
            number if number == broken => answer.cut_at(300_000),
            _ => answer,
        });
        assert!(server.requests().len() >= 5, "{broken}");
    }
}

#[test]
fn retry_after_of_extra_connections_is_not_awaited() {
    let start = Instant::now();
    gives_the_file(|number, _, answer| match number {
        0 => answer,
        _ => Answer::status(503).header("Retry-After", "60"),
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
        let (body, folder) = (seeded(1, LARGE), Folder::new());
        let server = serve(&body, |number, _, answer| match number {
            0..4 => answer.cut_at(1 << 20),
            _ => answer,
        });
        split(&folder, &server, &["--retry", "0"]).code(4);
        assert_eq!(folder.names(), ["f.part", "f.part.json"]);
        assert_eq!(server.requests().len(), 4);
        split(&folder, &server, arguments).code(0);
        is_exact(&folder, &body);
        let (first_run, later) = (&server.requests()[..4], &server.requests()[4..]);
        let firsts = |requests: &[Request]| {
            requests
                .iter()
                .map(|request| request.first().unwrap_or(0))
                .collect::<Vec<_>>()
        };
        for at in firsts(later) {
            // Each connection had brought its first mebibyte.
            let had = firsts(first_run)
                .into_iter()
                .any(|had| (had..had + (1 << 20)).contains(&at));
            assert!(!had, "{at} of {:?}", server.requests());
        }
    }
}

#[test]
fn part_with_gaps_of_another_version_restarts() {
    let (old, new, folder) = (seeded(1, LARGE), seeded(2, LARGE), Folder::new());
    let whole = new.clone();
    let server = serve(&old, move |number, request, answer| match number {
        0..4 => answer.cut_at(1 << 20),
        _ => request.honestly(&whole, "\"b\""),
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    split(&folder, &server, &["-c"])
        .code(0)
        .says("changed on the server");
    is_exact(&folder, &new);
}

#[test]
fn shortened_part_with_gaps_resumes() {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, |number, _, answer| match number {
        0..4 => answer.cut_at(1 << 20),
        _ => answer,
    });
    split(&folder, &server, &["--retry", "0"]).code(4);
    let part = folder.read("f.part");
    folder.write("f.part", &part[..part.len() / 2]);
    split(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
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
    let (folder, server) = (Folder::new(), serve(&seeded(1, LARGE), honest));
    split(&folder, &server, &["--max-filesize", "8M"]).code(11);
    assert_eq!((folder.names(), server.requests().len()), (vec![], 1));
}

#[test]
#[ignore = "peer: mount (tmpfs)"]
fn full_disk_is_reported_and_the_part_resumes() {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let disk = folder.path("d");
    fs::create_dir(&disk).unwrap();
    let mount = |line: &[&str]| {
        let status = Command::new(line[0]).args(&line[1..]).arg(&disk).status();
        assert!(status.unwrap().success(), "{line:?}");
    };
    let server = serve(&body, |number, _, answer| match number {
        0..4 => answer.cut_at(1 << 20),
        _ => answer,
    });
    mount(&["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs"]);
    let run = |arguments: &[&str]| split(&folder, &server, &[&["-d", "d"], arguments].concat());
    let cut = run(&["--retry", "0"]);
    // What was set aside for the rest is given away, and taken by another.
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
    let asked = server.requests();
    mount(&["umount"]);
    cut.code(4);
    full.code(3).says("No space left on device");
    whole.code(0);
    assert!(kept && exact);
    assert!(
        asked[4..].iter().all(|request| request.first().is_some()),
        "{asked:?}"
    );
}

#[test]
fn signal_leaves_a_resumable_part() {
    let (body, folder) = (seeded(1, LARGE), Folder::new());
    let server = serve(&body, |number, _, answer| match number {
        0..4 => answer.stalled_at(1 << 20),
        _ => answer,
    });
    let url = server.url("/f");
    let running = folder.myapp(["download", "-s4", "-k1M", &url]).start();
    server.wait_for(4);
    thread::sleep(Duration::from_millis(100));
    running.signal(Signal::INT);
    running.wait().code(130);
    assert_eq!(folder.names(), ["f.part", "f.part.json"]);
    split(&folder, &server, &["-c"]).code(0);
    is_exact(&folder, &body);
}

#[test]
fn killed_split_download_resumes_exactly() {
    killed(6, &["-s4", "-k256K"]);
}

#[test]
#[ignore = "slow: minutes"]
fn split_download_killed_200_times_resumes_exactly() {
    killed(200, &["-s4", "-k256K"]);
}
