//! Resource usage of one run: time, CPU time, memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use nix::sys::resource::{UsageWho, getrusage};

/// First argument of this program when it runs and measures another one. `getrusage` reports the
/// peak memory of all children together, so each run has its own parent.
pub(crate) const MEASURE: &str = "--measure";

/// Exit code of timeout(1) after a timeout.
const TIMED_OUT: i32 = 124;

/// Resource usage of one run in seconds and bytes. Memory is that of the largest process.
pub(crate) struct Usage {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
}

/// Runs `script` with `sh -c` on the first core; `None` if it takes more than `limit` seconds.
pub(crate) fn measure(script: &str, limit: u64) -> anyhow::Result<Option<Usage>> {
    let mut command = Command::new("taskset");
    command.args(["-c", "0", "timeout", &limit.to_string()]);
    command
        .arg(std::env::current_exe()?)
        .args([MEASURE, script]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("start taskset")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.code() == Some(TIMED_OUT) {
        return Ok(None);
    }
    ensure!(
        output.status.success(),
        "{script}: {}: {text}",
        output.status
    );
    let last = text.lines().last().unwrap_or_default();
    let numbers: Result<Vec<f64>, _> = last.split(' ').map(str::parse).collect();
    match numbers.as_deref() {
        Ok(&[wall, cpu, memory]) => Ok(Some(Usage { wall, cpu, memory })),
        _ => anyhow::bail!("{script}: unexpected output {text:?}"),
    }
}

/// Runs `script` and prints its usage, for [`measure`] in the parent process.
pub(crate) fn child(script: &str) -> anyhow::Result<()> {
    let mut command = Command::new("sh");
    command
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().with_context(|| format!("run {script}"))?;
    let wall = start.elapsed().as_secs_f64();
    ensure!(status.success(), "{script}: {status}");
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    println!(
        "{wall} {} {}",
        seconds[0] + seconds[1],
        usage.max_rss() * 1024
    );
    Ok(())
}
