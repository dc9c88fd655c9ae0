//! Accepts connections on a thread of the runtime.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use futures_lite::future;
use rustix::fd::OwnedFd;
use rustix::net::{SocketFlags, acceptfrom_with};

use crate::net::address::Address;
use crate::net::listener::{Listener, SocketPathGuard};
use crate::net::stream::{Peer, Stream};
use crate::runtime::{Direction, Socket};

/// Listener that is bound to a thread of the runtime.
#[derive(Debug)]
pub(crate) struct AsyncListener {
    /// Declared before the socket, so that it is dropped first, as in a [`Listener`].
    _path_guard: Option<Arc<SocketPathGuard>>,
    socket: Socket<OwnedFd>,
    local: Address,
}

impl AsyncListener {
    /// Binds a listener to this thread.
    ///
    /// # Errors
    ///
    /// Fails on a thread that the runtime does not drive.
    pub(crate) fn new(listener: Listener) -> io::Result<Self> {
        let Listener {
            path_guard,
            socket,
            local,
        } = listener;
        Ok(Self {
            _path_guard: path_guard,
            socket: Socket::new(socket)?,
            local,
        })
    }

    pub(crate) fn local_addr(&self) -> &Address {
        &self.local
    }

    /// Waits until a connection may be pending.
    ///
    /// # Errors
    ///
    /// Errors of the reactor.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn ready(&self) -> io::Result<()> {
        poll_fn(|cx| self.socket.poll_ready(Direction::Read, cx)).await
    }

    /// Accepts a connection if one is pending.
    ///
    /// # Errors
    ///
    /// The errors of `accept(2)`: of this connection (`ECONNABORTED`), or of the process (`EMFILE`,
    /// `ENFILE`, `ENOBUFS`, `ENOMEM`), which are transient.
    ///
    /// # Cancel safety
    ///
    /// The future completes when it is first polled, so no connection is lost.
    pub(crate) async fn try_accept(&self) -> io::Result<Option<(Stream, Peer)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |listener: &OwnedFd| Ok(acceptfrom_with(listener, flags)?);
        let accepted = poll_fn(|cx| self.socket.poll(Direction::Read, cx, accept));
        let Some(accepted) = future::poll_once(accepted).await else {
            return Ok(None);
        };
        let (fd, address) = accepted?;
        let peer = Peer::new(&fd, address)?;
        Ok(Some((Stream::new(fd)?, peer)))
    }
}
