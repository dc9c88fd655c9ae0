//! One large file over a link that takes 50 ms each way and loses one packet in a hundred: over
//! eight connections and over one, and by the others that divide a file.

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
use crate::measure::{Contender, Figures, run};
use crate::report::Report;

pub(crate) const NAME: &str = "download-slow-link";

const OURS: &str = env!("CARGO_BIN_EXE_myapp");

/// Milliseconds each way, and packets of a hundred that are lost.
const LINK: [&str; 2] = ["50", "1"];

const SERVER: &str = "192.0.2.1";
const SIZE: usize = 8 << 20;
const ROUNDS: usize = 3;

/// The link, and the namespaces at its ends; all of it goes when this is dropped.
struct Link {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
}

/// A file behind the link, and where it is fetched to.
struct Job {
    link: Link,
    url: String,
    file: PathBuf,
    out: PathBuf,
}

/// Runs it, where this machine lets namespaces and interfaces be made.
pub(crate) fn slow_link(report: &mut Report) -> anyhow::Result<()> {
    let link = match Link::start() {
        Ok(link) => link,
        Err(error) => {
            let needs = "root, Linux with /dev/net/tun, and ip of iproute2";
            report.left_out(&format!("{NAME}, which needs {needs}: {error:#}"));
            return Ok(());
        }
    };
    let folder = tempfile::tempdir()?;
    let Some(nginx) = Nginx::start_at(folder.path(), SERVER, link.inside("server"))? else {
        report.left_out(&format!(
            "{NAME}: it needs nginx (apt-get install nginx-light)"
        ));
        return Ok(());
    };
    let job = Job::new(link, folder.path(), &nginx)?;
    job.compare(report)?;
    job.cut()
}

impl Link {
    fn start() -> anyhow::Result<Self> {
        let program = build("slow-link")?.join("slow-link");
        let name = format!("slow-{}", std::process::id());
        let mut command = Command::new(program);
        command
            .arg(&name)
            .args(LINK)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        // Ctrl-C is not for it: it ends, and removes all, when its stdin does.
        let mut child = command.stderr(Stdio::piped()).process_group(0).spawn()?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("its stdout")?).read_line(&mut line)?;
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

    /// What runs a program at one end.
    fn inside(&self, end: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-{end}", self.name)]);
        command
    }

    /// The connections that the server has, by the client's port.
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
        // It removes the namespaces when nobody needs them any more.
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
        let (url, out) = (format!("{}/f", nginx.base("http")), folder.join("out"));
        Ok(Self {
            link,
            url,
            file,
            out,
        })
    }

    /// A program in this version that fetches the file into the folder, which must then hold it.
    fn contender(&self, name: &str, script: &str) -> Contender {
        let (out, url) = (self.out.display(), &self.url);
        let fetch = script.replace("OUT", &out.to_string()).replace("URL", url);
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
                None => report.left_out(&format!("{program} (apt-get install {package})")),
            }
        }
        all
    }

    fn make_room(&self) -> anyhow::Result<()> {
        if self.out.exists() {
            fs::remove_dir_all(&self.out)?;
        }
        Ok(fs::create_dir(&self.out)?)
    }

    /// As elsewhere, but without a round that is not counted: there is nothing to warm up, and a
    /// minute is a long time.
    fn compare(&self, report: &mut Report) -> anyhow::Result<()> {
        let contenders = self.contenders(report);
        let mut times = vec![Vec::new(); contenders.len()];
        for _ in 0..ROUNDS {
            for (contender, times) in contenders.iter().zip(&mut times) {
                self.make_room()?;
                times.push(run(&contender.script)?.as_secs_f64());
            }
        }
        let figures = Figures::beside_the_first(&contenders, times);
        let [delay, loss] = LINK;
        let size = SIZE >> 20;
        report.add(
            &format!("{NAME}: {size} MiB, {delay} ms and {loss} % loss each way"),
            &figures,
        );
        Ok(())
    }

    /// Cuts one of the connections while the file comes; it must be exact all the same.
    fn cut(&self) -> anyhow::Result<()> {
        self.make_room()?;
        let script = format!("{OURS} download -s 8 -k 128K -d OUT URL");
        let Contender { script, .. } = self.contender("", &script);
        let mut command = Command::new("sh");
        let child = command
            .args(["-c", &script])
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let (child, start) = (child.spawn()?, Instant::now());
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
        // That of another family of addresses has no such port, which it tells.
        cut.args(["ss", "-K", "dport", "=", &ports[4]]).output()?;
        let output = child.wait_with_output()?;
        let says = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{script}: {}: {says}",
            output.status
        );
        ensure!(
            says.contains("trying a part again"),
            "no connection was cut: {says}"
        );
        println!("with one of the eight connections cut on the way: the file is exact\n{says}");
        Ok(())
    }
}
