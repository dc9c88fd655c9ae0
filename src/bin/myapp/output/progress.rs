//! How far the files of a run are: drawn again and again on a terminal, a line a file elsewhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use myapp::escape::Escaped;
use myapp::units::Size;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::output::screen::Screen;
use crate::output::terminal::say;

/// How often the bars are drawn.
const TICK: Duration = Duration::from_millis(100);

/// Files that have a bar of their own; of further ones the number is told.
const BARS: usize = 8;

/// Columns left free: a terminal shows `^C` behind the last line, which must not wrap there.
const MARGIN: usize = 3;

/// Lines that wait for the next drawing; who has more to say waits for a slow terminal.
const LINES: usize = 4096;

/// The seconds over which a rate is averaged.
const RATE_SECONDS: f64 = 2.0;

/// What is told about the files of a run.
pub(crate) struct Progress {
    files: Arc<Mutex<Files>>,
    bars: Option<Bars>,
    quiet: bool,
}

/// The thread that draws: a terminal that takes its time holds up nobody else.
struct Bars {
    lines: SyncSender<String>,
    thread: JoinHandle<()>,
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
    rate: Rate,
}

#[derive(Debug)]
struct File {
    name: String,
    length: Option<u64>,
    position: u64,
    rate: Rate,
}

impl Progress {
    /// Starts to tell about so many files, if their number is known: with bars where stderr is a
    /// terminal; under `-q` only what fails.
    pub(crate) fn start(screen: &Screen, quiet: bool, expected: Option<u64>) -> Self {
        let files = Arc::new(Mutex::new(Files { expected, ..Files::default() }));
        let drawn = !quiet && Screen::can_draw();
        let bars = drawn.then(|| Bars::start(screen.clone(), Arc::clone(&files)));
        Self { files, bars, quiet }
    }

    pub(crate) fn started(&self, number: u64, name: &[u8]) {
        let name = Escaped(name).to_string();
        let file = File { name, length: None, position: 0, rate: Rate::default() };
        self.files().running.insert(number, file);
    }

    pub(crate) fn answered(&self, number: u64, length: Option<u64>) {
        self.change(number, |file| file.length = length);
    }

    pub(crate) fn received(&self, number: u64, position: u64) {
        self.change(number, |file| file.position = position);
    }

    /// A file is whole; `line` says so.
    pub(crate) fn saved(&self, number: u64, bytes: u64, line: Option<String>) {
        let mut files = self.files();
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
        let mut files = self.files();
        files.running.remove(&number);
        files.failed += 1;
        drop(files);
        self.say(problem);
    }

