//! Result of a run.

use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use crate::checksum::Checksum;
use crate::download::error::FailedItem;

/// Result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Files saved.
    pub saved: u64,
    /// Files that existed and were not downloaded.
    pub skipped: u64,
    /// Files that failed.
    pub failed: u64,
    /// Downloads in flight when the run was cancelled.
    pub cancelled: u64,
    /// Total length of the saved files in bytes.
    pub bytes: u64,
    /// Duration of the run.
    pub elapsed: Duration,
    /// Number of concurrent downloads, if it was chosen automatically.
    pub auto_concurrency: Option<AutoConcurrency>,
    /// The first failures, at most [`Report::MAX_FAILURES_KEPT`].
    pub failures: Vec<FailedItem>,
}

/// Automatically chosen number of concurrent downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoConcurrency {
    /// Current number, or that at the end.
    pub last: usize,
    /// Highest number so far.
    pub max: usize,
}

/// File that is complete.
#[derive(Debug)]
pub struct Saved {
    /// The first URL, before redirects and mirrors.
    pub url: Url,
    /// Final path; `None` for a writer.
    pub path: Option<PathBuf>,
    /// Length in bytes.
    pub bytes: u64,
    /// Time from the start of the download to the final name.
    pub elapsed: Duration,
    /// Checksum that was verified, if any.
    pub checksum: Option<Checksum>,
    /// Whether the file existed and was not downloaded.
    pub skipped: bool,
}

impl Report {
    /// Maximum number of failures in a report; further ones are only counted.
    pub const MAX_FAILURES_KEPT: usize = 1000;
}
