//! Progress of a download run: bars on a terminal, one line per file elsewhere.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use myapp::escape::Escaped;
use myapp::units::Size;

use crate::output::speed::Speed;
use crate::output::stderr;

/// Interval between two drawings.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of files with a bar. Further files are counted.
const MAX_BARS: usize = 8;

/// Capacity of the queue of lines. If it is full, the sender waits for the terminal.
const QUEUE_CAPACITY: usize = 4096;

/// Template of a bar.
const KNOWN_LENGTH: &str = "{wide_msg} [{bar:14}] {percent:>3}% of {prefix}";
/// Template of a file whose length is unknown.
const UNKNOWN_LENGTH: &str = "{wide_msg} {prefix}";

/// Progress display of a download run.
pub(crate) struct Progress {
    files: Arc<Mutex<Files>>,
    bars: Option<Bars>,
    quiet: bool,
}

/// State of the files of a run.
#[derive(Debug, Default)]
struct Files {
    expected: Option<u64>,
    running: BTreeMap<u64, File>,
    saved: u64,
    failed: u64,
    /// Bytes that were received for finished files.
    finished_bytes: u64,
    speed: Speed,
}

/// State of a running download.
#[derive(Debug, Default)]
struct File {
    name: String,
    length: Option<u64>,
    /// Offset of the first byte of this run.
    start: Option<u64>,
    position: u64,
    speed: Speed,
}

/// Drawing thread, so that a slow terminal does not block the downloads.
struct Bars {
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
}

/// Bars on the terminal.
struct Drawing {
    draw_target: MultiProgress,
    bars: BTreeMap<u64, ProgressBar>,
    /// Number of running files without a bar.
    more: Option<ProgressBar>,
    total: ProgressBar,
}

impl Progress {
    /// Starts the display: bars if `draw_target` is visible. With `quiet`, only failures are printed.
    /// `count` runs on its own thread and returns the number of files, if it can be determined.
    pub(crate) fn start(
        draw_target: &MultiProgress,
        quiet: bool,
        count: impl FnOnce() -> Option<u64> + Send + 'static,
    ) -> Self {
        let files = Arc::new(Mutex::new(Files::default()));
        let has_bars = !quiet && !draw_target.is_hidden();
        let bars = has_bars.then(|| Bars::start(draw_target.clone(), Arc::clone(&files)));
        if has_bars {
            let files = Arc::clone(&files);
            thread::spawn(move || {
                let count = count();
                let mut files = lock(&files);
                files.expected = files.expected.or(count);
            });
        }
        Self { files, bars, quiet }
    }

