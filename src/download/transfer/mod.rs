//! One file, from its URL to its final name.

pub(crate) mod attempt;
pub(crate) mod content_range;
pub(crate) mod mirrors;
pub(crate) mod parallel;
pub(crate) mod resume;
pub(crate) mod retry;
pub(crate) mod segment_queue;
pub(crate) mod sources;

use std::fs::{self, OpenOptions};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;
use url::Url;

use crate::download::config::{Config, Existing};
use crate::download::error::DownloadError;
use crate::download::event::Event;
use crate::download::host_limits::Hosts;
use crate::download::http::{Client, shown};
use crate::download::input::item::{Foreseen, Item, Source, Target};
use crate::download::report::Saved;
use crate::download::request::send::Asking;
use crate::download::store::checksum::{Checksum, hex};
use crate::download::store::existing::Previous;
use crate::download::store::filename as naming;
use crate::download::store::part::{Claim, Names, Part, failed};
use crate::download::store::sink::Store;
use crate::download::transfer::attempt::{Attempt, End, Needless};
use crate::download::transfer::mirrors::Mirror;
use crate::download::transfer::resume::Known;
use crate::download::transfer::retry::{Tries, Verdict};
use crate::limits::rate::SharedRateLimiter;
use crate::limits::semaphore::JobSlot;
use crate::limits::timeout::timeout;

/// What all transfers of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) names: Names,
    pub(crate) hosts: Hosts,
    /// How fast all files together may come.
    pub(crate) rate: Option<SharedRateLimiter>,
}

/// Where the bytes go, open before the first request: what cannot be written is not asked for.
enum Output {
    Part(Part),
    Writer(Arc<Store>),
    /// The file is there already, and stays as it is.
    Present(PathBuf),
}

/// What has come of a file.
enum Filled {
    Whole {
        bytes: u64,
        known: Known,
    },
    /// It was there before, under its own name or that of `there`.
    Needless {
        there: Option<PathBuf>,
    },
}

impl Shared {
    /// Fetches one file, and tells how it goes on.
    pub(crate) async fn fetch(
        &self,
        item: Item,
        slot: &JobSlot,
        tell: impl Fn(Event<'_>) + Sync,
    ) -> Result<Saved, DownloadError> {
        self.hosts.wait(&item.source.url, Some(slot)).await;
        let start = Instant::now();
        let Item {
            source,
            mirrors,
            target,
            dir,
            checksum,
            headers,
        } = item;
        let mirrors = Mirror::all(&source, mirrors, &headers, &self.config);
        let url = source.url.clone();
        let checksum = self.checksum(&url, &target, checksum)?;
        let (is_named, verified) = (matches!(target, Target::Named), checksum.clone());
        let output = self.open(&url, &dir, target).await?;
        tell(Event::Started {
            url: &url,
            path: output.target().as_deref(),
        });
        let (slot, headers) = (Some(slot), &headers[..]);
        let rate = self.config.rate_per_file.map(SharedRateLimiter::new);
        let rate = rate.as_ref();
        let asking = Asking {
            shared: self,
            source: &source,
            headers,
            slot,
            rate,
            start,
        };
        let sum = verified.as_ref();
        let attempt = |store, previous| Attempt::new(asking, &mirrors, store, previous, sum, &tell);
        let (path, bytes) = match output {
            Output::Part(part) => {
                let is_renamed = is_named && self.config.server_names;
                let previous = match self.updates() {
                    true => Previous::look(&part.target()).map_or(Needless::Never, Needless::Same),
                    false if is_renamed => Needless::Finished(&part),
                    false => Needless::Never,
                };
                let fill = self.fill(attempt(part.store(), previous), checksum, start);
                let (bytes, known) = match self.in_time(fill).await? {
                    Filled::Whole { bytes, known } => (bytes, known),
                    Filled::Needless { there } => {
                        return Ok(kept(url, there.unwrap_or_else(|| part.target()), start));
                    }
                };
                let name = known.name.filter(|_| is_renamed);
                let path = part.finish(name.as_deref().and_then(naming::from_server))?;
                self.sync_folder(&path).await?;
                (Some(path), bytes)
            }
            Output::Writer(store) => {
                let fill = self.fill(attempt(store, Needless::Never), checksum, start);
                match self.in_time(fill).await? {
                    Filled::Whole { bytes, .. } => (None, bytes),
                    Filled::Needless { .. } => (None, 0),
                }
            }
            Output::Present(path) => return Ok(kept(url, path, start)),
        };
        let (elapsed, checksum) = (start.elapsed(), verified);
        Ok(Saved {
            url,
            path,
            bytes,
            elapsed,
            checksum,
            skipped: false,
        })
    }

    /// Where a file would go.
    pub(crate) fn foresee(&self, item: Item) -> Foreseen {
        let Item {
            source: Source { url, .. },
            target,
            dir,
            ..
        } = item;
        let dir = self.config.dir.join(dir);
        let wanted = match target {
            Target::Named => dir.join(naming::from_url(&url)),
            Target::File(path) => dir.join(path),
            Target::Sink(_) => {
                return Foreseen {
                    url,
                    path: None,
                    skipped: false,
                };
            }
        };
        let is_special = |data: fs::Metadata| !data.is_file() && !data.is_dir();
        if fs::metadata(&wanted).is_ok_and(is_special) {
            return Foreseen {
                url,
                path: Some(wanted),
                skipped: false,
            };
        }
        let (path, skipped) = self.names.foresee(wanted, &self.config);
        Foreseen {
            url,
            path: Some(path),
            skipped,
        }
    }

    /// Opens what the bytes go to.
    async fn open(&self, url: &Url, dir: &Path, target: Target) -> Result<Output, DownloadError> {
        let dir = self.config.dir.join(dir);
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
            Err(_) if path.file_name().is_none() => Err(failed(
                "create",
                &path,
                io::ErrorKind::InvalidFilename.into(),
            )),
            _ => self.claim(path, url),
        }
    }

