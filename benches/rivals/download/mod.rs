//! `download` compared with other clients that fetch many files, from an nginx on its own core; all
//! clients run on the other core. Ratios are a client's time divided by curl's in the same round:
//! below 1 it is faster than curl.

pub(crate) mod auto;
mod clients;
mod server;
pub(crate) mod slow;
pub(crate) mod usage;

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::measure::Quartiles;
use crate::report::Report;
use clients::{Client, Job};
use server::Nginx;
use usage::Usage;

/// One case: number and size of the files, and number of rounds.
struct Case {
    name: &'static str,
    folder: &'static str,
    count: usize,
    size: usize,
    rounds: usize,
}

const CASES: [Case; 3] = [
    Case {
        name: "10,000 × 4 KiB",
        folder: "small",
        count: 10_000,
        size: 4 << 10,
        rounds: 7,
    },
    Case {
        name: "200 × 1 MiB",
        folder: "medium",
        count: 200,
        size: 1 << 20,
        rounds: 7,
    },
    Case {
        name: "1 × 2 GiB",
        folder: "large",
        count: 1,
        size: 2 << 30,
        rounds: 3,
    },
];

/// Names of the cases on the command line.
pub(crate) const NAMES: [&str; 3] = ["download-small", "download-medium", "download-large"];

/// Time limit of a run in seconds. A client that exceeds it is not run again in the same case.
const MAX_RUN_SECONDS: u64 = 12;

/// Runs the selected cases over http and https.
pub(crate) fn all(report: &mut Report, is_selected: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let folder = folder()?;
    let folder = folder.path();
    let clients = clients::installed(report);
    let Some(nginx) = Nginx::start(&folder.join("nginx"))? else {
        report.skipped("download: requires nginx (apt-get install nginx-light) and taskset");
        return Ok(());
    };
    println!(
        "download, from {}, into {};",
        nginx.version,
        folder.display()
    );
    println!("ratio: the client's time divided by curl's, median [quartiles]\n");
    for (case, _) in CASES
        .iter()
        .zip(NAMES)
        .filter(|(_, name)| is_selected(name))
    {
        case.write(&nginx.root)?;
        for scheme in ["http", "https"] {
            case.run(folder, scheme, &nginx, &clients, report)?;
        }
        fs::remove_dir_all(nginx.root.join(case.folder))?;
    }
    Ok(())
}

/// Creates a directory in memory if possible, so that no disk is measured. `TMPDIR` overrides it.
fn folder() -> std::io::Result<tempfile::TempDir> {
    match std::env::var_os("TMPDIR") {
        None if Path::new("/dev/shm").is_dir() => tempfile::tempdir_in("/dev/shm"),
        _ => tempfile::tempdir(),
    }
}

impl Case {
    fn write(&self, root: &Path) -> anyhow::Result<()> {
        let folder = root.join(self.folder);
        fs::create_dir(&folder)?;
        let block: Vec<u8> = {
            let mut random = fastrand::Rng::with_seed(7);
            (0..self.size.min(1 << 20)).map(|_| random.u8(..)).collect()
        };
        for number in 0..self.count {
            let mut file = File::create(folder.join(format!("{number:05}")))?;
            for _ in 0..self.size / block.len() {
                file.write_all(&block)?;
            }
        }
        Ok(())
    }

    fn run(
        &self,
        folder: &Path,
        scheme: &str,
        nginx: &Nginx,
        clients: &[Client],
        report: &mut Report,
    ) -> anyhow::Result<()> {
        let base = format!("{}/{}", nginx.base(scheme), self.folder);
        let job = Job::write(folder, &base, self.count, &nginx.certificate)?;
        let mut runs: Vec<Vec<Usage>> = clients.iter().map(|_| Vec::new()).collect();
        let mut timed_out = vec![false; clients.len()];
        for round in 0..=self.rounds {
            for ((client, runs), timed_out) in clients.iter().zip(&mut runs).zip(&mut timed_out) {
                if *timed_out {
                    continue;
                }
                match self.once(client, &job) {
                    Ok(None) => *timed_out = true,
                    // The first round is a warm-up.
                    Ok(Some(usage)) if round > 0 => runs.push(usage),
                    Ok(Some(_)) => {}
                    // A sporadic failure does not end the comparison.
                    Err(error) => println!("  round {round}: {} failed: {error}", client.name),
                }
            }
        }
        print_case(
            &format!("download {}, {scheme}", self.name),
            clients,
            &runs,
            report,
        );
        Ok(())
    }

    /// Runs a client once and checks that all files are complete; `None` if it exceeds the time
    /// limit.
    fn once(&self, client: &Client, job: &Job) -> anyhow::Result<Option<Usage>> {
        if job.out.exists() {
            fs::remove_dir_all(&job.out)?;
        }
        fs::create_dir(&job.out)?;
        let usage = usage::measure(&client.script(job), MAX_RUN_SECONDS)?;
        let mut found = 0;
        for entry in fs::read_dir(&job.out)? {
            found += usize::from(entry?.metadata()?.len() == self.size as u64);
        }
        ensure!(
            usage.is_none() || found == self.count,
            "{}: {found} of {} files",
            client.name,
            self.count
        );
        fs::remove_dir_all(&job.out).context("remove downloaded files")?;
        Ok(usage)
    }
}

fn print_case(case: &str, clients: &[Client], runs: &[Vec<Usage>], report: &mut Report) {
    println!("{case}");
    let curl = clients.iter().position(Client::is_curl).unwrap_or(0);
    let mut rows = Vec::new();
    for (Client { name, .. }, usages) in clients.iter().zip(runs) {
        if usages.is_empty() {
            println!("  {name:<32}  no result: failed, or took more than {MAX_RUN_SECONDS} s");
            rows.push(json!({"name": name, "exceeded_seconds": MAX_RUN_SECONDS}));
            continue;
        }
        let pairs = usages.iter().zip(&runs[curl]);
        let ratio = Quartiles::of(pairs.map(|(usage, curl)| usage.wall / curl.wall).collect()).0;
        let median =
            |value: fn(&Usage) -> f64| Quartiles::of(usages.iter().map(value).collect()).0[1];
        let wall = median(|usage| usage.wall);
        let cpu = median(|usage| usage.cpu);
        let memory = median(|usage| usage.memory);
        println!(
            "  {name:<32} {:>7.0} ms  {:>5.2} [{:.2}–{:.2}]  CPU {:>6.0} ms  {:>6.1} MiB",
            wall * 1e3,
            ratio[1],
            ratio[0],
            ratio[2],
            cpu * 1e3,
            memory / 1024.0 / 1024.0
        );
        rows.push(json!({
            "name": name, "seconds": wall, "ratio_to_curl": ratio,
            "cpu_seconds": cpu, "peak_bytes": memory,
        }));
    }
    println!();
    report.record(json!({"case": case, "results": rows}));
}
