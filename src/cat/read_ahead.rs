//! Queue of inputs: the current one, and those that are read ahead.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::Advice;
use rustix::io::{Errno, retry_on_intr};

use super::config::Config;
use super::input::Input;
use super::source::{FileId, Source};

/// Maximum number of open inputs with decompression, as a stream needs a thread and the memory for the
/// history of its format.
const MAX_OPEN_COMPRESSED: usize = 8;

/// The inputs that are not finished, in order. The first of them are open.
#[derive(Debug)]
pub(super) struct InputQueue<I> {
    sources: I,
    slots: VecDeque<Slot>,
    max_open: usize,
    /// Memory limit of a decoder, with decompression.
    decompress_memory: Option<u64>,
    /// Whether an input that may block has been opened.
    has_blocking: bool,
    /// Incremented when time has passed, or when something was read that may follow a change to a
    /// file that is open already.
    generation: u64,
}

#[derive(Debug)]
struct Slot {
    source: Source,
    /// `None` if the input could not be opened ahead, or is deferred.
    input: Option<Input>,
    /// Whether opening is deferred until another input of the same stream is finished.
    deferred: bool,
    /// Generation of the queue in which the input was opened ahead.
    opened_in: u64,
}

impl Slot {
    /// Returns whether the input can be written now. An input that could not be opened is ready,
    /// so that its error is reported at once; a deferred one is not.
    fn is_ready(&self) -> bool {
        match &self.input {
            Some(input) => input.is_ready(),
            None => !self.deferred,
        }
    }
}

impl<I: Iterator<Item = Source>> InputQueue<I> {
    pub(super) fn new(sources: I, config: &Config) -> Self {
        let max = if config.decompress {
            MAX_OPEN_COMPRESSED
        } else {
            usize::MAX
        };
        Self {
            sources,
            slots: VecDeque::new(),
            max_open: config.jobs.get().min(max),
            decompress_memory: config.decompress.then_some(config.decompress_memory),
            has_blocking: false,
            generation: 0,
        }
    }

    fn open(&mut self, source: &Source) -> io::Result<Input> {
        let input = Input::open(source)?;
        let input = match self.decompress_memory {
            Some(max_memory) => input.decompressed(max_memory)?,
            None => input,
        };
        self.has_blocking |= input.may_block();
        Ok(input)
    }

    /// Opens further inputs, up to the maximum.
    pub(super) fn fill(&mut self) {
        self.open_deferred();
        while self.slots.len() < self.max_open {
            let Some(source) = self.sources.next() else {
                return;
            };
            let deferred = self.shares_stream(&source);
            let input = if deferred {
                None
            } else {
                self.open_ahead(&source)
            };
            self.slots.push_back(Slot {
                source,
                input,
                deferred,
                opened_in: self.generation,
            });
        }
    }

