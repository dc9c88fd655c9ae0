//! Errors of requests, proxies and the HTTP protocol.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use url::{Position, Url};

use super::proxy::InvalidProxy;
use super::read_timeout::ReadTimedOut;
use crate::escape::Escaped;
use crate::net::address::Endpoint;
use crate::net::connect::ConnectError;
use crate::net::tls::{TlsError, TlsSetupError};

/// Error of a request or of its response body. The text does not contain the URL: the caller has
/// it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The URL is not an http or https URL.
    #[error("not an http or https URL")]
    UnsupportedUrl,
    /// The request cannot be sent with HTTP/1.1; nothing has been sent.
    #[error("{problem}")]
    UnsupportedRequest {
        /// Description of the problem.
        problem: &'static str,
    },
    /// A request header is invalid or contradicts the body; nothing has been sent.
    #[error("request header {name}: {problem}")]
    InvalidHeader {
        /// Escaped header name.
        name: String,
        /// Description of the problem.
        problem: &'static str,
    },
    /// Name resolution or the connection failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The root certificates or the client certificate cannot be loaded.
    #[error(transparent)]
    TlsSetup(#[from] TlsSetupError),
    /// The setting of the proxy for this URL cannot be used; nothing has been sent.
    #[error(transparent)]
    InvalidProxy(Box<InvalidProxy>),
    /// The connection through the proxy failed.
    #[error("connect through proxy {proxy}")]
    Proxy {
        /// The proxy without its credentials.
        proxy: String,
        /// The cause.
        source: ProxyError,
    },
    /// The TLS handshake failed, or the server sent an alert later.
    #[error("TLS handshake with {host}")]
    Tls {
        /// The name of the server.
        host: String,
        /// The cause.
        source: TlsError,
    },
    /// The server violates HTTP.
    #[error(transparent)]
    Protocol {
        /// The violation.
        source: ProtocolError,
    },
    /// The request body cannot be read, or it is shorter than its length.
    #[error("read the request body")]
    RequestBody {
        /// The error of the read.
        source: io::Error,
    },
    /// The connection ended before the response was complete.
    #[error("incomplete response {}", after(*received, *expected))]
    IncompleteBody {
        /// Body bytes received.
        received: u64,
        /// Announced body length.
        expected: Option<u64>,
    },
    /// No byte arrived within the limit.
    #[error("no data for {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The response head was not received within the limit of the surf configuration.
    #[error("no response within {limit:?}")]
    NoResponse {
        /// The limit.
        limit: Duration,
    },
    /// A read from a body failed with an error that does not come from this client.
    #[error("read the response body")]
    ReadBody {
        /// The error of the read.
        source: io::Error,
    },
    /// The connection failed.
    #[error(transparent)]
    Io {
        /// The I/O error.
        source: io::Error,
    },
}

/// Error of a connection through a proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy cannot be reached, or the target's name does not resolve.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The proxy requires credentials.
    #[error("user name and password required")]
    AuthRequired,
    /// The proxy rejected the credentials.
    #[error("user name or password rejected")]
    AuthRejected,
    /// The proxy requires an authentication scheme that is not supported or not allowed.
    #[error("proxy requires {schemes} authentication")]
    AuthScheme {
        /// Escaped names of the offered schemes.
        schemes: String,
    },
    /// The proxy refused to open a tunnel.
    #[error("HTTP status {status} in response to CONNECT")]
    Refused {
        /// The status.
        status: u16,
    },
    /// The SOCKS request failed (RFC 1928 section 6).
    #[error("{}", socks_reply(*reply))]
    Socks {
        /// The reply code.
        reply: u8,
    },
    /// The proxy does not speak SOCKS5.
    #[error("not a SOCKS5 proxy")]
    NotSocks5,
    /// The TLS handshake with the proxy failed, or the proxy sent an alert later.
    #[error("TLS handshake")]
    Tls {
        /// The cause.
        source: Box<TlsError>,
    },
    /// The proxy violates HTTP.
    #[error("invalid HTTP response")]
    Protocol {
        /// The violation.
        source: ProtocolError,
    },
    /// The proxy sent bytes after its response, before the first request.
    #[error("unexpected data after the response")]
    UnexpectedData,
    /// The target has no name or address that the protocol can encode.
    #[error("the target host cannot be sent to a proxy")]
    UnsupportedHost,
    /// The proxy closed the connection.
    #[error("connection closed by the proxy")]
    Closed,
    /// No data arrived within the limit.
    #[error("no data for {limit:?}")]
    TimedOut {
        /// The limit.
        limit: Duration,
    },
    /// The connection to the proxy failed.
    #[error("connection to the proxy failed")]
    Io {
        /// The I/O error.
        source: io::Error,
    },
}

