//! Echo servers on one core under a client on another.
//!
//! The peers are a lower bound (`benches/peers/raw`: one thread of edge-triggered epoll without
//! abstractions), a typical implementation (`benches/peers/tokio-echo`), and installed programs
//! (ncat, socat). The first two are built as separate packages.

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

/// CPU cores of servers and clients.
const SERVERS: &str = "0";
const CLIENTS: &str = "1";

/// Many short rounds, because the machine's speed varies from second to second.
const ROUNDS: usize = 21;
const SECONDS: &str = "0.5";

/// Longer for load clients: ours includes the time to connect, the raw client does not.
const LOAD_ROUNDS: usize = 11;
const LOAD_SECONDS: &str = "2";

/// Paths of the built peers.
pub(crate) struct Setting {
    raw: PathBuf,
    tokio: Option<PathBuf>,
}

impl Setting {
    pub(crate) fn new(report: &Report) -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism()?.get();
        anyhow::ensure!(cores > 1, "server and client need one core each");
        myapp::internals::nofile::raise_limit()?;
        let tokio = build("tokio-echo").inspect_err(|error| report.skipped(&error.to_string()));
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

    /// Returns our server, then the peers that use one thread for all connections.
    fn servers(&self) -> anyhow::Result<Vec<Server>> {
        let mut servers = vec![self.ours()?, self.raw()?];
        if let Some(tokio) = &self.tokio {
            let mut tokio = pinned(SERVERS, &tokio.join("tokio-echo"));
            servers.push(Server::announced("tokio", &mut tokio)?);
        }
        Ok(servers)
    }
}

/// Compares request rates and CPU time per request.
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
        report.skipped("ncat (Debian package ncat)");
    }
    if let Some(version) = machine::version("socat") {
        let listen = "TCP-LISTEN:PORT,bind=127.0.0.1,fork,reuseaddr,backlog=4096,nodelay";
        servers.push(Server::on_port(
            version.split(" on ").next().unwrap_or(&version),
            "socat",
            &[listen, "PIPE"],
        )?);
    } else {
        report.skipped("socat (Debian package socat)");
    }
    for connections in ["1", "50", "1000"] {
        // ncat and socat start one process per connection.
        let count = if connections == "1000" {
            setting.servers()?.len()
        } else {
            servers.len()
        };
        let names: Vec<_> = servers[..count]
            .iter()
            .map(|server| server.name.clone())
            .collect();
        let rows = in_turn(&names, ROUNDS, |number| {
            let server = &servers[number];
            let before = server.cpu();
            let load = setting.raw_load(server, connections, SECONDS, &[])?;
            // Wait until the processes of single connections have been reaped and counted.
            std::thread::sleep(std::time::Duration::from_millis(50));
            Ok(Sample {
                rate: load.rate(),
                cpu: (server.cpu() - before) / load.answered,
            })
        })?;
        rates::print(
            report,
            &format!("echo of 64 bytes, {connections} connections"),
            &rows,
        );
    }
    costs::measure(&setting, report)
}

/// Compares our load client with the raw one, both against the raw server.
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
        rates::print(
            report,
            &format!("load of 64 bytes, {connections} connections"),
            &rows,
        );
    }
    Ok(())
}

/// Result of one run of a load client.
struct Load {
    answered: f64,
    seconds: f64,
    /// Median latency in seconds; 0 if not measured.
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
        let numbers: Vec<f64> = text
            .split_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let &[answered, seconds, median] = &numbers[..] else {
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

/// Name of a server with its values: label, value, unit.
type Values = (String, Vec<(&'static str, f64, &'static str)>);

/// Prints and records single values.
fn print_values(report: &mut Report, case: &str, rows: &[Values]) {
    println!("{case}");
    for (name, values) in rows {
        let values = values
            .iter()
            .map(|(label, value, unit)| format!("{label} {value:.1} {unit}"));
        println!("  {name:<28} {}", values.collect::<Vec<_>>().join(", "));
    }
    println!();
    let row = |(name, values): &Values| {
        let values = values
            .iter()
            .map(|(label, value, unit)| json!([label, value, unit]));
        json!({"name": name, "values": values.collect::<Vec<_>>()})
    };
    report.record(json!({"case": case, "results": rows.iter().map(row).collect::<Vec<_>>()}));
}
