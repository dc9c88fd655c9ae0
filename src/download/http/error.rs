//! Why a request failed.

use std::io;
use std::time::Duration;

use url::{Position, Url};

use super::idle::Silent;
use crate::escape::Escaped;
use crate::net::connect::ConnectError;
use crate::net::tls::{TlsError, TlsSetupError};

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
    /// There are no certificates to trust, or none to show.
    #[error(transparent)]
    TlsSetup(#[from] TlsSetupError),
    /// The proxy, or what it was asked for, failed.
    #[error("go through the proxy {proxy}")]
    Proxy {
        /// The proxy, without who asks it.
        proxy: String,
        /// Why.
        source: ProxyError,
    },
    /// The TLS handshake failed, or the server has found fault with it later.
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
    #[error("get {url}: cut short {}", after(*received, *expected))]
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

/// Why there is no connection through a proxy.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy is not reached, or a name that it is to be told does not resolve.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It wants to know who asks.
    #[error("it wants a user name and password")]
    LoginRequired,
    /// It does not let this user in.
    #[error("it refuses the user name and password")]
    LoginRefused,
    /// It does not open a tunnel.
    #[error("it answers CONNECT with HTTP status {status}")]
    Refused {
        /// The status.
        status: u16,
    },
    /// It does not connect (RFC 1928 section 6).
    #[error("{}", socks_reply(*reply))]
    Socks {
        /// The number of the reason.
        reply: u8,
    },
    /// It speaks something else.
    #[error("it does not speak SOCKS5")]
    NotSocks,
    /// Its answer is not of HTTP.
    #[error("it does not keep to HTTP")]
    Protocol {
        /// How.
        source: ProtocolError,
    },
    /// It sends bytes before it has been asked for any.
    #[error("it sends more than its answer")]
    Surplus,
    /// The host has no name or address that it can be told.
    #[error("the host has no name or address that a proxy can be told")]
    Name,
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// Nothing came for too long.
    #[error("not a byte for {limit:?}")]
    Silent {
        /// How long was waited.
        limit: Duration,
    },
    /// The connection to it broke.
    #[error("the connection broke")]
    Io {
        /// What the system said.
        source: io::Error,
    },
}

impl ProxyError {
    /// Whether it is that the proxy does not know who asks.
    pub fn is_login(&self) -> bool {
        matches!(self, Self::LoginRequired | Self::LoginRefused)
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Closed | Self::Silent { .. } | Self::Io { .. } => true,
            Self::Refused { status } => matches!(status, 429 | 500 | 502..=504),
            Self::Socks { reply } => matches!(reply, 1 | 3..=6),
            _ => false,
        }
    }
}

impl From<io::Error> for ProxyError {
    fn from(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io { source },
        }
    }
}

fn socks_reply(reply: u8) -> &'static str {
    match reply {
        2 => "its rules do not allow the connection",
        3 => "it cannot reach the network",
        4 => "it cannot reach the host",
        5 => "the host refuses its connection",
        6 => "its packets do not arrive in time (TTL)",
        7 => "it does not know CONNECT",
        8 => "it does not know this kind of address",
        _ => "it failed",
    }
}

fn after(received: u64, expected: Option<u64>) -> String {
    match (received, expected) {
        (0, None) => "before the body".into(),
        (received, None) => format!("after {received} bytes"),
        (received, Some(length)) => format!("after {received} of {length} bytes"),
    }
}

/// How a server does not keep to HTTP. Its bytes are made safe to show.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The answer does not begin as one of HTTP/1.0 or HTTP/1.1.
    #[error("not an HTTP/1 answer: \"{line}\"")]
    StatusLine {
        /// Its first line.
        line: String,
    },
    /// The head is longer than [`MAX_HEAD`](super::head::MAX_HEAD).
    #[error("the head is longer than 256 KiB")]
    HeadTooLong,
    /// The head has more fields than [`MAX_FIELDS`](super::head::MAX_FIELDS).
    #[error("the head has more than 1000 fields")]
    TooManyFields,
    /// A line of the head is no field.
    #[error("a line of the head is no header field")]
    Field,
    /// A field that tells where the body ends holds a control byte.
    #[error("Content-Length or Transfer-Encoding holds a control byte")]
    ControlByte,
    /// `Content-Length` is no number, or too large a one.
    #[error("Content-Length is no number: \"{value}\"")]
    ContentLength {
        /// What it is.
        value: String,
    },
    /// There are several lengths.
    #[error("several Content-Lengths differ")]
    ContentLengths,
    /// The body is coded in a way that was not asked for.
    #[error("Transfer-Encoding is not chunked: \"{value}\"")]
    TransferEncoding {
        /// The codings.
        value: String,
    },
    /// Interim answers (1xx) without an end.
    #[error("more than 10 interim answers")]
    Interim,
    /// Status 101, which nobody asked for.
    #[error("switches protocols unasked (101)")]
    Switch,
    /// A chunk begins with no size, or with too long a line.
    #[error("not a chunk size: \"{line}\"")]
    ChunkSize {
        /// How the line begins.
        line: String,
    },
    /// Behind a chunk stands no line end.
    #[error("a chunk is longer than its size")]
    ChunkEnd,
    /// The trailer fields are longer than [`MAX_TRAILERS`](super::chunks::MAX_TRAILERS).
    #[error("the trailers are malformed or longer than 16 KiB")]
    Trailers,
}