impl ProxyError {
    /// Returns whether authentication failed or is missing.
    pub fn is_auth(&self) -> bool {
        matches!(
            self,
            Self::AuthRequired | Self::AuthRejected | Self::AuthScheme { .. }
        )
    }

    fn is_transient(&self) -> bool {
        match self {
            Self::Connect(source) => source.is_transient(),
            Self::Closed | Self::TimedOut { .. } | Self::Io { .. } => true,
            Self::Tls { source } => matches!(**source, TlsError::Io { .. }),
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
        2 => "connection not allowed by ruleset",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "TTL expired",
        7 => "command not supported",
        8 => "address type not supported",
        _ => "general SOCKS server failure",
    }
}

fn after(received: u64, expected: Option<u64>) -> String {
    match (received, expected) {
        (0, None) => "before the body".into(),
        (received, None) => format!("after {received} bytes"),
        (received, Some(length)) => format!("after {received} of {length} bytes"),
    }
}

/// Violation of HTTP by a server. Bytes of the server are escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The status line is not one of HTTP/1.0 or HTTP/1.1.
    #[error("not an HTTP/1 response: \"{line}\"")]
    StatusLine {
        /// Its first line.
        line: String,
    },
    /// The head is longer than 256 KiB.
    #[error("the head is longer than 256 KiB")]
    HeadTooLong,
    /// The head has more than 1000 headers.
    #[error("the head has more than 1000 headers")]
    TooManyFields,
    /// A line of the head is not a header.
    #[error("malformed header")]
    MalformedHeader,
    /// `Content-Length` or `Transfer-Encoding` contains a control byte.
    #[error("control byte in Content-Length or Transfer-Encoding")]
    ControlByte,
    /// `Content-Length` is not a number or too large.
    #[error("invalid Content-Length: \"{value}\"")]
    ContentLength {
        /// Escaped value.
        value: String,
    },
    /// The `Content-Length` values differ.
    #[error("conflicting Content-Length values")]
    ContentLengths,
    /// The transfer coding is not supported.
    #[error("unsupported Transfer-Encoding: \"{value}\"")]
    TransferEncoding {
        /// Escaped list of codings.
        value: String,
    },
    /// Too many informational responses (1xx).
    #[error("more than 10 informational responses")]
    TooManyInformational,
    /// Status 101 without an upgrade request.
    #[error("unexpected protocol upgrade (101)")]
    UnexpectedUpgrade,
    /// A chunk-size line is invalid or too long.
    #[error("invalid chunk size: \"{line}\"")]
    ChunkSize {
        /// Escaped start of the line.
        line: String,
    },
    /// A chunk is not followed by CR LF.
    #[error("missing line end after a chunk")]
    MissingChunkTerminator,
    /// The trailers are malformed or longer than 16 KiB.
    #[error("the trailers are malformed or longer than 16 KiB")]
    Trailers,
}

impl HttpError {
    /// Extracts the error from the I/O error of a body read.
    pub fn from_io(error: io::Error) -> Self {
        error
            .downcast()
            .unwrap_or_else(|source| Self::ReadBody { source })
    }

