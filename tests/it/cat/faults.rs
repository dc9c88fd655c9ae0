//! System calls on output files that fail, injected by strace, and runs that are killed.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::harness::strace;

/// Calls on output files, and the errors that each can return.
const FAULTS: [(&str, &[&str]); 14] = [
    ("open", &["EACCES", "EMFILE", "ENOSPC", "EIO", "EINTR"]),
    ("openat", &["EACCES", "EMFILE", "ENOSPC", "EIO", "EINTR"]),
    // Without EINTR: it would also hit the eventfd of the reactor, where it cannot occur.
    ("write", &["ENOSPC", "EIO", "EDQUOT"]),
    ("copy_file_range", &["ENOSPC", "EIO", "EXDEV", "EINTR"]),
    ("linkat", &["EIO", "ENOSPC", "EACCES", "EXDEV"]),
    ("renameat", &["EIO", "ENOSPC", "EACCES"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("fallocate", &["ENOSPC", "EIO", "EINTR", "EOPNOTSUPP"]),
    ("ftruncate", &["EIO", "EINTR"]),
    ("fchmod", &["EPERM", "EIO"]),
    ("fchown", &["EPERM", "EIO"]),
    ("fsetxattr", &["ENOSPC", "EIO", "EOPNOTSUPP"]),
    ("lgetxattr", &["EIO", "ENOMEM"]),
    ("close", &["EIO", "ENOSPC"]),
];

/// Options of the runs; each also has `-o d/out`.
const MODES: [&[&str]; 6] = [
    &[],
    &["--fsync", "--checksum", "md5"],
    &["--in-place", "--fsync"],
    &["-a"],
    &["--tee"],
    &["-n"],
];

const OLD: &[u8] = b"the old content\n";

/// Folder `d` with the old file, and inputs beside it.
fn folder_with_old_file() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let large = b"one line\n".repeat(50_000);
    folder.write("small", "small\n");
    folder.write("large", &large);
    fs::create_dir(folder.path("d")).unwrap();
    let old = folder.write("d/out", OLD);
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&old, "user.note", b"kept", flags).unwrap();
    (folder, [&b"small\n"[..], &large].concat())
}

/// Runs under strace and returns the output and the trace.
fn trace(folder: &Folder, mode: &[&str], options: &[String]) -> (RunOutput, String) {
    let mut command = strace::command(&folder.path("trace"));
    command.args(options);
    let arguments = [&["cat", "-o", "d/out", "small", "large"], mode].concat();
    let running = folder.myapp(arguments).through(command).start();
    let ran = strace::kill_when_stuck(running);
    let trace = String::from_utf8_lossy(&folder.read("trace")).into_owned();
    (ran, trace)
}

/// Injected fault.
struct Fault {
    mode: &'static [&'static str],
    call: &'static str,
    errno: &'static str,
    /// Whether stderr could not be written either.
    is_silent: bool,
}

/// Checks what a run with a fault has left. Returns the violated expectation.
fn check(folder: &Folder, fault: &Fault, ran: &RunOutput, new: &[u8]) -> Result<(), &'static str> {
    let mode = fault.mode;
    let numbered: Vec<u8>;
    let new = if mode == ["-n"] {
        let lines = new.split_inclusive(|byte| *byte == b'\n').enumerate();
        numbered = lines
            .flat_map(|(n, line)| [format!("{:6}\t", n + 1).as_bytes(), line].concat())
            .collect();
        &numbered
    } else {
        new
    };
    let out = folder.read("d/out");
    let spool: Vec<_> = fs::read_dir(folder.path("d"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "out")
        .collect();
    let is_named = |name: &String| ran.stderr.contains(&format!("d/{name}"));
    let is_complete = |name: &String| folder.read(&format!("d/{name}")) == new;
    let succeeded = ran.status.success();
    // The same call of another thread may also have failed: the one that writes the error.
    let is_error = ran.stderr.starts_with("myapp: ") || fault.is_silent;
    let appends = mode == ["-a"];
    let expected = if appends {
        [OLD, new].concat()
    } else {
        new.to_vec()
    };
    if ran.stderr.contains("panicked") || !succeeded && (ran.status.code() != Some(1) || !is_error)
    {
        return Err("no clear error");
    }
    if fault.errno == "EINTR" && !succeeded {
        return Err("an interrupted call is not repeated");
    }
    if succeeded && out != expected {
        return Err("success without the new content");
    }
    if mode == ["--tee"] && !new.starts_with(&ran.stdout) {
        return Err("wrong bytes on stdout");
    }
    if mode.contains(&"--in-place") && !spool.is_empty() {
        // The copy was interrupted: the complete content is in a file that the error names.
        return match &spool[..] {
            [name] if !succeeded && is_named(name) && is_complete(name) => Ok(()),
            _ => Err("the spool is not complete or not named"),
        };
    }
    if !spool.is_empty() {
        return Err("a temporary file is left");
    }
    let is_kept = if appends {
        out.starts_with(OLD) && expected.starts_with(&out)
    } else {
        // The directory is written to disk after the replacement.
        out == OLD || fault.call == "fsync" && out == expected
    };
    if !succeeded && !is_kept {
        return Err("the old file is not kept");
    }
    Ok(())
}

