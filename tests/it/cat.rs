//! `myapp cat`.

mod behaviours;
mod checksum;
mod cost;
mod decompress;
mod display;
mod errors;
mod faults;
mod follow;
mod output;
mod reading;
mod replace;
mod replace_table;
mod soak;
mod status;
mod streams;
mod throttle;

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::future;
use myapp::cat::{self, Config, FileSink, Report, Sink, Source, WriteMode};
use rustix::process::Signal;

use crate::harness::program::myapp;
use crate::harness::{Folder, RunOutput, Running};

/// Bytes of random files, most of which the display options change.
const FRAGMENTS: &[u8] = b"\n\n\n\n\n\n\r\r\r\n\t\tab \0\x1f\x7f\x80\x89\x8a\x9f\xa0\xfe\xff";

/// Runs a shell script in the folder; `$MYAPP` is the program under test.
#[track_caller]
fn shell(folder: &Folder, script: &str) -> Output {
    Command::new("bash")
        .args(["-c", script])
        .current_dir(folder.path(""))
        .env("MYAPP", env!("CARGO_BIN_EXE_myapp"))
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .expect("run bash")
}

fn random_text(random: &mut fastrand::Rng) -> Vec<u8> {
    let max_len = if random.u8(..20) == 0 { 400_000 } else { 300 };
    let long_lines = random.bool();
    (0..random.usize(..max_len))
        .map(|_| match random.u8(..40) {
            0 => random.u8(..),
            _ if long_lines && random.u8(..30) > 0 => b'x',
            _ => FRAGMENTS[random.usize(..FRAGMENTS.len())],
        })
        .collect()
}

/// Waits until a condition is true, and fails after 30 s.
#[track_caller]
fn wait_until(condition: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "timeout: {condition}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn make_fifo(folder: &Folder, name: &str) {
    let status = Command::new("mkfifo")
        .arg(folder.path(name))
        .status()
        .expect("run mkfifo");
    assert!(status.success());
}

#[track_caller]
fn assert_killed_by(ran: &RunOutput, signal: i32) {
    assert_eq!(
        ran.status.signal(),
        Some(signal),
        "{}\n{}",
        ran.status,
        ran.stderr
    );
}

/// Returns the length of the temporary file, named or anonymous, that a process has open in the
/// folder; 0 without one.
fn temporary_file_len(folder: &Folder, process: u32) -> u64 {
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .unwrap()
        .map_while(Result::ok);
    let new = open.filter(|file| {
        let path = fs::read_link(file.path()).unwrap_or_default();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        path.parent() == Some(&folder.path(""))
            && (name.starts_with("#") || name.starts_with(".out."))
    });
    new.filter_map(|file| Some(fs::metadata(file.path()).ok()?.len()))
        .max()
        .unwrap_or(0)
}

#[test]
fn conflicting_options_are_usage_errors() {
    let folder = Folder::new();
    folder.write("a", "a");
    for arguments in [
        &["cat", "-x", "a"][..],
        &["cat", "-a", "a"],
        &["cat", "--tee", "a"],
        &["cat", "--fsync", "a"],
        &["cat", "-j", "0", "a"],
        &["cat", "-j", "3", "--sequential", "a"],
        &["cat", "--delay", "soon", "a"],
        &["cat", "-o", "-", "a"],
        &["cat", "--limit-rate", "0", "a"],
        &["cat", "--follow", "-o", "out", "a"],
        &["cat", "--partial", "a"],
        &["cat", "--in-place", "a"],
        &["cat", "--force", "a"],
        &["cat", "--in-place", "-a", "-o", "out", "a"],
        &["cat", "--force", "-a", "-o", "out", "a"],
        &["cat", "--as-completed", "--sequential", "a"],
        &["cat", "--limit-rate", "fast", "a"],
    ] {
        let ran = folder.myapp(arguments).run().code(2).prints("");
        assert!(!ran.stderr.is_empty());
    }
    assert_eq!(folder.names(), ["a"]);
}

