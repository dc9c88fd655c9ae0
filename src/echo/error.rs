//! Why there is no reply, or not the one that was wanted.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::net::address::Address;
use crate::net::connect::ConnectError;
use crate::net::tls::{TlsError, TlsSetupError};

/// What went wrong with one message, or with one stream of bytes.
#[derive(Debug, thiserror::Error)]
pub enum EchoError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// What TLS needs cannot be had.
    #[error(transparent)]
    Setup(#[from] TlsSetupError),
    /// The server does not prove who it is, or TLS has failed otherwise.
    #[error("speak TLS with {address}")]
    Tls {
        /// The server.
        address: Address,
        /// What is wrong.
        source: TlsError,
    },
    /// The handshake of TLS was not done in time.
    #[error("speak TLS with {address}: timed out after {limit:?}")]
    Handshake {
        /// The server.
        address: Address,
        /// How long was waited.
        limit: Duration,
    },
    /// There is no thread to work on.
    #[error("start a thread")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
    /// The server took no more, and the reply had not come.
    #[error("send to {address}")]
    Send {
        /// The server.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke while the reply was read.
    #[error("read the reply of {address}")]
    Receive {
        /// The server.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The server closed the connection first.
    #[error("read the reply of {address}: closed by the server {}", how_far(*.received))]
    Closed {
        /// The server.
        address: Address,
        /// The bytes that had come of this reply; none of them ends a line.
        received: u64,
    },
    /// The reply was not whole in time.
    #[error("read the reply of {address}: timed out after {limit:?}, {}", how_far(*.received))]
    TimedOut {
        /// The server.
        address: Address,
        /// How long was waited.
        limit: Duration,
        /// The bytes that had come of this reply; none of them ends a line.
        received: u64,
    },
    /// The reply has no end.
    #[error("read the reply of {address}: longer than {limit} bytes")]
    TooLong {
        /// The server.
        address: Address,
        /// The most that a reply may have.
        limit: usize,
    },
    /// The reply is not the message.
    #[error("the reply of {address} differs from its message at offset {offset}")]
    Differs {
        /// The server.
        address: Address,
        /// Where they first differ, counted from 0.
        offset: usize,
    },
    /// What came back on a connection is not what was sent.
    #[error(
        "the reply of {address} differs at offset {offset} of connection {connection}: {mismatch}"
    )]
    Mismatch {
        /// The server.
        address: Address,
        /// The connection, counted from 1.
        connection: u64,
        /// The offset in the bytes of that connection, counted from 0.
        offset: u64,
        /// What was done to the bytes.
        mismatch: Mismatch,
    },
    /// The server closed a stream of bytes whose input had not ended.
    #[error("send to {address}: closed by the server before the input had ended")]
    ClosedEarly {
        /// The server.
        address: Address,
    },
    /// The server has neither taken nor sent a byte of a stream for too long.
    #[error("read from {address}: timed out after {limit:?} without a byte")]
    Silent {
        /// The server.
        address: Address,
        /// How long was waited.
        limit: Duration,
    },
    /// The input of a stream of bytes cannot be read.
    #[error("read the input")]
    Input {
        /// What the system said.
        source: io::Error,
    },
    /// What came cannot be written to the output.
    #[error("write the output")]
    Output {
        /// What the system said.
        source: io::Error,
    },
}

/// How a stream of replies first left the stream of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mismatch {
    /// A byte is not the one that was sent.
    Changed,
    /// A byte came that was not sent.
    Added,
    /// A byte that was sent did not come.
    Dropped,
}

impl Mismatch {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Changed, Self::Added, Self::Dropped];

    /// Its name in reports.
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

/// What was being done when something went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "their names say what they are")]
pub enum Phase {
    Resolve,
    Connect,
    Tls,
    Write,
    Read,
    /// The server closed the connection first.
    EarlyEnd,
    /// What came is not what was sent.
    Mismatch,
    /// The reply was not whole in time.
    Timeout,
}

impl Phase {
    /// All of them, in the order of a connection's life.
    pub const ALL: [Self; 8] = [
        Self::Resolve,
        Self::Connect,
        Self::Tls,
        Self::Write,
        Self::Read,
        Self::EarlyEnd,
        Self::Mismatch,
        Self::Timeout,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Write => "write",
            Self::Read => "read",
            Self::EarlyEnd => "early_end",
            Self::Mismatch => "mismatch",
            Self::Timeout => "timeout",
        }
    }
}

impl EchoError {
    /// Why nothing more could be sent.
    pub(crate) fn send(address: Address, source: io::Error) -> Self {
        match TlsError::of_stream(source) {
            Ok(source) => Self::Tls { address, source },
            Err(source) => Self::Send { address, source },
        }
    }

    /// Why nothing more could be read.
    pub(crate) fn receive(address: Address, source: io::Error) -> Self {
        match TlsError::of_stream(source) {
            Ok(source) => Self::Tls { address, source },
            Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => {
                // What rustls says is a line of its own and a link.
                let text = "cut short: the end of TLS (close_notify) did not come";
                Self::Receive {
                    address,
                    source: io::Error::new(source.kind(), text),
                }
            }
            Err(source) => Self::Receive { address, source },
        }
    }

    /// What was being done.
    pub fn phase(&self) -> Phase {
        match self {
            Self::Connect(ConnectError::Resolve(_)) => Phase::Resolve,
            Self::Connect(_) | Self::Thread { .. } => Phase::Connect,
            Self::Setup(_) | Self::Tls { .. } | Self::Handshake { .. } => Phase::Tls,
            Self::Send { .. } | Self::Input { .. } => Phase::Write,
            Self::Receive { .. } | Self::Output { .. } => Phase::Read,
            Self::Closed { .. } | Self::ClosedEarly { .. } => Phase::EarlyEnd,
            Self::Differs { .. } | Self::TooLong { .. } | Self::Mismatch { .. } => Phase::Mismatch,
            Self::TimedOut { .. } | Self::Silent { .. } => Phase::Timeout,
        }
    }

    /// What was done to the bytes, if it is known.
    pub fn mismatch(&self) -> Option<Mismatch> {
        if let Self::Mismatch { mismatch, .. } = self {
            Some(*mismatch)
        } else {
            None
        }
    }

    /// Whether it took too long, rather than failed.
    pub fn is_timeout(&self) -> bool {
        let connecting = matches!(self, Self::Connect(ConnectError::TimedOut { .. }));
        let late = matches!(self, Self::Handshake { .. } | Self::TimedOut { .. });
        connecting || late || matches!(self, Self::Silent { .. })
    }

    /// Whether nobody listens at the address.
    pub fn is_refused(&self) -> bool {
        let source = match self {
            Self::Connect(ConnectError::Connect { source, .. }) => source,
            // With datagrams that is told where the answer is read.
            Self::Send { source, .. } | Self::Receive { source, .. } => source,
            _ => return false,
        };
        source.kind() == io::ErrorKind::ConnectionRefused
    }
}

fn how_far(received: u64) -> String {
    match received {
        0 => "before it came".into(),
        bytes => format!("after {bytes} bytes of it"),
    }
}