/// Returns the positions of each call on the output files.
fn positions(mode: &[&str]) -> BTreeMap<String, BTreeSet<usize>> {
    let calls = FAULTS.map(|(call, _)| call).join(",");
    let (folder, _) = folder_with_old_file();
    let (ran, text) = trace(&folder, mode, &[format!("--trace={calls}")]);
    ran.code(0);
    let target = folder.path("d").to_string_lossy().into_owned();
    let mut positions = strace::positions(&text, &target);
    // Paths of calls without a descriptor are relative.
    for (call, found) in strace::positions(&text, "\"d/") {
        positions.entry(call).or_default().extend(found);
    }
    positions
}

#[test]
#[ignore = "peer: strace"]
fn failed_system_call_keeps_the_old_file() {
    let mut injected = BTreeMap::<&str, usize>::new();
    let mut violations = Vec::new();
    for mode in MODES {
        let positions = positions(mode);
        for (call, errnos) in FAULTS {
            for position in positions.get(call).into_iter().flatten() {
                for errno in errnos {
                    let (folder, new) = folder_with_old_file();
                    let options = strace::inject(call, errno, *position);
                    let (ran, text) = trace(&folder, mode, &options);
                    let target = folder.path("d").to_string_lossy().into_owned();
                    let hits = strace::hits(&text, "");
                    let is_hit = |hit: &&str| hit.contains(&target) || hit.contains("\"d/");
                    // The dynamic loader exits with 127.
                    if !hits.iter().any(is_hit) || ran.status.code() == Some(127) {
                        continue;
                    }
                    // A fault of the eventfd, which cannot occur, makes the reactor miss an event.
                    let is_stuck = ran.status.signal() == Some(Signal::KILL.as_raw());
                    if is_stuck && hits.iter().any(|hit| hit.contains("[eventfd]")) {
                        continue;
                    }
                    let is_silent = hits.iter().any(|hit| hit.contains("write(2<"));
                    let fault = Fault {
                        mode,
                        call,
                        errno,
                        is_silent,
                    };
                    *injected.entry(call).or_default() += 1;
                    if let Err(violation) = check(&folder, &fault, &ran, &new) {
                        violations.push(format!(
                            "{mode:?} {call} {errno} {position}: {violation}: {:?}\n{}\n{:?}",
                            ran.status,
                            ran.stderr,
                            names_in(&folder, "d"),
                        ));
                    }
                }
            }
        }
    }
    let total: usize = injected.values().sum();
    println!("{total} faults: {injected:?}");
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
    assert!(total >= 100, "only {total} faults");
    for call in [
        "write",
        "copy_file_range",
        "linkat",
        "renameat",
        "fsync",
        "fallocate",
        "fsetxattr",
        "close",
    ] {
        assert!(injected.contains_key(call), "no fault of {call}");
    }
}