    /// Returns whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(source) => source.is_transient(),
            Self::IncompleteBody { .. }
            | Self::TimedOut { .. }
            | Self::NoResponse { .. }
            | Self::Io { .. }
            | Self::ReadBody { .. } => true,
            Self::Proxy { source, .. } => source.is_transient(),
            Self::Tls { source, .. } => matches!(source, TlsError::Io { .. }),
            Self::UnsupportedUrl
            | Self::UnsupportedRequest { .. }
            | Self::InvalidHeader { .. }
            | Self::RequestBody { .. }
            | Self::TlsSetup(_)
            | Self::InvalidProxy(_)
            | Self::Protocol { .. } => false,
        }
    }

    /// Returns whether nothing listens at the address of the server or the proxy.
    pub fn is_refused(&self) -> bool {
        match self {
            Self::Connect(source)
            | Self::Proxy {
                source: ProxyError::Connect(source),
                ..
            } => source.is_refused(),
            _ => false,
        }
    }

    /// Extracts the error from the error of a surf client that uses a
    /// [`Transport`](super::Transport): that of a request, and that of a body read to a value, such
    /// as with `body_bytes`.
    ///
    /// # Errors
    ///
    /// The error itself if it does not come from the transport.
    pub fn from_surf(error: surf::Error) -> Result<Self, surf::Error> {
        let status = error.status();
        let error = match error.downcast::<Self>() {
            Ok(error) => return Ok(error),
            Err(error) => error,
        };
        match error.downcast::<io::Error>()?.downcast() {
            Ok(error) => Ok(error),
            Err(error) => Err(surf::Error::new(status, error)),
        }
    }

    /// Adds the received and expected body length to an error of a connection to `host`.
    pub(super) fn of(
        host: &Endpoint,
        failure: RoundTripError,
        received: u64,
        expected: Option<u64>,
    ) -> Self {
        match failure {
            RoundTripError::ClosedBeforeResponse | RoundTripError::UnexpectedEof => {
                Self::IncompleteBody { received, expected }
            }
            RoundTripError::TimedOut(limit) => Self::TimedOut { limit },
            RoundTripError::Io(source) => Self::Io { source },
            RoundTripError::RequestBody(source) => Self::RequestBody { source },
            RoundTripError::Protocol(source) => Self::Protocol { source },
            RoundTripError::Tls(source) => Self::Tls {
                host: host.to_string(),
                source,
            },
        }
    }
}

/// Formats a URL without user, password and query, which may be secret.
pub(in crate::download) fn redact_url(url: &Url) -> String {
    let query = if url.query().is_some() { "?…" } else { "" };
    let plain = [
        &url[..Position::BeforeUsername],
        &url[Position::BeforeHost..Position::AfterPath],
    ];
    format!("{}{query}", Escaped(plain.concat().as_bytes()))
}

/// Returns the text of a URL without its fragment, and with an ellipsis instead of its query: that
/// of a signed link is a secret. The text need not be a valid URL.
pub fn redact_query(url: &str) -> Cow<'_, str> {
    match url.find(['?', '#']) {
        Some(at) if url[at..].starts_with('?') => format!("{}?…", &url[..at]).into(),
        Some(at) => url[..at].into(),
        None => url.into(),
    }
}

