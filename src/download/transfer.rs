//! One file, from its URL to its final name.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::Timer;
use tracing::warn;
use url::Url;

use crate::download::attempt::Attempt;
use crate::download::config::Config;
use crate::download::error::DownloadError;
use crate::download::hosts::Hosts;
use crate::download::http::{Client, shown};
use crate::download::naming;
use crate::download::part::{Claim, Names, Part, failed};
use crate::download::plan::{Item, Target};
use crate::download::progress::Event;
use crate::download::report::Saved;
use crate::download::retry::{Tries, Verdict};
use crate::download::store::Store;

/// What all transfers of a run share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) hosts: Hosts,
}

/// Where the bytes go, open before the first request: what cannot be written is not asked for.
enum Output {
    Part(Part),
    Writer(Arc<Store>),
    /// The file is there already, and stays as it is.
    Present(PathBuf),
}

impl Shared {
    /// Fetches one file, and tells how it goes on.
    pub(super) async fn fetch(
        &self,
        item: Item,
        tell: impl Fn(Event<'_>),
    ) -> Result<Saved, DownloadError> {
        let start = Instant::now();
        let Item { url, target } = item;
        let output = self.open(&url, target).await?;
        tell(Event::Started { url: &url, path: output.target().as_deref() });
        let (path, bytes) = match output {
            Output::Part(part) => {
                let bytes = self.fill(&url, part.store(), &tell, start).await?;
                (Some(part.finish()?), bytes)
            }
            Output::Writer(store) => (None, self.fill(&url, store, &tell, start).await?),
            Output::Present(path) => {
                return Ok(Saved {
                    url,
                    path: Some(path),
                    bytes: 0,
                    elapsed: start.elapsed(),
                    skipped: true,
                });
            }
        };
        Ok(Saved { url, path, bytes, elapsed: start.elapsed(), skipped: false })
    }

    /// Opens what the bytes go to.
    async fn open(&self, url: &Url, target: Target) -> Result<Output, DownloadError> {
        let dir = &self.config.dir;
        match target {
            Target::Named => self.claim(dir.join(naming::from_url(url)), url),
            Target::File(path) => self.open_file(dir.join(path), url).await,
            Target::Sink(writer) => Ok(Output::Writer(Arc::new(Store::writer(writer)))),
        }
    }

    fn claim(&self, path: PathBuf, url: &Url) -> Result<Output, DownloadError> {
        Ok(match self.names.claim(path, url, &self.config)? {
            Claim::Part(part) => Output::Part(part),
            Claim::Present(path) => Output::Present(path),
        })
    }

    async fn open_file(&self, path: PathBuf, url: &Url) -> Result<Output, DownloadError> {
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() => {
                Err(failed("create", &path, io::ErrorKind::IsADirectory.into()))
            }
            Ok(data) if !data.is_file() => {
                // Opening a FIFO waits for its reader.
                let writer = path.clone();
                let open = smol::unblock(move || OpenOptions::new().write(true).open(writer));
                let file = open.await.map_err(|error| failed("open", &path, error))?;
                Ok(Output::Writer(Arc::new(Store::writer(Box::new(file)))))
            }
            Err(_) if path.file_name().is_none() => {
                Err(failed("create", &path, io::ErrorKind::InvalidFilename.into()))
            }
            _ => self.claim(path, url),
        }
    }

    /// Fetches all bytes of `url`, in as many tries as are allowed; returns how many there are.
    async fn fill(
        &self,
        url: &Url,
        store: Arc<Store>,
        tell: impl Fn(Event<'_>),
        start: Instant,
    ) -> Result<u64, DownloadError> {
        let mut tries = Tries::new(&self.config);
        let mut attempt = Attempt::new(self, url, Arc::clone(&store), tell);
        loop {
            let Err(error) = attempt.run().await else { return store.end() };
            let (asked, elapsed) = (error.retry_after(), start.elapsed());
            let may_pass = error.is_transient() && attempt.can_go_on();
            match tries.after_failure(may_pass, asked, elapsed) {
                Verdict::Final => return Err(error),
                Verdict::TooLate { wait, left } => {
                    return Err(DownloadError::TooLate { wait, left, source: Box::new(error) });
                }
                Verdict::Again(wait) => {
                    let wait = wait.max(Duration::from_millis(1));
                    warn!(url = %shown(url), ?wait, "trying again: {}", error.with_causes());
                    Timer::after(wait).await;
                }
            }
        }
    }
}

impl Output {
    fn target(&self) -> Option<PathBuf> {
        match self {
            Self::Part(part) => Some(part.target()),
            Self::Writer(_) => None,
            Self::Present(path) => Some(path.clone()),
        }
    }
}
