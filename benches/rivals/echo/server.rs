//! Server processes under test.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::SERVERS;
use super::peers::pinned;

/// Server process pinned to a core; killed when dropped.
pub(super) struct Server {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts a program that prints `listening on tcp://ADDRESS`.
    pub(super) fn announced(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
        let address = line.trim_end().strip_prefix("listening on tcp://");
        let address = address
            .with_context(|| format!("unexpected first line of {name}: {line:?}"))?
            .parse()?;
        Ok(Self {
            name: name.into(),
            address,
            child,
        })
    }

    /// Starts a program with a fixed port (`PORT` in an argument).
    pub(super) fn on_port(name: &str, program: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let port = address.port().to_string();
        let arguments = arguments
            .iter()
            .map(|argument| argument.replace("PORT", &port));
        let mut command = pinned(SERVERS, program.as_ref());
        let child = command.args(arguments).stderr(Stdio::null()).spawn()?;
        let server = Self {
            name: name.into(),
            address,
            child,
        };
        let start = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(
                start.elapsed() < Duration::from_secs(5),
                "{name} does not listen"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Returns the CPU seconds of the process and its reaped children.
    pub(super) fn cpu(&self) -> f64 {
        let process = format!("/proc/{}", self.child.id());
        let threads = fs::read_dir(format!("{process}/task"))
            .into_iter()
            .flatten()
            .flatten();
        let times = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<f64>().ok()
        });
        times.sum::<f64>() / 1e9 + children(&process)
    }

    /// Returns the anonymous resident memory in bytes.
    pub(super) fn memory(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        kib.unwrap_or(f64::NAN) * 1024.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that the process has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU seconds of all reaped children of this process.
pub(super) fn cpu_of_children() -> f64 {
    children("/proc/self")
}

/// Fields 16 and 17 of `stat` in hundredths of a second; field 2 may contain spaces.
fn children(process: &str) -> f64 {
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields
        .skip(13)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}