impl From<HttpError> for io::Error {
    fn from(error: HttpError) -> Self {
        let kind = match &error {
            HttpError::IncompleteBody { .. } => io::ErrorKind::UnexpectedEof,
            HttpError::TimedOut { .. } | HttpError::NoResponse { .. } => io::ErrorKind::TimedOut,
            HttpError::Protocol { .. } => io::ErrorKind::InvalidData,
            HttpError::Io { source }
            | HttpError::ReadBody { source }
            | HttpError::RequestBody { source } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// Error of a round trip, without the lengths and the host that [`HttpError`] adds.
#[derive(Debug)]
pub(super) enum RoundTripError {
    /// The connection was closed before the first byte of the response.
    ClosedBeforeResponse,
    /// The connection ended before the response was complete.
    UnexpectedEof,
    /// No data for this long.
    TimedOut(Duration),
    /// The connection failed.
    Io(io::Error),
    /// The request body cannot be read.
    RequestBody(io::Error),
    /// The server violates HTTP.
    Protocol(ProtocolError),
    /// TLS error.
    Tls(TlsError),
}

impl From<io::Error> for RoundTripError {
    fn from(error: io::Error) -> Self {
        match error.downcast::<ReadTimedOut>() {
            Ok(ReadTimedOut(limit)) => Self::TimedOut(limit),
            // rustls reports a missing close_notify this way.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::UnexpectedEof,
            Err(error) => TlsError::of_stream(error).map_or_else(Self::Io, Self::Tls),
        }
    }
}

impl From<ProtocolError> for RoundTripError {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redacted_url_omits_secrets() {
        for (url, text) in [
            ("http://example.org", "http://example.org/"),
            (
                "https://user:secret@example.org:8443/a%20b",
                "https://example.org:8443/a%20b",
            ),
            ("http://[::1]:1/x?token=secret#part", "http://[::1]:1/x?…"),
        ] {
            assert_eq!(redact_url(&url.parse().unwrap()), text);
        }
        for (text, redacted) in [
            ("http://h/x?token=secret#secret", "http://h/x?…"),
            ("http://h/x#secret?secret", "http://h/x"),
            ("no URL?secret", "no URL?…"),
            ("http://h/x", "http://h/x"),
        ] {
            assert_eq!(redact_query(text), redacted);
        }
        let long = format!("http://h/{}", "x".repeat(1000));
        assert!(redact_url(&long.parse().unwrap()).len() < 300);
    }

    #[test]
    fn incomplete_body_reports_received_bytes() {
        for (received, expected, text) in [
            (0, None, "incomplete response before the body"),
            (7, None, "incomplete response after 7 bytes"),
            (7, Some(9), "incomplete response after 7 of 9 bytes"),
        ] {
            let host = Endpoint::loopback(1);
            let error = HttpError::of(&host, RoundTripError::UnexpectedEof, received, expected);
            assert_eq!(error.to_string(), text);
            assert!(error.is_transient());
        }
    }

    #[test]
    fn http_error_is_extracted_from_io_error() {
        let source = ProtocolError::MissingChunkTerminator;
        let read = io::Error::from(HttpError::Protocol { source });
        assert_eq!(read.kind(), io::ErrorKind::InvalidData);
        let back = HttpError::from_io(read);
        assert!(matches!(
            back,
            HttpError::Protocol {
                source: ProtocolError::MissingChunkTerminator,
                ..
            }
        ));
        assert!(!back.is_transient());
        let other = HttpError::from_io(io::ErrorKind::ConnectionReset.into());
        assert!(matches!(other, HttpError::ReadBody { .. }) && other.is_transient());
    }

    #[test]
    fn http_error_is_extracted_from_surf_error() {
        let direct = surf::Error::new(500, HttpError::UnsupportedUrl);
        let wrapped = surf::Error::new(422, io::Error::from(HttpError::UnsupportedUrl));
        for error in [direct, wrapped] {
            let back = HttpError::from_surf(error).unwrap();
            assert!(matches!(back, HttpError::UnsupportedUrl), "{back:?}");
        }
        let io = surf::Error::new(422, io::Error::other("x"));
        let text = surf::Error::from_str(404, "x");
        for (error, status) in [(io, 422), (text, 404)] {
            let error = HttpError::from_surf(error).unwrap_err();
            assert_eq!(
                (u16::from(error.status()), error.to_string()),
                (status, "x".into())
            );
        }
    }
}