#[test]
fn help_that_cannot_be_written_is_an_error() {
    let folder = Folder::new();
    for (arguments, code) in [
        ("--help", 3),
        ("--version", 3),
        ("serve --help", 3),
        ("echo --help", 3),
        ("download --help", 3),
        ("help download", 3),
        ("cat --help", 1),
        ("cat --version", 1),
    ] {
        let output = shell(&folder, &format!("$MYAPP {arguments} > /dev/full"));
        let text = String::from_utf8_lossy(&output.stderr);
        let expected = "myapp: write standard output: No space left on device\n";
        assert_eq!(
            (output.status.code(), &*text),
            (Some(code), expected),
            "{arguments}"
        );
        let output = shell(&folder, &format!("$MYAPP {arguments}"));
        assert_eq!(output.status.code(), Some(0), "{arguments}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn log_is_written_only_on_request() {
    let folder = Folder::new();
    folder.write("a", "a");
    folder
        .myapp(["cat", "a"])
        .run()
        .code(0)
        .prints("a")
        .silent();
    folder
        .myapp(["cat", "--verbose", "a"])
        .run()
        .code(0)
        .prints("a")
        .says("bytes=1");
    folder
        .myapp(["cat", "--verbose", "--log-file", "log", "a"])
        .run()
        .code(0)
        .silent();
    assert!(
        String::from_utf8(folder.read("log"))
            .unwrap()
            .contains("bytes=1")
    );
    folder
        .myapp(["cat", "--log-file", "no/log", "a"])
        .run()
        .code(1)
        .says("open log file no/log");
}

/// Runs the library with these files as sources, and `out` as the file to be replaced.
async fn run(folder: &Folder, sources: &[&str]) -> Result<Report, cat::Error> {
    let sources: Vec<_> = sources
        .iter()
        .map(|name| Source::Path(folder.path(name)))
        .collect();
    let sink = Sink::File(FileSink::new(folder.path("out"), WriteMode::Replace));
    cat::run(sources, Config::default(), sink, |_| {}).await
}

#[test]
fn waiting_inputs_do_not_block_other_runs() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    folder.write("a", "a");
    let others = Folder::new();
    others.write("b", "bb");
    // More runs than the pool has threads.
    let waiting = (0..600).map(|_| Box::pin(run(&folder, &["f", "a"])));
    let mut waiting: Vec<_> = waiting.collect();
    let report = future::block_on(async {
        for run in &mut waiting {
            assert!(future::poll_once(run).await.is_none());
        }
        run(&others, &["b", "b"]).await.unwrap()
    });
    assert_eq!((report.files, report.failed, report.written), (2, 0, 4));
    assert_eq!(others.read("out"), b"bbbb");
}

#[test]
fn dropped_run_keeps_the_old_file() {
    let folder = Folder::new();
    make_fifo(&folder, "f");
    folder.write("a", "a");
    folder.write("out", "old");
    future::block_on(async {
        let mut run = Box::pin(run(&folder, &["a", "f"]));
        let start = Instant::now();
        while temporary_file_len(&folder, std::process::id()) != 1 {
            assert!(future::poll_once(&mut run).await.is_none());
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "timeout: first bytes are written"
            );
        }
        drop(run);
    });
    assert_eq!(folder.read("out"), b"old");
    assert_eq!(folder.names(), ["a", "f", "out"]);
}

#[test]
fn report_counts_failed_inputs() {
    let folder = Folder::new();
    folder.write("a", "a");
    let sources = ["a", "missing", "a"].map(|name| Source::Path(folder.path(name)));
    let sink = Sink::File(FileSink {
        partial: true,
        ..FileSink::new(folder.path("out"), WriteMode::Replace)
    });
    let run = cat::run(sources, Config::default(), sink, |_| {});
    let report = future::block_on(run).unwrap();
    assert_eq!((report.files, report.failed, report.written), (2, 1, 2));
}

#[test]
#[ignore = "peer: unshare"]
fn signal_ends_the_first_process_of_a_container() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut unshare = Command::new("unshare");
        unshare.args(["--map-root-user", "--pid", "--fork"]);
        let mut running = myapp(["cat"]).through(unshare).hold_stdin().start();
        running.write("first\n");
        assert_eq!(running.line(), "first");
        running.signal_child(signal);
        assert_eq!(running.wait().status.code(), Some(code));
    }
}
