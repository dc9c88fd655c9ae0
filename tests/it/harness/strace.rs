//! Faults injected into system calls by strace(1).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

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

/// Returns the lines of injected faults that contain `text`.
pub fn hits<'a>(trace: &'a str, text: &str) -> Vec<&'a str> {
    let is_hit = |line: &&str| line.contains("(INJECTED)") && line.contains(text);
    trace.lines().filter(is_hit).collect()
}
