//! State of all files of a run, and the row of their total.

use std::collections::BTreeMap;
use std::time::Instant;

use console::truncate_str;
use myapp::units::Size;

use super::row::{File, time_text};
use myapp::internals::Speed;

/// State of the files of a run.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Number of concurrent files, if it is chosen automatically.
    pub(super) auto_jobs: Option<usize>,
    /// Number of files.
    pub(super) expected: Option<u64>,
    /// Number of bytes of all files, if it is known before they start.
    pub(super) expected_bytes: Option<u64>,
    pub(super) running: BTreeMap<u64, File>,
    pub(super) saved: u64,
    pub(super) failed: u64,
    /// Bytes that were received for finished files.
    pub(super) finished_bytes: u64,
    pub(super) speed: Speed,
}

impl Files {
    /// Records the current positions for the speeds.
    pub(super) fn record_speed(&mut self, now: Instant) {
        for file in self.running.values_mut() {
            file.record_speed(now);
        }
        self.speed.record(self.received(), now);
    }

    /// Returns the row of the total, without what does not fit.
    pub(super) fn summary(&self, columns: usize) -> String {
        let received = self.received();
        let rate = format!("{}/s", Size(self.speed.rate() as u64));
        let failed = match self.failed {
            0 => String::new(),
            count => format!(", {count} failed"),
        };
        let jobs = |name: &str| {
            let jobs = self.auto_jobs.map(|jobs| format!(", {name}{jobs}"));
            jobs.unwrap_or_default()
        };
        let count = |of: &str| match self.expected {
            Some(expected) => format!("{}{of}{expected} files", self.saved),
            None => format!("{} files", self.saved),
        };
        let lengths = match self.total() {
            None => format!("{}, {rate}", Size(received)),
            Some(total) => {
                let left = time_text(self.speed.time_left(total.saturating_sub(received)));
                format!("{} of {}, {rate}, {left} left", Size(received), Size(total))
            }
        };
        let rows = [
            format!("{}{failed}{}, {lengths}", count(" of "), jobs("-j auto: ")),
            format!(
                "{}{failed}{}, {}, {rate}",
                count("/"),
                jobs("-j "),
                Size(received)
            ),
            format!("{}{failed}{}, {rate}", count("/"), jobs("-j ")),
        ];
        let fits = |row: &&String| row.len() <= columns;
        let row = rows.iter().find(fits).unwrap_or(&rows[2]);
        truncate_str(row, columns, "…").into_owned()
    }

    /// Returns the number of bytes received in this run.
    fn received(&self) -> u64 {
        self.finished_bytes + self.running.values().map(File::received).sum::<u64>()
    }

    /// Returns the number of bytes to receive in this run: from the start, or once the lengths of
    /// all files are known.
    fn total(&self) -> Option<u64> {
        if self.expected_bytes.is_some() {
            return self.expected_bytes;
        }
        let started = self.running.len() as u64 + self.saved + self.failed;
        if self.expected != Some(started) {
            return None;
        }
        let running: Option<u64> = self.running.values().map(File::total).sum();
        Some(self.finished_bytes + running?)
    }
}
