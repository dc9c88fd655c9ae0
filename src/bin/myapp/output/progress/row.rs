//! State of a running file, and its row.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use console::{Alignment, measure_text_width, pad_str, truncate_str};
use indicatif::HumanDuration;
use myapp::units::Size;

use myapp::internals::Speed;

/// Length of a bar in columns.
const BAR_LEN: usize = 14;

/// Minimum number of columns for a row with a bar.
const MIN_BAR_COLUMNS: usize = 64;

/// Minimum number of columns for a row with length, rate and time left.
const MIN_LENGTH_COLUMNS: usize = 48;

/// Minimum number of columns for a row with a rate.
const MIN_RATE_COLUMNS: usize = 28;

/// State of a running file.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) length: Option<u64>,
    /// Offset of the first byte of this run.
    pub(super) start: Option<u64>,
    pub(super) position: u64,
    pub(super) speed: Speed,
}

impl File {
    pub(super) fn start_body(&mut self, offset: u64, length: Option<u64>) {
        // A server that does not support ranges sends the present bytes again.
        self.start = Some(self.start.map_or(offset, |start| start.min(offset)));
        self.length = length;
        self.position = offset;
        self.record_speed(Instant::now());
    }

    pub(super) fn record_speed(&mut self, now: Instant) {
        // The time before the first response does not count.
        if self.start.is_some() {
            self.speed.record(self.received(), now);
        }
    }

    /// Returns the row of the file: its name, and behind it what fits into the columns.
    pub(super) fn row(&self, columns: usize) -> String {
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
    pub(super) fn received(&self) -> u64 {
        self.position.saturating_sub(self.start.unwrap_or(0))
    }

    pub(super) fn total(&self) -> Option<u64> {
        Some(self.length?.saturating_sub(self.start?))
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

/// Returns the text of the time left, if it is known.
pub(super) fn time_text(left: Option<Duration>) -> String {
    left.map_or_else(
        || "?".to_owned(),
        |left| format!("{:#}", HumanDuration(left)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
