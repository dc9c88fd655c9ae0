//! Rate limits and connection limits.

use std::num::{NonZeroU64, NonZeroUsize};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use futures_lite::{future, stream};
use myapp::download::{Config, Downloader, Event, Item, Limits, OutputPolicy};

use crate::download::LARGE;
use crate::harness::Folder;
use crate::harness::http::{Response, Server, seeded};

/// Downloads this number of files of this size, and returns the elapsed time.
fn time_downloads(count: usize, size: usize, flags: &[&str]) -> Duration {
    let folder = Folder::new();
    let body = seeded(1, size);
    let served = body.clone();
    let server = Server::start(move |_| Response::body(served.clone()));
    let urls: Vec<_> = (0..count)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let line = ["download"]
        .iter()
        .chain(flags)
        .copied()
        .chain(urls.iter().map(String::as_str));
    let start = Instant::now();
    folder.myapp(line).run().code(0);
    let elapsed = start.elapsed();
    for number in 0..count {
        assert!(
            folder.read(&number.to_string()) == body,
            "other bytes in {number}"
        );
    }
    elapsed
}

#[test]
fn rate_limit_is_shared_by_all_files() {
    const MIB: u64 = 1 << 20;
    let folder = Folder::new();
    let server = Server::start(|_| Response::body(seeded(1, 1 << 20)));
    let config = Config {
        output: OutputPolicy {
            dir: folder.path("").to_owned(),
            ..OutputPolicy::default()
        },
        limits: Limits {
            jobs: NonZeroUsize::new(4).unwrap().into(),
            rate: NonZeroU64::new(MIB),
            ..Limits::default()
        },
        ..Config::default()
    };
    let start = Instant::now();
    let read = Mutex::new(Vec::new());
    let items = (0..4).map(|number| Item::parse(&server.url(&format!("/{number}"))));
    let report = myapp::runtime::block_on(Downloader::new(config).unwrap().run(
        stream::iter(items),
        &|number, event| {
            if let Event::Progress {
                downloaded: position,
            } = event
            {
                read.lock()
                    .unwrap()
                    .push((start.elapsed(), number as usize, position));
            }
        },
        future::pending(),
    ));
    assert_eq!((report.saved, report.bytes), (4, 4 * MIB));
    let read = read.into_inner().unwrap();
    let until = |seconds: f64| {
        let mut files = [0; 4];
        let early = read.iter().filter(|(at, ..)| at.as_secs_f64() < seconds);
        early.for_each(|&(_, number, position)| files[number] = position);
        files.iter().sum::<u64>() as f64 / MIB as f64
    };
    let end = report.elapsed.as_secs_f64();
    let rate = (until(end + 1.0) - until(1.0)) / (end - 1.0);
    assert!(
        (0.9..1.1).contains(&rate),
        "{rate} MiB/s after the first second, {end} s in all"
    );
    for second in 0..4 {
        let came = until(f64::from(second + 1)) - until(f64::from(second));
        assert!(came < 1.3, "{came} MiB in second {second}");
    }
}

#[test]
fn rate_limit_per_file_applies_to_each_file() {
    let took = time_downloads(3, 300_000, &["-j3", "--limit-rate-per-file", "200000"]);
    assert!(
        took > Duration::from_millis(1400) && took < Duration::from_secs(3),
        "{took:?}"
    );
}

#[test]
fn rate_limit_is_shared_by_segments() {
    let folder = Folder::new();
    let body = seeded(1, 2 << 20);
    let whole = body.clone();
    let server = Server::start(move |request| request.respond_with(&whole, "\"a\""));
    let start = Instant::now();
    let url = server.url("/f");
    folder
        .myapp(["download", "-s4", "-k256K", "--limit-rate", "1M", &url])
        .run()
        .code(0);
    let took = start.elapsed();
    assert!(folder.read("f") == body && server.requests().len() >= 4);
    assert!(
        took > Duration::from_millis(1900) && took < Duration::from_secs(5),
        "{took:?}"
    );
}

#[test]
fn high_rate_limit_adds_no_delay() {
    let took = time_downloads(1, LARGE, &["--limit-rate", "100G"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn throttling_does_not_count_towards_timeouts() {
    let flags = [
        "--limit-rate",
        "100000",
        "-T",
        "0.5",
        "--retry",
        "0",
        "--speed-limit",
        "1M",
    ];
    let took = time_downloads(1, 200_000, &[&flags[..], &["--speed-time", "0.5"]].concat());
    assert!(took > Duration::from_millis(1900), "{took:?}");
}

#[test]
fn connections_per_host_are_limited() {
    let folder = Folder::new();
    let server = Server::start(|_| Response::body("x").delayed(Duration::from_millis(1)));
    let list: String = (0..1000)
        .map(|number| server.url(&format!("/{number}\n")))
        .collect();
    let line = ["download", "-j8", "-x4", "-", "-q"];
    folder.myapp(line).stdin(list).run().code(0).silent();
    assert_eq!(folder.names().len(), 1000);
    assert_eq!(server.max_concurrent(), 4);
    assert!(
        server.connections() <= 12,
        "{} connections",
        server.connections()
    );
}

#[test]
fn waiting_for_a_host_releases_the_job_slot() {
    let folder = Folder::new();
    let slow = Server::start(|_| Response::body("x").delayed(Duration::from_millis(300)));
    let quick = Server::start(|_| Response::body("y"));
    let mut urls: Vec<_> = (0..4)
        .map(|number| slow.url(&format!("/s{number}")))
        .collect();
    urls.extend((0..20).map(|number| quick.url(&format!("/q{number}"))));
    let line = ["download", "-j2", "-x1"]
        .into_iter()
        .chain(urls.iter().map(String::as_str));
    let ran = folder.myapp(line).run().code(0);
    assert_eq!((slow.max_concurrent(), quick.max_concurrent()), (1, 1));
    let at = |name: &str| ran.stderr.find(&format!("saved {name}:")).expect(name);
    assert!(at("q19") < at("s2"), "{}", ran.stderr);
}

#[test]
fn redirect_to_the_same_host_does_not_deadlock() {
    let folder = Folder::new();
    let server = Server::start(|request| match request.path.strip_prefix("/from") {
        Some(number) => Response::redirect(302, format!("/to{number}")),
        None => Response::body("x"),
    });
    let list: String = (0..50)
        .map(|number| server.url(&format!("/from{number}\n")))
        .collect();
    folder
        .myapp(["download", "-j4", "-x1", "-"])
        .stdin(list)
        .run()
        .code(0);
    assert_eq!(server.max_concurrent(), 1);
}

/// A file must not open a connection while the redirect of another file is still read from the
/// only allowed one.
#[test]
fn redirect_body_counts_as_a_connection() {
    let folder = Folder::new();
    let server = Server::start(|request| match request.path.strip_prefix("/from") {
        Some(number) => {
            Response::redirect(302, format!("/to{number}")).throttled(20, Duration::from_millis(2))
        }
        None => Response::body("x"),
    });
    let list: String = (0..8)
        .map(|number| server.url(&format!("/from{number}\n")))
        .collect();
    folder
        .myapp(["download", "-j4", "-x1", "-"])
        .stdin(list)
        .run()
        .code(0);
    assert_eq!(server.max_concurrent(), 1);
}
