//! Errors of a download.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::atomic_file::{InPlaceError, Obstacle};
use crate::checksum::{Algorithm, ChecksumError};
use crate::download::http::error::redact_query;
use crate::download::http::{BasicAuthError, HttpError};
use crate::download::request::headers::HeaderError;
use crate::download::request::status;
use crate::error_chain::ErrorChain;
use crate::escape::Escaped;

/// Item that was not downloaded.
#[derive(Debug, thiserror::Error)]
#[error("download {}", Escaped(redact_query(url).as_bytes()))]
pub struct FailedItem {
    /// The first URL, or the text that is not a URL. Passwords are masked. The query, which may be
    /// secret, is complete here and omitted from the error text.
    pub url: String,
    /// The cause.
    pub source: Error,
}

impl FailedItem {
    /// Returns the cause and its sources in one line that does not repeat the URL.
    pub fn cause(&self) -> String {
        ErrorChain(&self.source).to_string()
    }
}

/// Serialized as the fields `url` and `error`, the [cause](FailedItem::cause).
impl Serialize for FailedItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("FailedItem", 2)?;
        fields.serialize_field("url", &self.url)?;
        fields.serialize_field("error", &self.cause())?;
        fields.end()
    }
}

/// Error of a download. The text does not contain the URL of the item: [`FailedItem`] holds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is invalid or not supported.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The list of items cannot be read.
    #[error("read the list of URLs")]
    List {
        /// The I/O error.
        source: io::Error,
    },
    /// A line of a list is invalid.
    #[error("{}, line {line}", Escaped(list.as_bytes()))]
    Line {
        /// Name of the list.
        list: String,
        /// Line number, from 1.
        line: u64,
        /// The cause.
        source: LineError,
    },
    /// The netrc entry for the host cannot be sent.
    #[error("netrc entry of {}", Escaped(host.as_bytes()))]
    Netrc {
        /// The host.
        host: String,
        /// The cause.
        source: BasicAuthError,
    },
    /// The request or the response failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// A request to which a redirect led failed, or its response.
    #[error("get {url}")]
    Redirected {
        /// URL of the request, without credentials and query.
        url: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The server responded with a status that does not give the file.
    #[error("{}HTTP status {status}", url_prefix(.url))]
    Status {
        /// The status: 202, 204, 205, 300, 305, 306, or 400 and above.
        status: u16,
        /// URL that responded, if a redirect led to it.
        url: Option<String>,
        /// Delay requested by `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// The server requires an authentication scheme that is not supported or not allowed.
    #[error("{}HTTP status {status}: server requires {schemes} authentication", url_prefix(.url))]
    AuthScheme {
        /// The status: 401.
        status: u16,
        /// URL that responded, if a redirect led to it.
        url: Option<String>,
        /// Escaped names of the offered schemes.
        schemes: String,
    },
    /// The host requested a delay that exceeds the time limit for retries. No request was sent.
    #[error("host requested a delay: {:?} remaining, time left {:?}", to_millis(*wait), to_millis(*left))]
    HostDelay {
        /// Remaining delay.
        wait: Duration,
        /// Time left.
        left: Duration,
    },
    /// The response has another media type than the bytes that are present, which are kept.
    #[error("media type {received} instead of {expected}, partial file kept")]
    MediaType {
        /// Media type of the bytes that are present.
        expected: String,
        /// Media type of the response.
        received: String,
    },
    /// The download exceeded its time limit.
    #[error("not complete after {limit:?}")]
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// The body was received below the minimum rate.
    #[error("{received} bytes in {window:?}, fewer than {bytes_per_sec} per second")]
    TooSlow {
        /// Bytes received in the last window.
        received: u64,
        /// Length of the window.
        window: Duration,
        /// Minimum rate.
        bytes_per_sec: u64,
    },
    /// The body does not match its `Content-Encoding`.
    #[error("decompress")]
    CorruptEncoding {
        /// Error of the decoder.
        source: io::Error,
    },
    /// The file exceeds the maximum size.
    #[error("longer than {limit} bytes")]
    TooLarge {
        /// The maximum size in bytes.
        limit: u64,
    },
    /// The checksum differs. The bytes stay in the partial file.
    #[error("{algorithm} mismatch: expected {expected}, got {found}")]
    ChecksumMismatch {
        /// The algorithm.
        algorithm: Algorithm,
        /// The expected checksum, in hexadecimal.
        expected: String,
        /// The checksum of the received bytes, in hexadecimal.
        found: String,
    },
    /// The file differs from the digest that its server sent. The bytes are discarded.
    #[error("{field} of the server: {algorithm} mismatch: expected {expected}, got {found}")]
    DigestMismatch {
        /// The header field.
        field: &'static str,
        /// The algorithm.
        algorithm: Algorithm,
        /// The expected digest, in hexadecimal.
        expected: String,
        /// The digest of the received bytes, in hexadecimal.
        found: String,
    },
    /// The list of checksums has no entry for the file.
    #[error("no entry in the list of checksums")]
    MissingChecksum,
    /// The next retry would exceed the time limit for retries.
    #[error("not retried: delay {:?}, time left {:?}", to_millis(*wait), to_millis(*left))]
    RetryDeadline {
        /// Delay before the retry.
        wait: Duration,
        /// Time left.
        left: Duration,
        /// Error of the last attempt.
        source: Box<Error>,
    },
    /// The last mirror failed after all other sources.
    #[error("last mirror {url}")]
    Mirror {
        /// The mirror, without credentials and query.
        url: String,
        /// The cause.
        source: Box<Error>,
    },
    /// The server does not support resume, and bytes were already written to a stream.
    #[error("server does not support resume, and output already written cannot be undone")]
    CannotRestartOutput,
    /// The server announced a range and sent no byte of it.
    #[error("empty response to a range request")]
    EmptyRangeResponse,
    /// The response to a range request was too short to count as progress.
    #[error("response to a range request has only {count} byte{}", plural(*count))]
    ShortRangeResponse {
        /// Number of bytes that were added.
        count: u64,
    },
    /// The status is not a valid response to the request.
    #[error("unexpected HTTP status {status}")]
    UnexpectedStatus {
        /// The status.
        status: u16,
    },
    /// The redirect was not followed.
    #[error("follow redirect from {url}")]
    Redirect {
        /// URL that sent the redirect.
        url: String,
        /// The cause.
        source: RedirectError,
    },
    /// A local file cannot be created, written or renamed.
    #[error("{action} {}", Escaped(path.as_os_str().as_encoded_bytes()))]
    File {
        /// The operation: `create`, `write`, `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: io::Error,
    },
    /// The requested name is reserved for partial files.
    #[error(
        "{}: names that end in .part, .part.json or .part.new are reserved for partial files",
        Escaped(path.as_os_str().as_encoded_bytes())
    )]
    ReservedName {
        /// The requested path.
        path: PathBuf,
    },
    /// The existing file cannot be replaced by a rename.
    #[error("replace {}: {obstacle}", Escaped(path.as_os_str().as_encoded_bytes()))]
    NotReplaceable {
        /// Path of the file.
        path: PathBuf,
        /// The reason.
        obstacle: Obstacle,
    },
    /// The complete file cannot be copied into the existing one.
    #[error("write {} in place", Escaped(path.as_os_str().as_encoded_bytes()))]
    WriteInPlace {
        /// Path of the existing file.
        path: PathBuf,
        /// The cause, with the path of the complete file.
        source: InPlaceError,
    },
    /// The writer that receives the body failed.
    #[error("write output")]
    WriteOutput {
        /// The I/O error.
        source: io::Error,
    },
    /// The run was cancelled before the file was complete.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Creates the error of a failed operation on a file.
    pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// Returns whether a retry of the same request may succeed. A [`RetryPolicy`] may name further
    /// statuses.
    ///
    /// [`RetryPolicy`]: crate::download::RetryPolicy
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Redirected { source, .. } => source.is_transient(),
            Self::Status {
                status,
                retry_after,
                ..
            } => status::is_transient(*status, retry_after.is_some()),
            Self::EmptyRangeResponse
            | Self::ShortRangeResponse { .. }
            | Self::TooSlow { .. }
            | Self::MediaType { .. } => true,
            _ => false,
        }
    }

    /// Returns whether nothing listens at the address of the server or the proxy.
    pub(crate) fn is_refused(&self) -> bool {
        match self {
            Self::Http(error) => error.is_refused(),
            Self::Redirected { source, .. } => source.is_refused(),
            _ => false,
        }
    }

    /// Returns whether another source of the same file may succeed.
    pub(crate) fn depends_on_source(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(
                error,
                HttpError::InvalidHeader { .. } | HttpError::TlsSetup(_)
            ),
            Self::RetryDeadline { source, .. } | Self::Redirected { source, .. } => {
                source.depends_on_source()
            }
            Self::Status { .. }
            | Self::AuthScheme { .. }
            | Self::HostDelay { .. }
            | Self::MediaType { .. }
            | Self::TooSlow { .. }
            | Self::CorruptEncoding { .. }
            | Self::ChecksumMismatch { .. }
            | Self::DigestMismatch { .. }
            | Self::EmptyRangeResponse
            | Self::ShortRangeResponse { .. }
            | Self::UnexpectedStatus { .. }
            | Self::Redirect { .. } => true,
            _ => false,
        }
    }

    /// Returns the delay requested by `Retry-After`.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Text that is not a supported URL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UrlError {
    /// The text is not a URL.
    #[error("not a URL")]
    Parse {
        /// Error of the URL parser.
        source: url::ParseError,
    },
    /// The scheme is neither http nor https.
    #[error("{scheme} is not supported, only http and https")]
    UnsupportedScheme {
        /// The scheme.
        scheme: String,
    },
    /// The user name or password in the URL cannot be sent.
    #[error("parse user name and password of the URL")]
    Userinfo {
        /// The cause.
        source: BasicAuthError,
    },
}

