//! System calls that fail, injected by strace, and processes without descriptors or threads.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

use super::*;
use crate::harness::strace;

/// Files of a run and their lengths: without a part, with one, and larger than a split part.
const FILES: [(&str, usize); 5] = [
    ("a", 1_000),
    ("b", 100_000),
    ("c", 300_000),
    ("d", (4 << 20) + 500_001),
    ("e", 260_000),
];

/// Calls on output files, and the errors that each can return.
const FAULTS: [(&str, &[&str]); 14] = [
    (
        "open",
        &["EACCES", "EMFILE", "ENOSPC", "EIO", "ENOMEM", "EINTR"],
    ),
    (
        "openat",
        &["EACCES", "EMFILE", "ENOSPC", "EIO", "ENOMEM", "EINTR"],
    ),
    ("write", &["ENOSPC", "EIO", "EINTR"]),
    ("pwrite64", &["ENOSPC", "EIO", "EINTR"]),
    ("fdatasync", &["EIO", "ENOSPC"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("renameat2", &["EIO", "ENOSPC", "EACCES"]),
    ("renameat", &["EIO", "ENOSPC", "EACCES"]),
    ("linkat", &["EIO", "ENOSPC", "EACCES"]),
    ("fallocate", &["ENOSPC", "EIO", "EINTR"]),
    ("ftruncate", &["EIO", "EINTR"]),
    ("splice", &["EIO", "ENOMEM", "EINTR"]),
    ("fsetxattr", &["ENOSPC", "EIO", "ENOMEM"]),
    ("unlink", &["EACCES", "EIO"]),
];

/// Options of a run.
#[derive(Debug, Clone, Copy)]
struct Mode {
    options: &'static [&'static str],
    /// Whether a run with truncated responses comes first.
    has_part: bool,
    /// Whether the responses of the run itself are truncated.
    is_truncated: bool,
}

impl Mode {
    const fn new(options: &'static [&'static str]) -> Self {
        Self {
            options,
            has_part: false,
            is_truncated: false,
        }
    }
}

const MODES: [Mode; 7] = [
    Mode::new(&[]),
    Mode::new(&["-s", "4", "-k", "1M", "--fsync"]),
    Mode::new(&["--overwrite", "--fsync"]),
    Mode {
        has_part: true,
        ..Mode::new(&["-c"])
    },
    Mode {
        has_part: true,
        ..Mode::new(&["-c", "-s", "4", "-k", "1M"])
    },
    Mode {
        is_truncated: true,
        ..Mode::new(&["--retry", "0"])
    },
    Mode {
        is_truncated: true,
        ..Mode::new(&["--retry", "0", "-s", "4", "-k", "1M"])
    },
];

/// Server whose responses for the larger files can be truncated.
struct Peer {
    server: Server,
    truncates: Arc<AtomicBool>,
}

impl Peer {
    fn start() -> Self {
        let truncates = Arc::new(AtomicBool::new(false));
        let truncated = Arc::clone(&truncates);
        let server = Server::start(move |request| {
            let body = body_of(request.path.trim_start_matches('/'));
            let response = request.respond_with(body, "\"a\"");
            if truncated.load(Relaxed) && body.len() >= 300_000 {
                response.truncated_at(280_000)
            } else {
                response
            }
        });
        Self { server, truncates }
    }

    fn arguments(&self, folder: &Folder, options: &[&str]) -> Vec<String> {
        let out = folder.path("out").to_string_lossy().into_owned();
        let fixed = ["download", "--retry", "2", "--retry-delay", "1ms", "-d"];
        let fixed = fixed.into_iter().map(str::to_owned).chain([out]);
        let urls = FILES.map(|(name, _)| self.server.url(&format!("/{name}")));
        let options = options.iter().map(|&option| option.to_owned());
        fixed.chain(options).chain(urls).collect()
    }

    /// Runs under strace and returns the output and the trace.
    fn trace(&self, mode: Mode, strace: &[String]) -> (Folder, RunOutput, String) {
        let folder = Folder::new();
        if mode.has_part {
            self.truncates.store(true, Relaxed);
            let arguments = self.arguments(&folder, &["--retry", "0"]);
            folder.myapp(arguments).run().code(4);
        }
        self.truncates.store(mode.is_truncated, Relaxed);
        let mut command = strace::command(&folder.path("trace"));
        command.args(strace);
        let arguments = self.arguments(&folder, mode.options);
        let ran = folder.myapp(arguments).through(command).run();
        self.truncates.store(false, Relaxed);
        let trace = String::from_utf8_lossy(&folder.read("trace")).into_owned();
        (folder, ran, trace)
    }

