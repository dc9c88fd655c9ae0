//! TCP connections and the sockets that accept them, bound to a thread of the runtime.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite, future};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, acceptfrom_with, recv, send,
    sendmsg, shutdown,
};

use crate::net::listener::Listener;
use crate::runtime::{Direction, Socket};

/// A TCP connection.
#[derive(Debug)]
pub(crate) struct Stream(Socket<OwnedFd>);

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let length = buffer.len();
        let attempt = |fd: &OwnedFd| Ok(recv(fd, &mut *buffer, RecvFlags::empty())?.0);
        let count = ready!(self.0.poll(Direction::Read, cx, attempt))?;
        if count < length {
            self.0.exhausted(Direction::Read);
        }
        Poll::Ready(Ok(count))
    }
}

impl Stream {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        length: usize,
        attempt: impl Fn(&OwnedFd) -> rustix::io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.0.poll(Direction::Write, cx, |fd| Ok(attempt(fd)?)))?;
        if count < length {
            self.0.exhausted(Direction::Write);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes.len(), |fd| send(fd, bytes, SendFlags::NOSIGNAL))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = pieces.iter().map(|piece| piece.len()).sum();
        self.poll_send(cx, length, |fd| {
            sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match shutdown(self.0.get_ref(), Shutdown::Write) {
            // The other side has gone before: nothing is left to be closed.
            Err(Errno::NOTCONN) => Poll::Ready(Ok(())),
            result => Poll::Ready(Ok(result?)),
        }
    }
}

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) struct Incoming {
    socket: Socket<TcpListener>,
    local: SocketAddr,
}

impl Incoming {
    /// Binds a listening socket to this thread.
    ///
    /// # Errors
    ///
    /// On a thread that the runtime does not drive.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        let local = listener.local_addr();
        Ok(Self { socket: Socket::new(listener.into())?, local })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Waits until a connection may wait.
    ///
    /// # Errors
    ///
    /// Those of the reactor.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped halfway.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_ready(Direction::Read, cx)).await
    }

    /// Takes a connection if one waits.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`: of this one connection (`ECONNABORTED`), or of the process
    /// (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`), which pass when others end.
    pub(crate) async fn try_accept(&self) -> io::Result<Option<(Stream, SocketAddr)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |listener: &TcpListener| Ok(acceptfrom_with(listener, flags)?);
        let accepted = poll_fn(|cx| self.socket.poll(Direction::Read, cx, accept));
        let Some(accepted) = future::poll_once(accepted).await else { return Ok(None) };
        let (fd, peer) = accepted?;
        let peer = peer.ok_or(Errno::AFNOSUPPORT)?.try_into()?;
        Ok(Some((Stream(Socket::new(fd)?), peer)))
    }
}
