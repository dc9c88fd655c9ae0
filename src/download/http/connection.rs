//! Buffered connection to a server.

use std::fmt;
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

use super::read_timeout::ReadTimeout;
use crate::net::tls::TlsStream;

/// Initial length of the read buffer, which grows for a long head. Reads of at least this length
/// bypass it.
pub(super) const BUFFER_LEN: usize = 32 * 1024;

/// Destination of bytes that are not copied into a buffer of the reader.
pub(in crate::download) enum ReadTarget<'a> {
    /// A pipe that is not full.
    Pipe(BorrowedFd<'a>),
    /// A function that processes the bytes in one or more slices.
    Slices(&'a mut dyn FnMut(&[u8])),
}

/// TCP stream, with or without TLS.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS to an origin inside of TLS to a proxy.
    TlsInTls(Box<TlsStream<TlsStream<TcpStream>>>),
}

/// Connection and its unconsumed bytes.
pub(super) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    idle: ReadTimeout,
}

impl Connection {
    /// Creates a connection on which each wait longer than `idle` fails with [`ReadTimedOut`].
    ///
    /// [`ReadTimedOut`]: super::read_timeout::ReadTimedOut
    pub(super) fn new(stream: Stream, idle: Duration) -> Self {
        Self {
            stream,
            buffer: vec![0; BUFFER_LEN],
            start: 0,
            end: 0,
            idle: ReadTimeout::new(idle),
        }
    }

    pub(super) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Appends bytes to the buffer; returns 0 at the end of the stream.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.reserve_space();
        let free = &mut self.buffer[self.end..];
        let count = ready!(self.idle.check(self.stream.poll_read(cx, free), cx))?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Appends bytes to the buffer, without a time limit; returns 0 at the end of the stream.
    pub(super) fn poll_fill_unlimited(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.reserve_space();
        let free = &mut self.buffer[self.end..];
        let count = ready!(self.stream.poll_read(cx, free))?;
        self.end += count;
        Poll::Ready(Ok(count))
    }

    /// Async form of [`poll_fill`](Self::poll_fill).
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Reads without the buffer, which must be empty; returns 0 at the end of the stream.
    pub(super) fn poll_read_unbuffered(
        &mut self,
        cx: &mut Context<'_>,
        into: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        debug_assert!(self.buffered().is_empty());
        self.idle.check(self.stream.poll_read(cx, into), cx)
    }

    /// Passes at most `max_len` bytes to a target; returns 0 at the end of the stream. Buffered
    /// bytes and those of TLS are passed as slices, other ones from the socket into a pipe; returns
    /// `None` for the other kind of target.
    pub(super) fn poll_read_direct(
        &mut self,
        cx: &mut Context<'_>,
        target: ReadTarget<'_>,
        max_len: usize,
    ) -> Poll<io::Result<Option<usize>>> {
        let count = match (target, &mut self.stream) {
            (ReadTarget::Slices(process), _) if self.start < self.end => {
                let count = max_len.min(self.end - self.start);
                process(&self.buffer[self.start..self.start + count]);
                self.start += count;
                Poll::Ready(Ok(Some(count)))
            }
            (ReadTarget::Pipe(pipe), Stream::Plain(stream)) if self.start == self.end => {
                poll_splice(stream, cx, pipe, max_len)
            }
            (ReadTarget::Slices(process), Stream::Tls(stream)) => {
                stream.poll_read_with(cx, max_len, process).map_ok(Some)
            }
            (ReadTarget::Slices(process), Stream::TlsInTls(stream)) => {
                stream.poll_read_with(cx, max_len, process).map_ok(Some)
            }
            _ => return Poll::Ready(Ok(None)),
        };
        self.idle.check(count, cx)
    }

    /// Writes a part of `bytes`, which must not be empty.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.stream.pinned().poll_write(cx, bytes);
        match ready!(self.idle.check(written, cx))? {
            0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            count => Poll::Ready(Ok(count)),
        }
    }

    pub(super) async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = future::poll_fn(|cx| self.poll_write(cx, bytes)).await?;
            bytes = &bytes[count..];
        }
        self.flush().await
    }

    /// Sends what TLS has buffered.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        future::poll_fn(|cx| self.idle.check(self.stream.pinned().poll_flush(cx), cx)).await
    }

    /// Returns whether the peer has neither closed the connection nor sent unread bytes.
    pub(super) fn is_reusable(&self) -> bool {
        self.buffered().is_empty() && self.stream.is_reusable()
    }

    /// Returns the stream, unless bytes are buffered.
    pub(super) fn into_stream(self) -> Option<Stream> {
        (self.start == self.end).then_some(self.stream)
    }

    fn reserve_space(&mut self) {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            // Releases the memory that a long head needed.
            self.buffer.truncate(BUFFER_LEN);
            self.buffer.shrink_to_fit();
        } else if self.end == self.buffer.len() && self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
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
) -> Poll<io::Result<Option<usize>>> {
    let socket = Arc::<Async<_>>::from(stream.clone());
    loop {
        match splice(stream, None, pipe, None, most, SpliceFlags::NONBLOCK) {
            // The socket is empty or the pipe is full; the latter causes one spurious wake-up.
            Err(Errno::AGAIN) => ready!(socket.poll_readable(cx))?,
            Err(Errno::INTR) => {}
            // Not every kind of socket supports it, nor does every sandbox permit it.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                return Poll::Ready(Ok(None));
            }
            moved => return Poll::Ready(Ok(Some(moved?))),
        }
    }
}

impl fmt::Debug for Connection {
    /// Omits the bytes: they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Duplex for S {}

impl Stream {
    fn pinned(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Tls(stream) => Pin::new(stream.as_mut()),
            Self::TlsInTls(stream) => Pin::new(stream.as_mut()),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        self.pinned().poll_read(cx, into)
    }

    fn is_reusable(&self) -> bool {
        let (tcp, is_drained) = match self {
            Self::Plain(stream) => (stream, true),
            Self::Tls(stream) => (stream.transport(), stream.is_drained()),
            Self::TlsInTls(stream) => {
                let outer = stream.transport();
                let is_drained = stream.is_drained() && outer.is_drained();
                (outer.transport(), is_drained)
            }
        };
        let peeked = recv(tcp, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        is_drained && peeked == Err(Errno::AGAIN)
    }
}