    /// Returns the positions of each call on the output files, counted per thread as strace does.
    fn positions(&self, mode: Mode) -> BTreeMap<String, BTreeSet<usize>> {
        let calls = FAULTS.map(|(call, _)| call).join(",");
        let (folder, ran, trace) = self.trace(mode, &[format!("--trace={calls}")]);
        ran.code(if mode.is_truncated { 4 } else { 0 });
        let out = folder.path("out").to_string_lossy().into_owned();
        strace::positions(&trace, &out)
    }

    /// Injects a fault. Returns whether it hit an output file, or the violated expectation.
    fn inject(&self, fault: &Fault) -> Result<bool, String> {
        let Fault {
            call,
            errno,
            position,
            mode,
        } = fault;
        let strace = strace::inject(call, errno, *position);
        let (folder, ran, trace) = self.trace(*mode, &strace);
        let out = folder.path("out").to_string_lossy().into_owned();
        let hits = strace::hits(&trace, &out);
        let context = |text: &str| {
            let names = names(&folder);
            format!(
                "{fault:?}: {text}\n{}\n{names:?}\n{}",
                ran.stderr,
                hits.join("\n")
            )
        };
        check_files(&folder, ran.status.success()).map_err(|text| context(&text))?;
        if hits.is_empty() {
            return Ok(false);
        }
        if ran.stderr.contains("panicked") {
            return Err(context("a panic"));
        }
        let is_error = |line: &str| line.starts_with("myapp: ") && line.contains('/');
        match ran.status.code() {
            Some(0) => {}
            // An interrupted call is repeated.
            Some(_) if *errno == "EINTR" && !mode.is_truncated => {
                return Err(context("no success"));
            }
            Some(1..=11) if ran.stderr.lines().any(is_error) => {}
            _ => return Err(context("no clear error")),
        }
        self.resume(&folder, call).map_err(|text| context(&text))?;
        Ok(true)
    }

    /// Runs again without a fault, which must complete all files.
    fn resume(&self, folder: &Folder, call: &str) -> Result<(), String> {
        let again = folder.myapp(self.arguments(folder, &["-c"])).run();
        let context = |text: &str| format!("{text} after a second run:\n{}", again.stderr);
        if !again.status.success() {
            return Err(context("an error"));
        }
        check_files(folder, true).map_err(|text| context(&text))?;
        let names = names(folder);
        match names.iter().find(|name| !is_allowed(name, call)) {
            Some(name) => Err(context(&format!("{name} is left"))),
            None => Ok(()),
        }
    }
}

/// Injected fault.
#[derive(Debug, Clone, Copy)]
struct Fault {
    call: &'static str,
    errno: &'static str,
    position: usize,
    mode: Mode,
}

static BODIES: LazyLock<[Vec<u8>; 5]> =
    LazyLock::new(|| FILES.map(|(_, length)| seeded(length as u64, length)));

fn body_of(name: &str) -> &'static [u8] {
    let index = FILES.iter().position(|(file, _)| *file == name);
    &BODIES[index.unwrap()]
}

fn names(folder: &Folder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path("out")).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Checks the files under final names; all five must exist after a success.
fn check_files(folder: &Folder, all: bool) -> Result<(), String> {
    let names = names(folder);
    for (file, _) in FILES {
        let body = body_of(file);
        let is_final = |name: &&String| {
            let number = name.strip_prefix(file).unwrap_or("x");
            number.is_empty()
                || number
                    .strip_prefix('.')
                    .is_some_and(|n| n.parse::<u32>().is_ok())
        };
        let found = names.iter().filter(is_final).collect::<Vec<_>>();
        if all && found.is_empty() {
            return Err(format!("{file} is missing"));
        }
        for name in found {
            if folder.read(&format!("out/{name}")) != body {
                return Err(format!("{name} is wrong"));
            }
        }
    }
    Ok(())
}

/// Returns whether a file may exist after the second run. A part without its attribute counts as
/// a file of another program, so that a later run neither resumes nor removes it.
fn is_allowed(name: &str, call: &str) -> bool {
    let is_file = |name: &str| FILES.iter().any(|(file, _)| *file == name);
    let part = name.strip_suffix(".json").unwrap_or(name);
    let is_part = part.strip_suffix(".part").is_some_and(is_file);
    is_file(name) || is_part && call == "fsetxattr"
}

