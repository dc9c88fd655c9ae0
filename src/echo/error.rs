//! Errors of the echo client.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::net::address::Address;
use crate::net::connect::ConnectError;
use crate::net::tls::{TlsError, TlsSetupError};

/// Failure of a message or a pipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The connection cannot be established.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The TLS configuration cannot be loaded.
    #[error(transparent)]
    TlsSetup(#[from] TlsSetupError),
    /// The certificate is not accepted, or TLS failed otherwise.
    #[error("TLS handshake with {address}")]
    Tls {
        /// The server.
        address: Address,
        /// The cause.
        source: TlsError,
    },
    /// The TLS handshake did not finish in time.
    #[error("TLS handshake with {address}: timed out after {limit:?}")]
    TlsTimeout {
        /// The server.
        address: Address,
        /// The time limit.
        limit: Duration,
    },
    /// A worker thread cannot be started.
    #[error("start a thread")]
    SpawnThread {
        /// The cause.
        source: io::Error,
    },
    /// Sending failed before the reply was received.
    #[error("send to {address}")]
    Send {
        /// The server.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// Reading the reply failed.
    #[error("read reply from {address}")]
    Receive {
        /// The server.
        address: Address,
        /// The cause.
        source: io::Error,
    },
    /// The server closed the connection before the reply was complete.
    #[error("read reply from {address}: connection closed {}", progress(*.received))]
    UnexpectedEof {
        /// The server.
        address: Address,
        /// Bytes received of this reply, which contain no line end.
        received: u64,
    },
    /// The reply was not complete in time.
    #[error("read reply from {address}: timed out after {limit:?} {}", progress(*.received))]
    ReplyTimeout {
        /// The server.
        address: Address,
        /// The time limit.
        limit: Duration,
        /// Bytes received of this reply, which contain no line end.
        received: u64,
    },
    /// The reply exceeds the maximum length.
    #[error("read reply from {address}: longer than {limit} bytes")]
    ReplyTooLong {
        /// The server.
        address: Address,
        /// Maximum length of a reply.
        limit: usize,
    },
    /// The server rejected a message as too long.
    #[error("send to {address}: the server rejected a line as too long")]
    LineRejected {
        /// The server.
        address: Address,
    },
    /// The reply differs from its message.
    #[error("reply from {address} differs from its message at offset {offset}")]
    ReplyMismatch {
        /// The server.
        address: Address,
        /// Offset of the first difference, counted from 0.
        offset: usize,
    },
    /// The bytes received on a connection differ from those sent.
    #[error(
        "reply from {address} differs at offset {offset} of connection {connection}: {mismatch}"
    )]
    StreamCorruption {
        /// The server.
        address: Address,
        /// Number of the connection, counted from 1.
        connection: u64,
        /// Offset in the bytes of that connection, counted from 0.
        offset: u64,
        /// Kind of the difference.
        mismatch: Mismatch,
    },
    /// The server closed a pipe before the end of its input.
    #[error("send to {address}: connection closed before the end of the input")]
    ClosedBeforeEof {
        /// The server.
        address: Address,
    },
    /// The server neither read nor sent a byte of a pipe in time.
    #[error("read from {address}: timed out after {limit:?} without a byte")]
    IdleTimeout {
        /// The server.
        address: Address,
        /// The time limit.
        limit: Duration,
    },
    /// The input of a pipe cannot be read.
    #[error("read the input")]
    Input {
        /// The cause.
        source: io::Error,
    },
    /// The output of a pipe cannot be written.
    #[error("write the output")]
    Output {
        /// The cause.
        source: io::Error,
    },
}

/// Kind of the first difference between the bytes received and sent on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mismatch {
    /// A byte has another value.
    Changed,
    /// A byte was received that was not sent.
    Added,
    /// A byte that was sent was not received.
    Dropped,
}

