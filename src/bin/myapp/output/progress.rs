//! How far the files of a run are: bars on a terminal, a line a file elsewhere.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use myapp::escape::Escaped;
use myapp::units::Size;

use crate::output::speed::Pace;
use crate::output::stderr::say;

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);

/// Files that have a bar of their own; of further ones the number is told.
const BARS: usize = 8;

/// Lines that wait for the next drawing; who has more to say waits for a slow terminal.
const LINES: usize = 4096;

const KNOWN_LENGTH: &str = "{wide_msg} [{bar:14}] {percent:>3}% of {prefix}";
const UNKNOWN_LENGTH: &str = "{wide_msg} {prefix}";

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
    /// The bytes that have come for those that have ended.
    bytes: u64,
    pace: Pace,
}

#[derive(Debug, Default)]
struct File {
    name: String,
    length: Option<u64>,
    /// Where this run began, in bytes.
    from: Option<u64>,
    position: u64,
    pace: Pace,
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
    /// Starts to tell about files: with bars where `screen` shows them; under `-q` only what
    /// fails. What `count` finds out, in a thread of its own, is the number of files.
    pub(crate) fn start(
        screen: &MultiProgress,
        quiet: bool,
        count: impl FnOnce() -> Option<u64> + Send + 'static,
    ) -> Self {
        let files = Arc::new(Mutex::new(Files::default()));
        let drawn = !quiet && !screen.is_hidden();
        let bars = drawn.then(|| Bars::start(screen.clone(), Arc::clone(&files)));
        if drawn {
            let files = Arc::clone(&files);
            thread::spawn(move || {
                let count = count();
                let mut files = lock(&files);
                files.expected = files.expected.or(count);
            });
        }
        Self { files, bars, quiet }
    }

    /// The list has ended: there are so many files in all.
    pub(crate) fn listed(&self, count: u64) {
        lock(&self.files).expected = Some(count);
    }

    pub(crate) fn started(&self, number: u64, name: &[u8]) {
        // Without bars nobody asks which files are running.
        if self.bars.is_none() {
            return;
        }
        let file = File {
            name: Escaped(name).to_string(),
            ..File::default()
        };
        lock(&self.files).running.insert(number, file);
    }

    /// What follows the first `from` bytes is on its way.
    pub(crate) fn answered(&self, number: u64, from: u64, length: Option<u64>) {
        self.change(number, |file| file.answered(from, length));
    }

    pub(crate) fn received(&self, number: u64, position: u64) {
        self.change(number, |file| file.position = position);
    }

    /// A file is whole; what `line` makes says so.
    pub(crate) fn saved(&self, number: u64, bytes: u64, line: impl FnOnce() -> Option<String>) {
        let mut files = lock(&self.files);
        let from = files.running.remove(&number).and_then(|file| file.from);
        files.saved += 1;
        files.bytes += bytes.saturating_sub(from.unwrap_or(0));
        drop(files);
        if !self.quiet
            && let Some(line) = line()
        {
            self.say(line);
        }
    }

    /// A file has failed; `problem` says why.
    pub(crate) fn failed(&self, number: u64, problem: String) {
        let mut files = lock(&self.files);
        let come = files.running.remove(&number).map_or(0, |file| file.come());
        files.failed += 1;
        files.bytes += come;
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
    /// How far all of them are by now.
    fn note(&mut self, now: Instant) {
        for file in self.running.values_mut() {
            file.note(now);
        }
        self.pace.note(self.come(), now);
    }

    fn tell_total(&self) -> String {
        let mut text = match self.expected {
            Some(expected) => format!("{} of {expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        if self.failed > 0 {
            text += &format!(", {} failed", self.failed);
        }
        let (come, rate) = (self.come(), Size(self.pace.rate() as u64));
        match self.to_come() {
            None => text + &format!(", {}, {rate}/s", Size(come)),
            Some(all) => {
                let left = tell_left(self.pace.left(all.saturating_sub(come)));
                text + &format!(", {} of {}, {rate}/s, {left} left", Size(come), Size(all))
            }
        }
    }

    /// The bytes that have come.
    fn come(&self) -> u64 {
        self.bytes + self.running.values().map(File::come).sum::<u64>()
    }

    /// The bytes that have come when all is done, once every file has told its length.
    fn to_come(&self) -> Option<u64> {
        let begun = self.running.len() as u64 + self.saved + self.failed;
        let running: Option<u64> = self.running.values().map(File::to_come).sum();
        running
            .filter(|_| self.expected == Some(begun))
            .map(|running| self.bytes + running)
    }
}

impl File {
    fn answered(&mut self, from: u64, length: Option<u64>) {
        // A server that begins anew sends what is here already once more.
        self.from = Some(self.from.map_or(from, |first| first.min(from)));
        (self.length, self.position) = (length, from);
        self.note(Instant::now());
    }

    fn note(&mut self, now: Instant) {
        // Nothing comes before the first answer, and no time counts.
        if self.from.is_some() {
            self.pace.note(self.come(), now);
        }
    }

    /// What stands behind its name, or its bar.
    fn tell(&self) -> String {
        let rate = format!("{}/s", Size(self.pace.rate() as u64));
        match self.length {
            None => format!("{:>8} {rate:>10}     ", Size(self.position).to_string()),
            Some(length) => {
                let left = tell_left(self.pace.left(length.saturating_sub(self.position)));
                format!("{:>8} {rate:>10} {left:>4}", Size(length).to_string())
            }
        }
    }

    /// The bytes that have come in this run; those that come again after a failure count once.
    fn come(&self) -> u64 {
        self.position.saturating_sub(self.from.unwrap_or(0))
    }

    fn to_come(&self) -> Option<u64> {
        Some(self.length?.saturating_sub(self.from?))
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
                let mut files = lock(&files);
                files.note(Instant::now());
                drawing.update(&files);
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
        let total = screen.add(ProgressBar::no_length().with_style(style("{wide_msg}")));
        Self {
            screen,
            files: BTreeMap::new(),
            more: None,
            total,
        }
    }

    /// Brings the bars in line with the files.
    fn update(&mut self, files: &Files) {
        let Self {
            screen,
            files: bars,
            ..
        } = self;
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
                bar.set_prefix(file.tell());
            }
        }
        self.tell_more(files.running.len() - self.files.len());
        self.total.set_message(files.tell_total());
        // Of the changes before it only the first is drawn, for they come too fast.
        self.total.force_draw();
    }

