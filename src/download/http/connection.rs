//! One connection to a server: bytes out, bytes in through a buffer.

use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_net::TcpStream;
use futures_lite::{AsyncRead, AsyncWrite, future};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::pipe::{SpliceFlags, splice};
use smol::Async;

use super::idle::Idle;
use crate::net::tls::TlsStream;

/// The buffer that a connection begins with; a long head makes it grow. Reads of at least this
/// size go past it.
pub(super) const BUFFER: usize = 32 * 1024;

/// The bytes of a connection, with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    TcpOrUnix(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection and the bytes that have come and are not yet used.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    idle: Idle,
}

impl Connection {
    /// Each wait for a byte, to or from the other side, ends after `idle` with [`Silent`].
    ///
    /// [`Silent`]: super::idle::Silent
    pub(super) fn new(stream: Stream, idle: Duration) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            idle: Idle::new(idle),
        }
    }

    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Reads more behind what is buffered; 0 at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let free = &mut self.buffer[self.end..];
        let count = ready!(
            self.idle
                .check(self.stream.pinned().poll_read(cx, free), cx)
        )?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// As [`poll_fill`](Self::poll_fill).
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Reads past the buffer, which must be empty; 0 at the end of the stream.
    pub(super) fn poll_read_past(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.buffered().is_empty());
        self.idle
            .check(self.stream.pinned().poll_read(cx, into), cx)
    }

    /// Moves bytes from the socket into a pipe; 0 at the end of the stream. `None` where they
    /// must be read: inside TLS, and while something is buffered.
    pub(super) fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        pipe: BorrowedFd<'_>,
        most: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        match &self.stream {
            Stream::TcpOrUnix(stream) if self.start == self.end => {
                let moved = poll_splice(stream, cx, pipe, most);
                self.idle.check(moved, cx).map_ok(Some)
            }
            _ => Poll::Ready(Ok(None)),
        }
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = future::poll_fn(|cx| {
                self.idle
                    .check(self.stream.pinned().poll_write(cx, bytes), cx)
            });
            match count.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => bytes = &bytes[count..],
            }
        }
        future::poll_fn(|cx| self.idle.check(self.stream.pinned().poll_flush(cx), cx)).await
    }

    /// Whether the other side keeps the connection open, and has sent nothing that is not read.
    pub(super) fn is_quiet(&self) -> bool {
        self.buffered().is_empty() && self.stream.is_quiet()
    }

    /// The bare stream, if it is one and nothing has come that was not used.
    pub(super) fn into_plain(self) -> Option<TcpStream> {
        match self.stream {
            Stream::TcpOrUnix(stream) if self.start == self.end => Some(stream),
            _ => None,
        }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            // What a long head has needed is not kept with the connection.
            self.buffer.truncate(BUFFER);
            self.buffer.shrink_to_fit();
        } else if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
    }
}

fn poll_splice(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    pipe: BorrowedFd<'_>,
    most: usize,
) -> Poll<io::Result<usize>> {
    let socket = Arc::<Async<_>>::from(stream.clone());
    loop {
        match splice(stream, None, pipe, None, most, SpliceFlags::NONBLOCK) {
            // Either nothing has come or the pipe is full; then this wakes once too often.
            Err(Errno::AGAIN) => ready!(socket.poll_readable(cx))?,
            Err(Errno::INTR) => {}
            moved => return Poll::Ready(Ok(moved?)),
        }
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

impl Stream {
    fn pinned(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::TcpOrUnix(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
        }
    }

    fn is_quiet(&self) -> bool {
        let (tcp, drained) = match self {
            Self::TcpOrUnix(stream) => (stream, true),
            Self::Tls(stream) => {
                let (tcp, session) = stream.get_ref();
                (tcp, session.wants_read())
            }
        };
        let peeked = recv(tcp, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        drained && peeked == Err(Errno::AGAIN)
    }
}
