//! A TCP peer that does as it is told with each connection, on threads of the standard library.
//!
//! A behaviour is any function of the connection; those that several tests need stand below.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

/// A peer that listens on a port of its own until it is dropped. It fails the test if nobody
/// came: a test that never reached its peer has tested something else.
pub struct Peer {
    port: u16,
    seen: Arc<Seen>,
    stopped: Arc<AtomicBool>,
}

#[derive(Default)]
struct Seen {
    all: AtomicUsize,
    open: AtomicUsize,
    most: AtomicUsize,
}

impl Peer {
    /// Starts a peer that behaves so on each connection.
    pub fn start(behave: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("listen"), behave)
    }

    /// As [`Peer::start`], on a socket that is already bound.
    pub fn on(
        listener: TcpListener,
        behave: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (seen, stopped) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default());
        let peer = Self {
            port,
            seen: seen.clone(),
            stopped: stopped.clone(),
        };
        let behave = Arc::new(behave);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(SeqCst) {
                    break;
                }
                let (stream, behave, seen) = (stream.unwrap(), behave.clone(), seen.clone());
                seen.all.fetch_add(1, SeqCst);
                seen.most
                    .fetch_max(seen.open.fetch_add(1, SeqCst) + 1, SeqCst);
                thread::spawn(move || {
                    // What a client breaks off is its own affair: the test looks at the client.
                    let _ = behave(&stream);
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        peer
    }

    /// Its address, for `-c`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// How many connections came.
    pub fn connections(&self) -> usize {
        self.seen.all.load(SeqCst)
    }

    /// How many were open at once, at most.
    pub fn most_at_once(&self) -> usize {
        self.seen.most.load(SeqCst)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let came = self.connections();
        self.stopped.store(true, SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        assert!(
            came > 0 || thread::panicking(),
            "nobody connected to the peer"
        );
    }
}

/// Sends every byte back as it comes.
pub fn echo(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = stream;
    io::copy(&mut reader, &mut stream).map(drop)
}

/// Answers each line when so many milliseconds have passed as it says.
pub fn echo_late(stream: &TcpStream) -> io::Result<()> {
    each_line(stream, |line| {
        thread::sleep(Duration::from_millis(
            line.trim().parse().expect("a number"),
        ));
        line.into()
    })
}

/// Answers each line with what `answer` makes of it.
pub fn each_line(
    mut stream: &TcpStream,
    mut answer: impl FnMut(&str) -> Vec<u8>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        stream.write_all(&answer(&line))?;
        line.clear();
    }
    Ok(())
}

/// Answers the first line with these bytes, whatever it was, then closes.
pub fn answer_and_close(
    answer: &'static [u8],
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        BufReader::new(stream).read_line(&mut String::new())?;
        stream.write_all(answer)
    }
}

/// Answers each line with these bytes, whatever it was.
pub fn answer(
    answer: &'static [u8],
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |stream| each_line(stream, |_| answer.to_vec())
}

/// Sends this many bytes back, then closes.
pub fn close_after(count: u64) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        let mut reader = stream.take(count);
        io::copy(&mut reader, &mut stream).map(drop)
    }
}

/// Sends back what `change` makes of each piece; it is told the offset of the piece.
pub fn echo_changed(
    change: impl Fn(u64, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        let mut reader = stream;
        let (mut piece, mut offset) = ([0; 4096], 0);
        loop {
            let count = reader.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            stream.write_all(&change(offset, piece[..count].to_vec()))?;
            offset += count as u64;
        }
    }
}

/// Closes at once.
pub fn close_first(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Resets the connection when the first bytes have come.
pub fn reset(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    Ok(set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// Reads, and never answers.
pub fn say_nothing(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink())?;
    thread::sleep(HOLD);
    Ok(())
}

/// Neither reads nor answers.
pub fn do_nothing(_: &TcpStream) -> io::Result<()> {
    thread::sleep(HOLD);
    Ok(())
}

/// Sends without an end, and never a line end.
pub fn babble(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut io::repeat(b'x'), &mut stream).map(drop)
}

/// Longer than any test runs.
const HOLD: Duration = Duration::from_secs(300);
