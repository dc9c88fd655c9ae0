//! Configuration of a run.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::download::http::ClientConfig;
use crate::download::request::credentials::Credentials;
use crate::download::request::headers::Header;
use crate::download::request::status::is_transient;
use crate::download::store::checksum::ChecksumList;
use crate::limits::concurrency::INITIAL_CONCURRENCY;

/// Highest number of concurrent downloads of [`Jobs::Auto`].
const MAX_AUTO_JOBS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);

/// Configuration of a [`Downloader`](crate::download::Downloader).
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Output files. Default: see [`OutputPolicy`].
    pub output: OutputPolicy,
    /// Concurrency, rates, sizes and times. Default: see [`Limits`].
    pub limits: Limits,
    /// Retries of failed transfers. Default: see [`RetryPolicy`].
    pub retry: RetryPolicy,
    /// Redirects. Default: see [`RedirectPolicy`].
    pub redirect: RedirectPolicy,
    /// Connections: timeouts, user agent, TLS, proxies and name resolution. The pool keeps at
    /// least as many idle connections per origin as the run can use. Default: see
    /// [`ClientConfig`].
    pub connect: ClientConfig,
    /// Header fields added to each request. Default: none.
    pub headers: Vec<Header>,
    /// Credentials sent to servers. Default: none.
    pub credentials: Credentials,
    /// Whether to request compressed bodies and to decompress them. Such downloads are not
    /// resumable. Default: false.
    pub compressed: bool,
    /// Expected checksums. If set, a file without an entry is not downloaded. Default: none.
    pub checksums: Option<ChecksumList>,
    /// Verification of digests that servers send, of files without an expected checksum. Default:
    /// [`ServerDigests::Verify`].
    pub server_digests: ServerDigests,
}

/// Handling of digests that servers send: `Repr-Digest` (RFC 9530), which must match, and
/// `Digest`, `x-amz-checksum-*`, `x-goog-hash` and `Content-MD5`, where a mismatch is a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ServerDigests {
    /// Verifies one of them.
    #[default]
    Verify,
    /// Ignores them.
    Ignore,
}

/// Names and metadata of output files.
#[derive(Debug, Clone)]
pub struct OutputPolicy {
    /// Output directory; created if missing. Default: the current directory (an empty path).
    pub dir: PathBuf,
    /// Action if a file of the requested name exists. Default: [`OnConflict::Rename`].
    pub on_conflict: OnConflict,
    /// Whether a complete file is copied into the existing one that [`OnConflict::Overwrite`] or
    /// [`OnConflict::IfModified`] replaces, which keeps its owner, mode and links. A mount point
    /// cannot be replaced otherwise. Default: false.
    pub in_place: bool,
    /// Whether to resume partial files of an earlier run. A file that exists under its final
    /// name then counts as complete. Default: false.
    pub resume: bool,
    /// Source of file names. Default: [`NameSource::FirstUrl`].
    pub name_source: NameSource,
    /// Whether to fsync a file before it is renamed to its final name. Default: false.
    pub fsync: bool,
    /// Whether to set the modification time of a file from `Last-Modified`. Default: false.
    pub remote_time: bool,
}

/// Number of concurrent downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jobs {
    /// Fixed number.
    Fixed(NonZeroUsize),
    /// Chosen by measurement, from 1 to 64 as far as the descriptor limit allows.
    Auto,
}

impl From<NonZeroUsize> for Jobs {
    fn from(count: NonZeroUsize) -> Self {
        Self::Fixed(count)
    }
}

impl Jobs {
    /// Returns the number at the start.
    pub(crate) fn initial(self) -> NonZeroUsize {
        match self {
            Self::Fixed(count) => count,
            Self::Auto => INITIAL_CONCURRENCY,
        }
    }

    /// Returns the highest number.
    pub(crate) fn max(self) -> NonZeroUsize {
        match self {
            Self::Fixed(count) => count,
            Self::Auto => MAX_AUTO_JOBS,
        }
    }
}

/// Limits of a run and of its transfers.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Concurrent downloads. Default: 5.
    pub jobs: Jobs,
    /// Connections per file, if the server supports range requests. Default: 1.
    pub connections_per_file: NonZeroUsize,
    /// Minimum length of a segment that gets a connection of its own, in bytes. Default: 20 MiB.
    pub min_segment_len: u64,
    /// Connections per host. Downloads that wait for one release their job slot. Default:
    /// unlimited for one connection per file, otherwise the larger of `jobs` and
    /// `connections_per_file`.
    pub connections_per_host: Option<NonZeroUsize>,
    /// Maximum rate of all downloads together, in bytes per second. Default: unlimited.
    pub rate: Option<NonZeroU64>,
    /// Maximum rate per file, in bytes per second. Default: unlimited.
    pub rate_per_file: Option<NonZeroU64>,
    /// Maximum time per file. Default: unlimited.
    pub max_time: Option<Duration>,
    /// Minimum rate of a body; a slower transfer fails with a transient error. Default: none.
    pub low_speed_limit: Option<LowSpeedLimit>,
    /// Maximum length of a file in bytes. Default: unlimited.
    pub max_size: Option<u64>,
}

