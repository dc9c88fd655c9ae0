//! Two network namespaces with a slow, lossy link between them:
//!
//! ```sh
//! slow-link NAME DELAY_IN_MILLISECONDS LOSS_IN_PERCENT
//! ```
//!
//! creates the namespaces `NAME-server` (192.0.2.1) and `NAME-client` (192.0.2.2), prints `ready`,
//! and forwards packets with the delay and the loss each way until its stdin ends; then both are
//! removed. It requires root and `ip` of iproute2.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Ends of the link with their addresses (RFC 5737).
const ENDS: [(&str, &str); 2] = [("server", "192.0.2.1/30"), ("client", "192.0.2.2/30")];

/// Route of the interface.
const ROUTE: &str = "192.0.2.0/30";

/// Name of the interface in each namespace.
const INTERFACE: &str = "slow";

/// Packets in flight in one direction; further ones are dropped, as on any link.
const MAX_IN_FLIGHT: usize = 4096;

/// Maximum packet size.
const MTU: usize = 1500;

/// Delay and loss of the link.
#[derive(Clone, Copy)]
struct Link {
    delay: Duration,
    /// Fraction of lost packets.
    loss: f64,
}

/// Network namespace; removed when dropped.
struct Namespace(String);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [name, delay, loss] = &arguments[..] else {
        anyhow::bail!("usage: slow-link NAME DELAY_IN_MILLISECONDS LOSS_IN_PERCENT");
    };
    let delay = Duration::from_millis(delay.parse()?);
    let link = Link {
        delay,
        loss: loss.parse::<f64>()? / 100.0,
    };
    let namespaces = ENDS.map(|(end, _)| Namespace(format!("{name}-{end}")));
    let mut devices = Vec::new();
    for (namespace, (_, address)) in namespaces.iter().zip(ENDS) {
        devices.push(Arc::new(namespace.create(address)?));
    }
    for (seed, from, to) in [(1, 0, 1), (2, 1, 0)] {
        link.forward(seed, Arc::clone(&devices[from]), Arc::clone(&devices[to]));
    }
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

impl Namespace {
    /// Creates the namespace and an interface with this address.
    fn create(&self, address: &str) -> anyhow::Result<SyncDevice> {
        ip(&["netns", "add", &self.0])?;
        let device = self.device()?;
        let inside = |line: &[&str]| ip(&[&["-n", &self.0], line].concat());
        inside(&["address", "add", address, "dev", INTERFACE])?;
        inside(&["link", "set", INTERFACE, "mtu", &MTU.to_string(), "up"])?;
        // The most common congestion control: BBR would hardly react to the loss.
        let route = [
            "route", "change", ROUTE, "dev", INTERFACE, "congctl", "cubic",
        ];
        inside(&route)?;
        Ok(device)
    }

    /// Opens the interface in a thread that has moved into the namespace.
    fn device(&self) -> anyhow::Result<SyncDevice> {
        let path = format!("/run/netns/{}", self.0);
        let open = move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            let device = DeviceBuilder::new().name(INTERFACE).build_sync();
            device.context("open /dev/net/tun")
        };
        thread::spawn(open)
            .join()
            .map_err(|_| anyhow!("namespace thread panicked"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Fails if the namespace was not created.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .output();
    }
}

impl Link {
    /// Forwards packets in one direction while both interfaces exist.
    fn forward(self, seed: u64, from: Arc<SyncDevice>, to: Arc<SyncDevice>) {
        let (send, in_flight) = sync_channel(MAX_IN_FLIGHT);
        thread::spawn(move || deliver(&in_flight, &to));
        thread::spawn(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut packet = [0; MTU];
            while let Ok(length) = from.recv(&mut packet) {
                if random.f64() >= self.loss {
                    let due = Instant::now() + self.delay;
                    // A full queue drops the packet.
                    let _ = send.try_send((due, packet[..length].to_vec()));
                }
            }
        });
    }
}

/// Delivers each packet when it is due.
fn deliver(in_flight: &Receiver<(Instant, Vec<u8>)>, to: &SyncDevice) {
    for (due, packet) in in_flight {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Fails if the receiving interface is gone.
        let _ = to.send(&packet);
    }
}

fn ip(line: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(line).output().context("run ip")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        line.join(" "),
        stderr.trim()
    );
    Ok(())
}
