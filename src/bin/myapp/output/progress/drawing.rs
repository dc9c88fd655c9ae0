//! Rows on the terminal.

use std::collections::BTreeMap;

use console::truncate_str;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::files::Files;
use crate::output::style::{Role, paint};

/// Maximum number of files with a bar. Further files are counted.
const MAX_BARS: usize = 8;

/// Bars on the terminal.
pub(super) struct Drawing {
    draw_target: MultiProgress,
    bars: BTreeMap<u64, ProgressBar>,
    /// Number of running files without a bar.
    more: Option<ProgressBar>,
    total: ProgressBar,
    /// Returns the rows and columns of the terminal.
    size: fn() -> (u16, u16),
}

impl Drawing {
    pub(super) fn new(draw_target: MultiProgress, size: fn() -> (u16, u16)) -> Self {
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
    pub(super) fn update(&mut self, files: &Files) {
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

    pub(super) fn finish(self) {
        for bar in self.bars.values().chain(&self.more).chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

/// Returns the style of a row that is its message.
fn message_style() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use console::measure_text_width;
    use indicatif::{InMemoryTerm, ProgressDrawTarget};

    use super::super::row::File;
    use super::*;
    use myapp::internals::Speed;

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
    fn total_shows_failures_and_concurrency_at_any_width() {
        let mut files = files(40);
        assert!(!files.summary(80).contains("-j"));
        files.auto_jobs = Some(12);
        files.failed = 3;
        for (columns, start) in [
            (80, "0 of 40 files, 3 failed, -j auto: 12, 780 MiB, 0 B/s"),
            (48, "0/40 files, 3 failed, -j 12, 780 MiB, 0 B/s"),
            (40, "0/40 files, 3 failed, -j 12, 0 B/s"),
            (28, "0/40 files, 3 failed, -j 12…"),
        ] {
            let row = files.summary(columns);
            assert!(row.starts_with(start) && row.len() <= columns + 2, "{row}");
        }
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
        let in_advance = Files {
            expected_bytes: Some(40 << 20),
            ..state(Some(4))
        };
        let row = &draw(&[in_advance], 80)[2];
        assert!(row.contains("4.00 MiB of 40.0 MiB, "), "{row}");
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
