//! Copy engine: copies until something has to be waited for.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use tracing::debug;

use super::config::{Config, Order};
use super::error::Error;
use super::follow::{Follower, POLL_INTERVAL};
use super::input::{Input, ReadResult};
use super::output::Output;
use super::read_ahead::InputQueue;
use super::report::{Event, FileDone, Report};
use super::source::Source;
use super::transform::Transform;

/// Number of bytes after which a step ends, so that its driver can stop or run other tasks.
const STEP_LEN: u64 = 8 << 20;

/// Cost of a file within a step, in bytes, in addition to its length.
const FILE_COST: u64 = 8 << 10;

/// Number of bytes read at once for a transform.
const READ_CHUNK_LEN: usize = 64 << 10;

/// The state of a run between two steps. The engine never waits for an input: that is left to its
/// driver, a thread or a task.
#[derive(Debug)]
pub(super) struct CopyEngine<I> {
    inputs: InputQueue<I>,
    order: Order,
    output: Output,
    transform: Option<Transform>,
    /// Bytes that were read and are not transformed yet.
    chunk: Vec<u8>,
    /// Whether the output can be longer than the input.
    can_grow: bool,
    /// Number of bytes copied from the current input; none before its first chunk.
    copied: Option<u64>,
    /// Files to follow after the last input; none without following.
    follower: Option<Follower>,
    /// Whether all inputs have been read once, and only new data of followed files is read.
    is_following: bool,
    started_at: Instant,
    report: Report,
    /// Events that have not been taken yet.
    events: Vec<Event>,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The next step can run at once.
    More,
    /// The next step has to wait.
    Wait(Wait),
    /// The run is complete.
    Done,
}

/// Condition to wait for, in addition to the inputs that are read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The current input is readable.
    Current,
    /// Any input is readable, as none is current.
    Any,
    /// The deadline has passed.
    Deadline(Instant),
    /// A followed file has changed, or the deadline has passed.
    Change(Instant),
}

impl Wait {
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Current | Self::Any => None,
            Self::Deadline(deadline) | Self::Change(deadline) => Some(deadline),
        }
    }
}

/// Result of copying a chunk.
enum Progress {
    Copied(u64),
    NotReady,
    /// The current input has ended.
    Eof,
    /// No input is left.
    Done,
}

/// Error of the current input, which is skipped, or of the output, which ends the run.
enum CopyError {
    Input(Error),
    Output(Error),
}

impl From<Error> for CopyError {
    fn from(error: Error) -> Self {
        Self::Output(error)
    }
}

impl<I: Iterator<Item = Source>> CopyEngine<I> {
    pub(super) fn new(sources: I, config: &Config, output: Output) -> Self {
        let transform = (!config.display.is_plain()).then(|| Transform::new(config.display));
        let chunk_len = if transform.is_some() {
            READ_CHUNK_LEN
        } else {
            0
        };
        Self {
            inputs: InputQueue::new(sources, config),
            order: config.order,
            output,
            transform,
            chunk: Vec::with_capacity(chunk_len),
            can_grow: config.display.can_grow(),
            copied: None,
            follower: config.follow.then(Follower::new),
            is_following: false,
            started_at: Instant::now(),
            report: Report::default(),
            events: Vec::new(),
        }
    }

