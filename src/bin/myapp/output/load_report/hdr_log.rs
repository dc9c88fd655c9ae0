//! Interval log of a running load, written while it runs.

use std::io::{self, BufWriter};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use myapp::internals::interval_log::Interval;
use myapp::internals::interval_log::IntervalLogWriter;
use myapp::measure::live::LiveStats;

use super::json;
use super::summary::Summary;
use crate::exit_code::CommandError;
use crate::output::report_file::{ReportFile, write_error};

/// Time between writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

type Writer = IntervalLogWriter<BufWriter<ReportFile>>;

/// Interval log of a running load. The file gets its name when it is finished.
#[derive(Debug)]
pub(crate) struct HdrLog {
    path: PathBuf,
    end: SyncSender<()>,
    thread: JoinHandle<io::Result<Writer>>,
}

impl HdrLog {
    /// Starts to write the intervals of `live`.
    pub(crate) fn start(file: ReportFile, live: LiveStats) -> Self {
        let path = file.path().to_owned();
        let (end, ended) = sync_channel(0);
        // A separate thread, because a slow file must not delay the load.
        let thread = thread::spawn(move || write_until(file, &live, &ended));
        Self { path, end, thread }
    }

    /// Writes the rest of the log.
    pub(crate) fn finish(self, summary: &Summary) -> Result<(), CommandError> {
        let Self { path, end, thread } = self;
        drop(end);
        let writer = thread.join();
        // The panic hook has already reported a panic.
        let writer = writer.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")));
        let written = writer.and_then(|writer| {
            let buffer = writer.finish(&json::without_times(summary))?;
            buffer.into_inner().map_err(io::IntoInnerError::into_error)
        });
        written.map_err(|error| write_error(&path, error))?.commit()
    }
}

/// Writes the intervals of a run until it has ended. After an error they are discarded.
fn write_until(file: ReportFile, live: &LiveStats, ended: &Receiver<()>) -> io::Result<Writer> {
    let mut writer = IntervalLogWriter::new(BufWriter::new(file));
    let mut result = Ok(());
    let mut write_all = |intervals: Vec<Interval>| {
        for interval in intervals {
            if result.is_ok() {
                result = writer.write(&interval);
            }
        }
    };
    while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(WRITE_INTERVAL) {
        write_all(live.drain_intervals());
    }
    write_all(live.drain_all_intervals());
    result.map(|()| writer)
}