/// Minimum average rate over a time window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LowSpeedLimit {
    /// Minimum average rate in bytes per second.
    pub bytes_per_sec: u64,
    /// Length of the window.
    pub window: Duration,
}

/// Retries of a failed transfer.
#[derive(Debug, Clone)]
pub struct RetryPolicy {
    /// Maximum number of retries of a file since its last progress: 64 KiB or 1 % of the missing
    /// bytes. Default: 5.
    pub max_retries: u32,
    /// Upper bound of the delay before the first retry. It doubles with each retry, up to one
    /// minute. Default: 1 second.
    pub base_delay: Duration,
    /// Statuses of responses that are retried in addition to the default ones, such as 404.
    /// Default: none.
    pub http_statuses: Vec<u16>,
    /// Whether all statuses from 400 on are retried. Default: `false`.
    pub all_http_errors: bool,
    /// Maximum time for which refused connections are retried to a server that has not responded
    /// since the creation of the downloader: it may be starting, but more often the address is
    /// wrong. `None` means the same as for other failures. Default: 2 seconds.
    pub max_refused: Option<Duration>,
    /// Maximum time between the start of a download and a retry, or a request that a
    /// `Retry-After` delays. Default: unlimited, but a single delay of `Retry-After` is at most 10
    /// minutes.
    pub max_elapsed: Option<Duration>,
}

impl RetryPolicy {
    /// Maximum delay by `Retry-After` without `max_elapsed`.
    pub(crate) const DEFAULT_MAX_RETRY_AFTER: Duration = Duration::from_secs(10 * 60);

    /// Returns whether the `Retry-After` of a response of this status applies to all requests to
    /// the host: only a response that is retried delays others. 202 concerns one resource (RFC 9110
    /// section 15.3.3).
    pub(crate) fn delays_host(&self, status: u16) -> bool {
        status != 202 && self.retries_status(status, true)
    }

    /// Returns whether a response of this status is retried.
    pub(crate) fn retries_status(&self, status: u16, has_retry_after: bool) -> bool {
        is_transient(status, has_retry_after)
            || self.http_statuses.contains(&status)
            || self.all_http_errors && status >= 400
    }

    /// Returns the maximum delay that a server can request.
    pub(crate) fn max_retry_after(&self) -> Duration {
        self.max_elapsed.unwrap_or(Self::DEFAULT_MAX_RETRY_AFTER)
    }
}

/// Handling of redirects.
#[derive(Debug, Clone)]
pub struct RedirectPolicy {
    /// Maximum number of redirects per request. Default: 20.
    pub max_redirects: usize,
    /// Handling of redirects from https to http. Default: [`HttpsDowngrade::Refuse`].
    pub https_downgrade: HttpsDowngrade,
}

/// Action if a file of the requested name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnConflict {
    /// Keeps the file and numbers the new one: `f.1`.
    Rename,
    /// Keeps the file and downloads nothing.
    Skip,
    /// Replaces the file atomically once the new one is complete.
    Overwrite,
    /// Like [`OnConflict::Overwrite`], but only if the server has another version. Versions are
    /// compared by the ETag in an extended attribute of the file, otherwise by modification time
    /// and length. Implies [`OutputPolicy::remote_time`].
    IfModified,
}

/// Source of the name of a file without a given path. Names are sanitized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameSource {
    /// URL of the item.
    FirstUrl,
    /// URL of the last redirect, if it has a name.
    FinalUrl,
    /// `Content-Disposition` of the response or of a redirect, otherwise
    /// [`NameSource::FinalUrl`].
    ContentDisposition,
}

impl OnConflict {
    /// Returns whether the new file replaces the existing one.
    pub(crate) fn replaces(self) -> bool {
        matches!(self, Self::Overwrite | Self::IfModified)
    }
}

/// Handling of redirects from https to http.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpsDowngrade {
    /// Fails: the rest of the exchange would be unencrypted.
    Refuse,
    /// Follows the redirect.
    Follow,
}

impl Default for OutputPolicy {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            on_conflict: OnConflict::Rename,
            in_place: false,
            resume: false,
            name_source: NameSource::FirstUrl,
            fsync: false,
            remote_time: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            jobs: Jobs::Fixed(NonZeroUsize::MIN.saturating_add(4)),
            connections_per_file: NonZeroUsize::MIN,
            min_segment_len: 20 << 20,
            connections_per_host: None,
            rate: None,
            rate_per_file: None,
            max_time: None,
            low_speed_limit: None,
            max_size: None,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_retries: 5,
            base_delay: Duration::from_secs(1),
            http_statuses: Vec::new(),
            all_http_errors: false,
            max_refused: Some(Duration::from_secs(2)),
            max_elapsed: None,
        }
    }
}

impl Default for RedirectPolicy {
    fn default() -> Self {
        Self {
            max_redirects: 20,
            https_downgrade: HttpsDowngrade::Refuse,
        }
    }
}