    /// Copies until something has to be waited for, an input has failed, or the length of a step
    /// is reached.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        self.inputs.advance();
        self.inputs.fill();
        let with_current = self.copied.is_none() && self.order == Order::AsCompleted;
        self.inputs.read_ahead(with_current).map_err(Error::Wait)?;
        let mut done = 0;
        while done < STEP_LEN {
            if let Some(next_write) = self.output.write_throttled()? {
                return Ok(Step::Wait(Wait::Deadline(next_write)));
            }
            match self.copy_chunk() {
                Ok(Progress::Copied(bytes)) => done += bytes,
                Ok(Progress::NotReady) => {
                    self.output.flush()?;
                    let has_current = self.copied.is_some();
                    return Ok(Step::Wait(if has_current {
                        Wait::Current
                    } else {
                        Wait::Any
                    }));
                }
                Ok(Progress::Eof) => {
                    self.output.end_input()?;
                    self.finish_input();
                    done += FILE_COST;
                }
                Ok(Progress::Done) => {
                    if let Some(step) = self.poll_follow()? {
                        return Ok(step);
                    }
                }
                Err(CopyError::Output(error)) => return Err(error),
                Err(CopyError::Input(error)) => {
                    self.fail_input(error)?;
                    let has_output = self.output.close_incomplete();
                    return Ok(if has_output { Step::More } else { Step::Done });
                }
            }
        }
        Ok(Step::More)
    }

    /// Returns the descriptors to poll for `wait`.
    pub(super) fn poll_fds(&self, wait: Wait) -> Vec<BorrowedFd<'_>> {
        let (current, others) = self.inputs.pollable();
        let current = current.filter(|input| match wait {
            Wait::Current => true,
            Wait::Any => input.can_read_ahead(),
            Wait::Deadline(_) | Wait::Change(_) => false,
        });
        let follower = match wait {
            Wait::Change(_) => self.follower.as_ref(),
            _ => None,
        };
        current
            .into_iter()
            .chain(others)
            .map(Input::fd)
            .chain(follower.and_then(Follower::fd))
            .collect()
    }

    /// Removes and returns the events of the last step.
    pub(super) fn take_events(&mut self) -> impl Iterator<Item = Event> + use<I> {
        let events = std::mem::take(&mut self.events);
        std::iter::once(Event::Progress(self.report.read)).chain(events)
    }

    /// Returns the output, which is still open, and the report of the run.
    pub(super) fn into_parts(self) -> (Output, Report) {
        let report = Report {
            written: self.output.bytes_written(),
            elapsed: self.started_at.elapsed(),
            ..self.report
        };
        (self.output, report)
    }

    /// Copies a chunk of the current input.
    fn copy_chunk(&mut self) -> Result<Progress, CopyError> {
        let has_current = self.copied.is_some();
        if !has_current && self.order == Order::AsCompleted && !self.inputs.promote_ready() {
            return Ok(Progress::NotReady);
        }
        if !has_current {
            self.inputs.close_outdated();
        }
        let Some((source, input)) = self.inputs.current() else {
            return Ok(Progress::Done);
        };
        let name = || source.clone();
        let input = input.map_err(|source| {
            CopyError::Input(Error::Open {
                input: name(),
                source,
            })
        })?;
        if !has_current {
            if self.output.would_loop(input, self.can_grow)? {
                return Err(CopyError::Input(Error::InputIsOutput { input: name() }));
            }
            self.copied = Some(0);
        }
        let result = match &self.transform {
            Some(_) => input.read(&mut self.chunk),
            None => match self.output.transfer_from(input)? {
                Some(result) => result,
                None => input.read(self.output.buffer()),
            },
        };
        let result = result.map_err(|source| {
            CopyError::Input(Error::Read {
                input: name(),
                source,
            })
        })?;
        let may_block = input.may_block();
        if may_block {
            self.inputs.advance();
        }
        match result {
            ReadResult::NotReady => Ok(Progress::NotReady),
            ReadResult::Eof => Ok(Progress::Eof),
            ReadResult::Bytes(count) => {
                self.write_chunk(count as u64, may_block)?;
                Ok(Progress::Copied(count as u64))
            }
        }
    }

    /// Transforms the bytes that were read, and writes the output buffer if it is due.
    fn write_chunk(&mut self, count: u64, input_may_block: bool) -> Result<(), Error> {
        self.copied = self.copied.map(|copied| copied + count);
        self.report.read += count;
        if let Some(transform) = &mut self.transform {
            transform.push(&self.chunk, self.output.buffer());
            self.chunk.clear();
        }
        self.output.write_buffered(input_may_block)
    }

    /// Removes the current input, which has ended.
    fn finish_input(&mut self) {
        let bytes = self.copied.take().unwrap_or_default();
        if let Some((source, Some(input))) = self.inputs.pop() {
            let opened_at = input.opened_at;
            let finished_at = input.finished_at();
            debug!(%source, bytes, "end of input");
            if let (Some(follower), Source::Path(path)) = (&mut self.follower, &source)
                && input.can_grow()
            {
                follower.add(path.clone(), Some(input));
            }
            if !self.is_following {
                self.report.files += 1;
                self.events.push(Event::FileDone(FileDone {
                    source,
                    opened_at,
                    finished_at,
                    bytes,
                }));
            }
        }
        self.inputs.fill();
    }

    /// Removes the current input, which has failed. The buffered output is written first, so that
    /// output and errors appear in order.
    fn fail_input(&mut self, error: Error) -> Result<(), Error> {
        self.output.flush()?;
        self.copied = None;
        self.report.failed += 1;
        let failed = self.inputs.pop();
        if let (Some(follower), Some((Source::Path(path), None))) = (&mut self.follower, failed)
            && error.is_not_found()
        {
            follower.add(path, None);
        }
        self.events.push(Event::Failed(error));
        Ok(())
    }

    /// Adds the followed files with new data to the queue. Returns a step if there are none, or
    /// if the run is complete.
    fn poll_follow(&mut self) -> Result<Option<Step>, Error> {
        self.output.flush()?;
        let Some(follower) = self
            .follower
            .as_mut()
            .filter(|follower| !follower.is_empty())
        else {
            return self.finish().map(Some);
        };
        self.is_following = true;
        self.output.check_readers()?;
        let changed = follower.take_changed();
        if changed.is_empty() {
            let deadline = Instant::now() + POLL_INTERVAL;
            return Ok(Some(Step::Wait(Wait::Change(deadline))));
        }
        for (source, input) in changed {
            self.inputs.push(source, input);
        }
        Ok(None)
    }

    fn finish(&mut self) -> Result<Step, Error> {
        if let Some(mut transform) = self.transform.take() {
            transform.finish(self.output.buffer());
        }
        self.output.flush()?;
        Ok(Step::Done)
    }
}
