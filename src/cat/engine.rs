//! The copy itself: goes on as long as nothing has to be waited for.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use tracing::debug;

use super::config::{Config, Order};
use super::error::Error;
use super::follow::{Follow, LOOK};
use super::input::{Got, Input, Source};
use super::output::Output;
use super::read_ahead::Ahead;
use super::report::{Ended, Event, Report};
use super::transform::Transform;

/// Bytes after which a step ends, so that whoever drives it can stop, or look after others.
const STEP: u64 = 8 << 20;

/// What a file counts for in a step beside its bytes.
const FILE: u64 = 8 << 10;

/// The bytes that are read at once before they are transformed.
const CHUNK: usize = 64 << 10;

/// A run between its steps. It never waits for an input by itself: that is for its driver, which
/// may be a thread or a task.
#[derive(Debug)]
pub(super) struct Copying<I> {
    ahead: Ahead<I>,
    order: Order,
    output: Output,
    transform: Option<Transform>,
    /// What was read and is not yet transformed.
    chunk: Vec<u8>,
    /// Whether more bytes can come out than went in.
    grows: bool,
    /// The bytes moved of the input whose turn it is; none before its turn has begun.
    moved: Option<u64>,
    /// The files to go on with after the last input; none if nothing is followed.
    follow: Option<Follow>,
    /// Whether all inputs have had their turn, and have it again when they grow.
    following: bool,
    started: Instant,
    report: Report,
    /// What is to be told.
    events: Vec<Event>,
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// There is more to do at once.
    More,
    /// Nothing can be done before something has come.
    Wait(Wait),
    /// All is done.
    Done,
}

/// What to wait for beside the inputs that are read before their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The input whose turn it is.
    Head,
    /// Any input: it is nobody's turn.
    Any,
    /// A moment.
    Until(Instant),
    /// A change of the files that are followed, or a moment.
    Change(Instant),
}

/// How it went with the input whose turn it is.
enum Progress {
    Moved(u64),
    NotReady,
    End,
    /// There is none any more.
    Done,
}

/// What went wrong: with an input, which ends its turn, or with the output, which ends the run.
enum Broken {
    Input(Error),
    Output(Error),
}

impl From<Error> for Broken {
    fn from(error: Error) -> Self {
        Self::Output(error)
    }
}

impl<I: Iterator<Item = Source>> Copying<I> {
    pub(super) fn new(sources: I, config: &Config, output: Output) -> Self {
        let transform = (!config.display.is_plain()).then(|| Transform::new(config.display));
        let chunk = Vec::with_capacity(if transform.is_some() { CHUNK } else { 0 });
        Self {
            ahead: Ahead::new(sources, config),
            order: config.order,
            output,
            transform,
            chunk,
            grows: config.display.can_grow(),
            moved: None,
            follow: config.follow.then(Follow::new),
            following: false,
            started: Instant::now(),
            report: Report::default(),
            events: Vec::new(),
        }
    }

    /// Goes on until something has to be waited for or told, or enough has been done for a step.
    pub(super) fn step(&mut self) -> Result<Step, Error> {
        self.ahead.fill();
        let all = self.moved.is_none() && self.order == Order::AsCompleted;
        self.ahead.read_ready(all).map_err(Error::Wait)?;
        let mut done = 0;
        while done < STEP {
            if let Some(due) = self.output.release()? {
                return Ok(Step::Wait(Wait::Until(due)));
            }
            match self.progress() {
                Ok(Progress::Moved(bytes)) => done += bytes,
                Ok(Progress::NotReady) => {
                    self.output.flush()?;
                    let chosen = self.moved.is_some();
                    return Ok(Step::Wait(if chosen { Wait::Head } else { Wait::Any }));
                }
                Ok(Progress::End) => {
                    self.end_turn();
                    done += FILE;
                }
                Ok(Progress::Done) => {
                    if let Some(step) = self.go_on()? {
                        return Ok(step);
                    }
                }
                Err(Broken::Output(error)) => return Err(error),
                Err(Broken::Input(error)) => {
                    self.fail_turn(error)?;
                    return Ok(Step::More);
                }
            }
        }
        Ok(Step::More)
    }

