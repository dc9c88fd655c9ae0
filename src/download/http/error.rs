//! Why a request failed.

use std::io;
use std::time::Duration;

use crate::net::connect::ConnectError;
use crate::net::tls::{RootsError, TlsError};

/// Why a request has no answer, or no whole one.
///
/// A URL in the text is without its user, password and query: those may be secrets.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The URL is none that HTTP can fetch.
    #[error("get {url}: not an http or https URL")]
    Url {
        /// The URL.
        url: String,
    },
    /// A request field would break the request, or change where it ends; nothing has been sent.
    #[error("request header {name}: {problem}")]
    Field {
        /// The field's name, made safe to show.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name does not resolve, or nobody takes the connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There are no certificates to trust.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The TLS handshake failed.
    #[error("start TLS with {host}")]
    Tls {
        /// The name of the server.
        host: String,
        /// Why.
        source: TlsError,
    },
    /// The server does not keep to HTTP.
    #[error("get {url}")]
    Protocol {
        /// What was asked for.
        url: String,
        /// How.
        source: ProtocolError,
    },
    /// The connection ended before the answer did.
    #[error("get {url}: cut short after {received} bytes{}", of(*.expected))]
    CutShort {
        /// What was asked for.
        url: String,
        /// The bytes of the body that came.
        received: u64,
        /// The length that the server had told.
        expected: Option<u64>,
    },
    /// No byte came for too long.
    #[error("get {url}: not a byte for {limit:?}")]
    TimedOut {
        /// What was asked for.
        url: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The connection broke.
    #[error("get {url}")]
    Io {
        /// What was asked for.
        url: String,
        /// What the system said.
        source: io::Error,
    },
}

fn of(expected: Option<u64>) -> String {
    expected.map(|length| format!(" of {length}")).unwrap_or_default()
}

/// How a server does not keep to HTTP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not a head of HTTP/1.
    #[error("not an HTTP answer")]
    Head,
}

impl HttpError {
    /// Finds the error of a body in the error of a read.
    pub fn from_io(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|source| Self::Io { url: String::new(), source })
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::CutShort { .. } | Self::TimedOut { .. } | Self::Io { .. } => {
                true
            }
            Self::Tls { source, .. } => matches!(source, TlsError::Broken { .. }),
            Self::Url { .. } | Self::Field { .. } | Self::Roots(_) | Self::Protocol { .. } => false,
        }
    }
}
