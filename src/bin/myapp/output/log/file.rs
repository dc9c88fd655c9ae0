//! Log file. The first write error is reported on stderr; lost lines are counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use indicatif::MultiProgress;
use myapp::error_chain::ErrorChain;

use crate::exit_code::{CommandError, ExitCode};
use crate::output::stderr;

/// Time that a reader of stderr or of a FIFO has to accept a line.
pub(super) const READER_TIMEOUT: Duration = Duration::from_secs(1);

/// File to which log lines are appended.
#[derive(Debug)]
pub(super) struct LogFile {
    /// Shared, so that a write that blocks does not hold the lock.
    file: Mutex<Arc<File>>,
    path: PathBuf,
    draw_target: MultiProgress,
    lost_lines: AtomicU64,
}

impl LogFile {
    pub(super) fn open(path: &Path, draw_target: &MultiProgress) -> Result<Self, CommandError> {
        let file = append_to(path)
            .with_context(|| format!("open log file {}", stderr::path(path)))
            .map_err(|error| CommandError::new(ExitCode::LocalFile, error))?;
        Ok(Self {
            file: Mutex::new(Arc::new(file)),
            path: path.into(),
            draw_target: draw_target.clone(),
            lost_lines: AtomicU64::new(0),
        })
    }

    /// Opens the path again, such as after its rotation. Returns whether it is another file. After
    /// an error, the log stays in the current file.
    pub(super) fn reopen(&self) -> io::Result<bool> {
        let file = append_to(&self.path)?;
        let id = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        let changed = id(&file)? != id(&self.current())?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(file);
        Ok(changed)
    }

    fn current(&self) -> Arc<File> {
        let file = self.file.lock();
        Arc::clone(&file.unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the number of lost lines.
    pub(super) fn lost_lines(&self) -> u64 {
        self.lost_lines.load(Relaxed)
    }

    /// Returns whether the file becomes writable within [`READER_TIMEOUT`]: a FIFO may have a
    /// reader that does not read.
    pub(super) fn is_writable(&self) -> bool {
        stderr::becomes_writable(&*self.current(), READER_TIMEOUT)
    }

    fn report(&self, error: &io::Error) {
        // The draw target is locked during the write, which therefore must not block.
        if stderr::is_writable_within(READER_TIMEOUT) {
            let text = format!(
                "write the log to {}: {}",
                stderr::path(&self.path),
                ErrorChain(error)
            );
            self.draw_target.suspend(|| stderr::message(&text));
        }
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Writer of log lines to a shared file.
pub(super) struct Writer(pub(super) Arc<LogFile>);

impl Write for Writer {
    /// Writes a line. After an error, the line is lost and the next one is tried.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Self(log) = self;
        if let Err(error) = (&*log.current()).write_all(line)
            && log.lost_lines.fetch_add(1, Relaxed) == 0
        {
            log.report(&error);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
