//! Copy engine: copies until something has to be waited for.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use tracing::debug;

use super::config::{Config, Order};
use super::copier::{Copier, CopyError};
use super::error::Error;
use super::input::{Input, ReadResult};
use super::output::Output;
use super::read_ahead::InputQueue;
use super::report::{Event, FileDone, Report};
use super::source::Source;

/// Number of bytes after which a step ends, so that its driver can stop or run other tasks.
pub(super) const STEP_LEN: u64 = 8 << 20;

/// Cost of a file within a step, in bytes, in addition to its length.
const FILE_COST: u64 = 8 << 10;

/// A run that is done in steps. An engine never waits for an input: that is left to its driver, a
/// thread or a task.
pub(super) trait Engine {
    /// Copies until something has to be waited for, an input has failed, or the length of a step
    /// is reached.
    fn step(&mut self) -> Result<Step, Error>;

    /// Returns the descriptors to poll for `wait`.
    fn poll_fds(&self, wait: Wait) -> Vec<BorrowedFd<'_>>;

    /// Removes and returns the events of the last step.
    fn take_events(&mut self) -> impl Iterator<Item = Event> + use<Self>;

    /// Returns the output, which is still open, and the report of the run.
    fn into_parts(self) -> (Output, Report);
}

/// The state of a run between two steps.
#[derive(Debug)]
pub(super) struct CopyEngine<I> {
    inputs: InputQueue<I>,
    order: Order,
    /// Number of bytes copied from the current input; none before its first chunk.
    copied: Option<u64>,
    copier: Copier,
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

impl<I: Iterator<Item = Source>> Engine for CopyEngine<I> {
    fn step(&mut self) -> Result<Step, Error> {
        self.inputs.advance();
        self.inputs.fill();
        let with_current = self.copied.is_none() && self.order == Order::AsCompleted;
        self.inputs.read_ahead(with_current).map_err(Error::Wait)?;
        let mut done = 0;
        while done < STEP_LEN {
            if let Some(next_write) = self.copier.output.write_throttled()? {
                return Ok(Step::Wait(Wait::Deadline(next_write)));
            }
            match self.copy_chunk() {
                Ok(Progress::Copied(bytes)) => done += bytes,
                Ok(Progress::NotReady) => {
                    self.copier.output.flush()?;
                    let has_current = self.copied.is_some();
                    return Ok(Step::Wait(if has_current {
                        Wait::Current
                    } else {
                        Wait::Any
                    }));
                }
                Ok(Progress::Eof) => {
                    self.copier.output.end_input()?;
                    self.finish_input();
                    done += FILE_COST;
                }
                Ok(Progress::Done) => {
                    self.copier.finish()?;
                    return Ok(Step::Done);
                }
                Err(CopyError::Output(error)) => return Err(error),
                Err(CopyError::Input(error)) => {
                    self.fail_input(error)?;
                    let has_output = self.copier.output.close_incomplete();
                    return Ok(if has_output { Step::More } else { Step::Done });
                }
            }
        }
        Ok(Step::More)
    }

    fn poll_fds(&self, wait: Wait) -> Vec<BorrowedFd<'_>> {
        let (current, others) = self.inputs.pollable();
        let current = current.filter(|input| match wait {
            Wait::Current => true,
            Wait::Any => input.can_read_ahead(),
            Wait::Deadline(_) | Wait::Change(_) => false,
        });
        current.into_iter().chain(others).map(Input::fd).collect()
    }

    fn take_events(&mut self) -> impl Iterator<Item = Event> + use<I> {
        self.copier.take_events()
    }

    fn into_parts(self) -> (Output, Report) {
        self.copier.into_parts()
    }
}

impl<I: Iterator<Item = Source>> CopyEngine<I> {
    pub(super) fn new(sources: I, config: &Config, copier: Copier) -> Self {
        Self {
            inputs: InputQueue::new(sources, config),
            order: config.order,
            copied: None,
            copier,
        }
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
        let input = input.map_err(|error| {
            CopyError::Input(Error::Open {
                input: source.clone(),
                source: error,
            })
        })?;
        if !has_current {
            self.copier.check_loop(source, input)?;
            self.copied = Some(0);
        }
        let result = self.copier.copy_chunk(source, input)?;
        if input.may_block() {
            self.inputs.advance();
        }
        Ok(match result {
            ReadResult::NotReady => Progress::NotReady,
            ReadResult::Eof => Progress::Eof,
            ReadResult::Bytes(count) => {
                self.copied = self.copied.map(|copied| copied + count as u64);
                Progress::Copied(count as u64)
            }
        })
    }

    /// Removes the current input, which has ended.
    fn finish_input(&mut self) {
        let bytes = self.copied.take().unwrap_or_default();
        if let Some((source, Some(input))) = self.inputs.pop() {
            debug!(%source, bytes, "end of input");
            self.copier.report.files += 1;
            self.copier.push_event(Event::FileDone(FileDone {
                source,
                opened_at: input.opened_at,
                finished_at: input.finished_at(),
                bytes,
            }));
        }
        self.inputs.fill();
    }

    /// Removes the current input, which has failed.
    fn fail_input(&mut self, error: Error) -> Result<(), Error> {
        self.copied = None;
        self.inputs.pop();
        self.copier.push_failure(error)
    }
}
