//! `download` beside the programs that fetch many files at once, from an nginx on a core of its
//! own; all of them on the other. Figures are a client's time divided by curl's in the same round:
//! below 1 it is faster than curl.

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

/// What is fetched: a name for the case, how many files, of how many bytes, in how many rounds.
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

/// The names of the cases, to be asked for one by one.
pub(crate) const NAMES: [&str; 3] = ["download-small", "download-medium", "download-large"];

/// Who takes longer than this in a case, in seconds, is given up and not run again in it.
const HOPELESS: u64 = 12;

/// Runs the cases that are `asked` for, over http and over https.
pub(crate) fn all(report: &mut Report, asked: impl Fn(&str) -> bool) -> anyhow::Result<()> {
    let folder = folder()?;
    let folder = folder.path();
    let clients = clients::installed(report);
    let Some(nginx) = Nginx::start(&folder.join("nginx"))? else {
        report
            .left_out("all of download: it needs nginx (apt-get install nginx-light) and taskset");
        return Ok(());
    };
    println!(
        "download, from {}, into {};",
        nginx.version,
        folder.display()
    );
    println!("ratio: the client's time divided by curl's, median [quartiles]\n");
    for (case, _) in CASES.iter().zip(NAMES).filter(|(_, name)| asked(name)) {
        case.write(&nginx.root)?;
        for scheme in ["http", "https"] {
            case.run(folder, scheme, &nginx, &clients, report)?;
        }
        fs::remove_dir_all(nginx.root.join(case.folder))?;
    }
    Ok(())
}

/// A folder in memory where there is one, so that no disk is measured: `TMPDIR` names another.
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
        let mut hopeless = vec![false; clients.len()];
        for round in 0..=self.rounds {
            for ((client, runs), hopeless) in clients.iter().zip(&mut runs).zip(&mut hopeless) {
                if *hopeless {
                    continue;
                }
                match self.once(client, &job) {
                    Ok(None) => *hopeless = true,
                    // The first round warms up.
                    Ok(Some(usage)) if round > 0 => runs.push(usage),
                    Ok(Some(_)) => {}
                    // One that fails now and then does not end the comparison.
                    Err(error) => println!("  in round {round} {} failed: {error}", client.name),
                }
            }
        }
        show(
            &format!("download {}, {scheme}", self.name),
            clients,
            &runs,
            report,
        );
        Ok(())
    }

    /// One run, which must leave all files behind; they are then removed. `None` if it takes too
    /// long.
    fn once(&self, client: &Client, job: &Job) -> anyhow::Result<Option<Usage>> {
        if job.out.exists() {
            fs::remove_dir_all(&job.out)?;
        }
        fs::create_dir(&job.out)?;
        let usage = usage::measure(&client.script(job), HOPELESS)?;
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
        fs::remove_dir_all(&job.out).context("remove what was fetched")?;
        Ok(usage)
    }
}

fn show(case: &str, clients: &[Client], runs: &[Vec<Usage>], report: &mut Report) {
    println!("{case}");
    let curl = clients.iter().position(Client::is_curl).unwrap_or(0);
    let mut rows = Vec::new();
    for (Client { name, .. }, its) in clients.iter().zip(runs) {
        if its.is_empty() {
            println!("  {name:<32}  not done: it failed, or took more than {HOPELESS} s");
            rows.push(json!({"name": name, "not_done_in_seconds": HOPELESS}));
            continue;
        }
        let pairs = its.iter().zip(&runs[curl]);
        let ratio = Quartiles::of(pairs.map(|(its, curls)| its.wall / curls.wall).collect()).0;
        let median =
            |figure: fn(&Usage) -> f64| Quartiles::of(its.iter().map(figure).collect()).0[1];
        let (wall, cpu, memory) = (median(|u| u.wall), median(|u| u.cpu), median(|u| u.memory));
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
    report.keep(json!({"case": case, "figures": rows}));
}
