//! State of a followed input.

use std::io;

use crate::cat::input::Input;
use crate::cat::source::{FileId, Source};

/// An input that may grow, be truncated or replaced.
#[derive(Debug)]
pub(super) struct FollowedFile {
    pub(super) source: Source,
    /// Open input, unless the name refers to no file or the input has ended.
    pub(super) input: Option<Input>,
    /// Number of the watch of the open file.
    pub(super) watch: Option<i32>,
    /// Number of the watch of the directory of the name.
    pub(super) name_watch: Option<i32>,
    /// File that could not be read.
    failed: Option<FileId>,
    /// Position in a regular file.
    position: u64,
    /// Size of a regular file, as last seen.
    size: u64,
    /// Whether the size has been read in this turn.
    size_is_current: bool,
    /// Whether the file has had a size. Without one, it is read to its end once: that of many files
    /// of `/proc` is always 0.
    has_size: bool,
    /// Whether a file without a size is read to its end.
    reads_to_end: bool,
    /// Number of bytes read until the first end was reported.
    pub(super) bytes: u64,
    /// Whether an end has been reported to the caller.
    pub(super) is_reported: bool,
    /// Whether the name referred to the open file when it was last checked.
    pub(super) is_accessible: bool,
    /// Whether the name may refer to another file.
    pub(super) must_check_name: bool,
    /// Whether it waits for its turn.
    pub(super) is_queued: bool,
    /// Whether nothing can follow any more.
    pub(super) is_finished: bool,
}

/// Next operation of the turn of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Read,
    /// The file has become shorter. It is read from its start.
    Truncated,
    /// There is no new data.
    AtEnd,
}

impl FollowedFile {
    pub(super) fn new(source: Source) -> Self {
        Self {
            source,
            input: None,
            watch: None,
            name_watch: None,
            failed: None,
            position: 0,
            size: 0,
            size_is_current: false,
            has_size: false,
            reads_to_end: false,
            bytes: 0,
            is_reported: false,
            is_accessible: false,
            must_check_name: false,
            is_queued: false,
            is_finished: false,
        }
    }

    /// Returns whether the input has a name that may refer to another file later.
    pub(super) fn has_name(&self) -> bool {
        matches!(self.source, Source::Path(_))
    }

    /// Begins to read an opened input at its position.
    pub(super) fn start(&mut self, input: Input) {
        self.position = rustix::fs::tell(input.fd()).unwrap_or(0);
        self.size = self.position;
        self.size_is_current = false;
        self.has_size = false;
        self.reads_to_end = true;
        self.is_accessible = true;
        self.failed = None;
        self.input = Some(input);
    }

    /// Records that a file could not be read.
    pub(super) fn fail(&mut self, file: Option<FileId>) {
        self.failed = file;
    }

    /// Returns whether this is the file that is open, or that could not be read.
    pub(super) fn is_same(&self, id: FileId) -> bool {
        let open = self.input.as_ref().map(|input| input.id);
        open.or(self.failed) == Some(id)
    }

    /// Begins a turn.
    pub(super) fn begin_turn(&mut self) {
        self.is_queued = true;
        self.size_is_current = false;
    }

    /// Returns what to do with the open input.
    pub(super) fn next_turn(&mut self) -> io::Result<Turn> {
        let Some(input) = &self.input else {
            return Ok(Turn::AtEnd);
        };
        if !input.can_grow() || self.position < self.size {
            return Ok(Turn::Read);
        }
        if !self.size_is_current {
            self.size = input.size()?;
            self.size_is_current = true;
            self.has_size |= self.size > 0;
        }
        if !self.has_size {
            return Ok(if self.reads_to_end {
                Turn::Read
            } else {
                Turn::AtEnd
            });
        }
        if self.size < self.position {
            input.seek_to(0)?;
            self.position = 0;
            return Ok(Turn::Truncated);
        }
        Ok(if self.size > self.position {
            Turn::Read
        } else {
            Turn::AtEnd
        })
    }

    /// Returns whether a regular file that was read to its end has grown or become shorter.
    pub(super) fn has_new_data(&self) -> io::Result<bool> {
        match &self.input {
            Some(input) if input.can_grow() && self.has_size => Ok(input.size()? != self.position),
            _ => Ok(false),
        }
    }

    /// Records that bytes were read.
    pub(super) fn advance(&mut self, count: usize) {
        self.position += count as u64;
        // The file may have grown since its size was read. That is no truncation.
        self.size = self.size.max(self.position);
        self.bytes += count as u64;
    }

    /// Records that a read has reached the end of a regular file.
    pub(super) fn reach_end(&mut self) {
        self.reads_to_end = false;
        self.size = self.position;
    }
}
