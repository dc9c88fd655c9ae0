//! JSON lines of a download run: one per file and a summary, as in `schemas/download.json`.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use futures_lite::future;
use myapp::download::{Event, FailedItem, Report, Saved};
use serde_json::{Value, json};
use smol::channel;
use url::{Position, Url};

use crate::exit_code::{CommandError, ExitCode};
use crate::output::stdout;

/// Capacity of the line queue; a slow reader applies back-pressure beyond it.
const QUEUE_CAPACITY: usize = 4096;

/// JSON line writer with a thread of its own.
pub(crate) struct JsonLines {
    running: Mutex<HashMap<u64, File>>,
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
    failed: channel::Receiver<io::Error>,
}

/// State of an unfinished download.
#[derive(Debug, Default)]
struct File {
    started: Option<Instant>,
    url: Option<Url>,
    path: Option<String>,
    /// URL of the last request, after redirects and mirrors.
    requested: Option<String>,
    status: Option<u16>,
    total: Option<u64>,
    /// Offset of the first byte of this run.
    start_offset: Option<u64>,
    position: u64,
    retries: u32,
}

impl JsonLines {
    pub(crate) fn start() -> Self {
        let (lines, waiting) = sync_channel(QUEUE_CAPACITY);
        let (fail, failed) = channel::bounded(1);
        let thread = thread::spawn(move || {
            if let Err(error) = write(&waiting) {
                // Fails if the run is over and the receiver is gone.
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

    /// Waits until a write to stdout fails and returns the failure.
    pub(crate) async fn failed(&self) -> CommandError {
        match self.failed.recv().await {
            Ok(error) => stdout::write_error(error),
            Err(_) => future::pending().await,
        }
    }

    /// Records an event of the file with this number. `describe` returns the message and exit code
    /// of a failure.
    pub(crate) fn record(
        &self,
        number: u64,
        event: &Event<'_>,
        describe: impl FnOnce(&FailedItem) -> (String, ExitCode),
    ) {
        let mut running = self.running();
        let file = running.entry(number).or_default();
        match event {
            Event::Started { url, path } => {
                file.started = Some(Instant::now());
                file.url = Some((*url).clone());
                file.path = path.map(text);
            }
            Event::ResponseReceived { url, status } => {
                file.requested = Some(without_secrets(url));
                file.status = Some(*status);
            }
            Event::BodyStarted { offset, total } => {
                let start = file
                    .start_offset
                    .map_or(*offset, |start| start.min(*offset));
                file.start_offset = Some(start);
                file.total = *total;
                file.position = *offset;
            }
            Event::Progress { downloaded } => file.position = *downloaded,
            Event::Retrying { .. } => file.retries += 1,
            Event::MirrorFallback { url, .. } => {
                file.requested = Some(without_secrets(url));
                file.status = None;
            }
            Event::Saved(saved) => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                self.print(file.saved(saved));
            }
            Event::Failed(failure) => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                let (error, code) = describe(failure);
                self.print(file.result("failed", &failure.url, Some(error), code));
            }
            Event::Cancelled => {
                let file = running.remove(&number).unwrap_or_default();
                drop(running);
                let url = file.url.as_ref().map(Url::to_string).unwrap_or_default();
                self.print(file.result("cancelled", &url, None, ExitCode::Interrupted));
            }
            _ => {}
        }
    }

    /// Writes the summary and waits until all lines are written.
    pub(crate) fn finish(self, report: &Report, code: ExitCode) -> Result<(), CommandError> {
        let seconds = report.elapsed.as_secs_f64();
        let mut line = json!(report);
        // Each failure has a line of its own.
        line.as_object_mut().map(|fields| fields.remove("failures"));
        line["event"] = "summary".into();
        line["rate"] = (report.bytes as f64 / seconds.max(1e-9)).into();
        line["code"] = (code as u8).into();
        self.print(line);
        drop(self.lines);
        // The thread reports write errors over the channel.
        let _ = self.thread.join();
        self.failed
            .try_recv()
            .map_or(Ok(()), |error| Err(stdout::write_error(error)))
    }

    fn print(&self, line: Value) {
        // Fails if the thread ended on a write error, which also ends the run.
        let _ = self.lines.send(format!("{line}\n"));
    }

    fn running(&self) -> MutexGuard<'_, HashMap<u64, File>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl File {
    fn saved(self, saved: &Saved) -> Value {
        let result = if saved.skipped { "skipped" } else { "saved" };
        let mut line = self.result(result, saved.url.as_str(), None, ExitCode::Success);
        let mut fields = json!(saved);
        for name in ["path", "elapsed", "bytes", "checksum"] {
            line[name] = fields[name].take();
        }
        line
    }

    fn result(self, result: &str, url: &str, error: Option<String>, code: ExitCode) -> Value {
        let is_other =
            |requested: &String| self.url.as_ref().map(without_secrets).as_ref() != Some(requested);
        json!({
            "event": "file",
            "result": result,
            "url": url,
            "final_url": self.requested.filter(is_other).unwrap_or_else(|| url.to_owned()),
            "path": self.path,
            "status": self.status,
            "bytes": self.position,
            "total": self.total,
            "elapsed": self.started.map_or(0.0, |start| start.elapsed().as_secs_f64()),
            "retries": self.retries,
            "resumed_from": self.start_offset.unwrap_or(0),
            "checksum": null,
            "error": error,
            "code": code as u8,
        })
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Redacts the query of a redirect target, which often holds a signature.
fn without_secrets(url: &Url) -> String {
    let query = if url.query().is_some() { "?***" } else { "" };
    format!("{}{query}", &url[..Position::AfterPath])
}

fn write(lines: &Receiver<String>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    while let Ok(line) = lines.recv() {
        stdout.write_all(line.as_bytes())?;
        // Queued lines share one flush.
        for line in lines.try_iter() {
            stdout.write_all(line.as_bytes())?;
        }
        stdout.flush()?;
    }
    Ok(())
}