    /// What to wait for.
    pub(super) fn waiting(&self, wait: Wait) -> Vec<BorrowedFd<'_>> {
        let (first, others) = self.ahead.waiting();
        let first = first.filter(|input| match wait {
            Wait::Head => true,
            Wait::Any => input.has_room(),
            Wait::Until(_) | Wait::Change(_) => false,
        });
        let changed = matches!(wait, Wait::Change(_)).then(|| self.follow.as_ref()?.fd());
        first
            .into_iter()
            .chain(others)
            .map(Input::fd)
            .chain(changed.flatten())
            .collect()
    }

    /// Takes what is to be told.
    pub(super) fn take_events(&mut self) -> impl Iterator<Item = Event> + use<I> {
        let events = std::mem::take(&mut self.events);
        std::iter::once(Event::Read(self.report.read)).chain(events)
    }

    /// The output, to be closed, and what the run came to.
    pub(super) fn into_parts(self) -> (Output, Report) {
        let (written, elapsed) = (self.output.bytes(), self.started.elapsed());
        (
            self.output,
            Report {
                written,
                elapsed,
                ..self.report
            },
        )
    }

    /// Moves a piece of the input whose turn it is.
    fn progress(&mut self) -> Result<Progress, Broken> {
        if self.moved.is_none() && self.order == Order::AsCompleted && !self.ahead.choose() {
            return Ok(Progress::NotReady);
        }
        let Some((source, input)) = self.ahead.head() else {
            return Ok(Progress::Done);
        };
        let named = || source.clone();
        let input = input.map_err(|source| {
            Broken::Input(Error::Open {
                input: named(),
                source,
            })
        })?;
        if self.moved.is_none() {
            if self.output.feeds(input, self.grows)? {
                return Err(Broken::Input(Error::InputIsOutput { input: named() }));
            }
            self.moved = Some(0);
        }
        let got = match &self.transform {
            Some(_) => input.read(&mut self.chunk),
            None => match self.output.fetch(input)? {
                Some(got) => got,
                None => input.read(self.output.buffer()),
            },
        };
        let got = got.map_err(|source| {
            Broken::Input(Error::Read {
                input: named(),
                source,
            })
        })?;
        let more_may_wait = input.may_wait();
        match got {
            Got::NotReady => Ok(Progress::NotReady),
            Got::End => Ok(Progress::End),
            Got::Bytes(count) => Ok(Progress::Moved(self.hand_on(count as u64, more_may_wait)?)),
        }
    }

    /// Hands on to the output what was read.
    fn hand_on(&mut self, count: u64, more_may_wait: bool) -> Result<u64, Error> {
        self.moved = self.moved.map(|moved| moved + count);
        self.report.read += count;
        if let Some(transform) = &mut self.transform {
            transform.push(&self.chunk, self.output.buffer());
            self.chunk.clear();
        }
        self.output.filled(more_may_wait)?;
        Ok(count)
    }

    fn end_turn(&mut self) {
        let bytes = self.moved.take().unwrap_or_default();
        if let Some((source, Some(input))) = self.ahead.next() {
            let (opened, read) = (input.opened, input.read_to_end());
            debug!(%source, bytes, "read to its end");
            if let (Some(follow), Source::Path(path)) = (&mut self.follow, &source)
                && input.can_grow()
            {
                follow.keep(path.clone(), Some(input));
            }
            if !self.following {
                self.report.files += 1;
                self.events.push(Event::Ended(Ended {
                    source,
                    opened,
                    read,
                    bytes,
                }));
            }
        }
        self.ahead.fill();
    }

    /// Ends the turn of an input that failed. What came before it is written first, so that
    /// a person sees both in their order.
    fn fail_turn(&mut self, error: Error) -> Result<(), Error> {
        self.output.flush()?;
        self.moved = None;
        self.report.failed += 1;
        let failed = self.ahead.next();
        if let (Some(follow), Some((Source::Path(path), None))) = (&mut self.follow, failed)
            && error.is_not_found()
        {
            follow.keep(path, None);
        }
        self.events.push(Event::Failed(error));
        Ok(())
    }

    /// After the last input: goes on with those that have grown, or ends.
    fn go_on(&mut self) -> Result<Option<Step>, Error> {
        self.output.flush()?;
        let Some(follow) = self.follow.as_mut().filter(|follow| !follow.is_empty()) else {
            return self.finish().map(Some);
        };
        self.following = true;
        self.output.still_read()?;
        let news = follow.take_news();
        if news.is_empty() {
            return Ok(Some(Step::Wait(Wait::Change(Instant::now() + LOOK))));
        }
        news.into_iter()
            .for_each(|(source, input)| self.ahead.push(source, input));
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
