//! Fetches many files over HTTP and HTTPS, a few at a time.
//!
//! A [`Downloader`] takes a list of [`Item`]s, as long as it likes or without end, and saves each
//! under a name that nothing had before. A file appears under its name only when it is whole;
//! until then it is called `NAME.part`, and `NAME.part.json` beside it tells
//! how to go on with it. A short one, up to 256 KiB, has no name at all until then, where the
//! file system can. What fails stands in the [`Report`], and never stops the
//! others.
//!
//! ```no_run
//! use futures_lite::{future, stream};
//! use myapp::download::{Config, Downloader, Item};
//!
//! # fn main() -> Result<(), myapp::download::DownloadError> {
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

mod body;
mod config;
mod error;
mod event;
mod host_limits;
pub mod http;
mod input;
mod report;
mod request;
mod store;
mod transfer;

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use futures_lite::{Stream, StreamExt as _, future, stream};

use crate::limits::rate::SharedRateLimiter;
use crate::limits::semaphore::{JobSlot, for_each_concurrent_with_slot};
use crate::limits::shutdown::{self, Shutdown};
use host_limits::Hosts;
use http::{Client, ClientConfig};
use store::part::Names;
use transfer::Shared;

pub use body::throttle::SlowestPace;
pub use config::{Config, Downgrade, Existing};
pub use error::{DownloadError, RedirectError};
pub use event::{Event, Observer};
pub use input::item::{Foreseen, Item, Source, Target};
pub use input::list::{LineError, List};
pub use input::shard::{Shard, ShardError};
pub use report::{Failure, Report, Saved};
pub use request::credentials::{
    Authorization, Cookie, CookieError, Credentials, Scope, Token, TokenError,
};
pub use request::headers::{Header, HeaderError};
pub use request::netrc::{Netrc, NetrcError};
pub use store::checksum::{Algorithm, Checksum, ChecksumError, ChecksumList};

/// Files that wait because their server has asked to be left alone, beside those that are being
/// fetched: so far ahead in the list files of other servers are found.
const ASIDE: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);

/// Fetches files. Its connections live as long as it does, for one run or for many.
#[derive(Debug)]
pub struct Downloader(Shared);

impl Downloader {
    /// Makes a downloader; nothing is opened yet.
    ///
    /// # Errors
    ///
    /// [`DownloadError::Http`] where the user agent is no header value.
    pub fn new(config: Config) -> Result<Self, DownloadError> {
        let client = Client::new(ClientConfig {
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
            user_agent: config.user_agent.clone(),
            tls: config.tls.clone(),
            proxies: config.proxies.clone(),
            lookup: config.lookup.clone(),
            idle_per_origin: config.jobs.max(config.split).get(),
        })?;
        let most = config.jobs.max(config.split);
        let per_host = config.per_host.or((config.split.get() > 1).then_some(most));
        let (names, hosts) = (Names::default(), Hosts::new(per_host));
        let rate = config.rate.map(SharedRateLimiter::new);
        Ok(Self(Shared {
            config,
            client,
            names,
            hosts,
            rate,
        }))
    }

    /// Fetches what `list` names, [`Config::jobs`] at a time, until it ends or `until` is ready;
    /// then what has been begun is given up, and its parts stay for a later run. The list is asked for
    /// its next item only when there is room for it. Files of a server that has asked to be left
    /// alone for a while (`Retry-After`) make room for others until then, up to 256 of them.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, all transfers end with it; their parts stay.
    pub async fn run(
        &self,
        list: impl Stream<Item = Result<Item, Failure>>,
        observer: &Observer<'_>,
        until: impl Future<Output = ()>,
    ) -> Report {
        let start = Instant::now();
        let report = Mutex::new(Report::default());
        let (stopper, stop) = shutdown::channel();
        let items = until_stopped(list, stop.clone()).enumerate();
        let all = for_each_concurrent_with_slot(
            self.0.config.jobs,
            ASIDE,
            items,
            |(number, item), slot| {
                let (report, stop) = (&report, stop.clone());
                async move {
                    let tell = |event: Event<'_>| observer(number as u64, event);
                    let ended = self.fetch(item, &slot, &tell, stop).await;
                    settle(
                        ended,
                        &tell,
                        &mut report.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                }
            },
        );
        let stopping = async {
            until.await;
            stopper.trigger();
            future::pending().await
        };
        future::or(stopping, all).await;
        let report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
        Report {
            elapsed: start.elapsed(),
            ..report
        }
    }

    /// Tells what [`Downloader::run`] would do with an item, as far as that can be known without
    /// asking its server, and keeps its name from the items after it. Nothing is made or asked for.
    pub fn foresee(&self, item: Item) -> Foreseen {
        self.0.foresee(item)
    }

    async fn fetch(
        &self,
        item: Result<Item, Failure>,
        slot: &JobSlot,
        tell: &(impl Fn(Event<'_>) + Sync),
        stop: Shutdown,
    ) -> Result<Saved, Failure> {
        let item = item?;
        let url = item.source.url.to_string();
        let stopped = async {
            stop.wait().await;
            Err(DownloadError::Stopped)
        };
        let ended = future::or(stopped, self.0.fetch(item, slot, tell)).await;
        ended.map_err(|source| Failure { url, source })
    }
}

/// Tells how a file ended and writes it into the report.
fn settle(ended: Result<Saved, Failure>, tell: &impl Fn(Event<'_>), report: &mut Report) {
    match ended {
        Ok(saved) => {
            tell(Event::Saved(&saved));
            report.saved += u64::from(!saved.skipped);
            report.skipped += u64::from(saved.skipped);
            report.bytes += saved.bytes;
        }
        Err(Failure {
            source: DownloadError::Stopped,
            ..
        }) => {
            tell(Event::Stopped);
            report.stopped += 1;
        }
        Err(failure) => {
            tell(Event::Failed(&failure));
            report.failed += 1;
            if report.failures.len() < Report::KEPT {
                report.failures.push(failure);
            }
        }
    }
}

/// Ends `list` when the run is told to stop, even while the next item is waited for.
fn until_stopped<T>(list: impl Stream<Item = T>, stop: Shutdown) -> impl Stream<Item = T> {
    stream::unfold((Box::pin(list), stop), |(mut list, stop)| async {
        let stopped = async {
            stop.wait().await;
            None
        };
        let item = future::or(stopped, list.next()).await?;
        Some((item, (list, stop)))
    })
}
