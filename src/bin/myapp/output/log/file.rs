//! The file of a log. The first line that it does not take is told on stderr; the others are
//! counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::MultiProgress;
use myapp::error_chain::ErrorChain;

use crate::exit_code::{Code, Failure};
use crate::output::stderr;

/// The time that a reader of stderr or of a FIFO has to accept a line.
pub(super) const STDERR_TIMEOUT: Duration = Duration::from_secs(1);

/// A file that log lines are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    path: String,
    screen: MultiProgress,
    lost: AtomicU64,
}

impl LogFile {
    pub(super) fn open(path: &Path, screen: &MultiProgress) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let path = stderr::path(path);
        let file = file
            .with_context(|| format!("open log file {path}"))
            .map_err(|error| Failure::new(Code::LocalFile, error))?;
        Ok(Self {
            file,
            path,
            screen: screen.clone(),
            lost: AtomicU64::new(0),
        })
    }

    /// The lines that it has not taken.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Whether it takes a line within [`STDERR_TIMEOUT`]; a FIFO may have a reader that does not read.
    pub(super) fn is_read(&self) -> bool {
        stderr::takes(&self.file, STDERR_TIMEOUT)
    }

    fn tell(&self, error: &io::Error) {
        // Who holds the screen must not wait for a reader of stderr.
        if stderr::is_read(STDERR_TIMEOUT) {
            let text = format!("write the log to {}: {}", self.path, ErrorChain(error));
            self.screen.suspend(|| stderr::line(&text));
        }
    }
}

/// Writes to a file that others watch.
pub(super) struct Writer(pub(super) Arc<LogFile>);

impl Write for Writer {
    /// Writes a line, or loses it: the next may find room again.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Self(log) = self;
        if let Err(error) = (&log.file).write_all(line)
            && log.lost.fetch_add(1, Relaxed) == 0
        {
            log.tell(&error);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
