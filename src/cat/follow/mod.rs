//! Engine that follows all inputs at once: it reads them one after another to their ends, and then
//! whatever is added to any of them.

mod file;
mod last_lines;
mod watcher;

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::io::Errno;
use tracing::debug;

use super::config::Config;
use super::copier::{Copier, CopyError};
use super::engine::{Engine, STEP_LEN, Step, Wait};
use super::error::Error;
use super::input::{Input, ReadResult};
use super::output::Output;
use super::read_ahead::poll_readable;
use super::report::{Event, FileChange, FileDone, Report};
use super::source::{FileId, Source};
use file::{FollowedFile, Turn};
use watcher::{Change, Watcher};

/// Interval between checks of all files, as not every file system reports changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The inputs, and those of them that may have new data.
#[derive(Debug)]
pub(super) struct FollowEngine<I> {
    /// Inputs that have not been opened.
    sources: I,
    files: Vec<FollowedFile>,
    /// Indexes of files that may have changed.
    queue: VecDeque<usize>,
    /// Indexes of open pipes, FIFOs, sockets, terminals and devices.
    streams: BTreeSet<usize>,
    /// Number of files that are not finished.
    live: usize,
    /// `None` without inotify.
    watcher: Option<Watcher>,
    /// Whether it has been reported that changes are not.
    is_unwatched_reported: bool,
    last_lines: Option<u64>,
    next_check: Instant,
    copier: Copier,
}

impl<I: Iterator<Item = Source>> Engine for FollowEngine<I> {
    fn step(&mut self) -> Result<Step, Error> {
        self.collect_changes()?;
        let mut done = 0;
        while done < STEP_LEN {
            if let Some(next_write) = self.copier.output.write_throttled()? {
                return Ok(Step::Wait(Wait::Deadline(next_write)));
            }
            if let Some(index) = self.queue.front().copied() {
                match self.copy_chunk(index) {
                    Ok(count) => done += count,
                    Err(CopyError::Output(error)) => return Err(error),
                    Err(CopyError::Input(error)) => {
                        self.fail(index, error)?;
                        self.dequeue();
                        if !self.copier.output.close_incomplete() {
                            return Ok(Step::Done);
                        }
                    }
                }
                if self.copier.has_events() {
                    // Reported before the next bytes are written.
                    return Ok(Step::More);
                }
            } else if let Some(source) = self.sources.next() {
                self.open(source)?;
            } else if self.live == 0 {
                self.copier.finish()?;
                return Ok(Step::Done);
            } else {
                self.copier.output.flush()?;
                return Ok(Step::Wait(Wait::Change(self.next_check)));
            }
        }
        Ok(Step::More)
    }

    fn poll_fds(&self, wait: Wait) -> Vec<BorrowedFd<'_>> {
        if !matches!(wait, Wait::Change(_)) {
            return Vec::new();
        }
        let watcher = self.watcher.as_ref().map(Watcher::fd);
        watcher.into_iter().chain(self.stream_fds()).collect()
    }

    fn take_events(&mut self) -> impl Iterator<Item = Event> + use<I> {
        self.copier.take_events()
    }

    fn into_parts(self) -> (Output, Report) {
        self.copier.into_parts()
    }
}

impl<I: Iterator<Item = Source>> FollowEngine<I> {
    pub(super) fn new(sources: I, config: &Config, mut copier: Copier) -> Self {
        let watcher = Watcher::new()
            .map_err(|error| copier.push_event(Event::Warning(Error::Watch(error))))
            .ok();
        Self {
            sources,
            files: Vec::new(),
            queue: VecDeque::new(),
            streams: BTreeSet::new(),
            live: 0,
            is_unwatched_reported: watcher.is_none(),
            watcher,
            last_lines: config.last_lines,
            next_check: Instant::now(),
            copier,
        }
    }