/// Error in a line of a [`List`](crate::download::List). The text contains no value, because
/// values may be secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineError {
    /// The line is too long.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The maximum length in bytes.
        limit: usize,
    },
    /// The line is not UTF-8.
    #[error("not UTF-8")]
    InvalidUtf8,
    /// The list is UTF-16. It is read no further.
    #[error("the list is UTF-16, expected UTF-8")]
    Utf16,
    /// The line has something that a URL cannot contain.
    #[error("{found} in the line, expected one percent-encoded URL, or mirrors separated by tabs")]
    UnexpectedText {
        /// Name of what the line has.
        found: &'static str,
    },
    /// The URL is invalid or not supported.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The option precedes the first URL.
    #[error("option without a preceding URL")]
    OptionWithoutUrl,
    /// The item was already returned.
    #[error("option after the download was started")]
    LateOption,
    /// The option is unknown.
    #[error("unknown option: an indented line is out=, dir=, checksum= or header=")]
    UnknownOption,
    /// The URL has more options than the limit.
    #[error("more than {limit} options for one URL")]
    TooManyOptions {
        /// The maximum number of options.
        limit: usize,
    },
    /// The options of the URL are too long together.
    #[error("more than {limit} bytes of options for one URL")]
    OptionsTooLong {
        /// The maximum total length in bytes.
        limit: usize,
    },
    /// The path leaves the output directory, starts with a hyphen or contains control characters.
    #[error("{0}= is not a plain path inside the output directory")]
    InvalidPath(&'static str),
    /// The checksum is invalid.
    #[error("parse checksum=")]
    Checksum(#[from] ChecksumError),
    /// The header field is invalid.
    #[error("parse header=")]
    Header(#[from] HeaderError),
}

/// Redirect that was not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RedirectError {
    /// The limit of redirects is exceeded.
    #[error("more than {0} redirects")]
    TooMany(usize),
    /// The scheme of the target is neither http nor https.
    #[error("unsupported scheme: {0}")]
    Scheme(String),
    /// The redirect leads from https to http.
    #[error("redirect from https to http: {0}")]
    Downgrade(String),
    /// The response has no `Location`.
    #[error("no Location header")]
    NoLocation,
    /// `Location` is not a URL.
    #[error("Location is not a URL: {0}")]
    Url(String),
}

fn to_millis(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_nanos(
        (time.subsec_nanos() % 1_000_000).into(),
    ))
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn url_prefix(url: &Option<String>) -> String {
    url.as_ref()
        .map(|url| format!("{url}: "))
        .unwrap_or_default()
}
