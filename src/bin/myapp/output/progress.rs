//! Progress of a download run: bars on a terminal, one line per file elsewhere.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use console::{Alignment, Term, measure_text_width, pad_str, truncate_str};
use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use myapp::internals::Escaped;
use myapp::units::Size;

use crate::output::speed::Speed;
use crate::output::stderr;
use crate::output::style::{Role, paint};

/// Interval between two drawings.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum number of files with a bar. Further files are counted.
const MAX_BARS: usize = 8;

/// Capacity of the queue of lines. If it is full, the sender waits for the terminal.
const QUEUE_CAPACITY: usize = 4096;

/// Length of a bar in columns.
const BAR_LEN: usize = 14;

/// Minimum number of columns for a row with a bar.
const MIN_BAR_COLUMNS: usize = 64;

/// Minimum number of columns for a row with length, rate and time left.
const MIN_LENGTH_COLUMNS: usize = 48;

/// Minimum number of columns for a row with a rate.
const MIN_RATE_COLUMNS: usize = 28;

/// Progress display of a download run.
pub(crate) struct Progress {
    files: Arc<Mutex<Files>>,
    bars: Option<Bars>,
    quiet: bool,
}

/// State of the files of a run.
#[derive(Debug, Default)]
struct Files {
    /// Number of concurrent files, if it is chosen automatically.
    auto_jobs: Option<usize>,
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
    /// Returns the rows and columns of the terminal.
    size: fn() -> (u16, u16),
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

    /// Returns the row of the total, without what does not fit.
    fn summary(&self, columns: usize) -> String {
        let text = self.full_summary();
        if text.len() <= columns {
            return text;
        }
        let rate = Size(self.speed.rate() as u64);
        let count = match self.expected {
            Some(expected) => format!("{}/{expected}", self.saved),
            None => self.saved.to_string(),
        };
        let text = format!("{count} files, {}, {rate}/s", Size(self.received()));
        truncate_str(&text, columns, "…").into_owned()
    }

