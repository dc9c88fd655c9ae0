//! Parallel downloader over HTTP and HTTPS.
//!
//! A [`Downloader`] takes a stream of [`Item`]s and saves each under a name that is not in use. A
//! file appears under its final name only when it is complete; until then it is called
//! `NAME.part`, and `NAME.part.json` beside it holds the state to resume it. Files of up to
//! 256 KiB have no name at all until they are complete, if the file system supports that.
//! Failures are collected in the [`Report`] and do not affect other items.
//!
//! ```no_run
//! use futures_lite::{future, stream};
//! use myapp::download::{Config, Downloader, Item};
//!
//! # fn main() -> Result<(), myapp::download::Error> {
//! let downloader = Downloader::new(Config::default())?;
//! let list = stream::iter(["https://example.com/a", "https://example.com/b"]);
//! let report = myapp::runtime::block_on(downloader.run(
//!     futures_lite::StreamExt::map(list, Item::parse),
//!     &|number, event| println!("{number}: {event:?}"),
//!     future::pending(),
//! ));
//! assert_eq!(report.saved, 2);
//! # Ok(())
//! # }
//! ```

mod auto_jobs;
mod body;
mod config;
mod context;
mod descriptors;
mod error;
mod event;
mod host_limits;
pub mod http;
mod input;
mod progress;
mod report;
mod request;
mod store;
mod transfer;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures_lite::{Stream, StreamExt as _, future, stream};

use crate::limits::rate::SharedRateLimiter;
use crate::limits::semaphore::{JobSlot, Semaphore, for_each_concurrent_with_slot};
use crate::limits::shutdown::{self, Shutdown};
use auto_jobs::AutoJobs;
use context::Context;
use descriptors::Descriptors;
use host_limits::HostLimiter;
use http::{Client, ClientConfig, DigestSessions};
use store::names::PathAllocator;

pub use crate::atomic_file::{InPlaceError, Obstacle};
pub use crate::checksum::{Algorithm, Checksum, ChecksumError};
pub use config::{
    Config, HttpsDowngrade, Jobs, Limits, LowSpeedLimit, NameSource, OnConflict, OutputPolicy,
    RedirectPolicy, RetryPolicy, ServerDigests,
};
pub use error::{Error, FailedItem, LineError, RedirectError, UrlError};
pub use event::{Event, Observer};
pub use input::item::{Item, PlannedDownload, Source, Target};
pub use input::list::List;
pub use input::shard::{Shard, ShardError};
pub use progress::{FileProgress, Progress, RunProgress};
pub use report::{AutoConcurrency, Report, Saved};
#[cfg(feature = "cookies")]
pub use request::cookies::CookieFileError;
pub use request::cookies::CookieJar;
pub use request::credentials::{
    Authorization, Cookie, CookieError, Credentials, Scope, Token, TokenError,
};
pub use request::headers::{Header, HeaderError};
pub use request::netrc::Netrc;
pub use store::checksum::ChecksumList;
pub use url;

/// Maximum number of downloads that wait for their host with their job slot released. It bounds
/// how far ahead the list is read to find items of other hosts.
const MAX_WAITING: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Downloader. Its connection pool lives as long as the downloader, for one run or many.
#[derive(Debug)]
pub struct Downloader(Context);

impl Downloader {
    /// Creates a downloader. No connection is opened and no file is created.
    ///
    /// # Errors
    ///
    /// [`Error::Http`] if the user agent is not a valid header value.
    pub fn new(config: Config) -> Result<Self, Error> {
        let limits = &config.limits;
        let max_connections = limits.jobs.max().max(limits.connections_per_file);
        let is_split = limits.connections_per_file.get() > 1;
        let per_host = limits
            .connections_per_host
            .or_else(|| (is_split || limits.jobs == Jobs::Auto).then_some(max_connections));
        let auto = AutoJobs::new(limits.jobs);
        let connect = config.connect.clone();
        let client = Client::new(ClientConfig {
            max_idle_per_origin: max_connections.get(),
            ..connect
        })?;
        let rate = limits.rate.map(SharedRateLimiter::new);
        Ok(Self(Context {
            config,
            client,
            paths: PathAllocator::default(),
            hosts: HostLimiter::new(per_host),
            descriptors: Descriptors::default(),
            digest: DigestSessions::default(),
            auto,
            rate,
        }))
    }

