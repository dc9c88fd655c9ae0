//! Two network namespaces, and a link between them that takes its time and loses packets:
//!
//! ```sh
//! slow-link NAME DELAY_IN_MILLISECONDS LOSS_IN_PERCENT
//! ```
//!
//! makes the namespaces `NAME-server` (192.0.2.1) and `NAME-client` (192.0.2.2), says `ready`, and
//! carries packets, each way with the delay and the loss, until its stdin ends; then both are
//! removed. It needs root and `ip` of iproute2.

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

/// The ends of the link, and their addresses (RFC 5737: for documentation).
const ENDS: [(&str, &str); 2] = [("server", "192.0.2.1/30"), ("client", "192.0.2.2/30")];

/// Where the interface leads.
const ROUTE: &str = "192.0.2.0/30";

/// The name of the interface in each namespace.
const INTERFACE: &str = "slow";

/// Packets on the way in one direction; further ones are lost, as on any link.
const QUEUE: usize = 4096;

/// The longest packet.
const PACKET: usize = 1500;

/// How the link treats a packet.
#[derive(Clone, Copy)]
struct Link {
    delay: Duration,
    /// The share that is lost.
    loss: f64,
}

/// A namespace that goes when this is dropped.
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
        devices.push(Arc::new(namespace.make(address)?));
    }
    for (seed, from, to) in [(1, 0, 1), (2, 1, 0)] {
        link.carry(seed, Arc::clone(&devices[from]), Arc::clone(&devices[to]));
    }
    println!("ready");
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

impl Namespace {
    /// Makes it, with an interface of this address.
    fn make(&self, address: &str) -> anyhow::Result<SyncDevice> {
        ip(&["netns", "add", &self.0])?;
        let device = self.device()?;
        let inside = |line: &[&str]| ip(&[&["-n", &self.0], line].concat());
        inside(&["address", "add", address, "dev", INTERFACE])?;
        inside(&["link", "set", INTERFACE, "mtu", &PACKET.to_string(), "up"])?;
        // What most servers have, whatever this machine has; with BBR few packets that are lost
        // would slow down nobody.
        let route = [
            "route", "change", ROUTE, "dev", INTERFACE, "congctl", "cubic",
        ];
        inside(&route)?;
        Ok(device)
    }

    /// The interface, opened by a thread that has moved into the namespace.
    fn device(&self) -> anyhow::Result<SyncDevice> {
        let path = format!("/run/netns/{}", self.0);
        let open = move || {
            setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
            let device = DeviceBuilder::new().name(INTERFACE).build_sync();
            device.context("open /dev/net/tun")
        };
        thread::spawn(open)
            .join()
            .map_err(|_| anyhow!("the thread of a namespace"))?
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // One that was not made cannot be removed.
        let _ = Command::new("ip")
            .args(["netns", "delete", &self.0])
            .output();
    }
}

impl Link {
    /// Carries packets one way, for as long as both interfaces are there.
    fn carry(self, seed: u64, from: Arc<SyncDevice>, to: Arc<SyncDevice>) {
        let (send, on_the_way) = sync_channel(QUEUE);
        thread::spawn(move || deliver(&on_the_way, &to));
        thread::spawn(move || {
            let (mut random, mut packet) = (fastrand::Rng::with_seed(seed), [0; PACKET]);
            while let Ok(length) = from.recv(&mut packet) {
                if random.f64() >= self.loss {
                    let due = Instant::now() + self.delay;
                    // Where the queue is full the packet is lost.
                    let _ = send.try_send((due, packet[..length].to_vec()));
                }
            }
        });
    }
}

/// Hands over each packet when it is due.
fn deliver(on_the_way: &Receiver<(Instant, Vec<u8>)>, to: &SyncDevice) {
    for (due, packet) in on_the_way {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Nobody may be there to take it.
        let _ = to.send(&packet);
    }
}

fn ip(line: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(line).output().context("run ip")?;
    let says = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "ip {}: {}",
        line.join(" "),
        says.trim()
    );
    Ok(())
}
