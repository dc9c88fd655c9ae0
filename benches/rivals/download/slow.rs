//! One large file over a link with 50 ms delay and 1 % loss each way: with eight connections, with
//! one, and by other clients that split a file.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::server::Nginx;
use crate::echo::peers::build;
use crate::machine;
use crate::measure::{Contender, Timing, run};
use crate::report::Report;

pub(crate) const NAME: &str = "download-slow-link";

const OURS: &str = env!("CARGO_BIN_EXE_myapp");

/// Delay in milliseconds and loss in percent, each way.
const LINK: [&str; 2] = ["50", "1"];

const SERVER: &str = "192.0.2.1";
const SIZE: usize = 8 << 20;
const ROUNDS: usize = 3;

/// Emulated link with a network namespace at each end; removed when dropped.
pub(super) struct Link {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// File behind the link, and its target.
struct Job {
    link: Link,
    url: String,
    file: PathBuf,
    out: PathBuf,
}

/// Runs the comparison if namespaces and interfaces can be created.
pub(crate) fn slow_link(report: &mut Report) -> anyhow::Result<()> {
    let link = match Link::start(LINK) {
        Ok(link) => link,
        Err(error) => {
            let requirements = "root, Linux with /dev/net/tun, and ip of iproute2";
            report.skipped(&format!("{NAME}, which requires {requirements}: {error:#}"));
            return Ok(());
        }
    };
    let folder = tempfile::tempdir()?;
    let Some(nginx) = Nginx::start_at(folder.path(), SERVER, link.inside("server"))? else {
        report.skipped(&format!(
            "{NAME}: requires nginx (apt-get install nginx-light)"
        ));
        return Ok(());
    };
    let job = Job::new(link, folder.path(), &nginx)?;
    job.compare(report)?;
    job.cut()
}

impl Link {
    /// Starts a link with this delay in milliseconds and loss in percent, each way.
    pub(super) fn start(link: [&str; 2]) -> anyhow::Result<Self> {
        let program = build("slow-link")?.join("slow-link");
        let name = format!("slow-{}", std::process::id());
        let mut command = Command::new(program);
        command
            .arg(&name)
            .args(link)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // In its own process group, so that Ctrl-C does not end it before it has cleaned up: it
        // removes the namespaces when its stdin is closed.
        let mut child = command.stderr(Stdio::piped()).process_group(0).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        if line.trim() == "ready" {
            return Ok(Self { name, child, stdin });
        }
        let output = child.wait_with_output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::bail!(
            "{}",
            error
                .lines()
                .next()
                .unwrap_or_default()
                .trim_start_matches("Error: ")
        )
    }

    /// Returns a command that runs a program at one end.
    pub(super) fn inside(&self, end: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{end}", self.name)]);
        command
    }

    /// Returns the client ports of the server's established connections.
    fn ports(&self) -> anyhow::Result<Vec<String>> {
        let mut command = self.inside("server");
        let output = command
            .args(["ss", "-Htn", "state", "established"])
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        let port = |line: &str| {
            Some(
                line.split_whitespace()
                    .last()?
                    .rsplit(':')
                    .next()?
                    .to_owned(),
            )
        };
        Ok(text.lines().filter_map(port).collect())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The end of its stdin makes it remove the namespaces.
        self.stdin = None;
        let _ = self.child.wait();
    }
}

impl Job {
    fn new(link: Link, folder: &Path, nginx: &Nginx) -> anyhow::Result<Self> {
        let file = nginx.root.join("f");
        let mut random = fastrand::Rng::with_seed(7);
        let bytes: Vec<u8> = (0..SIZE).map(|_| random.u8(..)).collect();
        fs::File::create(&file)?.write_all(&bytes)?;
        let url = format!("{}/f", nginx.base("http"));
        let out = folder.join("out");
        Ok(Self {
            link,
            url,
            file,
            out,
        })
    }

    /// Returns a contender that fetches the file and compares it with the original.
    fn contender(&self, name: &str, script: &str) -> Contender {
        let out = self.out.display();
        let fetch = script.replace("OUT", &out.to_string());
        let fetch = fetch.replace("URL", &self.url);
        let script = format!(
            "ip netns exec {}-client {fetch} && cmp {out}/f {}",
            self.link.name,
            self.file.display()
        );
        Contender {
            name: name.to_owned(),
            script,
        }
    }

    fn contenders(&self, report: &Report) -> Vec<Contender> {
        let eight = format!("{OURS} download -q -s 8 -k 128K -d OUT URL");
        let one = format!("{OURS} download -q -d OUT URL");
        let mut all = vec![
            self.contender("myapp -s 8", &eight),
            self.contender("myapp, one connection", &one),
        ];
        for (program, package, script) in [
            (
                "aria2c",
                "aria2",
                "aria2c --no-conf -q -s 8 -x 8 -k 1M --file-allocation=none -d OUT URL",
            ),
            ("axel", "axel", "axel -q -n 8 -o OUT/f URL"),
        ] {
            match machine::version(program) {
                Some(_) => all.push(self.contender(&format!("{program}, 8 connections"), script)),
                None => report.skipped(&format!("{program} (apt-get install {package})")),
            }
        }
        all
    }

    fn clear_output(&self) -> anyhow::Result<()> {
        if self.out.exists() {
            fs::remove_dir_all(&self.out)?;
        }
        Ok(fs::create_dir(&self.out)?)
    }

    /// Measures interleaved, without a warm-up round: the link dominates, and a round takes a
    /// minute.
    fn compare(&self, report: &mut Report) -> anyhow::Result<()> {
        let contenders = self.contenders(report);
        let mut times = vec![Vec::new(); contenders.len()];
        for _ in 0..ROUNDS {
            for (contender, times) in contenders.iter().zip(&mut times) {
                self.clear_output()?;
                times.push(run(&contender.script)?.as_secs_f64());
            }
        }
        let timings = Timing::relative_to_first(&contenders, times);
        let [delay, loss] = LINK;
        let size = SIZE >> 20;
        report.add(
            &format!("{NAME}: {size} MiB, {delay} ms and {loss} % loss each way"),
            &timings,
        );
        Ok(())
    }

    /// Cuts one connection during the transfer; the file must still be exact.
    fn cut(&self) -> anyhow::Result<()> {
        self.clear_output()?;
        let script = format!("{OURS} download -s 8 -k 128K -d OUT URL");
        let Contender { script, .. } = self.contender("", &script);
        let mut command = Command::new("sh");
        let child = command
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let child = child.spawn()?;
        let start = Instant::now();
        let ports = loop {
            let ports = self.link.ports()?;
            if ports.len() == 8 {
                break ports;
            }
            ensure!(
                start.elapsed() < Duration::from_secs(60),
                "{} connections",
                ports.len()
            );
            sleep(Duration::from_millis(20));
        };
        let mut cut = self.link.inside("server");
        // For the other address family `ss` reports that there is no such port.
        cut.args(["ss", "-K", "dport", "=", &ports[4]]).output()?;
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{script}: {}: {stderr}",
            output.status
        );
        ensure!(
            stderr.contains("retrying a segment"),
            "no connection was cut: {stderr}"
        );
        println!("one of eight connections cut: the file is exact\n{stderr}");
        Ok(())
    }
}