    /// Downloads the items of `list`, at most [`Limits::jobs`] at a time, until it ends or `until`
    /// completes; then the transfers in flight are cancelled, and their partial files stay for a
    /// later run. The next item is polled only when a job slot is available. Downloads that wait
    /// for `Retry-After` release their job slot, up to 256 of them.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels all transfers; their partial files stay.
    pub async fn run(
        &self,
        list: impl Stream<Item = Result<Item, FailedItem>>,
        observer: &Observer<'_>,
        until: impl Future<Output = ()>,
    ) -> Report {
        let start = Instant::now();
        let report = Mutex::new(Report::default());
        let (trigger, shutdown) = shutdown::channel();
        let items = until_shutdown(list, shutdown.clone()).enumerate();
        let Context {
            config,
            auto,
            hosts,
            ..
        } = &self.0;
        let max_jobs = descriptors::max_jobs(&config.limits);
        let permits = Semaphore::new(config.limits.jobs.initial().min(max_jobs));
        let all = for_each_concurrent_with_slot(
            permits.clone(),
            max_jobs.saturating_add(MAX_WAITING.get()),
            items,
            |(number, item), slot| {
                let report = &report;
                let shutdown = shutdown.clone();
                async move {
                    let position = AtomicU64::new(0);
                    let on_event = |event: Event<'_>| {
                        if let Some(auto) = auto {
                            auto.record(&event, &position);
                        }
                        observer(number as u64, event);
                    };
                    let result = self.download(item, &slot, &on_event, shutdown).await;
                    let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                    record(result, &on_event, &mut report);
                }
            },
        );
        let cancel = async {
            until.await;
            trigger.trigger();
            future::pending().await
        };
        let control = async {
            match auto {
                Some(auto) => auto.control(&permits, max_jobs, hosts).await,
                None => future::pending().await,
            }
        };
        future::or(cancel, future::or(control, all)).await;
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        Report {
            elapsed: start.elapsed(),
            auto_concurrency: self.auto_concurrency(),
            ..report
        }
    }

    /// Returns the number of concurrent downloads, if it is chosen automatically.
    pub fn auto_concurrency(&self) -> Option<AutoConcurrency> {
        self.0.auto.as_ref().map(AutoJobs::concurrency)
    }

    /// Returns the path that [`Downloader::run`] would use for an item, as far as it can be known
    /// without a request, and reserves it. No file is created.
    pub fn plan(&self, item: Item) -> PlannedDownload {
        transfer::plan(&self.0, item)
    }

    async fn download(
        &self,
        item: Result<Item, FailedItem>,
        slot: &JobSlot,
        on_event: &(impl Fn(Event<'_>) + Sync),
        shutdown: Shutdown,
    ) -> Result<Saved, FailedItem> {
        let item = item?;
        let url = item.source.url.to_string();
        let cancelled = async {
            shutdown.wait().await;
            Err(Error::Cancelled)
        };
        let transfer = transfer::download(&self.0, item, slot, on_event);
        let result = future::or(cancelled, transfer).await;
        result.map_err(|source| FailedItem { url, source })
    }
}

/// Emits the final event of an item and adds its result to the report.
fn record(result: Result<Saved, FailedItem>, on_event: &impl Fn(Event<'_>), report: &mut Report) {
    match result {
        Ok(saved) => {
            on_event(Event::Saved(&saved));
            report.saved += u64::from(!saved.skipped);
            report.skipped += u64::from(saved.skipped);
            report.bytes += saved.bytes;
        }
        Err(FailedItem {
            source: Error::Cancelled,
            ..
        }) => {
            on_event(Event::Cancelled);
            report.cancelled += 1;
        }
        Err(failed) => {
            on_event(Event::Failed(&failed));
            report.failed += 1;
            if report.failures.len() < Report::MAX_FAILURES_KEPT {
                report.failures.push(failed);
            }
        }
    }
}

/// Ends `list` at shutdown, even while its next item is pending.
fn until_shutdown<T>(list: impl Stream<Item = T>, shutdown: Shutdown) -> impl Stream<Item = T> {
    stream::unfold((Box::pin(list), shutdown), |(mut list, shutdown)| async {
        let end = async {
            shutdown.wait().await;
            None
        };
        let item = future::or(end, list.next()).await?;
        Some((item, (list, shutdown)))
    })
}
