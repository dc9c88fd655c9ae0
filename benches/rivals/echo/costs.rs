//! What is no rate: bursts, idle memory, slow readers, latency, system calls.

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
use super::{OURS, SECONDS, SERVE, SERVERS, Setting, tell_values};
use crate::machine;
use crate::report::Report;

const BURST: usize = 10_000;
const SLOW: usize = 20;

pub(super) fn tell(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    tell_bursts(setting, report)?;
    tell_slow_readers(setting, report)?;
    tell_latency(setting, report)?;
    tell_system_calls(setting, report)
}

fn tell_bursts(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for server in setting.servers()? {
        let (slowest, each) = burst(&server)?;
        let values = vec![
            ("slowest connect", slowest * 1e3, "ms"),
            ("idle", each, "bytes each"),
        ];
        rows.push((server.name.clone(), values));
    }
    tell_values(
        report,
        "10,000 connections in a burst, memory of each when idle",
        &rows,
    );
    Ok(())
}

fn tell_slow_readers(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for server in setting.servers()? {
        let (grown, slowest) = slow_readers(&server)?;
        let values = vec![
            ("grown by", grown / 1024.0, "KiB"),
            ("others' slowest", slowest * 1e3, "ms"),
        ];
        rows.push((server.name.clone(), values));
    }
    tell_values(report, "20 clients that send and never read", &rows);
    Ok(())
}

fn tell_latency(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
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
    tell_values(
        report,
        "latency on one connection, the client polling as the server",
        &rows,
    );
    Ok(())
}

fn tell_system_calls(setting: &Setting, report: &mut Report) -> anyhow::Result<()> {
    if machine::version("strace").is_none() {
        report.left_out("system calls (Debian package strace)");
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
            vec![("each", (calls(2100)? - calls(100)?) / 2000.0, "")],
        ))
    };
    let rows: Vec<_> = programs.iter().map(row).collect::<anyhow::Result<_>>()?;
    tell_values(report, "system calls a request, on one connection", &rows);
    Ok(())
}

/// The longest that one connect takes, and the memory of each connection.
fn burst(server: &Server) -> anyhow::Result<(f64, f64)> {
    ask(&mut TcpStream::connect(server.address)?)?;
    let before = server.memory();
    let (mut clients, slowest) = connect_all(server.address)?;
    // Each of them is in when its message has been answered.
    clients.iter_mut().try_for_each(ask)?;
    Ok((
        slowest.as_secs_f64(),
        (server.memory() - before) / BURST as f64,
    ))
}

/// Connects without waiting for one before the next; tells how long the slowest took.
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
    let (mut slowest, mut connected) = (Duration::ZERO, 0);
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
        anyhow::ensure!(client.take_error()?.is_none(), "not all could connect");
    }
    Ok((clients, slowest))
}

/// The memory that clients cost who send and never read, and the longest that another waits.
fn slow_readers(server: &Server) -> anyhow::Result<(f64, f64)> {
    let mut other = TcpStream::connect(server.address)?;
    ask(&mut other)?;
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
            ask(&mut other)?;
            slowest = slowest.max(start.elapsed());
        }
        anyhow::Ok(())
    })?;
    Ok((server.memory() - before, slowest.as_secs_f64()))
}

/// Sends lines until the other side takes no more.
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

fn ask(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"hello\n")?;
    client.read_exact(&mut [0; 6])
}

/// The system calls of a program that is asked so often and then ended.
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
    // A server that finds a message when it looks for the first time need not wait for it.
    thread::sleep(Duration::from_millis(100));
    (0..requests).try_for_each(|_| ask(&mut client))?;
    drop(server);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        let text = fs::read_to_string(&counts).unwrap_or_default();
        if let Some(total) = text.lines().find(|line| line.ends_with("total")) {
            let calls = total.split_whitespace().nth(3).context("no calls")?;
            return Ok(calls.parse()?);
        }
        thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("strace says nothing")
}
