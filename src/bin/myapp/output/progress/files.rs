//! State of all files of a run, and the row of their total.

use std::collections::BTreeMap;
use std::time::Instant;

use console::truncate_str;
use myapp::units::Size;

use super::row::{File, time_text};
use crate::output::speed::Speed;

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

    pub(super) fn full_summary(&self) -> String {
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
