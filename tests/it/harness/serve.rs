//! `myapp serve`, started on ports of its own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{Program, Ran, Running, myapp};

/// A server that has said where it listens; killed when dropped.
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

    /// Starts a program that will name so many addresses.
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

    /// The next line on its stdout.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.running.line()
    }

    /// A connection to it, on which nothing is waited for longer than ten seconds.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("connect to the server");
        let limit = Some(Duration::from_secs(10));
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(limit).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// All that comes back for `bytes` and the end of input.
    #[track_caller]
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let stream = self.connect();
        let mut answer = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                // A server that has refused the rest has closed.
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

    pub fn wait(self) -> Ran {
        self.running.wait()
    }

    /// Ends it in the orderly way.
    #[track_caller]
    pub fn stop(self) -> Ran {
        self.signal(Signal::TERM);
        self.wait().code(0)
    }

    pub fn id(&self) -> u32 {
        self.running.id()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.running.id())
    }

    /// The descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd"))
            .expect("list descriptors")
            .count()
    }

    /// Waits until it has `count` descriptors open.
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

    /// The memory in bytes that is its own.
    pub fn memory(&self) -> u64 {
        let text = self.status("RssAnon:");
        let kib = text
            .strip_suffix(" kB")
            .and_then(|kib| kib.parse::<u64>().ok());
        kib.expect("RssAnon in kB") * 1024
    }

    /// The number of descriptors for which the system has made room.
    pub fn room(&self) -> usize {
        self.status("FDSize:").parse().expect("FDSize as a number")
    }

    /// What the system says of it.
    fn status(&self, what: &str) -> String {
        let status = fs::read_to_string(self.proc("status")).expect("read its status");
        let line = status.lines().find_map(|line| line.strip_prefix(what));
        line.expect("a line of its status").trim().to_owned()
    }

    /// Waits until it has had a processor for so long in all.
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

    /// The time for which it has had a processor.
    pub fn cpu(&self) -> Duration {
        let tasks = fs::read_dir(self.proc("task")).expect("list threads");
        let times = tasks.map(|task| {
            let text = fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
            Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
        });
        times.sum()
    }
}

/// Sends `message` and returns as many bytes of the answer.
#[track_caller]
pub fn ask(mut stream: &TcpStream, message: &[u8]) -> Vec<u8> {
    stream.write_all(message).expect("send a message");
    let mut answer = vec![0; message.len()];
    stream.read_exact(&mut answer).expect("read the answer");
    answer
}

/// Fails unless nothing more comes, and no reset.
#[track_caller]
pub fn ends(mut stream: &TcpStream) {
    let mut rest = Vec::new();
    stream
        .read_to_end(&mut rest)
        .expect("an end without a reset");
    assert_eq!(rest, b"");
}
