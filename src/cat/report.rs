//! What a run tells, on the way and at its end.

use std::time::{Duration, Instant};

use super::error::Error;
use super::input::Source;

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// More was read of the inputs whose turn is or was: so many bytes of all so far. Told every
    /// few milliseconds.
    Read(u64),
    /// An input was not read, or not to its end; the others go on.
    Failed(Error),
    /// An input was read to its end.
    Ended(Ended),
}

/// An input that was read to its end.
#[derive(Debug)]
pub struct Ended {
    /// The input.
    pub source: Source,
    /// When it was opened.
    pub opened: Instant,
    /// When its last byte had been read.
    pub read: Instant,
    /// The bytes that were read.
    pub bytes: u64,
}

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The inputs that were read to their end.
    pub files: u64,
    /// The inputs that were not.
    pub failed: u64,
    /// The bytes that were read.
    pub read: u64,
    /// The bytes that were written, to each output.
    pub written: u64,
    /// The time from the start to the end.
    pub elapsed: Duration,
}
