//! SIGINT, SIGTERM and SIGHUP.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use futures_lite::stream;
use myapp::download::{Config, Downloader, Item, OutputPolicy};
use myapp::limits::shutdown;
use myapp::runtime;
use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_setfl, mknodat};
use rustix::process::Signal;

use super::*;

#[test]
fn signal_ends_the_run_and_leaves_resumable_parts() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let stalled = |_: &_| Response::body(seeded(1, LARGE)).stalled_at(HALF);
        let folder = Folder::new();
        let server = Server::start(stalled);
        let urls = ["/a", "/b", "/c", "/d"].map(|path| server.url(path));
        let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
        running.write(urls.join("\n") + "\n");
        server.wait_for(4);
        let has_bytes = |name| fs::metadata(folder.path(name)).is_ok_and(|data| data.len() > 0);
        until(|| {
            ["a.part", "b.part", "c.part", "d.part"]
                .into_iter()
                .all(has_bytes)
        });
        running.signal(signal);
        let start = Instant::now();
        running
            .wait()
            .code(code)
            .says("interrupted: 0 of 4 files saved")
            .says("4 not finished\nhint: -c resumes");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{:?}",
            start.elapsed()
        );
        let parts = ["a", "b", "c", "d"].map(|f| [format!("{f}.part"), format!("{f}.part.json")]);
        assert_eq!(folder.names(), parts.concat());
    }
}

/// Makes a full FIFO that stays open while the returned file exists.
fn full_fifo(path: &Path) -> File {
    let mode = Mode::from_raw_mode(0o600);
    mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
    let mut fifo = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    fcntl_setfl(&fifo, OFlags::NONBLOCK).unwrap();
    while fifo.write(b"x").is_ok() {}
    fifo
}

#[test]
fn second_signal_exits_immediately() {
    for (first, second, code) in [
        (Signal::INT, Signal::INT, 130),
        (Signal::TERM, Signal::INT, 130),
        (Signal::INT, Signal::TERM, 143),
        (Signal::HUP, Signal::HUP, 129),
    ] {
        let stalled = Response::body(seeded(1, LARGE)).stalled_at(HALF);
        let folder = Folder::new();
        let server = Server::with_paths([("/f", stalled)]);
        let _reader = full_fifo(&folder.path("fifo"));
        let line = ["download", "-d", "d", &server.url("/f")];
        let mut running = folder.myapp(line).stderr_to(&folder.path("fifo")).start();
        until(|| fs::metadata(folder.path("d/f.part")).is_ok_and(|data| data.len() > 0));
        running.signal(first);
        // The part is closed, and the summary blocks on the full FIFO.
        until(|| !running.has_open(&folder.path("d/f.part")) && running.sleeps());
        assert!(!running.has_exited() && folder.path("d/f.part.json").exists());
        running.signal(second);
        running.wait().code(code);
    }
}

#[test]
fn signal_ends_a_wait_for_stdin() {
    let folder = Folder::new();
    let server = Server::with_paths([("/f", ok())]);
    let mut running = folder.myapp(["download", "-"]).hold_stdin().start();
    running.write(server.url("/f") + "\n");
    server.wait_for(1);
    until(|| folder.names() == ["f"]);
    running.signal(Signal::INT);
    running
        .wait()
        .code(130)
        .says("interrupted: 1 of 1 files saved");
}

#[test]
fn triggered_shutdown_prevents_all_downloads() {
    let folder = Folder::new();
    let server = Server::start(|_| ok()).may_be_idle();
    let url = server.url("/f");
    let endless = stream::repeat_with(|| Item::parse(&url));
    let config = Config {
        output: OutputPolicy {
            dir: folder.path("."),
            ..OutputPolicy::default()
        },
        ..Config::default()
    };
    let downloader = Downloader::new(config).unwrap();
    let (stopper, stopped) = shutdown::channel();
    stopper.trigger();
    let report = runtime::block_on(downloader.run(endless, &|_, _| {}, stopped.wait()));
    assert_eq!((report.saved, report.failed), (0, 0));
    assert!(server.requests().is_empty() && folder.names().is_empty());
}
