//! Machine, kernel and versions of the programs.

use std::fs;
use std::process::Command;

/// Returns CPU model, number of cores and kernel in one line.
pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {model}, Linux {}", kernel.trim())
}

/// Returns the first line with a digit that a program prints for `--version` or `-V`; `None` if it
/// is not installed.
pub(crate) fn version(program: &str) -> Option<String> {
    ["--version", "-V"].into_iter().find_map(|flag| {
        let output = Command::new(program).arg(flag).output().ok()?;
        if !output.status.success() {
            return None;
        }
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()))
            .map(str::to_owned)
    })
}
