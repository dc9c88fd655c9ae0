//! How far the files of a run are: bars on a terminal, a line a file elsewhere.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use myapp::escape::Escaped;

use crate::output::terminal::say;

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);

/// Files that have a bar of their own; of further ones the number is told.
const BARS: usize = 8;

/// Lines that wait for the next drawing; who has more to say waits for a slow terminal.
const LINES: usize = 4096;

const KNOWN_LENGTH: &str = "{wide_msg} [{bar:14}] {percent:>3}% of {binary_total_bytes:>10} \
                            {binary_bytes_per_sec:>12} {eta:>4}";
const UNKNOWN_LENGTH: &str = "{wide_msg} {binary_bytes:>10} {binary_bytes_per_sec:>12}     ";
const TOTAL: &str = "{msg}, {binary_bytes}, {binary_bytes_per_sec}";

/// What is told about the files of a run.
pub(crate) struct Progress {
    files: Arc<Mutex<Files>>,
    bars: Option<Bars>,
    quiet: bool,
}

/// The files of a run, as far as they are known.
#[derive(Debug, Default)]
struct Files {
    expected: Option<u64>,
    running: BTreeMap<u64, File>,
    saved: u64,
    failed: u64,
    /// The bytes of those that have ended.
    bytes: u64,
}

#[derive(Debug, Default)]
struct File {
    name: String,
    length: Option<u64>,
    position: u64,
}

/// The thread that draws: a terminal that takes its time holds up nobody else.
struct Bars {
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
}

/// What that thread has drawn.
struct Drawing {
    screen: MultiProgress,
    files: BTreeMap<u64, ProgressBar>,
    more: Option<ProgressBar>,
    total: ProgressBar,
}

impl Progress {
    /// Starts to tell about so many files, if their number is known: with bars where `screen`
    /// shows them; under `-q` only what fails.
    pub(crate) fn start(screen: &MultiProgress, quiet: bool, expected: Option<u64>) -> Self {
        let files = Arc::new(Mutex::new(Files { expected, ..Files::default() }));
        let drawn = !quiet && !screen.is_hidden();
        let bars = drawn.then(|| Bars::start(screen.clone(), Arc::clone(&files)));
        Self { files, bars, quiet }
    }

    pub(crate) fn started(&self, number: u64, name: &[u8]) {
        let file = File { name: Escaped(name).to_string(), ..File::default() };
        lock(&self.files).running.insert(number, file);
    }

    pub(crate) fn answered(&self, number: u64, length: Option<u64>) {
        self.change(number, |file| file.length = length);
    }

    pub(crate) fn received(&self, number: u64, position: u64) {
        self.change(number, |file| file.position = position);
    }

    /// A file is whole; `line` says so.
    pub(crate) fn saved(&self, number: u64, bytes: u64, line: Option<String>) {
        let mut files = lock(&self.files);
        files.running.remove(&number);
        files.saved += 1;
        files.bytes += bytes;
        drop(files);
        if let Some(line) = line.filter(|_| !self.quiet) {
            self.say(line);
        }
    }

    /// A file has failed; `problem` says why.
    pub(crate) fn failed(&self, number: u64, problem: String) {
        let mut files = lock(&self.files);
        files.running.remove(&number);
        files.failed += 1;
        drop(files);
        self.say(problem);
    }

    pub(crate) fn stopped(&self, number: u64) {
        lock(&self.files).running.remove(&number);
    }

    /// Takes the bars away; what has been said stays.
    pub(crate) fn end(self) {
        if let Some(Bars { lines, thread }) = self.bars {
            drop(lines);
            // It draws to a terminal; if that went wrong there is nothing left to tidy up.
            let _ = thread.join();
        }
    }

    fn say(&self, text: String) {
        match &self.bars {
            // The thread ends only after this side.
            Some(bars) => drop(bars.lines.send(text)),
            None => say(&text),
        }
    }

    fn change(&self, number: u64, change: impl FnOnce(&mut File)) {
        if let Some(file) = lock(&self.files).running.get_mut(&number) {
            change(file);
        }
    }
}

fn lock(files: &Mutex<Files>) -> MutexGuard<'_, Files> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    fn tell_total(&self) -> String {
        let mut text = match self.expected {
            Some(expected) => format!("{} of {expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        text
    }
}

impl Bars {
    fn start(screen: MultiProgress, files: Arc<Mutex<Files>>) -> Self {
        let (lines, waiting) = sync_channel(LINES);
        let thread = thread::spawn(move || {
            let mut drawing = Drawing::new(screen.clone());
            while let Some(text) = collect(&waiting) {
                if !text.is_empty() {
                    screen.suspend(|| say(&text));
                }
                drawing.update(&lock(&files));
            }
            drawing.end();
        });
        Self { lines, thread }
    }
}

