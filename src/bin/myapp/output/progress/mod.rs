//! Progress of a run over files: bars on a terminal, one line per file elsewhere.

mod drawing;
mod files;
mod row;

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::MultiProgress;
use myapp::internals::Escaped;

use self::drawing::Drawing;
use self::files::Files;
use self::row::File;
use crate::output::stderr;

/// Interval between two drawings.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Capacity of the queue of lines. If it is full, the sender waits for the terminal.
const QUEUE_CAPACITY: usize = 4096;

/// Progress display of a run. Dropping it removes the bars; printed lines stay.
pub(crate) struct Progress {
    files: Arc<Mutex<Files>>,
    bars: Option<Bars>,
    quiet: bool,
}

/// Drawing thread, so that a slow terminal does not block the run.
struct Bars {
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
}

impl Progress {
    /// Starts the display: bars if `draw_target` is visible. With `quiet`, only failures are printed.
    pub(crate) fn start(draw_target: &MultiProgress, quiet: bool) -> Self {
        let files = Arc::new(Mutex::new(Files::default()));
        let has_bars = !quiet && !draw_target.is_hidden();
        let bars = has_bars.then(|| Bars::start(draw_target.clone(), Arc::clone(&files)));
        Self { files, bars, quiet }
    }

    /// Determines the number of files on a thread of its own, if it is displayed.
    pub(crate) fn count(&self, count: impl FnOnce() -> Option<u64> + Send + 'static) {
        if self.bars.is_none() {
            return;
        }
        let files = Arc::clone(&self.files);
        thread::spawn(move || {
            let count = count();
            let mut files = lock(&files);
            files.expected = files.expected.or(count);
        });
    }

    /// Sets the number of concurrent files, if it is chosen automatically.
    pub(crate) fn set_auto_jobs(&self, jobs: Option<usize>) {
        if jobs.is_some() {
            lock(&self.files).auto_jobs = jobs;
        }
    }

    /// Sets the number of files, at the end of the list.
    pub(crate) fn set_expected(&self, count: u64) {
        lock(&self.files).expected = Some(count);
    }

    /// Sets the number of bytes of all files, if it is known before they start.
    pub(crate) fn set_expected_bytes(&self, bytes: Option<u64>) {
        lock(&self.files).expected_bytes = bytes;
    }

    /// Adds a running file.
    pub(crate) fn start_file(&self, number: u64, name: &[u8]) {
        // Running files are only displayed with bars.
        if self.bars.is_none() {
            return;
        }
        let file = File {
            name: Escaped(name).to_string(),
            ..File::default()
        };
        lock(&self.files).running.insert(number, file);
    }

    /// Records a response whose body starts at `offset`.
    pub(crate) fn start_body(&self, number: u64, offset: u64, length: Option<u64>) {
        self.update(number, |file| file.start_body(offset, length));
    }

    /// Records the bytes that are present.
    pub(crate) fn set_position(&self, number: u64, position: u64) {
        self.update(number, |file| file.position = position);
    }

    /// Removes a saved file and prints `line`.
    pub(crate) fn finish_file(
        &self,
        number: u64,
        bytes: u64,
        line: impl FnOnce() -> Option<String>,
    ) {
        let mut files = lock(&self.files);
        let start = files.running.remove(&number).and_then(|file| file.start);
        files.saved += 1;
        files.finished_bytes += bytes.saturating_sub(start.unwrap_or(0));
        drop(files);
        if !self.quiet
            && let Some(line) = line()
        {
            self.print(line);
        }
    }

    /// Removes a failed file and prints its error.
    pub(crate) fn fail_file(&self, number: u64, error: String) {
        let mut files = lock(&self.files);
        let file = files.running.remove(&number);
        files.failed += 1;
        files.finished_bytes += file.map_or(0, |file| file.received());
        drop(files);
        self.print(error);
    }

    /// Removes a cancelled file.
    pub(crate) fn cancel_file(&self, number: u64) {
        lock(&self.files).running.remove(&number);
    }

    /// Prints a line above the bars.
    pub(crate) fn print(&self, text: String) {
        match &self.bars {
            // Fails only if the thread has panicked.
            Some(bars) => drop(bars.lines.send(text)),
            None => stderr::write(&text),
        }
    }

    fn update(&self, number: u64, update: impl FnOnce(&mut File)) {
        if let Some(file) = lock(&self.files).running.get_mut(&number) {
            update(file);
        }
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(Bars { lines, thread }) = self.bars.take() {
            drop(lines);
            // A panic of the drawing thread must not affect the run.
            let _ = thread.join();
        }
    }
}

impl Bars {
    fn start(draw_target: MultiProgress, files: Arc<Mutex<Files>>) -> Self {
        let (lines, waiting) = sync_channel(QUEUE_CAPACITY);
        let thread = thread::spawn(move || {
            let size = || Term::stderr().size();
            let mut drawing = Drawing::new(draw_target.clone(), size);
            while let Some(text) = collect(&waiting) {
                if !text.is_empty() {
                    draw_target.suspend(|| stderr::write(&text));
                }
                let mut files = lock(&files);
                files.record_speed(Instant::now());
                drawing.update(&files);
            }
            drawing.finish();
        });
        Self { lines, thread }
    }
}

/// Collects the lines until the next drawing. Returns `None` at the end.
fn collect(lines: &Receiver<String>) -> Option<String> {
    let end = Instant::now() + DRAW_INTERVAL;
    let mut text = String::new();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => text.push_str(&line),
            Err(RecvTimeoutError::Disconnected) if text.is_empty() => return None,
            Err(_) => return Some(text),
        }
    }
}