    /// What the bytes are to add up to.
    fn checksum(
        &self,
        url: &Url,
        target: &Target,
        own: Option<Checksum>,
    ) -> Result<Option<Checksum>, DownloadError> {
        let (None, Some(list)) = (&own, &self.config.checksums) else {
            return Ok(own);
        };
        let name = match target {
            Target::File(path) => path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into(),
            Target::Named | Target::Sink(_) => naming::from_url(url),
        };
        list.find(url, &name)
            .cloned()
            .map(Some)
            .ok_or(DownloadError::Unlisted)
    }

    fn updates(&self) -> bool {
        self.config.existing == Existing::Update
    }

    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, DownloadError>>,
    ) -> Result<T, DownloadError> {
        let limit = self.config.max_time;
        // Each future around another holds it twice: as what it was given, and where it runs it.
        // This one is large, and moving it about cost more than a small file's request.
        let work = Box::pin(work);
        let late = |_| DownloadError::OutOfTime {
            limit: limit.unwrap_or_default(),
        };
        timeout(limit, work).await.map_err(late)?
    }

    /// Fetches a whole file, from one source after the other.
    async fn fill(
        &self,
        mut attempt: Attempt<'_, impl Fn(Event<'_>) + Sync>,
        checksum: Option<Checksum>,
        start: Instant,
    ) -> Result<Filled, DownloadError> {
        loop {
            let error = match self.fill_once(&mut attempt, checksum.as_ref(), start).await {
                Ok(filled) => return Ok(filled),
                Err(error) => error,
            };
            let failed = shown(attempt.url());
            if !attempt.move_on(&error) {
                return Err(attempt.last_error(error));
            }
            let (next, cause) = (shown(attempt.url()), error.with_causes(&failed));
            warn!(url = %failed, %next, "asking another source: {cause}");
        }
    }

    /// Fetches a whole file from one source, and looks whether it is the one that is meant.
    async fn fill_once(
        &self,
        attempt: &mut Attempt<'_, impl Fn(Event<'_>) + Sync>,
        checksum: Option<&Checksum>,
        start: Instant,
    ) -> Result<Filled, DownloadError> {
        let store = attempt.store();
        if let Some(checksum) = checksum {
            store.add_up(checksum.algorithm());
        }
        if let End::Needless { there } = self.fetch_all(attempt, start).await? {
            return Ok(Filled::Needless { there });
        }
        let known = attempt.known();
        let bytes = store.end()?;
        if let Some(checksum) = checksum {
            verify(&store, checksum).await?;
        }
        if let Some(etag) = known.etag.as_ref().filter(|_| self.updates()) {
            store.keep_etag(etag);
        }
        if (self.config.remote_time || self.updates())
            && let Some(modified) = known.modified()
        {
            store
                .set_modified(modified)
                .map_err(|error| store.failed(error))?;
        }
        if self.config.sync {
            let synced = Arc::clone(&store);
            smol::unblock(move || synced.sync())
                .await
                .map_err(|error| store.failed(error))?;
        }
        Ok(Filled::Whole { bytes, known })
    }

    /// A name is on the disk when its folder is.
    async fn sync_folder(&self, path: &Path) -> Result<(), DownloadError> {
        if !self.config.sync {
            return Ok(());
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let synced = folder.clone();
        let sync = smol::unblock(move || fs::File::open(synced)?.sync_all());
        sync.await.map_err(|error| failed("sync", &folder, error))
    }

    /// Fetches all bytes, in as many tries as are allowed.
    async fn fetch_all(
        &self,
        attempt: &mut Attempt<'_, impl Fn(Event<'_>) + Sync>,
        start: Instant,
    ) -> Result<End, DownloadError> {
        let mut tries = Tries::new(&self.config);
        loop {
            let error = match attempt.run().await {
                Ok(end) => return Ok(end),
                Err(error) => error,
            };
            let may_pass = error.is_transient() && attempt.can_go_on();
            match tries.after_failure(may_pass, error.retry_after(), start.elapsed()) {
                Verdict::Final => return Err(error),
                Verdict::TooLate { wait, left } => {
                    return Err(DownloadError::TooLate {
                        wait,
                        left,
                        source: Box::new(error),
                    });
                }
                Verdict::Again(wait) => {
                    let url = shown(attempt.url());
                    warn!(%url, ?wait, "trying again: {}", error.with_causes(&url));
                    attempt.pause(wait, &error).await;
                }
            }
        }
    }
}

/// A file that was there before.
fn kept(url: Url, path: PathBuf, start: Instant) -> Saved {
    let (path, elapsed) = (Some(path), start.elapsed());
    Saved {
        url,
        path,
        bytes: 0,
        elapsed,
        checksum: None,
        skipped: true,
    }
}

/// Compares the digest of what has been written; what an earlier run wrote is read for it.
async fn verify(store: &Arc<Store>, checksum: &Checksum) -> Result<(), DownloadError> {
    let read = Arc::clone(store);
    let digest = smol::unblock(move || read.digest())
        .await
        .map_err(|error| store.failed(error))?;
    match digest {
        Some(digest) if !checksum.is(&digest) => Err(DownloadError::Checksum {
            algorithm: checksum.algorithm(),
            expected: checksum.hex(),
            found: hex(&digest),
        }),
        _ => Ok(()),
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
