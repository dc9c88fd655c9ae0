//! Progress of a run, collected from its events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use url::Url;

use crate::download::event::Event;
use crate::speed::Speed;

/// Progress of a run: counts, bytes and rates, in total and for each download in flight.
///
/// ```no_run
/// use futures_lite::{future, stream};
/// use myapp::download::{Config, Downloader, Item, Progress};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let downloader = Downloader::new(Config::default())?;
/// let progress = Progress::default();
/// let items = stream::iter([Item::parse("https://example.com/a")]);
/// // Another task or thread calls `progress.snapshot()`, such as every 200 ms.
/// let observer = |number, event: myapp::download::Event<'_>| progress.record(number, &event);
/// let report = downloader.run(items, &observer, future::pending()).await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

/// Snapshot of the progress of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunProgress {
    /// Downloads in flight, in the order of the list. A download that waits for a retry is in flight.
    pub files: Vec<FileProgress>,
    /// Files saved.
    pub saved: u64,
    /// Files that existed and were not downloaded.
    pub skipped: u64,
    /// Files that failed.
    pub failed: u64,
    /// Bytes received by this run, including those of failed attempts.
    pub received: u64,
    /// Rate of the last five seconds in bytes per second.
    pub bytes_per_sec: f64,
}

/// Progress of a download in flight.
#[derive(Debug, Clone, PartialEq)]
pub struct FileProgress {
    /// Index of the item, from 0.
    pub number: u64,
    /// The first URL.
    pub url: Url,
    /// Final path, if the output is a file.
    pub path: Option<PathBuf>,
    /// Bytes that are present, with those of earlier runs.
    pub downloaded: u64,
    /// Length of the complete file in bytes, if known.
    pub total: Option<u64>,
    /// Number of retries.
    pub retries: u32,
    /// Rate of the last five seconds in bytes per second.
    pub bytes_per_sec: f64,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, File>,
    run: RunProgress,
    speed: Speed,
}

#[derive(Debug)]
struct File {
    progress: FileProgress,
    speed: Speed,
}

impl Progress {
    /// Records an event of [`Downloader::run`](crate::download::Downloader::run).
    pub fn record(&self, number: u64, event: &Event<'_>) {
        let mut state = self.state();
        let state = &mut *state;
        match event {
            Event::Started { url, path } => {
                let progress = FileProgress {
                    number,
                    url: (*url).clone(),
                    path: path.map(Into::into),
                    downloaded: 0,
                    total: None,
                    retries: 0,
                    bytes_per_sec: 0.0,
                };
                let speed = Speed::default();
                state.files.insert(number, File { progress, speed });
            }
            Event::Saved(saved) => {
                if saved.skipped {
                    state.run.skipped += 1;
                } else {
                    state.run.saved += 1;
                    state.receive(number, saved.bytes);
                }
                state.files.remove(&number);
            }
            Event::Failed(_) => {
                state.run.failed += 1;
                state.files.remove(&number);
            }
            Event::Cancelled => {
                state.files.remove(&number);
            }
            Event::BodyStarted { offset, total } => {
                if let Some(file) = state.files.get_mut(&number) {
                    file.progress.downloaded = *offset;
                    file.progress.total = *total;
                    file.speed.record(*offset, Instant::now());
                }
            }
            Event::Progress { downloaded } => state.receive(number, *downloaded),
            Event::Retrying { .. } => {
                if let Some(file) = state.files.get_mut(&number) {
                    file.progress.retries += 1;
                }
            }
            Event::ResponseReceived { .. } | Event::MirrorFallback { .. } => {}
        }
    }

    /// Returns the progress so far. The rates are those between the calls of this function in the
    /// last five seconds, or since the call before.
    pub fn snapshot(&self) -> RunProgress {
        let mut state = self.state();
        let now = Instant::now();
        let State { files, run, speed } = &mut *state;
        speed.record(run.received, now);
        let files = files.values_mut().map(|file| {
            file.speed.record(file.progress.downloaded, now);
            FileProgress {
                bytes_per_sec: file.speed.rate(),
                ..file.progress.clone()
            }
        });
        RunProgress {
            files: files.collect(),
            bytes_per_sec: speed.rate(),
            ..run.clone()
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Records the number of bytes of a file that are present.
    fn receive(&mut self, number: u64, downloaded: u64) {
        if let Some(File { progress, .. }) = self.files.get_mut(&number) {
            self.run.received += downloaded.saturating_sub(progress.downloaded);
            progress.downloaded = downloaded;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::download::report::Saved;

    #[test]
    fn bytes_count_from_the_offset_of_each_body() {
        let progress = Progress::default();
        let url: Url = "http://a/f".parse().unwrap();
        let path = Some(Path::new("f"));
        progress.record(3, &Event::Started { url: &url, path });
        let total = Some(100);
        progress.record(3, &Event::BodyStarted { offset: 40, total });
        progress.record(3, &Event::Progress { downloaded: 70 });
        let run = progress.snapshot();
        assert_eq!((run.received, run.saved), (30, 0));
        let [file] = &run.files[..] else {
            panic!("{run:?}")
        };
        assert_eq!((file.number, file.downloaded, file.total), (3, 70, total));
        assert_eq!(file.path.as_deref(), path);
        // The server starts over.
        progress.record(3, &Event::BodyStarted { offset: 0, total });
        progress.record(3, &Event::Progress { downloaded: 10 });
        assert_eq!(progress.snapshot().received, 40);
        let saved = Saved {
            url,
            path: None,
            bytes: 100,
            elapsed: Duration::ZERO,
            checksum: None,
            skipped: false,
        };
        progress.record(3, &Event::Saved(&saved));
        let run = progress.snapshot();
        assert_eq!((run.received, run.saved, run.files.len()), (130, 1, 0));
    }
}