    pub(crate) fn stopped(&self, number: u64) {
        self.files().running.remove(&number);
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
        if let Some(file) = self.files().running.get_mut(&number) {
            change(file);
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bars {
    fn start(screen: Screen, files: Arc<Mutex<Files>>) -> Self {
        let (lines, waiting) = sync_channel(LINES);
        let thread = thread::spawn(move || {
            while let Some(text) = collect(&waiting) {
                if !text.is_empty() {
                    screen.write(&text);
                }
                let mut files = files.lock().unwrap_or_else(PoisonError::into_inner);
                let drawn = files.draw(Instant::now(), size());
                drop(files);
                screen.draw(drawn);
            }
            screen.draw(String::new());
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
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => return Some(text),
            Err(_) if text.is_empty() => return None,
            Err(_) => return Some(text),
        }
    }
}

/// The columns and rows of the terminal on stderr.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

impl Files {
    /// The lines to show, for a terminal of so many columns and rows.
    fn draw(&mut self, now: Instant, (columns, rows): (usize, usize)) -> String {
        for file in self.running.values_mut() {
            file.rate.update(file.position, now);
        }
        let width = columns.saturating_sub(MARGIN);
        let bars = BARS.min(rows.saturating_sub(3));
        let mut lines: Vec<_> =
            self.running.values().take(bars).map(|file| file.draw(width)).collect();
        if self.running.len() > bars {
            lines.push(fit(&format!("and {} more", self.running.len() - bars), width));
        }
        if self.expected != Some(1) {
            lines.push(fit(&self.total(now), width));
        }
        lines.join("\n")
    }

    fn total(&mut self, now: Instant) -> String {
        let bytes = self.bytes + self.running.values().map(|file| file.position).sum::<u64>();
        self.rate.update(bytes, now);
        let mut text = match self.expected {
            Some(expected) => format!("{} of {expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        let _ = write!(text, ", {}, {}/s", Size(bytes), Size(self.rate.per_second as u64));
        if self.failed > 0 {
            let _ = write!(text, ", {} failed", self.failed);
        }
        text
    }
}

impl File {
    /// `name   [====>     ]  45% of 10.0 MiB  1.20 MiB/s      5s`, in `width` columns.
    fn draw(&self, width: usize) -> String {
        let rate = self.rate.per_second as u64;
        let figures = match (self.length, width) {
            (Some(length), 60..) => {
                let (length, rate) = (Size(length).to_string(), Size(rate).to_string());
                let left = self.remaining();
                format!("{:>3}% of {length:>8} {rate:>10}/s {left:>6}", self.percent())
            }
            (None, 60..) => {
                let (position, rate) = (Size(self.position).to_string(), Size(rate).to_string());
                format!("{position:>16} {rate:>10}/s {:>6}", "")
            }
            (Some(_), _) => format!("{:>3}%", self.percent()),
            (None, _) => Size(self.position).to_string(),
        };
        let room = width.saturating_sub(figures.len() + 1);
        let bar = if width < 60 { 0 } else { room / 2 };
        fit(&format!("{}{} {figures}", fit(&self.name, room - bar), self.bar(bar)), width)
    }

    fn bar(&self, width: usize) -> String {
        let inner = width.saturating_sub(3);
        match self.length {
            Some(_) if inner > 0 => {
                let done = "=".repeat(inner * self.percent() as usize / 100);
                format!(" [{:<inner$}]", if done.len() < inner { done + ">" } else { done })
            }
            _ => " ".repeat(width),
        }
    }

    fn percent(&self) -> u64 {
        let whole = u128::from(self.length.unwrap_or(0)).max(1);
        (u128::from(self.position) * 100 / whole).min(100) as u64
    }

    fn remaining(&self) -> String {
        let left = self.length.unwrap_or(0).saturating_sub(self.position);
        let rate = self.rate.per_second as u64;
        match left.checked_next_multiple_of(rate).and_then(|left| left.checked_div(rate)) {
            Some(seconds @ 0..60) => format!("{seconds}s"),
            Some(seconds @ 60..3600) => format!("{}m{:02}s", seconds / 60, seconds % 60),
            Some(seconds @ 3600..360_000) => {
                format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60)
            }
            _ => "-".to_owned(),
        }
    }
}

/// Bytes a second, averaged over a while: steady to read, and soon at zero when nothing comes.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Instant, u64)>,
    per_second: f64,
}

impl Rate {
    /// Takes in that so many bytes have come by now.
    fn update(&mut self, position: u64, now: Instant) {
        let Some((then, before)) = self.last.replace((now, position)) else { return };
        let passed = now.saturating_duration_since(then).as_secs_f64().max(1e-3);
        let current = position.saturating_sub(before) as f64 / passed;
        let weight = if self.per_second == 0.0 { 1.0 } else { passed / (passed + RATE_SECONDS) };
        self.per_second += weight * (current - self.per_second);
    }
}

/// Cuts or pads `text` to exactly `width` columns of a terminal.
fn fit(text: &str, width: usize) -> String {
    let columns = text.width();
    if columns <= width {
        return format!("{text}{}", " ".repeat(width - columns));
    }
    let mut cut = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used >= width {
            break;
        }
        cut.push(c);
    }
    let mark = if width > 0 { "…" } else { "" };
    let spaces = width.saturating_sub(cut.width() + mark.width());
    format!("{cut}{mark}{}", " ".repeat(spaces))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(count: u64) -> Files {
        let file = |number| File {
            name: format!("file-{number}-of-some-length-and-日本語.tar.gz"),
            length: (number % 3 > 0).then_some(10 << 20),
            position: number << 20,
            rate: Rate::default(),
        };
        let running = (0..count).map(|number| (number, file(number))).collect();
        Files { expected: Some(count), running, ..Files::default() }
    }

    fn draw(files: &mut Files, columns: usize, rows: usize) -> Vec<String> {
        files.draw(Instant::now(), (columns, rows)).lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_no_wider_than_the_terminal() {
        for width in [1, 2, 10, 20, 40, 59, 60, 61, 80, 132, 300] {
            for line in draw(&mut files(12), width, 24) {
                assert_eq!(line.width(), width.saturating_sub(MARGIN), "{width}: {line}");
            }
        }
    }

    #[test]
    fn eight_files_have_a_bar_and_the_rest_a_number() {
        for (count, lines) in [(1, 1), (2, 3), (8, 9), (9, 10), (40, 10)] {
            assert_eq!(draw(&mut files(count), 80, 24).len(), lines, "{count}");
        }
        assert!(draw(&mut files(40), 80, 24)[8].starts_with("and 32 more"));
        assert!(draw(&mut files(40), 80, 24)[9].starts_with("0 of 40 files"));
    }

    #[test]
    fn there_are_never_more_lines_than_rows() {
        for rows in [3, 5, 11] {
            assert!(draw(&mut files(40), 80, rows).len() < rows, "{rows}");
        }
    }

    #[test]
    fn a_line_shows_how_far_a_file_is() {
        let rate = Rate { last: None, per_second: 1048576.0 };
        let mut file = File { name: "a".into(), length: Some(10 << 20), position: 9 << 20, rate };
        let line = file.draw(80);
        assert!(line.contains("==> ]  90% of 10.0 MiB   1.00 MiB/s     1s"), "{line}");
        file.position = 10 << 20;
        assert!(file.draw(80).contains("===] 100% of 10.0 MiB   1.00 MiB/s     0s"));
        file.length = None;
        assert!(file.draw(80).ends_with("  10.0 MiB   1.00 MiB/s       "));
    }

    #[test]
    fn a_rate_follows_what_comes_and_falls_when_nothing_does() {
        let start = Instant::now();
        let at = |tenths: u32| start + Duration::from_millis(100) * tenths;
        let mut rate = Rate::default();
        for tenth in 0..50 {
            rate.update(u64::from(tenth) * 1000, at(tenth));
        }
        assert!((9_900.0..10_100.0).contains(&rate.per_second), "{rate:?}");
        for tenth in 51..200 {
            rate.update(50_000, at(tenth));
        }
        assert!(rate.per_second < 100.0, "{rate:?}");
    }

    #[test]
    fn a_text_is_fitted_by_its_columns() {
        for (text, width, fitted) in [
            ("abc", 5, "abc  "),
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日… "),
            ("abc", 1, "…"),
            ("abc", 0, ""),
        ] {
            assert_eq!(fit(text, width), fitted, "{text} in {width}");
        }
    }
}
