//! Events of connections, for the caller.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Event of a connection over TCP, TLS or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionEvent {
    /// A connection was accepted and not refused by access control.
    Opened {
        /// Address of the peer, or the one that a proxy has announced. `None` for a Unix socket.
        peer: Option<SocketAddr>,
    },
    /// The connection was closed.
    Closed {
        /// Address of the peer, as at its opening.
        peer: Option<SocketAddr>,
        /// Messages received; 0 if it was served by a handler.
        messages: u64,
        /// Bytes received, after decryption.
        received: u64,
        /// Bytes sent, before encryption.
        sent: u64,
        /// Age of the connection.
        duration: Duration,
        /// The reason as in the log, such as `end of input`, `idle timeout` or `connection reset`.
        reason: String,
    },
}

/// Observer of connections, which clones share.
#[derive(Clone)]
pub(super) struct ConnectionObserver(Arc<dyn Fn(ConnectionEvent) + Send + Sync>);

impl ConnectionObserver {
    pub(super) fn new(observer: impl Fn(ConnectionEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(observer))
    }

    pub(super) fn observe(&self, event: ConnectionEvent) {
        (self.0)(event);
    }
}

impl fmt::Debug for ConnectionObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionObserver")
    }
}
