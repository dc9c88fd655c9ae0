//! What one run takes: time, processor time, memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use nix::sys::resource::{UsageWho, getrusage};

/// The first argument of this program when it runs another one and tells what that took. The
/// system tells the peak of all children together, so each run has a parent of its own.
pub(crate) const MEASURE: &str = "--measure";

/// How timeout(1) ends when it has ended what it ran.
const TIMED_OUT: i32 = 124;

/// The figures of one run: seconds, and bytes. Memory is that of the largest process.
pub(crate) struct Usage {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
}

/// Runs `script` by `sh -c` on the first core; `None` if it takes more than `limit` seconds.
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
    let figures: Result<Vec<f64>, _> = last.split(' ').map(str::parse).collect();
    match figures.as_deref() {
        Ok(&[wall, cpu, memory]) => Ok(Some(Usage { wall, cpu, memory })),
        _ => anyhow::bail!("{script}: no figures in {text:?}"),
    }
}

/// Runs `script` and prints what it took: the other side of [`measure`].
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
