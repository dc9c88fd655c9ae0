//! What can go wrong with one file.

use std::io;
use std::path::PathBuf;

use crate::download::http::{HttpError, LoginError};
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
    },
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

fn from_elsewhere(url: &Option<String>) -> String {
    url.as_ref().map(|url| format!("{url}: ")).unwrap_or_default()
}