/// Returns the faults at evenly distributed positions, at most `max_positions` per call, error and
/// mode.
fn faults(peer: &Peer, max_positions: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    for mode in MODES {
        let positions = peer.positions(mode);
        for (call, errnos) in FAULTS {
            let positions: Vec<_> = positions.get(call).into_iter().flatten().copied().collect();
            let step = positions.len().div_ceil(max_positions).max(1);
            for position in positions.into_iter().step_by(step) {
                faults.extend(errnos.iter().map(|&errno| Fault {
                    call,
                    errno,
                    position,
                    mode,
                }));
            }
        }
    }
    faults
}

/// Injects faults at evenly distributed positions of each call, and returns their number.
pub(super) fn inject_faults(max_positions: usize) -> usize {
    let faults = faults(&Peer::start(), max_positions);
    let next = AtomicUsize::new(0);
    let outcomes = thread::scope(|scope| {
        let run = || {
            let peer = Peer::start();
            let mut outcomes = Vec::new();
            while let Some(fault) = faults.get(next.fetch_add(1, Relaxed)) {
                outcomes.push((*fault, peer.inject(fault)));
            }
            peer.server.requests();
            outcomes
        };
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        let joined = workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap());
        joined.collect::<Vec<_>>()
    });
    let mut counts = BTreeMap::<_, usize>::new();
    for (fault, outcome) in &outcomes {
        if matches!(outcome, Ok(true)) {
            *counts.entry((fault.call, fault.errno)).or_default() += 1;
        }
    }
    let injected: usize = counts.values().sum();
    println!("{injected} of {} faults: {counts:?}", faults.len());
    let violations = outcomes
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().err());
    let violations: Vec<_> = violations.map(String::as_str).collect();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    for (call, _) in FAULTS {
        let is_hit = counts.keys().any(|(hit, _)| *hit == call);
        assert!(is_hit, "no fault of {call}");
    }
    injected
}

#[test]
#[ignore = "peer: strace"]
fn failed_system_call_gives_no_wrong_file() {
    let injected = inject_faults(3);
    // The positions depend on timing, so that some faults hit other files or nothing.
    assert!(injected >= 400, "only {injected} faults");
}

/// Regression: the kernel reports a failed write once. The next sync succeeded, and the state then
/// claimed the lost bytes.
#[test]
#[ignore = "peer: strace"]
fn state_is_not_saved_after_a_failed_sync() {
    let folder = Folder::new();
    let body = seeded(1, LARGE);
    let expected = body.clone();
    let server = Server::start(move |request| {
        let response = request.respond_with(&body, "\"a\"");
        response.throttled(64 << 10, Duration::from_millis(100))
    });
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-o", "trace", "--inject=fdatasync:error=EIO:when=1"])
        .arg("--trace=fdatasync,linkat,?rename,?renameat,renameat2");
    let url = server.url("/f");
    let arguments = ["download", "-s", "4", "-k", "1M", &url];
    folder.myapp(arguments).through(strace).run().code(0);
    assert!(folder.read("f") == expected);
    let trace = String::from_utf8(folder.read("trace")).unwrap();
    let (before, after) = trace.split_once("(INJECTED)").expect("a failed sync");
    assert!(before.contains("\"f.part.json\""), "{trace}");
    assert!(!after.contains("\"f.part.json\""), "{trace}");
}

/// Regression: the kernel reports a failed write once. With `-c`, the next sync succeeded, although
/// the data was lost.
#[test]
#[ignore = "peer: strace"]
fn data_is_fetched_again_after_a_failed_sync() {
    let body = seeded(1, LARGE);
    for (call, options) in [
        ("fsync", &["--fsync"][..]),
        ("fdatasync", &["--fsync", "-s", "4", "-k", "1M"]),
    ] {
        let folder = Folder::new();
        let sent = body.clone();
        let server = Server::start(move |request| {
            let response = request.respond_with(&sent, "\"a\"");
            response.throttled(64 << 10, Duration::from_millis(50))
        });
        let mut strace = Command::new("strace");
        strace.args(["-f", "-o", "trace"]);
        strace.arg(format!("--inject={call}:error=EIO:when=1"));
        strace.arg(format!("--trace={call}"));
        let url = server.url("/f");
        let arguments = [&["download"], options, &["-c", &url]].concat();
        let ran = folder.myapp(&arguments).through(strace).run();
        ran.code(3)
            .says("sync f.part: ")
            .says("received bytes discarded");
        assert_eq!(folder.names(), ["trace"], "{call}");
        let before = server.requests().len();
        folder.myapp(&arguments).run().code(0);
        assert!(folder.read("f") == body, "{call}");
        assert_eq!(server.requests()[before].range(), None, "{call}");
    }
}