    /// Opens the next input and gives it a turn.
    fn open(&mut self, source: Source) -> Result<(), Error> {
        let index = self.files.len();
        self.files.push(FollowedFile::new(source));
        self.live += 1;
        // First, so that no change after it was opened is missed.
        self.watch_name(index);
        let source = &self.files[index].source;
        match Input::open(source) {
            Ok(input) => {
                if input.can_grow()
                    && let Some(count) = self.last_lines
                {
                    // The file is read from its start where this fails.
                    let _ = seek_to_last_lines(&input, count);
                }
                self.start(index, input);
                self.enqueue(index, false);
            }
            Err(error) => {
                let may_appear = matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::NotADirectory
                        | io::ErrorKind::IsADirectory
                        | io::ErrorKind::PermissionDenied
                );
                let input = source.clone();
                self.copier.push_failure(Error::Open {
                    input,
                    source: error,
                })?;
                if !may_appear {
                    self.finish_file(index);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, input: Input) {
        if input.can_grow() {
            self.streams.remove(&index);
            let watched = self
                .watcher
                .as_mut()
                .map(|watcher| watcher.watch_file(input.fd(), index));
            self.files[index].watch = watched.and_then(|watch| self.check_watch(watch));
        } else {
            self.streams.insert(index);
        }
        self.files[index].start(input);
    }

    /// Watches the directory that the name is in by now. A directory that is missing or not
    /// readable is left to the check at intervals.
    fn watch_name(&mut self, index: usize) {
        let file = &mut self.files[index];
        let (Source::Path(path), Some(watcher)) = (&file.source, &mut self.watcher) else {
            return;
        };
        let watched = watcher.watch_name(path, index);
        let watch = self.check_watch(watched);
        let old = std::mem::replace(&mut self.files[index].name_watch, watch);
        if let (Some(watcher), Some(old)) = (&mut self.watcher, old)
            && watch != Some(old)
        {
            watcher.unwatch_name(old, index);
        }
    }

    /// Returns the number of a watch, or reports the first one that fails for lack of resources.
    fn check_watch(&mut self, watch: io::Result<i32>) -> Option<i32> {
        let error = match watch {
            Ok(watch) => return Some(watch),
            Err(error) => error,
        };
        let is_gone = matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::PermissionDenied
        );
        if !is_gone && !std::mem::replace(&mut self.is_unwatched_reported, true) {
            self.copier.push_event(Event::Warning(Error::Watch(error)));
        }
        None
    }

    /// Gives turns to all files that may have changed.
    fn collect_changes(&mut self) -> Result<(), Error> {
        let mut changes = Vec::new();
        if let Some(watcher) = &mut self.watcher {
            watcher
                .read(|change| changes.push(change))
                .map_err(Error::Wait)?;
        }
        for change in changes {
            match change {
                Change::Content(index) => self.enqueue(index, false),
                Change::Name(index) => self.enqueue(index, true),
                Change::All => self.enqueue_all(),
            }
        }
        if !self.streams.is_empty() {
            let no_time = Timespec::default();
            let ready = poll_readable(self.stream_fds(), Some(&no_time)).map_err(Error::Wait)?;
            let streams = self.streams.iter().copied().collect::<Vec<_>>();
            for (index, _) in streams.into_iter().zip(ready).filter(|(_, ready)| *ready) {
                self.enqueue(index, false);
            }
        }
        let now = Instant::now();
        if now >= self.next_check {
            self.next_check = now + POLL_INTERVAL;
            self.copier.output.check_readers()?;
            self.enqueue_all();
        }
        Ok(())
    }

    fn enqueue(&mut self, index: usize, must_check_name: bool) {
        let file = &mut self.files[index];
        if file.is_finished {
            return;
        }
        file.must_check_name |= must_check_name;
        if !file.is_queued {
            self.queue.push_back(index);
        }
        file.begin_turn();
    }

    fn enqueue_all(&mut self) {
        (0..self.files.len()).for_each(|index| self.enqueue(index, true));
    }

    fn dequeue(&mut self) {
        if let Some(index) = self.queue.pop_front() {
            self.files[index].is_queued = false;
        }
    }

    /// Copies a chunk of the first file of the queue. Its turn ends at its end, or for a stream after
    /// each chunk.
    fn copy_chunk(&mut self, index: usize) -> Result<u64, CopyError> {
        let file = &mut self.files[index];
        let turn = file
            .next_turn()
            .map_err(|error| CopyError::Input(read_error(&file.source, error)))?;
        match turn {
            Turn::Truncated => {
                self.copier.output.flush()?;
                self.report_change(index, FileChange::Truncated);
                return Ok(0);
            }
            Turn::AtEnd => {
                self.report_done(index);
                self.end_turn(index)?;
                return Ok(0);
            }
            Turn::Read => {}
        }
        let Some(input) = &mut file.input else {
            return Ok(0);
        };
        if self.copier.output.is_output(input.id) {
            let input = file.source.clone();
            return Err(CopyError::Input(Error::InputIsOutput { input }));
        }
        let is_stream = !input.can_grow();
        match self.copier.copy_chunk(&file.source, input)? {
            ReadResult::Bytes(count) => {
                file.advance(count);
                if is_stream {
                    self.dequeue();
                }
                return Ok(count as u64);
            }
            ReadResult::NotReady => self.end_turn(index)?,
            ReadResult::Eof if is_stream => {
                self.dequeue();
                self.reopen_fifo(index);
            }
            ReadResult::Eof => file.reach_end(),
        }
        Ok(0)
    }

    /// Ends the turn of a file without new data, unless its name refers to another one, whose turn
    /// then begins.
    fn end_turn(&mut self, index: usize) -> Result<(), CopyError> {
        let check = std::mem::take(&mut self.files[index].must_check_name);
        if !check || !self.follow_name(index)? {
            self.dequeue();
        }
        Ok(())
    }

    /// Reports a failure of an open input. If it could not be read, its name is still followed, to
    /// another file: on a network file system, a file that was replaced may not be readable.
    fn fail(&mut self, index: usize, error: Error) -> Result<(), Error> {
        let file = &mut self.files[index];
        let id = file.input.as_ref().map(|input| input.id);
        let is_final = !file.has_name() || !matches!(error, Error::Read { .. });
        self.copier.push_failure(error)?;
        if is_final {
            self.finish_file(index);
        } else {
            self.close(index);
            self.files[index].fail(id);
        }
        Ok(())
    }

    /// Follows a FIFO whose last writer has closed it to its next writer. Other streams end.
    fn reopen_fifo(&mut self, index: usize) {
        self.report_done(index);
        let file = &mut self.files[index];
        let old = file.input.as_ref().map(|input| input.id);
        let is_fifo = file.input.as_ref().is_some_and(Input::is_fifo);
        if !is_fifo || !file.has_name() {
            self.finish_file(index);
            return;
        }
        // Opened before the old one is closed, so that no writer fails meanwhile.
        let new = Input::open(&file.source).ok();
        if let Some(new) = new.filter(|new| Some(new.id) == old) {
            file.input = Some(new);
        } else {
            self.close(index);
            self.enqueue(index, true);
        }
    }

    /// Follows the file that the name refers to, if it is another one. Returns whether the turn goes
    /// on, with the new file or with the rest of the old one.
    fn follow_name(&mut self, index: usize) -> Result<bool, CopyError> {
        let file = &mut self.files[index];
        if !file.has_name() {
            return Ok(false);
        }
        let found = match FileId::from_source(&file.source) {
            Ok(id) if file.is_same(id) => {
                if !std::mem::replace(&mut file.is_accessible, true) {
                    self.report_change(index, FileChange::Appeared);
                }
                return Ok(false);
            }
            Ok(_) => Input::open(&file.source),
            Err(error) => Err(error),
        };
        let input = match found {
            Ok(input) if input.can_grow() || input.is_fifo() => input,
            Ok(_) => return self.lose_name(index, Errno::INVAL.into()),
            Err(error) => return self.lose_name(index, error),
        };
        // The old file may have grown after its end was seen and before its name was changed.
        let has_new_data = file
            .has_new_data()
            .map_err(|error| CopyError::Input(read_error(&file.source, error)))?;
        if has_new_data {
            file.must_check_name = true;
            file.begin_turn();
            return Ok(true);
        }
        let change = if file.is_accessible {
            FileChange::Replaced
        } else {
            FileChange::Appeared
        };
        debug!(source = %file.source, new = ?input.id, "following new file");
        self.copier.output.flush()?;
        self.report_change(index, change);
        self.unwatch(index);
        self.start(index, input);
        // The directory may be another one, too.
        self.watch_name(index);
        Ok(true)
    }

    /// Reports once that the name refers to no file that can be followed.
    fn lose_name(&mut self, index: usize, error: io::Error) -> Result<bool, CopyError> {
        if std::mem::take(&mut self.files[index].is_accessible) {
            self.copier.output.flush()?;
            self.report_change(index, FileChange::Inaccessible(error));
        }
        Ok(false)
    }

    fn unwatch(&mut self, index: usize) {
        if let (Some(watcher), Some(watch)) = (&mut self.watcher, self.files[index].watch.take()) {
            watcher.unwatch_file(watch, index);
        }
    }

    fn report_change(&mut self, index: usize, change: FileChange) {
        let source = self.files[index].source.clone();
        self.copier
            .push_event(Event::FileChanged { source, change });
    }

    /// Reports the first end of an input.
    fn report_done(&mut self, index: usize) {
        let file = &mut self.files[index];
        let Some(input) = &file.input else {
            return;
        };
        if std::mem::replace(&mut file.is_reported, true) {
            return;
        }
        self.copier.report.files += 1;
        self.copier.push_event(Event::FileDone(FileDone {
            source: file.source.clone(),
            opened_at: input.opened_at,
            finished_at: Instant::now(),
            bytes: file.bytes,
        }));
    }

    fn finish_file(&mut self, index: usize) {
        self.close(index);
        let file = &mut self.files[index];
        if let (Some(watcher), Some(watch)) = (&mut self.watcher, file.name_watch.take()) {
            watcher.unwatch_name(watch, index);
        }
        if !std::mem::replace(&mut file.is_finished, true) {
            self.live -= 1;
        }
    }

    fn close(&mut self, index: usize) {
        self.unwatch(index);
        self.streams.remove(&index);
        self.files[index].input = None;
    }

    fn stream_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let inputs = self
            .streams
            .iter()
            .filter_map(|index| self.files[*index].input.as_ref());
        inputs.map(Input::fd)
    }
}

fn seek_to_last_lines(input: &Input, count: u64) -> io::Result<()> {
    let start = rustix::fs::tell(input.fd())?;
    input.seek_to(last_lines::find(input.fd(), start, input.size()?, count)?)
}

fn read_error(input: &Source, source: io::Error) -> Error {
    Error::Read {
        input: input.clone(),
        source,
    }
}
