//! `myapp serve` on free ports.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Program, RunOutput, Running, myapp};

/// A server that listens; killed when dropped.
pub struct Server {
    running: Running,
    addresses: Vec<SocketAddr>,
}

impl Server {
    /// Starts `myapp serve ARGUMENTS 127.0.0.1:0`.
    #[track_caller]
    pub fn start(arguments: &[&str]) -> Self {
        Self::of(myapp([&["serve"], arguments, &["127.0.0.1:0"]].concat()), 1)
    }

    /// Starts a program that announces this number of addresses.
    #[track_caller]
    pub fn of(program: Program, addresses: usize) -> Self {
        let mut running = program.start();
        let read = |line: String| {
            let address = line.strip_prefix("listening on ").and_then(|line| {
                let over = ["tcp://", "udp://"]
                    .iter()
                    .find_map(|over| line.strip_prefix(over));
                over?.parse().ok()
            });
            address.unwrap_or_else(|| panic!("no listening line: {line:?}"))
        };
        let addresses = (0..addresses).map(|_| read(running.line())).collect();
        Self { running, addresses }
    }

    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the next line of stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.running.line()
    }

    /// Connects with I/O timeouts of ten seconds.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("connect to the server");
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(limit).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Sends `bytes`, shuts down writing, and returns all replies.
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let stream = self.connect();
        let mut answer = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // The write fails if the server has refused the input and closed.
                let _ = (&stream).write_all(bytes);
                let _ = stream.shutdown(Shutdown::Write);
            });
            (&stream).read_to_end(&mut answer).expect("read the answer");
        });
        answer
    }

    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    pub fn wait(self) -> RunOutput {
        self.running.wait()
    }

    /// Stops the server with SIGTERM and expects success.
    #[track_caller]
    pub fn stop(self) -> RunOutput {
        self.signal(Signal::TERM);
        self.wait().code(0)
    }

    pub fn id(&self) -> u32 {
        self.running.id()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.running.id())
    }

    /// Returns whether all threads are blocked.
    pub fn sleeps(&self) -> bool {
        self.running.sleeps()
    }

    /// Returns the number of open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd"))
            .expect("list descriptors")
            .count()
    }

    /// Waits until `count` descriptors are open.
    #[track_caller]
    pub fn until_descriptors(&self, count: usize) {
        let start = Instant::now();
        while self.descriptors() != count {
            let open = self.descriptors();
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{open} open, not {count}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the anonymous memory in bytes.
    pub fn memory(&self) -> u64 {
        let text = self.status("RssAnon:");
        let kib = text
            .strip_suffix(" kB")
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("RssAnon in kB") * 1024
    }

    /// Returns the size of the descriptor table.
    pub fn room(&self) -> usize {
        self.status("FDSize:").parse().expect("FDSize as a number")
    }

    /// Returns a line of `/proc/PID/status`.
    fn status(&self, what: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).expect("read its status");
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        line.expect("a line of its status").trim().to_owned()
    }

    /// Waits until the CPU time reaches `time`.
    #[track_caller]
    pub fn until_cpu(&self, time: Duration) {
        let start = Instant::now();
        while self.cpu() < time {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "only {:?}",
                self.cpu()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Returns the CPU time.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).expect("list threads");
        let times = tasks.map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
        });
        times.sum()
    }
}

/// Sends `message` and returns a reply of the same length.
#[track_caller]
pub fn ask(mut stream: &TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).expect("send a message");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("read the answer");
    answer
}

/// Fails unless the stream ends without more data and without a reset.
#[track_caller]
pub fn ends(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .expect("an end without a reset");
    assert_eq!(rest, b"");
}
