//! Faults injected into system calls by strace(1).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

use super::program::only_child;
use super::{RunOutput, Running};

/// Time after which a traced run is stuck.
const STUCK_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns an strace command that writes a trace with the paths of descriptors to `trace`.
pub fn command(trace: &Path) -> Command {
    let mut command = Command::new("strace");
    command.args(["-f", "-y", "-qq", "-o"]).arg(trace);
    command
}

/// Returns the options that let a call fail once.
pub fn inject(call: &str, errno: &str, position: usize) -> [String; 2] {
    [
        format!("--trace={call}"),
        format!("--inject={call}:error={errno}:when={position}"),
    ]
}

/// Returns the options that kill a run at a call, before the call is executed.
pub fn inject_kill(call: &str, position: usize) -> [String; 2] {
    [
        format!("--trace={call}"),
        format!("--inject={call}:signal=KILL:when={position}"),
    ]
}

/// Returns the positions of each call whose line in the trace contains `text`, counted per thread as
/// strace does.
pub fn positions(trace: &str, text: &str) -> BTreeMap<String, BTreeSet<usize>> {
    let mut counts = BTreeMap::<(&str, &str), usize>::new();
    let mut positions = BTreeMap::<String, BTreeSet<usize>>::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else {
            continue;
        };
        let Some((call, _)) = rest.trim_start().split_once('(') else {
            continue;
        };
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        if line.contains(text) {
            positions.entry(call.to_owned()).or_default().insert(*count);
        }
    }
    positions
}

/// Waits for a traced run, and kills the program if it does not end.
#[track_caller]
pub fn kill_when_stuck(running: Running) -> RunOutput {
    let strace = running.id();
    let (ended, end) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if end.recv_timeout(STUCK_TIMEOUT) == Err(RecvTimeoutError::Timeout)
            && let Some(child) = only_child(strace)
        {
            let _ = kill_process(child, Signal::KILL);
        }
    });
    let ran = running.wait();
    drop(ended);
    watchdog.join().unwrap();
    ran
}

/// Returns the lines of injected faults that contain `text`.
pub fn hits<'a>(trace: &'a str, text: &str) -> Vec<&'a str> {
    let is_hit = |line: &&str| line.contains("(INJECTED)") && line.contains(text);
    trace.lines().filter(is_hit).collect()
}
