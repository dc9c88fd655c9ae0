//! What a figure depends on: the machine, its kernel, the rivals' versions.

use std::fs;
use std::process::Command;

/// The processor, the number of processors and the kernel, in one line.
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

/// The first line with a number that a program prints for `--version`, or for `-V` where it knows
/// only that; `None` where it is not installed.
pub(crate) fn version(program: &str) -> Option<String> {
    let mut said = ["--version", "-V"].into_iter().filter_map(|flag| {
        let output = Command::new(program).arg(flag).output().ok()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text
            .lines()
            .find(|line| line.contains(|c: char| c.is_ascii_digit()));
        line.filter(|_| output.status.success()).map(str::to_owned)
    });
    said.next()
}
