//! What a run has done.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::download::error::DownloadError;
use crate::download::http::shown;
use crate::download::store::checksum::Checksum;
use crate::escape::Escaped;

/// The outcome of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Files that are whole.
    pub saved: u64,
    /// Files that were there already and stayed as they were.
    pub skipped: u64,
    /// Files that failed.
    pub failed: u64,
    /// Files that were begun when the run was told to stop.
    pub stopped: u64,
    /// The bytes of the files that are whole.
    pub bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// The first failures, at most [`Report::KEPT`].
    pub failures: Vec<Failure>,
}

/// A file that is whole.
#[derive(Debug)]
pub struct Saved {
    /// Where it was to come from: the first URL, before any redirect or mirror.
    pub url: Url,
    /// Its path; none for what went into a writer.
    pub path: Option<PathBuf>,
    /// Its length in bytes.
    pub bytes: u64,
    /// How long it took, from its turn to its final name.
    pub elapsed: Duration,
    /// What its bytes add up to, where that was asked for.
    pub checksum: Option<Checksum>,
    /// Whether it was there before, and nothing was fetched.
    pub skipped: bool,
}

/// A file that failed.
#[derive(Debug, thiserror::Error)]
#[error("download {}", Escaped(url.as_bytes()))]
pub struct Failure {
    /// Where it was to come from, or the text that is no URL; a password in it is hidden.
    pub url: String,
    /// Why it failed.
    pub source: DownloadError,
}

impl Failure {
    /// Why it failed, with all causes, in one line that does not name the URL again.
    pub fn cause(&self) -> String {
        let url = Url::parse(&self.url)
            .map(|url| shown(&url))
            .unwrap_or_default();
        self.source.with_causes(&url)
    }
}

impl Report {
    /// Failures that a report keeps; further ones are counted only.
    pub const KEPT: usize = 1000;
}
