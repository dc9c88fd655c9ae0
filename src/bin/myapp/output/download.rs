//! What a run of downloads tells programs: a line of JSON for each file, and one for the run.
//! `schemas/download.json` describes them.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use futures_lite::future;
use myapp::download::{Checksum, Event, Failure as Failed, Report, Saved};
use serde_json::{Value, json};
use smol::channel;
use url::{Position, Url};

use crate::exit_code::{Code, Failure};
use crate::output::stdout;

/// Lines that wait to be written; who has more to tell waits for a slow reader.
const LINES: usize = 4096;

/// The lines of a run, written by a thread of their own.
pub(crate) struct Lines {
    running: Mutex<HashMap<u64, File>>,
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
    failed: channel::Receiver<io::Error>,
}

/// What is known of a file that has not ended.
#[derive(Debug, Default)]
struct File {
    start: Option<Instant>,
    url: Option<Url>,
    path: Option<String>,
    asked: Option<String>,
    status: Option<u16>,
    total: Option<u64>,
    /// Where this run began, in bytes.
    from: Option<u64>,
    position: u64,
    retries: u32,
}

impl Lines {
    pub(crate) fn start() -> Self {
        let (lines, waiting) = sync_channel(LINES);
        let (fail, failed) = channel::bounded(1);
        let thread = thread::spawn(move || {
            if let Err(error) = write(&waiting) {
                // Nobody asks for it when the run is over.
                let _ = fail.try_send(error);
            }
        });
        Self {
            running: Mutex::default(),
            lines,
            thread,
            failed,
        }
    }

    /// Waits until stdout takes nothing more, and tells why.
    pub(crate) async fn failed(&self) -> Failure {
        match self.failed.recv().await {
            Ok(error) => stdout::failed(error),
            Err(_) => future::pending().await,
        }
    }

    /// Takes what the run tells about the file of this number. `end` says why a file failed, in
    /// words and as an exit code.
    pub(crate) fn tell(
        &self,
        number: u64,
        event: &Event<'_>,
        end: impl FnOnce(&Failed) -> (String, Code),
    ) {
        let mut running = self.running();
        let file = running.entry(number).or_default();
        match event {
            Event::Started { url, path } => {
                file.start = Some(Instant::now());
                file.url = Some((*url).clone());
                file.path = path.map(text);
            }
            Event::Responded { url, status } => {
                (file.asked, file.status) = (Some(without_secrets(url)), Some(*status));
            }
            Event::Answered { from, length } => {
                file.total = *length;
                file.from = Some(file.from.map_or(*from, |first| first.min(*from)));
                file.position = *from;
            }
            Event::Received { position } => file.position = *position,
            Event::Retrying { .. } => file.retries += 1,
            Event::Mirror { url, .. } => {
                (file.asked, file.status) = (Some(without_secrets(url)), None)
            }
            Event::Saved(saved) => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                self.say(file.saved(saved));
            }
            Event::Failed(failure) => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                let (error, code) = end(failure);
                self.say(file.ended("failed", &failure.url, Some(error), code));
            }
            Event::Stopped => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                let url = file.url.as_ref().map(Url::to_string).unwrap_or_default();
                self.say(file.ended("stopped", &url, None, Code::Interrupted));
            }
            _ => {}
        }
    }

    /// Writes the last line, and returns when all are written.
    pub(crate) fn end(self, report: &Report, code: Code) -> Result<(), Failure> {
        let seconds = report.elapsed.as_secs_f64();
        self.say(json!({
            "event": "summary",
            "elapsed": seconds,
            "saved": report.saved,
            "kept": report.skipped,
            "failed": report.failed,
            "stopped": report.stopped,
            "bytes": report.bytes,
            "rate": report.bytes as f64 / seconds.max(1e-9),
            "code": code as u8,
        }));
        drop(self.lines);
        // It ends with its loop, and says over the channel what has gone wrong.
        let _ = self.thread.join();
        self.failed
            .try_recv()
            .map_or(Ok(()), |error| Err(stdout::failed(error)))
    }

    fn say(&self, line: Value) {
        // If the thread has ended, the run soon does.
        let _ = self.lines.send(format!("{line}\n"));
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, File>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    fn saved(self, saved: &Saved) -> Value {
        let result = if saved.skipped { "kept" } else { "saved" };
        let mut line = self.ended(result, saved.url.as_str(), None, Code::Success);
        line["path"] = json!(saved.path.as_deref().map(text));
        line["elapsed"] = json!(saved.elapsed.as_secs_f64());
        line["bytes"] = json!(saved.bytes);
        line["checksum"] = saved.checksum.as_ref().map_or(Value::Null, checksum_json);
        line
    }

    fn ended(self, result: &str, url: &str, error: Option<String>, code: Code) -> Value {
        let is_other =
            |asked: &String| self.url.as_ref().map(without_secrets).as_ref() != Some(asked);
        json!({
            "event": "file",
            "result": result,
            "url": url,
            "final_url": self.asked.filter(is_other).unwrap_or_else(|| url.to_owned()),
            "path": self.path,
            "status": self.status,
            "bytes": self.position,
            "total": self.total,
            "elapsed": self.start.map_or(0.0, |start| start.elapsed().as_secs_f64()),
            "retries": self.retries,
            "resumed_from": self.from.unwrap_or(0),
            "checksum": null,
            "error": error,
            "code": code as u8,
        })
    }
}

fn checksum_json(checksum: &Checksum) -> Value {
    json!({ "algorithm": checksum.algorithm().to_string(), "hex": checksum.hex() })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Where a redirect led; what stands behind its `?` is often a signature.
fn without_secrets(url: &Url) -> String {
    let query = if url.query().is_some() { "?***" } else { "" };
    format!("{}{query}", &url[..Position::AfterPath])
}

fn write(lines: &Receiver<String>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    while let Ok(line) = lines.recv() {
        stdout.write_all(line.as_bytes())?;
        // What is at hand goes out together; nobody waits for the last line.
        for line in lines.try_iter() {
            stdout.write_all(line.as_bytes())?;
        }
        stdout.flush()?;
    }
    Ok(())
}