impl Mismatch {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::Changed, Self::Added, Self::Dropped];

    /// Returns the name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Dropped => "dropped",
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a byte was {}", self.name())
    }
}

/// Phase of an exchange in which an error occurred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are self-explanatory")]
#[non_exhaustive]
pub enum Phase {
    Resolve,
    Connect,
    Tls,
    Write,
    Read,
    /// The server closed the connection early.
    UnexpectedEof,
    /// The reply differs from its message.
    Mismatch,
    /// The reply was not complete in time.
    Timeout,
}

impl Phase {
    /// All variants, in the order of a connection's life.
    pub const ALL: [Self; 8] = [
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Write,
        Self::Read,
        Self::UnexpectedEof,
        Self::Mismatch,
        Self::Timeout,
    ];

    /// Returns the name used in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Write => "write",
            Self::Read => "read",
            Self::UnexpectedEof => "unexpected_eof",
            Self::Mismatch => "mismatch",
            Self::Timeout => "timeout",
        }
    }
}

impl Error {
    /// Wraps an I/O error of a write.
    pub(crate) fn send(address: Address, source: io::Error) -> Self {
        match TlsError::of_stream(source) {
            Ok(source) => Self::Tls { address, source },
            Err(source) => Self::Send { address, source },
        }
    }

    /// Wraps an I/O error of a read.
    pub(crate) fn receive(address: Address, source: io::Error) -> Self {
        match TlsError::of_stream(source) {
            Ok(source) => Self::Tls { address, source },
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                // The text of rustls has several lines and a link.
                let text = "connection closed without a TLS close_notify";
                Self::Receive {
                    address,
                    source: io::Error::new(source.kind(), text),
                }
            }
            Err(source) => Self::Receive { address, source },
        }
    }

    /// Returns the phase in which the error occurred.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Connect(ConnectError::Resolve(_)) => Phase::Resolve,
            Self::Connect(_) | Self::SpawnThread { .. } => Phase::Connect,
            Self::TlsSetup(_) | Self::Tls { .. } | Self::TlsTimeout { .. } => Phase::Tls,
            Self::Send { .. } | Self::Input { .. } | Self::LineRejected { .. } => Phase::Write,
            Self::Receive { .. } | Self::Output { .. } => Phase::Read,
            Self::UnexpectedEof { .. } | Self::ClosedBeforeEof { .. } => Phase::UnexpectedEof,
            Self::ReplyMismatch { .. }
            | Self::ReplyTooLong { .. }
            | Self::StreamCorruption { .. } => Phase::Mismatch,
            Self::ReplyTimeout { .. } | Self::IdleTimeout { .. } => Phase::Timeout,
        }
    }

    /// Returns the kind of the difference, if the error is one between streams.
    pub fn mismatch(&self) -> Option<Mismatch> {
        if let Self::StreamCorruption { mismatch, .. } = self {
            Some(*mismatch)
        } else {
            None
        }
    }

    /// Returns whether a time limit was exceeded.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::Connect(ConnectError::TimedOut { .. })
                | Self::TlsTimeout { .. }
                | Self::ReplyTimeout { .. }
                | Self::IdleTimeout { .. }
        )
    }

    /// Returns whether all local ports for the server were in use.
    pub fn is_without_port(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_without_port())
    }

    /// Returns whether a local address cannot be used.
    pub fn is_local_address(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_local())
    }

    /// Returns whether the server refused the connection or datagram.
    pub fn is_refused(&self) -> bool {
        let source = match self {
            Self::Connect(ConnectError::Connect { source, .. }) => source,
            // Over UDP the refusal is reported by a later send or receive.
            Self::Send { source, .. } | Self::Receive { source, .. } => source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::ConnectionRefused
    }
}

/// Describes how much of a reply was received before it failed.
fn progress(received: u64) -> String {
    match received {
        0 => "before the reply".into(),
        1 => "with 1 byte of the reply".into(),
        bytes => format!("with {bytes} bytes of the reply"),
    }
}
