//! TCP peer that runs a function on each connection, on threads of the standard library.
//!
//! The functions that several tests need are below.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::until;

/// Listening peer, stopped when dropped. It fails the test if it got no connection: a test that
/// did not reach its peer has tested something else.
pub struct Peer {
    port: u16,
    stats: Arc<Stats>,
    stopped: Arc<AtomicBool>,
}

#[derive(Default)]
struct Stats {
    accepted: AtomicUsize,
    open: AtomicUsize,
    max_open: AtomicUsize,
}

impl Peer {
    /// Starts a peer that runs `handle` on each connection.
    pub fn start(handle: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("listen"), handle)
    }

    /// Starts a peer on a socket that is already bound.
    pub fn on(
        listener: TcpListener,
        handle: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let port = listener.local_addr().unwrap().port();
        let stats = Arc::<Stats>::default();
        let stopped = Arc::<AtomicBool>::default();
        let peer = Self {
            port,
            stats: stats.clone(),
            stopped: stopped.clone(),
        };
        let handle = Arc::new(handle);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                let handle = handle.clone();
                let stats = stats.clone();
                stats.accepted.fetch_add(1, SeqCst);
                let open = stats.open.fetch_add(1, SeqCst) + 1;
                stats.max_open.fetch_max(open, SeqCst);
                thread::spawn(move || {
                    // I/O errors are expected when a client breaks off; the tests check the client.
                    let _ = handle(&stream);
                    stats.open.fetch_sub(1, SeqCst);
                });
            }
        });
        peer
    }

    /// Returns the address, for `-c`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the number of accepted connections.
    pub fn connections(&self) -> usize {
        self.stats.accepted.load(SeqCst)
    }

    /// Returns the largest number of concurrent connections.
    pub fn max_concurrent(&self) -> usize {
        self.stats.max_open.load(SeqCst)
    }

    /// Waits until this number of connections has been accepted.
    #[track_caller]
    pub fn wait_for_connections(&self, count: usize) {
        until(|| self.connections() >= count);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let accepted = self.connections();
        self.stopped.store(true, SeqCst);
        // Wakes the accept loop.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        assert!(
            accepted > 0 || thread::panicking(),
            "the peer got no connection"
        );
    }
}

/// Echoes all bytes.
pub fn echo(mut stream: &TcpStream) -> io::Result<()> {
    let mut reader = stream;
    io::copy(&mut reader, &mut stream).map(drop)
}

/// Echoes each line after the number of milliseconds in it.
pub fn echo_late(stream: &TcpStream) -> io::Result<()> {
    each_line(stream, |line| {
        thread::sleep(Duration::from_millis(
            line.trim().parse().expect("a number"),
        ));
        line.into()
    })
}

/// Replies to each line with the result of `answer`.
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

/// Replies to the first line with these bytes, then closes.
pub fn answer_and_close(
    answer: &'static [u8],
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        BufReader::new(stream).read_line(&mut String::new())?;
        stream.write_all(answer)
    }
}

/// Replies to each line with these bytes.
pub fn answer(
    answer: &'static [u8],
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |stream| each_line(stream, |_| answer.to_vec())
}

/// Echoes this number of bytes, then closes.
pub fn close_after(count: u64) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        let mut reader = stream.take(count);
        io::copy(&mut reader, &mut stream).map(drop)
    }
}

/// Replies to each piece with the result of `change`, which gets the offset of the piece.
pub fn echo_changed(
    change: impl Fn(u64, Vec<u8>) -> Vec<u8> + Send + Sync + 'static,
) -> impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static {
    move |mut stream| {
        let mut reader = stream;
        let mut piece = [0; 4096];
        let mut offset = 0;
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

/// Closes immediately.
pub fn close_first(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

/// Resets the connection after the first byte.
pub fn reset(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])?;
    Ok(set_socket_linger(stream, Some(Duration::ZERO))?)
}

/// Reads all bytes and never replies.
pub fn say_nothing(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut stream, &mut io::sink())?;
    thread::sleep(OPEN_TIME);
    Ok(())
}

/// Neither reads nor replies.
pub fn do_nothing(_: &TcpStream) -> io::Result<()> {
    thread::sleep(OPEN_TIME);
    Ok(())
}

/// Sends bytes forever, and no newline.
pub fn babble(mut stream: &TcpStream) -> io::Result<()> {
    io::copy(&mut io::repeat(b'x'), &mut stream).map(drop)
}

/// Longer than any test.
const OPEN_TIME: Duration = Duration::from_secs(300);