/// What is said until the next drawing; nothing more when nobody is left to say anything.
fn collect(lines: &Receiver<String>) -> Option<String> {
    let end = Instant::now() + TICK;
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
    fn new(screen: MultiProgress) -> Self {
        let total = screen.add(ProgressBar::no_length().with_style(style(TOTAL)));
        Self { screen, files: BTreeMap::new(), more: None, total }
    }

    /// Brings the bars in line with the files.
    fn update(&mut self, files: &Files) {
        let Self { screen, files: bars, .. } = self;
        bars.retain(|number, bar| {
            let runs = files.running.contains_key(number);
            if !runs {
                screen.remove(bar);
            }
            runs
        });
        for (number, file) in &files.running {
            if let Some(bar) = self.bar_of(*number, file) {
                bar.set_position(file.position);
            }
        }
        self.tell_more(files.running.len() - self.files.len());
        self.total.set_message(files.tell_total());
        let running: u64 = files.running.values().map(|file| file.position).sum();
        self.total.set_position(files.bytes + running);
    }

    /// The bar of a file, if there is room for it.
    fn bar_of(&mut self, number: u64, file: &File) -> Option<&ProgressBar> {
        if !self.files.contains_key(&number) {
            if self.files.len() == BARS {
                return None;
            }
            let last = self.more.as_ref().unwrap_or(&self.total);
            let bar = ProgressBar::no_length().with_style(style(UNKNOWN_LENGTH));
            let bar = self.screen.insert_before(last, bar.with_message(file.name.clone()));
            self.files.insert(number, bar);
        }
        let bar = &self.files[&number];
        if let Some(length) = file.length.filter(|length| bar.length() != Some(*length)) {
            bar.set_style(style(KNOWN_LENGTH));
            bar.set_length(length);
        }
        Some(bar)
    }

    fn tell_more(&mut self, count: usize) {
        if count == 0 {
            if let Some(more) = self.more.take() {
                self.screen.remove(&more);
            }
            return;
        }
        let make = || {
            let bar = ProgressBar::no_length().with_style(style("{msg}"));
            self.screen.insert_before(&self.total, bar)
        };
        self.more.get_or_insert_with(make).set_message(format!("and {count} more"));
    }

    fn end(self) {
        for bar in self.files.values().chain(&self.more).chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    fn files(count: u64) -> Files {
        let file = |number| File {
            name: format!("file-{number}-of-some-length-and-日本語-and-more.tar.gz"),
            length: (number % 3 > 0).then_some(16 << 20),
            position: number << 20,
        };
        let running = (0..count).map(|number| (number, file(number))).collect();
        Files { expected: Some(count), running, ..Files::default() }
    }

    /// What stands on a terminal of so many columns after each of these states.
    fn draw(states: &[Files], columns: u16) -> Vec<String> {
        let terminal = InMemoryTerm::new(24, columns);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut drawing = Drawing::new(MultiProgress::with_draw_target(target));
        for state in states {
            drawing.update(state);
        }
        drawing.total.tick();
        let lines = terminal.contents().lines().map(str::to_owned).collect();
        drawing.end();
        assert_eq!(terminal.contents(), "", "at the end nothing is left");
        lines
    }

    #[test]
    fn eight_files_have_a_bar_and_the_rest_a_number() {
        for (count, lines) in [(1, 2), (2, 3), (8, 9), (9, 10), (40, 10)] {
            assert_eq!(draw(&[files(count)], 80).len(), lines, "{count}");
        }
        let lines = draw(&[files(40)], 80);
        assert_eq!(lines[8], "and 32 more");
        assert!(lines[9].starts_with("0 of 40 files, 780.00 MiB"), "{lines:?}");
    }

    #[test]
    fn a_file_that_ends_makes_room_for_the_next() {
        let mut later = files(10);
        later.running.retain(|number, _| *number != 0 && *number != 3);
        (later.saved, later.failed) = (1, 1);
        let lines = draw(&[files(10), later], 80);
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert!(lines[7].starts_with("file-9"), "{lines:?}");
        assert!(lines[8].starts_with("1 of 10 files, 1 failed"), "{lines:?}");
    }

    #[test]
    fn a_line_shows_how_far_a_file_is_and_fits() {
        let lines = draw(&[files(9)], 80);
        assert!(lines[7].contains("[======>       ]  44% of  16.00 MiB"), "{lines:?}");
        assert!(!lines[6].contains('%') && lines[6].contains("6.00 MiB"), "{lines:?}");
        for columns in [20, 40, 60, 80, 200] {
            let lines = draw(&[files(9)], columns);
            assert!(lines.len() >= 10, "{lines:?}");
        }
    }
}