    /// Opens the deferred inputs whose stream is no longer in use.
    fn open_deferred(&mut self) {
        if !self.has_blocking {
            return;
        }
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.deferred && !self.shares_stream(&slot.source) {
                let source = slot.source.clone();
                let input = self.open(&source).ok();
                let slot = &mut self.slots[index];
                slot.deferred = false;
                slot.input = input;
            }
        }
    }

    /// Opens an input ahead of its turn. After a failure, opening is tried again in its turn, and
    /// only then reported: the file may exist by then.
    fn open_ahead(&mut self, source: &Source) -> Option<Input> {
        match self.open(source) {
            Ok(input) => {
                if !self.slots.is_empty() && !input.may_block() {
                    // The kernel loads the file while the previous inputs are written. The advice
                    // may be ignored.
                    let _ = rustix::fs::fadvise(input.fd(), 0, None, Advice::WillNeed);
                }
                Some(input)
            }
            Err(error) => {
                let error = Errno::from_io_error(&error);
                if matches!(error, Some(Errno::MFILE | Errno::NFILE)) {
                    // No more inputs are opened until one is closed.
                    self.max_open = self.inputs().count().max(1);
                }
                None
            }
        }
    }

    /// Returns whether `source` would take bytes away from an open input, as with one FIFO that is
    /// given twice: the first one gets all bytes.
    fn shares_stream(&self, source: &Source) -> bool {
        let mut blocking = self.inputs().filter(|input| input.may_block()).peekable();
        self.has_blocking
            && blocking.peek().is_some()
            && FileId::from_source(source)
                .is_ok_and(|id| blocking.any(|input| input.shares_stream(id)))
    }

    fn inputs(&self) -> impl Iterator<Item = &Input> {
        self.slots.iter().filter_map(|slot| slot.input.as_ref())
    }

    /// Moves the first ready input to the front. Returns whether there is one.
    pub(super) fn promote_ready(&mut self) -> bool {
        let Some(index) = self.slots.iter().position(Slot::is_ready) else {
            // Inputs that are never read ahead do not become ready: the first one is written.
            return !self.inputs().any(Input::can_read_ahead);
        };
        if let Some(slot) = self.slots.remove(index) {
            self.slots.push_front(slot);
        }
        true
    }

    /// Starts a generation.
    pub(super) fn advance(&mut self) {
        self.generation += 1;
    }

    /// Closes the current input if it is a regular file that was opened in an earlier generation,
    /// and its name refers to other content by now: it is opened again.
    pub(super) fn close_outdated(&mut self) {
        let Some(slot) = self.slots.front_mut() else {
            return;
        };
        if slot.opened_in == self.generation {
            return;
        }
        if let (Source::Path(path), Some(input)) = (&slot.source, &slot.input)
            && input.is_outdated(path)
        {
            slot.input = None;
        }
    }

    /// Returns the current input, opening it if necessary; none at the end of the queue.
    pub(super) fn current(&mut self) -> Option<(&Source, io::Result<&mut Input>)> {
        let first = self.slots.front()?;
        let unopened = first.input.is_none().then(|| first.source.clone());
        let opened = unopened.map(|source| self.open(&source));
        let Slot { source, input, .. } = self.slots.front_mut()?;
        let input = match (input, opened) {
            (Some(input), _) => Ok(input),
            (none, Some(opened)) => opened.map(|opened| none.insert(opened)),
            (None, None) => return None,
        };
        Some((source, input))
    }

    /// Removes the current input.
    pub(super) fn pop(&mut self) -> Option<(Source, Option<Input>)> {
        self.slots.pop_front().map(|slot| (slot.source, slot.input))
    }

    /// Reads available bytes of the inputs that are read ahead, and of the current one if
    /// `with_current`.
    pub(super) fn read_ahead(&mut self, with_current: bool) -> io::Result<()> {
        let mut inputs: Vec<_> = self
            .slots
            .iter_mut()
            .skip(usize::from(!with_current))
            .filter_map(|slot| slot.input.as_mut().filter(|input| input.can_read_ahead()))
            .collect();
        if inputs.is_empty() {
            return Ok(());
        }
        let ready = poll_readable(
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

    /// Returns the current input if it is open, and the others that can be read ahead.
    pub(super) fn pollable(&self) -> (Option<&Input>, impl Iterator<Item = &Input>) {
        let current = self.slots.front().and_then(|slot| slot.input.as_ref());
        let others = self
            .slots
            .iter()
            .skip(1)
            .filter_map(|slot| slot.input.as_ref());
        (current, others.filter(|input| input.can_read_ahead()))
    }
}

/// Waits until one of `fds` is readable or `timeout` has passed, and returns for each whether it
/// is.
pub(super) fn poll_readable<'a>(
    fds: impl Iterator<Item = BorrowedFd<'a>>,
    timeout: Option<&Timespec>,
) -> io::Result<Vec<bool>> {
    let mut fds: Vec<_> = fds
        .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
        .collect();
    retry_on_intr(|| rustix::event::poll(&mut fds, timeout))?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}
