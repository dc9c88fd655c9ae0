//! The inputs in their order: the one whose turn it is, and those that are read ahead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Advice;
use rustix::io::{Errno, retry_on_intr};

use super::config::Config;
use super::input::{FileId, Input, Source};

/// The inputs that are unpacked at once at most, each with a thread, and memory for what its
/// format may look back at.
const UNPACKED: usize = 8;

/// All inputs that have not had their turn. The first so many of them are open.
#[derive(Debug)]
pub(super) struct Ahead<I> {
    rest: I,
    window: VecDeque<Slot>,
    jobs: usize,
    unpack: bool,
    /// Whether an input has been opened that may have to be waited for.
    waits: bool,
}

#[derive(Debug)]
struct Slot {
    source: Source,
    /// None if it could not be opened before its turn, or should not be.
    input: Option<Input>,
    /// Whether it waits for another that reads the same.
    held: bool,
}

impl Slot {
    /// Whether its turn can come without waiting. One that could not be opened is told at once;
    /// one that was not yet opened waits for another with the same source.
    fn is_ready(&self) -> bool {
        match &self.input {
            Some(input) => input.is_ready_whole(),
            None => !self.held,
        }
    }
}

impl<I: Iterator<Item = Source>> Ahead<I> {
    pub(super) fn new(sources: I, config: &Config) -> Self {
        let most = if config.decompress {
            UNPACKED
        } else {
            usize::MAX
        };
        let (jobs, unpack) = (config.jobs.get().min(most), config.decompress);
        Self {
            rest: sources,
            window: VecDeque::new(),
            jobs,
            unpack,
            waits: false,
        }
    }

    fn open(&mut self, source: &Source) -> io::Result<Input> {
        let input = Input::open(source)?;
        let input = if self.unpack {
            input.unpacked()?
        } else {
            input
        };
        self.waits |= input.may_wait();
        Ok(input)
    }

    /// Opens further inputs, as many as may be open at once.
    pub(super) fn fill(&mut self) {
        self.open_held();
        while self.window.len() < self.jobs {
            let Some(source) = self.rest.next() else {
                return;
            };
            let held = self.competes(&source);
            let input = if held { None } else { self.open_early(&source) };
            self.window.push_back(Slot {
                source,
                input,
                held,
            });
        }
    }

    /// Gives another turn to an input that has had one.
    pub(super) fn push(&mut self, source: Source, input: Input) {
        self.window.push_back(Slot {
            source,
            input: Some(input),
            held: false,
        });
    }

    /// Opens those that waited for another with the same source, if that has ended.
    fn open_held(&mut self) {
        if !self.waits {
            return;
        }
        for index in 0..self.window.len() {
            let slot = &self.window[index];
            if slot.held && !self.competes(&slot.source) {
                let source = slot.source.clone();
                let input = self.open(&source).ok();
                let slot = &mut self.window[index];
                (slot.held, slot.input) = (false, input);
            }
        }
    }

    /// Opens an input before its turn. Whatever prevents it is tried again, and told, when its
    /// turn has come: a file may be there by then.
    fn open_early(&mut self, source: &Source) -> Option<Input> {
        match self.open(source) {
            Ok(input) => {
                if !self.window.is_empty() && !input.may_wait() {
                    // The system reads while we are busy with those before. A mere advice.
                    let _ = rustix::fs::fadvise(input.fd(), 0, None, Advice::WillNeed);
                }
                Some(input)
            }
            Err(error) => {
                let error = Errno::from_io_error(&error);
                if matches!(error, Some(Errno::MFILE | Errno::NFILE)) {
                    // From now on each waits until one before it has been closed.
                    self.jobs = self.inputs().count().max(1);
                }
                None
            }
        }
    }

    /// Whether an open input waits for bytes that this source would take away, as with one FIFO
    /// named twice: the first is to get all of them.
    fn competes(&self, source: &Source) -> bool {
        let mut waiting = self.inputs().filter(|input| input.may_wait()).peekable();
        self.waits
            && waiting.peek().is_some()
            && FileId::of_source(source).is_ok_and(|id| waiting.any(|input| input.competes_for(id)))
    }

    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.window.iter().filter_map(|slot| slot.input.as_ref())
    }

    /// Brings the first that is ready to the front, if one is.
    pub(super) fn choose(&mut self) -> bool {
        let Some(index) = self.window.iter().position(Slot::is_ready) else {
            // What is not read before its turn has to have it some time.
            return !self.inputs().any(Input::has_room);
        };
        if let Some(slot) = self.window.remove(index) {
            self.window.push_front(slot);
        }
        true
    }

    /// The input whose turn it is, opened now if it is not yet.
    pub(super) fn head(&mut self) -> Option<(&Source, io::Result<&mut Input>)> {
        let first = self.window.front()?;
        let unopened = first.input.is_none().then(|| first.source.clone());
        let opened = unopened.map(|source| self.open(&source));
        let Slot { source, input, .. } = self.window.front_mut()?;
        let input = match (input, opened) {
            (Some(input), _) => Ok(input),
            (none, Some(opened)) => opened.map(|opened| none.insert(opened)),
            (None, None) => return None,
        };
        Some((source, input))
    }

    /// Ends the turn of the first.
    pub(super) fn next(&mut self) -> Option<(Source, Option<Input>)> {
        self.window
            .pop_front()
            .map(|slot| (slot.source, slot.input))
    }

    /// Reads what has come for those that wait for their turn; `all` when the first has not begun
    /// its own.
    pub(super) fn read_ready(&mut self, all: bool) -> io::Result<()> {
        let mut inputs: Vec<_> = self
            .window
            .iter_mut()
            .skip(usize::from(!all))
            .filter_map(|slot| slot.input.as_mut().filter(|input| input.has_room()))
            .collect();
        if inputs.is_empty() {
            return Ok(());
        }
        let ready = poll(
            inputs.iter().map(|input| input.fd()),
            Some(&Timespec::default()),
        )?;
        for (input, ready) in inputs.iter_mut().zip(ready) {
            if ready {
                input.read_ahead();
            }
        }
        Ok(())
    }

    /// The input whose turn it is, and those of which more can be read before theirs.
    pub(super) fn waiting(&self) -> (Option<&Input>, impl Iterator<Item = &Input>) {
        let first = self.window.front().and_then(|slot| slot.input.as_ref());
        let others = self
            .window
            .iter()
            .skip(1)
            .filter_map(|slot| slot.input.as_ref());
        (first, others.filter(|input| input.has_room()))
    }
}

/// Waits until one of `fds` can be read or `timeout` has passed, and tells for each whether it can.
pub(super) fn poll<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: Option<&Timespec>,
) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    retry_on_intr(|| rustix::event::poll(&mut fds, timeout))?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}
