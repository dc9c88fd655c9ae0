//! What can be chosen about a run.

use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::download::body::throttle::SlowestPace;
use crate::download::http::Proxies;
use crate::download::request::credentials::Credentials;
use crate::download::request::headers::Header;
use crate::download::store::checksum::ChecksumList;
use crate::net::resolver::ResolverConfig;
use crate::net::tls::TlsConfig;

/// How a [`Downloader`](super::Downloader) fetches and where files go.
#[derive(Debug, Clone)]
pub struct Config {
    /// Files at once. Default: 5.
    pub jobs: NonZeroUsize,
    /// Connections that fetch one large file together, where its server can send parts of it.
    /// Default: 1.
    pub split: NonZeroUsize,
    /// No connection is opened for a smaller part of a file, in bytes. Default: 20 MiB.
    pub min_split: u64,
    /// Connections to one server at once; files that wait for one leave their place among the
    /// `jobs` to others. Default: the larger of `jobs` and `split`.
    pub per_host: Option<NonZeroUsize>,
    /// The folder that files go to; made if it is missing. Default: the current folder (an empty
    /// path).
    pub dir: PathBuf,
    /// What happens where a file of that name is there. Default: it gets another name.
    pub existing: Existing,
    /// Whether to go on with what an earlier run has left. A file that is there under its final
    /// name is then taken for done. Default: false.
    pub resume: bool,
    /// Whether a file gets the name that its server says, made safe, instead of that of its URL.
    /// Default: false.
    pub server_names: bool,
    /// Whether servers may compress files for the way; they are unpacked as they come. Such a file
    /// is never gone on with. Default: false.
    pub compressed: bool,
    /// How long one file may take in all. Default: no limit.
    pub max_time: Option<Duration>,
    /// A body that comes more slowly is given up, and asked for again. Default: none.
    pub slowest: Option<SlowestPace>,
    /// Bytes a second that all files together may come at. Default: no limit.
    pub rate: Option<NonZeroU64>,
    /// Bytes a second that each file may come at. Default: no limit.
    pub rate_per_file: Option<NonZeroU64>,
    /// Whether a file is on the disk for good before it gets its name. Default: false.
    pub sync: bool,
    /// Whether a file gets the time at which the server says that it changed. Default: false.
    pub remote_time: bool,
    /// A file with more bytes is not fetched. Default: no limit.
    pub max_size: Option<u64>,
    /// What the files are to add up to: one that is not in the list is not fetched.
    /// Default: nothing is known.
    pub checksums: Option<ChecksumList>,
    /// Tries after the first that failed, for one file. Default: 5.
    pub retries: u32,
    /// The longest delay before the second try; it doubles with each further one, up to a minute.
    /// Default: 1 second.
    pub retry_delay: Duration,
    /// No try begins later than this after a file's turn has come. Default: no limit.
    pub retry_time: Option<Duration>,
    /// Redirects that are followed for one file. Default: 20.
    pub max_redirects: usize,
    /// What a redirect from https to http means. Default: it is refused.
    pub downgrade: Downgrade,
    /// Header fields that are added to each request. Default: none.
    pub headers: Vec<Header>,
    /// What tells servers who asks. Default: nothing.
    pub credentials: Credentials,
    /// The program's name in each request. Default: `myapp/VERSION`.
    pub user_agent: String,
    /// How long resolving, connecting and the TLS handshake may take together.
    /// Default: 10 seconds.
    pub connect_timeout: Duration,
    /// How long a server may send nothing. Default: 30 seconds.
    pub idle_timeout: Duration,
    /// Which servers are trusted, and what is shown to them. Default: those that the system's
    /// roots vouch for, and nothing.
    pub tls: TlsConfig,
    /// The proxies that requests go through. Default: none.
    pub proxies: Proxies,
    /// How names are looked up. Default: as the system does.
    pub lookup: ResolverConfig,
}

/// What happens where a file of that name is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new file is numbered: `f.1`.
    Number,
    /// It stays, and nothing is fetched.
    Skip,
    /// The new file takes its place, in one step, when it is whole.
    Replace,
    /// The same, but nothing is fetched where the server has no other file: told by an ETag that
    /// is kept in an extended attribute of the file, else by date and length. Files get the time
    /// at which the server says that they changed.
    Update,
}

impl Existing {
    /// Whether the new file takes the place of the old one.
    pub(crate) fn replaces(self) -> bool {
        matches!(self, Self::Replace | Self::Update)
    }
}

/// What a redirect from https to http means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downgrade {
    /// It is an error: the rest would travel in the open.
    Refused,
    /// It is followed.
    Followed,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            jobs: NonZeroUsize::MIN.saturating_add(4),
            split: NonZeroUsize::MIN,
            min_split: 20 << 20,
            per_host: None,
            dir: PathBuf::new(),
            existing: Existing::Number,
            resume: false,
            server_names: false,
            compressed: false,
            max_time: None,
            slowest: None,
            rate: None,
            rate_per_file: None,
            sync: false,
            remote_time: false,
            max_size: None,
            checksums: None,
            retries: 5,
            retry_delay: Duration::from_secs(1),
            retry_time: None,
            max_redirects: 20,
            downgrade: Downgrade::Refused,
            headers: Vec::new(),
            credentials: Credentials::default(),
            user_agent: concat!("myapp/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            tls: TlsConfig::default(),
            proxies: Proxies::default(),
            lookup: ResolverConfig::default(),
        }
    }
}
