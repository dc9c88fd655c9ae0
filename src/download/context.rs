//! State shared by all transfers of a [`Downloader`](crate::download::Downloader).

use crate::download::auto_jobs::AutoJobs;
use crate::download::config::Config;
use crate::download::descriptors::Descriptors;
use crate::download::host_limits::HostLimiter;
use crate::download::http::{Client, DigestSessions};
use crate::download::store::names::PathAllocator;
use crate::limits::rate::SharedRateLimiter;

/// State shared by all transfers.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) paths: PathAllocator,
    pub(crate) hosts: HostLimiter,
    pub(crate) descriptors: Descriptors,
    /// Digest sessions of origins.
    pub(crate) digest: DigestSessions<url::Origin>,
    /// Automatic choice of the number of downloads, if it is requested.
    pub(crate) auto: Option<AutoJobs>,
    /// Rate limit of all transfers together.
    pub(crate) rate: Option<SharedRateLimiter>,
}
