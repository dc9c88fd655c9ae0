//! What can go wrong with one file.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::download::http::{HttpError, LoginError};
use crate::download::input::list::LineError;
use crate::download::store::checksum::Algorithm;
use crate::download::transfer::retry;
use crate::error_chain::ErrorChain;
use crate::escape::Escaped;

/// Why a file was not fetched. The text names no URL: [`Failure`](super::Failure) holds it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The text is no URL.
    #[error("not a URL")]
    Url {
        /// What the parser said.
        source: url::ParseError,
    },
    /// Neither http nor https.
    #[error("{scheme} is not supported, only http and https")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// The user name or password in the URL cannot be sent.
    #[error("read the URL's user name and password")]
    Userinfo {
        /// What is wrong with it.
        source: LoginError,
    },
    /// The list of what is to be fetched cannot be read on.
    #[error("read the list of URLs")]
    List {
        /// What the system said.
        source: io::Error,
    },
    /// A line of a list is wrong.
    #[error("{}, line {line}", Escaped(list.as_bytes()))]
    Line {
        /// What the list is called.
        list: String,
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        source: LineError,
    },
    /// The request or the answer failed.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The server answered with an error.
    #[error("{}HTTP status {status}", from_elsewhere(.url))]
    Status {
        /// The status, 400 or above.
        status: u16,
        /// Who answered, if it was not the URL that was asked for.
        url: Option<String>,
        /// How long the server wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The file took longer than it may.
    #[error("not whole after {limit:?}")]
    OutOfTime {
        /// How long it may take.
        limit: Duration,
    },
    /// The body came too slowly.
    #[error("{text}")]
    TooSlow {
        /// How slowly.
        text: String,
    },
    /// The body is not what its `Content-Encoding` says.
    #[error("unpack: {text}")]
    Damaged {
        /// What is wrong with it.
        text: String,
    },
    /// The file has more bytes than are wanted.
    #[error("longer than {limit} bytes")]
    TooLarge {
        /// How many are wanted at most.
        limit: u64,
    },
    /// The bytes are not those that are meant. They stay in the part.
    #[error("the {algorithm} is {found}, not {expected}")]
    Checksum {
        /// How they were added up.
        algorithm: Algorithm,
        /// What they were to add up to.
        expected: String,
        /// What they add up to.
        found: String,
    },
    /// The list of checksums does not have the file.
    #[error("the list of checksums does not have it")]
    Unlisted,
    /// Another try would come later than the time for all tries allows.
    #[error("not tried again: {:?} to wait, {:?} left", to_millis(*wait), to_millis(*left))]
    TooLate {
        /// How long would be waited.
        wait: Duration,
        /// How long may still be waited.
        left: Duration,
        /// Why the last try failed.
        source: Box<DownloadError>,
    },
    /// The last mirror failed too, after all sources before it.
    #[error("the last mirror, {url}")]
    Mirror {
        /// The mirror, without user, password and query.
        url: String,
        /// Why it failed.
        source: Box<DownloadError>,
    },
    /// The server cannot go on where it broke, and bytes that went into a writer are gone.
    #[error("the server cannot go on in the middle, and what is written cannot be taken back")]
    TakeBack,
    /// The server promised more bytes, and sent none.
    #[error("the answer to a range is empty")]
    Nothing,
    /// The server's answer holds no file: a part that was not asked for, a status without meaning.
    #[error("HTTP status {status} does not answer a plain request")]
    Unasked {
        /// The status.
        status: u16,
    },
    /// A redirect that is not followed.
    #[error("follow the redirect from {url}")]
    Redirect {
        /// Where the redirect was met.
        url: String,
        /// Why it is not followed.
        source: RedirectError,
    },
    /// A local file cannot be made, written or renamed.
    #[error("{action} {}", Escaped(path.as_os_str().as_encoded_bytes()))]
    File {
        /// What was tried: `create`, `write`, `rename`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The writer that was given for the file's bytes failed.
    #[error("write the output")]
    Sink {
        /// What it said.
        source: io::Error,
    },
    /// The run was told to stop before the file was whole.
    #[error("stopped before the end")]
    Stopped,
}

impl DownloadError {
    /// Whether the same may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => error.is_transient(),
            Self::Status { status, .. } => retry::is_transient(*status),
            Self::Nothing | Self::TooSlow { .. } => true,
            _ => false,
        }
    }

    /// Whether another source of the same file may do better.
    pub(crate) fn is_of_the_source(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(error, HttpError::Field { .. } | HttpError::TlsSetup(_)),
            Self::TooLate { source, .. } => source.is_of_the_source(),
            Self::Status { .. }
            | Self::TooSlow { .. }
            | Self::Damaged { .. }
            | Self::Checksum { .. }
            | Self::Nothing
            | Self::Unasked { .. }
            | Self::Redirect { .. } => true,
            _ => false,
        }
    }

    /// How long the server wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The text with those of its causes, in one line beside which the URL stands: the client
    /// names what it has asked for, which is only news when that was another.
    pub(crate) fn with_causes(&self, url: &str) -> String {
        let mut text = ErrorChain(self).to_string();
        let mirror = if let Self::Mirror { url, .. } = self {
            url
        } else {
            url
        };
        for known in [url, mirror] {
            text = text.replacen(&format!("get {known}: "), "", 1);
        }
        text
    }
}

/// Why a redirect is not followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// More redirects than are allowed.
    #[error("more than {0} redirects")]
    TooMany(usize),
    /// It leads to where it has led before.
    #[error("a loop, back to {0}")]
    Loop(String),
    /// It leads to something other than http and https.
    #[error("it leads to {0}, which is neither http nor https")]
    Scheme(String),
    /// It leads from https to http.
    #[error("it leads from https to http, {0}")]
    Downgrade(String),
    /// It does not say where it leads.
    #[error("it does not say where it leads")]
    NoLocation,
    /// Where it leads is no URL.
    #[error("it leads to what is no URL: {0}")]
    Url(String),
}

fn to_millis(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_nanos(
        (time.subsec_nanos() % 1_000_000).into(),
    ))
}

fn from_elsewhere(url: &Option<String>) -> String {
    url.as_ref()
        .map(|url| format!("{url}: "))
        .unwrap_or_default()
}
