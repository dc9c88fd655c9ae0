//! Echo servers on one core under a client on another.
//!
//! The rivals are the fastest there can be (`benches/peers/raw`: one thread, edge-triggered epoll,
//! nothing else), what most would write (`benches/peers/tokio-echo`), and what is installed
//! (ncat, socat). They are built here, as packages of their own.

mod costs;
pub(crate) mod peers;
mod rates;
mod server;

use std::path::PathBuf;

use serde_json::json;

use crate::machine;
use crate::report::Report;
use peers::{build, pinned};
use rates::{Sample, in_turn};
use server::Server;

const OURS: &str = env!("CARGO_BIN_EXE_myapp");

const SERVE: [&str; 3] = ["serve", "-q", "127.0.0.1:0"];

/// The cores of the servers and of the clients.
const SERVERS: &str = "0";
const CLIENTS: &str = "1";

/// Many and short, as the machine is not the same from one second to the next.
const ROUNDS: usize = 21;
const SECONDS: &str = "0.5";

/// Longer where our client is measured: it counts the time in which it connects, the raw one not.
const LOAD_ROUNDS: usize = 11;
const LOAD_SECONDS: &str = "2";

/// What all comparisons need.
pub(crate) struct Setting {
    raw: PathBuf,
    tokio: Option<PathBuf>,
}

impl Setting {
    pub(crate) fn new(report: &Report) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        anyhow::ensure!(cores > 1, "a server and its client need a core each");
        myapp::limits::nofile::raise_limit()?;
        let tokio = build("tokio-echo").inspect_err(|error| report.left_out(&error.to_string()));
        Ok(Self {
            raw: build("raw")?,
            tokio: tokio.ok(),
        })
    }

    fn ours(&self) -> anyhow::Result<Server> {
        let mut ours = pinned(SERVERS, OURS.as_ref());
        Server::announced("myapp serve", ours.args(SERVE))
    }

    fn raw(&self) -> anyhow::Result<Server> {
        Server::announced(
            "raw epoll",
            &mut pinned(SERVERS, &self.raw.join("raw-echo")),
        )
    }

    /// Ours, then the rivals that have a thread for all connections.
    fn servers(&self) -> anyhow::Result<Vec<Server>> {
        let mut servers = vec![self.ours()?, self.raw()?];
        if let Some(tokio) = &self.tokio {
            let mut tokio = pinned(SERVERS, &tokio.join("tokio-echo"));
            servers.push(Server::announced("tokio", &mut tokio)?);
        }
        Ok(servers)
    }
}

/// Requests a second, and the processor's time for each.
pub(crate) fn echo(report: &mut Report) -> anyhow::Result<()> {
    let setting = Setting::new(report)?;
    let mut servers = setting.servers()?;
    if let Some(version) = machine::version("ncat") {
        let arguments = [
            "-l",
            "-k",
            "-m",
            "100",
            "-e",
            "/bin/cat",
            "127.0.0.1",
            "PORT",
        ];
        servers.push(Server::on_port(&version, "ncat", &arguments)?);
    } else {
        report.left_out("ncat (Debian package ncat)");
    }
    if let Some(version) = machine::version("socat") {
        let listen = "TCP-LISTEN:PORT,bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay";
        servers.push(Server::on_port(
            version.split(" on ").next().unwrap_or(&version),
            "socat",
            &[listen, "PIPE"],
        )?);
    } else {
        report.left_out("socat (Debian package socat)");
    }
    for connections in ["1", "50", "1000"] {
        // ncat and socat start a process for each connection.
        let most = if connections == "1000" {
            setting.servers()?.len()
        } else {
            servers.len()
        };
        let names: Vec<_> = servers[..most]
            .iter()
            .map(|server| server.name.clone())
            .collect();
        let rows = in_turn(&names, ROUNDS, |number| {
            let server = &servers[number];
            let before = server.cpu();
            let load = setting.raw_load(server, connections, SECONDS, &[])?;
            // Until the processes of single connections have ended and are counted.
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok(Sample {
                rate: load.rate(),
                cpu: (server.cpu() - before) / load.answered,
            })
        })?;
        rates::tell(
            report,
            &format!("echo of 64 bytes, {connections} connections"),
            &rows,
        );
    }
    costs::tell(&setting, report)
}

/// Our load client beside the raw one, both on the raw server.
pub(crate) fn load(report: &mut Report) -> anyhow::Result<()> {
    let setting = Setting::new(report)?;
    let server = setting.raw()?;
    let names = ["myapp echo".to_owned(), "raw epoll".to_owned()];
    for connections in ["1", "50", "1000"] {
        let rows = in_turn(&names, LOAD_ROUNDS, |number| {
            let before = server::cpu_of_children();
            let load = match number {
                0 => our_load(&server, connections)?,
                _ => setting.raw_load(&server, connections, LOAD_SECONDS, &[])?,
            };
            let cpu = server::cpu_of_children() - before;
            Ok(Sample {
                rate: load.rate(),
                cpu: cpu / load.answered,
            })
        })?;
        rates::tell(
            report,
            &format!("load of 64 bytes, {connections} connections"),
            &rows,
        );
    }
    Ok(())
}

/// What a client says of its run.
struct Load {
    answered: f64,
    seconds: f64,
    /// The median in seconds, where it was asked for.
    median: f64,
}

impl Load {
    fn rate(&self) -> f64 {
        self.answered / self.seconds
    }
}

impl Setting {
    fn raw_load(
        &self,
        server: &Server,
        connections: &str,
        seconds: &str,
        flags: &[&str],
    ) -> anyhow::Result<Load> {
        let address = server.address.to_string();
        let mut client = pinned(CLIENTS, &self.raw.join("raw-load"));
        client
            .args([address.as_str(), connections, seconds, "64"])
            .args(flags);
        let text = peers::output(client)?;
        let figures: Vec<f64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[answered, seconds, median] = &figures[..] else {
            anyhow::bail!("raw-load: {text}")
        };
        Ok(Load {
            answered,
            seconds,
            median: median / 1e9,
        })
    }
}

fn our_load(server: &Server, connections: &str) -> anyhow::Result<Load> {
    let mut client = pinned(CLIENTS, OURS.as_ref());
    client.args(["echo", "-q", "-c", &server.address.to_string(), "--json"]);
    client.args(["--connections", connections, "--duration", LOAD_SECONDS]);
    let report: serde_json::Value = serde_json::from_str(&peers::output(client)?)?;
    let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
    Ok(Load {
        answered: number(&report["answered"]),
        seconds: number(&report["elapsed"]),
        median: number(&report["service"]["p50"]),
    })
}

/// A name and its single figures: what, how much, of which unit.
type Values = (String, Vec<(&'static str, f64, &'static str)>);

/// Prints single figures and keeps them.
fn tell_values(report: &mut Report, case: &str, rows: &[Values]) {
    println!("{case}");
    for (name, values) in rows {
        let values = values
            .iter()
            .map(|(what, value, unit)| format!("{what} {value:.1} {unit}"));
        println!("  {name:<28} {}", values.collect::<Vec<_>>().join(", "));
    }
    println!();
    let row = |(name, values): &Values| {
        let values = values
            .iter()
            .map(|(what, value, unit)| json!([what, value, unit]));
        json!({"name": name, "values": values.collect::<Vec<_>>()})
    };
    report.keep(json!({"case": case, "figures": rows.iter().map(row).collect::<Vec<_>>()}));
}
