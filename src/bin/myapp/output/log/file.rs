//! The file of a log. The first line that it does not take is told on stderr; the others are
//! counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::Context as _;
use indicatif::MultiProgress;
use myapp::causes::Causes;

use crate::exit::{Code, Failure};
use crate::output::log::PATIENCE;
use crate::output::terminal;

/// How many lines a file has not taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Lost(Arc<AtomicU64>);

impl Lost {
    pub(super) fn lines(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

pub(super) struct LogFile {
    file: File,
    path: String,
    screen: MultiProgress,
    lost: Lost,
}

impl LogFile {
    pub(super) fn open(path: &Path, screen: &MultiProgress, lost: &Lost) -> Result<Self, Failure> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let path = terminal::path(path);
        let file = file
            .with_context(|| format!("open log file {path}"))
            .map_err(|error| Failure::new(Code::LocalFile, error))?;
        Ok(Self { file, path, screen: screen.clone(), lost: lost.clone() })
    }

    fn tell(&self, error: &io::Error) {
        // Who holds the screen must not wait for a reader of stderr.
        if terminal::is_read(PATIENCE) {
            let text = format!("write the log to {}: {}", self.path, Causes(error));
            self.screen.suspend(|| terminal::line(&text));
        }
    }
}

impl Write for LogFile {
    /// Writes a line, or loses it: the next may find room again.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.file.write_all(line)
            && self.lost.0.fetch_add(1, Relaxed) == 0
        {
            self.tell(&error);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
