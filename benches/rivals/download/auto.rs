//! `-j auto` beside fixed numbers of concurrent files: over loopback, over a link with 50 ms delay,
//! and from servers that limit the connections or the requests of a client.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::server::Nginx;
use super::slow::Link;
use crate::report::Report;

pub(crate) const NAME: &str = "download-auto";

const OURS: &str = env!("CARGO_BIN_EXE_myapp");

/// Numbers of concurrent files.
const JOBS: [&str; 5] = ["auto", "1", "4", "16", "64"];

/// Maximum length of a run in seconds. `RUN_SECONDS` in the environment overrides it.
const MAX_RUN_SECONDS: u64 = 60;

/// Length of each file.
const SIZE: usize = 256 << 10;

/// Number of names. Later files replace earlier ones, so that a run of any length fits into memory.
const NAMES: usize = 4096;

/// Delay in milliseconds and loss in percent of the link, each way.
const LINK: [&str; 2] = ["50", "0"];

const LINK_SERVER: &str = "192.0.2.1";

/// Result of one run.
struct Run {
    jobs: &'static str,
    /// Bytes per second.
    rate: f64,
    saved: u64,
    failed: u64,
    /// Last and highest number of concurrent files.
    chosen: Option<(u64, u64)>,
}

/// Runs all cases.
pub(crate) fn auto_jobs(report: &mut Report) -> anyhow::Result<()> {
    let folder = super::folder()?;
    let folder = folder.path();
    let Some(nginx) = Nginx::start(&folder.join("nginx"))? else {
        report.skipped(&format!(
            "{NAME}: requires nginx (apt-get install nginx-light) and taskset"
        ));
        return Ok(());
    };
    fs::write(nginx.root.join("f"), vec![b'x'; SIZE])?;
    for (case, path) in [
        ("loopback", "f"),
        ("limit_conn 4, 1 s per file", "limit-conn/f"),
        ("limit_req 20/s", "limit-req/f"),
    ] {
        let url = format!("{}/{path}", nginx.base("http"));
        compare(case, &url, folder, &taskset, report)?;
    }
    drop(nginx);
    let link = match Link::start(LINK) {
        Ok(link) => link,
        Err(error) => {
            report.skipped(&format!("{NAME} over a link: {error:#}"));
            return Ok(());
        }
    };
    let at_link = folder.join("link");
    fs::create_dir(&at_link)?;
    let Some(nginx) = Nginx::start_at(&at_link, LINK_SERVER, link.inside("server"))? else {
        return Ok(());
    };
    fs::write(nginx.root.join("f"), vec![b'x'; SIZE])?;
    let url = format!("{}/f", nginx.base("http"));
    let [delay, _] = LINK;
    let case = format!("link, {delay} ms each way");
    compare(&case, &url, folder, &|| link.inside("client"), report)
}

/// Returns a command that runs a program on the first core.
fn taskset() -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]);
    command
}

/// Measures and prints one case.
fn compare(
    case: &str,
    url: &str,
    folder: &Path,
    starter: &dyn Fn() -> Command,
    report: &mut Report,
) -> anyhow::Result<()> {
    let seconds = match std::env::var("RUN_SECONDS") {
        Ok(text) => text.parse().context("RUN_SECONDS")?,
        Err(_) => MAX_RUN_SECONDS,
    };
    let runs: Vec<Run> = JOBS
        .into_iter()
        .map(|jobs| run(jobs, url, folder, starter(), seconds))
        .collect::<Result<_, _>>()?;
    let fixed = runs.iter().filter(|run| run.chosen.is_none());
    let best = fixed.map(|run| run.rate).fold(0.0, f64::max);
    println!(
        "{NAME}: {case}, {} KiB per file, {seconds} s per run",
        SIZE >> 10
    );
    println!("  ratio: the rate divided by that of the best fixed number");
    for run in &runs {
        run.print(best);
    }
    println!();
    let rows: Vec<_> = runs.iter().map(|run| run.to_json(best)).collect();
    report.record(json!({
        "case": format!("{NAME}: {case}"), "seconds": seconds, "results": rows,
    }));
    Ok(())
}

/// Downloads until the time is over, and reads the summary.
fn run(
    jobs: &'static str,
    url: &str,
    folder: &Path,
    mut command: Command,
    seconds: u64,
) -> anyhow::Result<Run> {
    let out = folder.join("out");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    let list = format!(
        "awk 'BEGIN {{ for (n = 0; ; n++) printf \"{url}\\n    out=%d\\n\", n % {NAMES} }}'"
    );
    let script = format!(
        "{list} | timeout -s INT {seconds} {OURS} download -q --json --overwrite -j {jobs} -d {} - \
         2>/dev/null | tail -n 1",
        out.display()
    );
    let output = command.args(["sh", "-c", &script]).output()?;
    let line = String::from_utf8_lossy(&output.stdout);
    let summary: Value =
        serde_json::from_str(&line).with_context(|| format!("{script}: {line}"))?;
    ensure!(summary["event"] == "summary", "{script}: {line}");
    let count = |name: &str| summary[name].as_u64().unwrap_or(0);
    let chosen = &summary["auto_jobs"];
    Ok(Run {
        jobs,
        rate: summary["rate"].as_f64().unwrap_or(0.0),
        saved: count("saved"),
        failed: count("failed"),
        chosen: chosen["last"].as_u64().zip(chosen["max"].as_u64()),
    })
}

impl Run {
    fn print(&self, best: f64) {
        let Self {
            jobs,
            rate,
            saved,
            failed,
            ..
        } = self;
        let chosen = self.chosen.map_or_else(String::new, |(last, max)| {
            format!("  {last} at the end, at most {max}")
        });
        println!(
            "  -j {jobs:<4} {:>9.2} MiB/s  {:>5.2}  {saved:>7} saved  {failed:>5} failed{chosen}",
            rate / f64::from(1 << 20),
            rate / best
        );
    }

    fn to_json(&self, best: f64) -> Value {
        json!({
            "jobs": self.jobs, "bytes_per_second": self.rate, "ratio_to_best_fixed": self.rate / best,
            "saved": self.saved, "failed": self.failed,
            "auto_jobs": self.chosen.map(|(last, max)| json!({"last": last, "max": max})),
        })
    }
}