    /// Sets the number of files, at the end of the list.
    pub(crate) fn set_expected(&self, count: u64) {
        lock(&self.files).expected = Some(count);
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

    /// Removes the bars. Printed lines stay.
    pub(crate) fn finish(self) {
        if let Some(Bars { lines, thread }) = self.bars {
            drop(lines);
            // A panic of the drawing thread must not affect the downloads.
            let _ = thread.join();
        }
    }

    fn print(&self, text: String) {
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

impl Files {
    /// Records the current positions for the speeds.
    fn record_speed(&mut self, now: Instant) {
        for file in self.running.values_mut() {
            file.record_speed(now);
        }
        self.speed.record(self.received(), now);
    }

    fn summary(&self) -> String {
        let mut text = match self.expected {
            Some(expected) => format!("{} of {expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        let received = self.received();
        let rate = Size(self.speed.rate() as u64);
        match self.total() {
            None => text + &format!(", {}, {rate}/s", Size(received)),
            Some(total) => {
                let left = time_text(self.speed.time_left(total.saturating_sub(received)));
                let total = Size(total);
                text + &format!(", {} of {total}, {rate}/s, {left} left", Size(received))
            }
        }
    }

    /// Returns the number of bytes received in this run.
    fn received(&self) -> u64 {
        self.finished_bytes + self.running.values().map(File::received).sum::<u64>()
    }

    /// Returns the number of bytes to receive in this run, once the lengths of all files are known.
    fn total(&self) -> Option<u64> {
        let started = self.running.len() as u64 + self.saved + self.failed;
        if self.expected != Some(started) {
            return None;
        }
        let running: Option<u64> = self.running.values().map(File::total).sum();
        Some(self.finished_bytes + running?)
    }
}

impl File {
    fn start_body(&mut self, offset: u64, length: Option<u64>) {
        // A server that does not support ranges sends the present bytes again.
        self.start = Some(self.start.map_or(offset, |start| start.min(offset)));
        self.length = length;
        self.position = offset;
        self.record_speed(Instant::now());
    }

    fn record_speed(&mut self, now: Instant) {
        // The time before the first response does not count.
        if self.start.is_some() {
            self.speed.record(self.received(), now);
        }
    }

    /// Returns the text behind the name or the bar.
    fn text(&self) -> String {
        let rate = format!("{}/s", Size(self.speed.rate() as u64));
        match self.length {
            None => format!("{:>8} {rate:>10}     ", Size(self.position).to_string()),
            Some(length) => {
                let left = time_text(self.speed.time_left(length.saturating_sub(self.position)));
                format!("{:>8} {rate:>10} {left:>4}", Size(length).to_string())
            }
        }
    }

    /// Returns the number of bytes received in this run. Bytes that are sent again count once.
    fn received(&self) -> u64 {
        self.position.saturating_sub(self.start.unwrap_or(0))
    }

    fn total(&self) -> Option<u64> {
        Some(self.length?.saturating_sub(self.start?))
    }
}

impl Bars {
    fn start(draw_target: MultiProgress, files: Arc<Mutex<Files>>) -> Self {
        let (lines, waiting) = sync_channel(QUEUE_CAPACITY);
        let thread = thread::spawn(move || {
            let mut drawing = Drawing::new(draw_target.clone());
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

impl Drawing {
    fn new(draw_target: MultiProgress) -> Self {
        let total = draw_target.add(ProgressBar::no_length().with_style(style("{wide_msg}")));
        Self {
            draw_target,
            bars: BTreeMap::new(),
            more: None,
            total,
        }
    }

    /// Updates the bars.
    fn update(&mut self, files: &Files) {
        let Self {
            draw_target, bars, ..
        } = self;
        bars.retain(|number, bar| {
            let is_running = files.running.contains_key(number);
            if !is_running {
                draw_target.remove(bar);
            }
            is_running
        });
        for (number, file) in &files.running {
            if let Some(bar) = self.bar(*number, file) {
                bar.set_position(file.position);
                bar.set_prefix(file.text());
            }
        }
        self.update_more(files.running.len() - self.bars.len());
        self.total.set_message(files.summary());
        // indicatif drops most draws of the changes above, because they follow each other too fast.
        self.total.force_draw();
    }

    /// Returns the bar of a file, unless there are too many.
    fn bar(&mut self, number: u64, file: &File) -> Option<&ProgressBar> {
        if !self.bars.contains_key(&number) {
            if self.bars.len() == MAX_BARS {
                return None;
            }
            let last = self.more.as_ref().unwrap_or(&self.total);
            let bar = ProgressBar::no_length().with_style(style(UNKNOWN_LENGTH));
            let bar = self
                .draw_target
                .insert_before(last, bar.with_message(file.name.clone()));
            self.bars.insert(number, bar);
        }
        let bar = &self.bars[&number];
        if let Some(length) = file.length
            && bar.length() != Some(length)
        {
            bar.set_style(style(KNOWN_LENGTH));
            bar.set_length(length);
        }
        Some(bar)
    }

    fn update_more(&mut self, count: usize) {
        if count == 0 {
            if let Some(more) = self.more.take() {
                self.draw_target.remove(&more);
            }
            return;
        }
        let make = || {
            let bar = ProgressBar::no_length().with_style(style("{msg}"));
            self.draw_target.insert_before(&self.total, bar)
        };
        self.more
            .get_or_insert_with(make)
            .set_message(format!("and {count} more"));
    }

    fn finish(self) {
        for bar in self.bars.values().chain(&self.more).chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn time_text(left: Option<Duration>) -> String {
    left.map_or_else(
        || "?".to_owned(),
        |left| format!("{:#}", HumanDuration(left)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    fn files(count: u64) -> Files {
        let file = |number| File {
            name: format!("file-{number}-of-some-length-and-日本語-and-more.tar.gz"),
            length: (number % 3 > 0).then_some(16 << 20),
            start: Some(0),
            position: number << 20,
            speed: Speed::default(),
        };
        let running = (0..count).map(|number| (number, file(number))).collect();
        Files {
            expected: Some(count),
            running,
            ..Files::default()
        }
    }

    /// Returns the lines of a terminal after these states.
    fn draw(states: &[Files], columns: u16) -> Vec<String> {
        let terminal = InMemoryTerm::new(24, columns);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut drawing = Drawing::new(MultiProgress::with_draw_target(target));
        for state in states {
            drawing.update(state);
        }
        let lines = terminal.contents().lines().map(str::to_owned).collect();
        drawing.finish();
        assert_eq!(terminal.contents(), "", "bars are removed at the end");
        lines
    }

    #[test]
    fn eight_files_have_a_bar_and_the_rest_are_counted() {
        for (count, lines) in [(1, 2), (2, 3), (8, 9), (9, 10), (40, 10)] {
            assert_eq!(draw(&[files(count)], 80).len(), lines, "{count}");
        }
        let lines = draw(&[files(40)], 80);
        assert_eq!(lines[8], "and 32 more");
        assert!(lines[9].starts_with("0 of 40 files, 780 MiB"), "{lines:?}");
    }

    #[test]
    fn finished_file_frees_its_bar() {
        let mut later = files(10);
        later
            .running
            .retain(|number, _| *number != 0 && *number != 3);
        later.saved = 1;
        later.failed = 1;
        let lines = draw(&[files(10), later], 80);
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert!(lines[7].starts_with("file-9"), "{lines:?}");
        assert!(lines[8].starts_with("1 of 10 files, 1 failed"), "{lines:?}");
    }

    #[test]
    fn time_left_is_shown_once_all_lengths_are_known() {
        let state = |expected| {
            let mut all = files(3);
            all.running.remove(&0);
            Files {
                expected,
                saved: 1,
                finished_bytes: 1 << 20,
                ..all
            }
        };
        let streamed = draw(&[state(None)], 80);
        assert!(
            streamed[2].starts_with("1 files, 4.00 MiB, "),
            "{streamed:?}"
        );
        let waiting = draw(&[state(Some(4))], 80);
        assert!(
            waiting[2].starts_with("1 of 4 files, 4.00 MiB, "),
            "{waiting:?}"
        );
        let known = draw(&[state(Some(4)), state(Some(3))], 80);
        assert!(
            known[2].starts_with("1 of 3 files, 4.00 MiB of 33.0 MiB, "),
            "{known:?}"
        );
        assert!(known[2].ends_with(" left"), "{known:?}");
    }

    #[test]
    fn bytes_that_are_sent_again_count_once() {
        #[track_caller]
        fn assert_counts(bodies: &[(u64, u64)], received: u64, total: u64) {
            let mut file = File::default();
            for (offset, position) in bodies {
                file.start_body(*offset, Some(100));
                file.position = *position;
            }
            assert_eq!(
                (file.received(), file.total()),
                (received, Some(total)),
                "{bodies:?}"
            );
        }
        assert_counts(&[(0, 60)], 60, 100);
        assert_counts(&[(0, 60), (60, 80)], 80, 100);
        assert_counts(&[(0, 60), (0, 10)], 10, 100);
        assert_counts(&[(40, 60), (60, 80)], 40, 60);
        assert_counts(&[(40, 60), (0, 10)], 10, 100);
    }

    #[test]
    fn line_shows_the_progress_and_fits() {
        let lines = draw(&[files(9)], 80);
        assert!(
            lines[7].contains("[======>       ]  44% of 16.0 MiB"),
            "{lines:?}"
        );
        assert!(
            !lines[6].contains('%') && lines[6].contains("6.00 MiB"),
            "{lines:?}"
        );
        for columns in [20, 40, 60, 80, 200] {
            let lines = draw(&[files(9)], columns);
            assert!(lines.len() >= 10, "{lines:?}");
        }
    }
}