impl HttpError {
    /// Finds the error of a body in the error of a read from it.
    pub fn from_io(error: io::Error) -> Self {
        error.downcast().unwrap_or_else(|source| Self::Io {
            url: "a URL".into(),
            source,
        })
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::CutShort { .. } | Self::TimedOut { .. } | Self::Io { .. } => {
                true
            }
            Self::Proxy { source, .. } => source.is_transient(),
            Self::Tls { source, .. } => matches!(source, TlsError::Io { .. }),
            Self::Url { .. } | Self::Field { .. } | Self::TlsSetup(_) | Self::Protocol { .. } => {
                false
            }
        }
    }

    pub(super) fn from_surf(url: &Url, error: surf::Error) -> Self {
        error.downcast().unwrap_or_else(|error| {
            let source = io::Error::other(error.to_string());
            Self::Io {
                url: shown(url),
                source,
            }
        })
    }

    pub(super) fn url(url: &Url) -> Self {
        Self::Url { url: shown(url) }
    }

    pub(super) fn of(url: &Url, failure: Failure, received: u64, expected: Option<u64>) -> Self {
        let authority = url[Position::BeforeHost..Position::AfterPort].to_owned();
        let url = shown(url);
        match failure {
            Failure::Closed | Failure::Cut => Self::CutShort {
                url,
                received,
                expected,
            },
            Failure::Silent(limit) => Self::TimedOut { url, limit },
            Failure::Io(source) => Self::Io { url, source },
            Failure::Protocol(source) => Self::Protocol { url, source },
            Failure::Tls(source) => Self::Tls {
                host: authority,
                source,
            },
        }
    }
}

/// A URL without what may be secret in it: user and password, and the values behind the `?`.
pub(in crate::download) fn shown(url: &Url) -> String {
    let query = if url.query().is_some() { "?…" } else { "" };
    let plain = [
        &url[..Position::BeforeUsername],
        &url[Position::BeforeHost..Position::AfterPath],
    ];
    format!("{}{query}", Escaped(plain.concat().as_bytes()))
}

impl From<HttpError> for io::Error {
    fn from(error: HttpError) -> Self {
        let kind = match &error {
            HttpError::CutShort { .. } => io::ErrorKind::UnexpectedEof,
            HttpError::TimedOut { .. } => io::ErrorKind::TimedOut,
            HttpError::Protocol { .. } => io::ErrorKind::InvalidData,
            HttpError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What ends an exchange; a [`HttpError`] tells besides what was asked for.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection was closed before the first byte of the answer.
    Closed,
    /// The connection ended before the answer did.
    Cut,
    /// Nothing came for this long.
    Silent(Duration),
    /// The connection broke.
    Io(io::Error),
    /// The server does not keep to HTTP.
    Protocol(ProtocolError),
    /// What TLS has to say.
    Tls(TlsError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.downcast::<Silent>() {
            Ok(Silent(limit)) => Self::Silent(limit),
            // So TLS tells an end without the word of the other side.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Cut,
            Err(error) => TlsError::of_stream(error).map_or_else(Self::Io, Self::Tls),
        }
    }
}

impl From<ProtocolError> for Failure {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_told() {
        for (url, text) in [
            ("http://example.org", "http://example.org/"),
            (
                "https://user:secret@example.org:8443/a%20b",
                "https://example.org:8443/a%20b",
            ),
            ("http://[::1]:1/x?token=secret#part", "http://[::1]:1/x?…"),
        ] {
            assert_eq!(shown(&url.parse().unwrap()), text);
        }
        let long = format!("http://h/{}", "x".repeat(1000));
        assert!(shown(&long.parse().unwrap()).len() < 300);
    }

    #[test]
    fn how_much_came_is_told() {
        let url = "http://h/x".parse().unwrap();
        for (received, expected, text) in [
            (0, None, "get http://h/x: cut short before the body"),
            (7, None, "get http://h/x: cut short after 7 bytes"),
            (7, Some(9), "get http://h/x: cut short after 7 of 9 bytes"),
        ] {
            let error = HttpError::of(&url, Failure::Cut, received, expected);
            assert_eq!(error.to_string(), text);
            assert!(error.is_transient());
        }
    }

    #[test]
    fn the_error_of_a_body_comes_back_out_of_the_error_of_a_read() {
        let url = "http://h/x".parse().unwrap();
        let error = HttpError::of(&url, ProtocolError::ChunkEnd.into(), 0, None);
        let read = io::Error::from(error);
        assert_eq!(read.kind(), io::ErrorKind::InvalidData);
        let back = HttpError::from_io(read);
        assert!(matches!(
            back,
            HttpError::Protocol {
                source: ProtocolError::ChunkEnd,
                ..
            }
        ));
        assert!(!back.is_transient());
        let other = HttpError::from_io(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(other, HttpError::Io { .. }) && other.is_transient());
    }
}