fn names_in(folder: &Folder, directory: &str) -> Vec<String> {
    let entries = fs::read_dir(folder.path(directory)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Options of runs that are killed; each also has `-o d/out`.
const KILLED_MODES: [&[&str]; 4] = [
    &["-n"],
    &["-n", "--tee"],
    &["-n", "--in-place"],
    &["-n", "-a"],
];

/// Arguments and content of runs that are killed.
struct KilledRun {
    folder: Folder,
    mode: &'static [&'static str],
    /// Content of the output file after a complete run.
    new: Vec<u8>,
}

impl KilledRun {
    fn new(folder: Folder, mode: &'static [&'static str]) -> Self {
        let mut run = Self {
            folder,
            mode,
            new: Vec::new(),
        };
        run.folder.write("d/out", OLD);
        run.folder.myapp(run.arguments()).run().code(0);
        run.new = run.folder.read("d/out");
        run.folder.write("d/out", OLD);
        run
    }

    fn arguments(&self) -> Vec<&'static str> {
        [&["cat", "-o", "d/out", "small", "large"], self.mode].concat()
    }

    /// Names in the folder of the output file besides it.
    fn leftover(&self) -> Vec<String> {
        let names = names_in(&self.folder, "d").into_iter();
        names.filter(|name| name != "out").collect()
    }

    /// Checks what a killed run has left, and that another run leaves nothing else. Returns whether
    /// the file was the old one.
    #[track_caller]
    fn check(&self, stdout: &[u8], name: &str) -> bool {
        let Self { folder, mode, new } = self;
        let out = folder.read("d/out");
        let leftover = self.leftover();
        for file in &leftover {
            // The instant between a name and the rename, or the time of a copy in place.
            assert!(
                folder.read(&format!("d/{file}")) == *new,
                "{name}: {file} is incomplete"
            );
        }
        let is_old = out == OLD;
        let is_valid = match mode[1..] {
            ["-a"] => out.starts_with(OLD) && new.starts_with(&out) && leftover.is_empty(),
            ["--in-place"] => is_old || out == *new || leftover.len() == 1,
            _ => is_old || out == *new,
        };
        assert!(is_valid, "{name}: {} bytes, {leftover:?}", out.len());
        assert!(
            mode[1..] != ["--tee"] || new.starts_with(stdout),
            "{name}: stdout"
        );

        folder.write("d/out", OLD);
        folder.myapp(self.arguments()).run().code(0).silent();
        assert!(folder.read("d/out") == *new, "{name}: another run");
        // The copy in place that was killed may have had an input that is lost.
        let kept = if mode[1..] == ["--in-place"] {
            leftover
        } else {
            Vec::new()
        };
        assert_eq!(self.leftover(), kept, "{name}: another run");
        for file in kept {
            fs::remove_file(folder.path("d").join(file)).unwrap();
        }
        folder.write("d/out", OLD);
        is_old
    }
}

#[test]
#[ignore = "slow: 200 runs are killed"]
fn killed_runs_keep_the_old_or_the_new_file() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for mode in KILLED_MODES {
        let (folder, _) = folder_with_old_file();
        let start = Instant::now();
        let run = KilledRun::new(folder, mode);
        let duration = start.elapsed().as_micros() as u64;
        let mut old_files = 0;
        for number in 0..50 {
            let running = run.folder.myapp(run.arguments()).start();
            thread::sleep(Duration::from_micros(random.u64(..duration * 5 / 4)));
            running.signal(Signal::KILL);
            let ran = running.wait();
            let name = format!("seed {seed}, {mode:?}, run {number}");
            old_files += usize::from(run.check(&ran.stdout, &name));
        }
        println!("{mode:?}: {old_files} old files");
        assert!(old_files >= 5, "{mode:?}: the runs are killed too late");
    }
}

#[test]
#[ignore = "peer: strace"]
fn run_killed_at_any_system_call_keeps_the_file() {
    let mut killed = 0;
    for mode in KILLED_MODES {
        let positions = positions(mode);
        let (folder, _) = folder_with_old_file();
        let run = KilledRun::new(folder, mode);
        for (call, found) in &positions {
            for position in found {
                let options = strace::inject_kill(call, *position);
                let (ran, _) = trace(&run.folder, mode, &options);
                killed += usize::from(ran.status.signal() == Some(Signal::KILL.as_raw()));
                run.check(&ran.stdout, &format!("{mode:?}, {call} {position}"));
            }
        }
    }
    println!("{killed} killed runs");
    assert!(killed >= 40, "only {killed} killed runs");
}
