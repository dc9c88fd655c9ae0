//! Bursts, idle memory, slow readers, latency and system calls of servers.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::peers::pinned;
use super::server::Server;
use super::{OURS, SECONDS, SERVE, SERVERS, Setting, print_values};
use crate::machine;
use crate::report::Report;

const BURST: usize = 10_000;
const SLOW: usize = 20;

pub(super) fn measure(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    bursts(setting, report)?;
    slow_reader_costs(setting, report)?;
    latency(setting, report)?;
    system_calls_per_request(setting, report)
}

fn bursts(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for server in setting.servers()? {
        let (slowest, each) = burst(&server)?;
        let values = vec![
            ("slowest connect", slowest * 1e3, "ms"),
            ("idle", each, "bytes per connection"),
        ];
        rows.push((server.name.clone(), values));
    }
    print_values(
        report,
        "burst of 10,000 connections, memory per idle connection",
        &rows,
    );
    Ok(())
}

fn slow_reader_costs(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for server in setting.servers()? {
        let (grown, slowest) = slow_readers(&server)?;
        let values = vec![
            ("memory growth", grown / 1024.0, "KiB"),
            ("slowest reply to others", slowest * 1e3, "ms"),
        ];
        rows.push((server.name.clone(), values));
    }
    print_values(report, "20 clients that send and never read", &rows);
    Ok(())
}

fn latency(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let busy = ["--busy-poll"];
    let mut ours = pinned(SERVERS, OURS.as_ref());
    let raw_echo = setting.raw.join("raw-echo");
    let mut raw = pinned(SERVERS, &raw_echo);
    ours.args(SERVE).args(["--busy-poll", "1s"]);
    let rows = [
        (setting.ours()?, &[][..]),
        (setting.raw()?, &[]),
        (
            Server::announced("myapp serve --busy-poll 1s", &mut ours)?,
            &busy,
        ),
        (Server::announced("raw epoll, busy", raw.args(busy))?, &busy),
    ];
    let row = |(server, flags): &(Server, &[&str])| {
        let load = setting.raw_load(server, "1", SECONDS, &[&["--latency"], *flags].concat())?;
        Ok((
            server.name.clone(),
            vec![("median", load.median * 1e6, "µs")],
        ))
    };
    let rows: Vec<_> = rows.iter().map(row).collect::<anyhow::Result<_>>()?;
    print_values(
        report,
        "latency on one connection, the client polls like the server",
        &rows,
    );
    Ok(())
}

fn system_calls_per_request(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    if machine::version("strace").is_none() {
        report.skipped("system calls (Debian package strace)");
        return Ok(());
    }
    let mut programs = vec![
        ("myapp serve", OURS.into(), &SERVE[..]),
        ("raw epoll", setting.raw.join("raw-echo"), &[]),
    ];
    if let Some(tokio) = &setting.tokio {
        programs.push(("tokio", tokio.join("tokio-echo"), &[]));
    }
    let row = |(name, program, arguments): &(&str, PathBuf, &[&str])| {
        let calls = |requests| system_calls(program, arguments, requests);
        Ok((
            (*name).to_owned(),
            vec![("calls", (calls(2100)? - calls(100)?) / 2000.0, "")],
        ))
    };
    let rows: Vec<_> = programs.iter().map(row).collect::<anyhow::Result<_>>()?;
    print_values(report, "system calls per request, on one connection", &rows);
    Ok(())
}

/// Returns the longest connect time and the memory per connection.
fn burst(server: &Server) -> anyhow::Result<(f64, f64)> {
    exchange(&mut TcpStream::connect(server.address)?)?;
    let before = server.memory();
    let (mut clients, slowest) = connect_all(server.address)?;
    // A connection is accepted when its message has been answered.
    clients.iter_mut().try_for_each(exchange)?;
    Ok((
        slowest.as_secs_f64(),
        (server.memory() - before) / BURST as f64,
    ))
}

/// Starts all connects without waiting; returns the connections and the longest connect time.
fn connect_all(address: SocketAddr) -> anyhow::Result<(Vec<TcpStream>, Duration)> {
    let mut starts = Vec::with_capacity(BURST);
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    let mut clients = Vec::with_capacity(BURST);
    for number in 0..BURST as u64 {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        starts.push(Instant::now());
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let once = EventFlags::OUT | EventFlags::ONESHOT;
        epoll::add(&epoll, &socket, EventData::new_u64(number), once)?;
        clients.push(TcpStream::from(socket));
    }
    let mut slowest = Duration::ZERO;
    let mut connected = 0;
    let mut events = Vec::with_capacity(BURST);
    while connected < BURST {
        events.clear();
        epoll::wait(&epoll, spare_capacity(&mut events), None)?;
        for event in &events {
            slowest = slowest.max(starts[event.data.u64() as usize].elapsed());
        }
        connected += events.len();
    }
    for client in &clients {
        client.set_nonblocking(false)?;
        anyhow::ensure!(client.take_error()?.is_none(), "a connect failed");
    }
    Ok((clients, slowest))
}

/// Returns the memory growth caused by clients that never read, and the longest reply time of
/// another client.
fn slow_readers(server: &Server) -> anyhow::Result<(f64, f64)> {
    let mut other = TcpStream::connect(server.address)?;
    exchange(&mut other)?;
    let before = server.memory();
    let connect = |_| TcpStream::connect(server.address);
    let slow: Vec<_> = (0..SLOW).map(connect).collect::<Result<_, _>>()?;
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let filling: Vec<_> = slow
            .iter()
            .map(|client| scope.spawn(|| fill(client)))
            .collect();
        while filling.iter().any(|filling| !filling.is_finished()) {
            let start = Instant::now();
            exchange(&mut other)?;
            slowest = slowest.max(start.elapsed());
        }
        anyhow::Ok(())
    })?;
    Ok((server.memory() - before, slowest.as_secs_f64()))
}

/// Sends lines until the server stops reading.
fn fill(mut client: &TcpStream) -> std::io::Result<()> {
    let lines = [vec![b'x'; 999], vec![b'\n']].concat().repeat(64);
    client.set_write_timeout(Some(Duration::from_millis(300)))?;
    loop {
        match client.write(&lines) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn exchange(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"hello\n")?;
    client.read_exact(&mut [0; 6])
}

/// Returns the number of system calls of a server that answers `requests` requests.
fn system_calls(program: &Path, arguments: &[&str], requests: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-D", "-c", "-o"])
        .arg(&counts)
        .arg(program)
        .args(arguments);
    let server = Server::announced("traced", &mut command)?;
    let mut client = TcpStream::connect(server.address)?;
    // A message that is already there at the first read would save the server a wait.
    thread::sleep(Duration::from_millis(100));
    (0..requests).try_for_each(|_| exchange(&mut client))?;
    drop(server);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let text = fs::read_to_string(&counts).unwrap_or_default();
        if let Some(total) = text.lines().find(|line| line.ends_with("total")) {
            let calls = total
                .split_whitespace()
                .nth(3)
                .context("no count in strace's summary")?;
            return Ok(calls.parse()?);
        }
        thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("strace wrote no summary")
}