    /// The bar of a file, if there is room for it.
    fn bar_of(&mut self, number: u64, file: &File) -> Option<&ProgressBar> {
        if !self.files.contains_key(&number) {
            if self.files.len() == BARS {
                return None;
            }
            let last = self.more.as_ref().unwrap_or(&self.total);
            let bar = ProgressBar::no_length().with_style(style(UNKNOWN_LENGTH));
            let bar = self
                .screen
                .insert_before(last, bar.with_message(file.name.clone()));
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
        self.more
            .get_or_insert_with(make)
            .set_message(format!("and {count} more"));
    }

    fn end(self) {
        for bar in self.files.values().chain(&self.more).chain([&self.total]) {
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

fn tell_left(left: Option<Duration>) -> String {
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
            from: Some(0),
            position: number << 20,
            pace: Pace::default(),
        };
        let running = (0..count).map(|number| (number, file(number))).collect();
        Files {
            expected: Some(count),
            running,
            ..Files::default()
        }
    }

    /// What stands on a terminal of so many columns after each of these states.
    fn draw(states: &[Files], columns: u16) -> Vec<String> {
        let terminal = InMemoryTerm::new(24, columns);
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut drawing = Drawing::new(MultiProgress::with_draw_target(target));
        for state in states {
            drawing.update(state);
        }
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
        assert!(lines[9].starts_with("0 of 40 files, 780 MiB"), "{lines:?}");
    }

    #[test]
    fn a_file_that_ends_makes_room_for_the_next() {
        let mut later = files(10);
        later
            .running
            .retain(|number, _| *number != 0 && *number != 3);
        (later.saved, later.failed) = (1, 1);
        let lines = draw(&[files(10), later], 80);
        assert_eq!(lines.len(), 9, "{lines:?}");
        assert!(lines[7].starts_with("file-9"), "{lines:?}");
        assert!(lines[8].starts_with("1 of 10 files, 1 failed"), "{lines:?}");
    }

    #[test]
    fn the_total_tells_what_is_left_once_all_is_known() {
        let state = |expected| {
            let mut all = files(3);
            all.running.remove(&0);
            Files {
                expected,
                saved: 1,
                bytes: 1 << 20,
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
    fn bytes_count_once_however_often_a_file_is_answered() {
        #[track_caller]
        fn counts(answers: &[(u64, u64)], come: u64, to_come: u64) {
            let mut file = File::default();
            for (from, position) in answers {
                file.answered(*from, Some(100));
                file.position = *position;
            }
            assert_eq!(
                (file.come(), file.to_come()),
                (come, Some(to_come)),
                "{answers:?}"
            );
        }
        counts(&[(0, 60)], 60, 100);
        counts(&[(0, 60), (60, 80)], 80, 100);
        counts(&[(0, 60), (0, 10)], 10, 100);
        counts(&[(40, 60), (60, 80)], 40, 60);
        counts(&[(40, 60), (0, 10)], 10, 100);
    }

    #[test]
    fn a_line_shows_how_far_a_file_is_and_fits() {
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