    fn full_summary(&self) -> String {
        let mut text = match self.expected {
            Some(expected) => format!("{} of {expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        if let Some(jobs) = self.auto_jobs {
            text += &format!(", -j auto: {jobs}");
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

    /// Returns the row of the file: its name, and behind it what fits into the columns.
    fn row(&self, columns: usize) -> String {
        let text = match self.length {
            Some(length) => self.progress_text(length, columns),
            None => self.position_text(columns),
        };
        let name_len = columns.saturating_sub(text.len() + 1);
        let name = shorten(&self.name, name_len);
        let name = pad_str(&name, name_len, Alignment::Left, None);
        truncate_str(&format!("{name} {text}"), columns, "").into_owned()
    }

    fn progress_text(&self, length: u64, columns: usize) -> String {
        let part = self.position.min(length) as f64 / length.max(1) as f64;
        let percent = format!("{:>3}%", (part * 100.0) as u64);
        let rate = format!("{}/s", Size(self.speed.rate() as u64));
        if columns < MIN_RATE_COLUMNS {
            return percent;
        }
        if columns < MIN_LENGTH_COLUMNS {
            return format!("{percent} {rate:>10}");
        }
        let bar = if columns < MIN_BAR_COLUMNS {
            String::new()
        } else {
            let done = "=".repeat((part * BAR_LEN as f64) as usize);
            let head = if done.len() < BAR_LEN { ">" } else { "" };
            format!("[{:BAR_LEN$}] ", done + head)
        };
        let left = time_text(self.speed.time_left(length.saturating_sub(self.position)));
        let length = Size(length).to_string();
        format!("{bar}{percent} of {length:>8} {rate:>10} {left:>4}")
    }

    fn position_text(&self, columns: usize) -> String {
        let position = Size(self.position).to_string();
        if columns < MIN_RATE_COLUMNS {
            return format!("{position:>8}");
        }
        let rate = format!("{}/s", Size(self.speed.rate() as u64));
        // The column of the time left stays empty.
        let end = if columns < MIN_LENGTH_COLUMNS {
            ""
        } else {
            "     "
        };
        format!("{position:>8} {rate:>10}{end}")
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

impl Drawing {
    fn new(draw_target: MultiProgress, size: fn() -> (u16, u16)) -> Self {
        let total = draw_target.add(ProgressBar::no_length().with_style(message_style()));
        Self {
            draw_target,
            bars: BTreeMap::new(),
            more: None,
            total,
            size,
        }
    }

    /// Updates the bars.
    fn update(&mut self, files: &Files) {
        let size = (self.size)();
        let rows = size.0;
        let columns = usize::from(size.1);
        // The last two rows show the number of further files and the total.
        let max_bars = usize::from(rows).saturating_sub(2).min(MAX_BARS);
        let Self {
            draw_target, bars, ..
        } = self;
        let mut kept = 0;
        bars.retain(|number, bar| {
            let is_kept = files.running.contains_key(number) && kept < max_bars;
            if is_kept {
                kept += 1;
            } else {
                draw_target.remove(bar);
            }
            is_kept
        });
        for (number, file) in &files.running {
            if let Some(bar) = self.bar(*number, max_bars) {
                bar.set_message(file.row(columns));
            }
        }
        let more = if rows < 2 {
            0
        } else {
            files.running.len() - self.bars.len()
        };
        self.update_more(more, columns);
        let total = files.summary(columns);
        self.total.set_message(paint(Role::Total, &total));
        // indicatif drops most draws of the changes above, because they follow each other too fast.
        self.total.force_draw();
    }

    /// Returns the bar of a file, unless there are too many.
    fn bar(&mut self, number: u64, max_bars: usize) -> Option<&ProgressBar> {
        if !self.bars.contains_key(&number) {
            if self.bars.len() >= max_bars {
                return None;
            }
            let last = self.more.as_ref().unwrap_or(&self.total);
            let bar = ProgressBar::no_length().with_style(message_style());
            let bar = self.draw_target.insert_before(last, bar);
            self.bars.insert(number, bar);
        }
        self.bars.get(&number)
    }

    fn update_more(&mut self, count: usize, columns: usize) {
        if count == 0 {
            if let Some(more) = self.more.take() {
                self.draw_target.remove(&more);
            }
            return;
        }
        let make = || {
            let bar = ProgressBar::no_length().with_style(message_style());
            self.draw_target.insert_before(&self.total, bar)
        };
        self.more
            .get_or_insert_with(make)
            .set_message(truncate_str(&format!("and {count} more"), columns, "").into_owned());
    }

    fn finish(self) {
        for bar in self.bars.values().chain(&self.more).chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

/// Shortens a name in its middle: names of one list often differ only at the end.
fn shorten(name: &str, columns: usize) -> Cow<'_, str> {
    if measure_text_width(name) <= columns {
        return name.into();
    }
    let mut tail = name.len();
    let starts = name.char_indices().rev().map(|(start, _)| start);
    for start in
        starts.take_while(|start| measure_text_width(&name[*start..]) < columns.div_ceil(2))
    {
        tail = start;
    }
    let tail = &name[tail..];
    let head_len = columns.saturating_sub(1 + measure_text_width(tail));
    format!("{}…{tail}", truncate_str(name, head_len, "")).into()
}

/// Returns the style of a row that is its message.
fn message_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
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
    use std::cell::Cell;

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
        draw_on(states, 24, columns)
    }

    /// Returns the lines of a terminal of this size after these states.
    fn draw_on(states: &[Files], rows: u16, columns: u16) -> Vec<String> {
        thread_local! {
            static SIZE: Cell<(u16, u16)> = const { Cell::new((0, 0)) };
        }
        SIZE.set((rows, columns));
        let terminal = InMemoryTerm::new(rows, columns);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut drawing = Drawing::new(MultiProgress::with_draw_target(target), || SIZE.get());
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
    fn total_shows_the_automatic_concurrency() {
        let mut files = files(2);
        assert!(!files.full_summary().contains("-j"));
        files.auto_jobs = Some(12);
        assert!(
            files
                .full_summary()
                .starts_with("0 of 2 files, -j auto: 12, ")
        );
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
            lines[7].contains("[======>       ]  43% of 16.0 MiB"),
            "{lines:?}"
        );
        assert!(
            !lines[6].contains('%') && lines[6].contains("6.00 MiB"),
            "{lines:?}"
        );
        for columns in [1, 8, 20, 30, 40, 60, 80, 200] {
            let lines = draw(&[files(9)], columns);
            assert_eq!(lines.len(), 10, "{lines:?}");
            let widest = lines.iter().map(|line| measure_text_width(line)).max();
            assert!(widest <= Some(columns.into()), "{lines:?}");
        }
    }

    #[test]
    fn narrow_row_keeps_name_and_rate() {
        let lines = draw(&[files(9)], 40);
        assert_eq!(
            lines[6], "file-6-of-…re.tar.gz 6.00 MiB      0 B/s",
            "{lines:?}"
        );
        assert_eq!(
            lines[7], "file-7-of-so…more.tar.gz  43%      0 B/s",
            "{lines:?}"
        );
        let lines = draw(&[files(9)], 20);
        assert!(lines[7].starts_with("file-7-…"), "{lines:?}");
    }

    #[test]
    fn total_is_visible_on_a_low_terminal() {
        for rows in [1, 2, 3, 5, 8] {
            let lines = draw_on(&[files(40)], rows, 80);
            assert!(lines.len() <= rows.into(), "{rows}: {lines:?}");
            let last = lines.last().map(String::as_str).unwrap_or_default();
            assert!(last.starts_with("0 of 40 files"), "{rows}: {lines:?}");
        }
        let lines = draw_on(&[files(40)], 5, 28);
        assert!(lines[4].starts_with("0/40 files, 780 MiB, "), "{lines:?}");
    }
}
