//! Configuration of a run.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use crate::checksum::{Algorithm, Checksum};

/// Options for reading, display and pace.
#[derive(Debug, Clone)]
pub struct Config {
    /// Changes to the displayed bytes. Default: none, each byte is copied unchanged.
    pub display: Display,
    /// Maximum number of open inputs: the current one and those read ahead. With one, nothing is
    /// read ahead. Default: 64.
    pub jobs: NonZeroUsize,
    /// Order in which the inputs are written. Default: as given.
    pub order: Order,
    /// Whether inputs that start as gzip, bzip2, zstd or xz are decompressed: files as they are read,
    /// pipes by a thread each, at most 8 at once. Inputs that start as another known format fail.
    /// Default: no.
    pub decompress: bool,
    /// Maximum number of bytes of history that a zstd or xz input may need. Default: 256 MiB.
    pub decompress_memory: u64,
    /// Whether to wait for further data of all inputs at once: of regular files, across truncation
    /// and replacement; of FIFOs, across their writers; and for missing files to appear. The run
    /// then ends when no input can grow or the output has no reader; a sink that is replaced at the
    /// end never is. `jobs`, `order` and `decompress` have no effect then. Default: no.
    pub follow: bool,
    /// With `follow`, number of lines at the end of each regular file with which it begins.
    /// Default: all.
    pub last_lines: Option<u64>,
    /// Whether a header with the name of the input is written before bytes of another input than the
    /// last one, and incomplete lines before it are ended. Default: no.
    pub label: bool,
    /// Checksum of the written bytes. Default: none.
    pub checksum: Option<OutputChecksum>,
    /// Pause after each written line. Default: none.
    pub delay: Option<Duration>,
    /// Maximum number of bytes written per second. Default: unlimited.
    pub rate: Option<NonZeroU64>,
}

impl Default for Config {
    fn default() -> Self {
        let jobs = const { NonZeroUsize::new(64).expect("not zero") };
        Self {
            display: Display::default(),
            jobs,
            order: Order::default(),
            decompress: false,
            decompress_memory: 256 << 20,
            follow: false,
            last_lines: None,
            label: false,
            checksum: None,
            delay: None,
            rate: None,
        }
    }
}

/// Checksum of the written bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputChecksum {
    /// Computed for the [`Report`](super::Report).
    Compute(Algorithm),
    /// Verified before a file is replaced: with another checksum, the run fails and the old file stays.
    /// Bytes that were appended or written to a stream stay written.
    Verify(Checksum),
}

impl OutputChecksum {
    pub(super) fn algorithm(&self) -> Algorithm {
        match self {
            Self::Compute(algorithm) => *algorithm,
            Self::Verify(expected) => expected.algorithm(),
        }
    }
}

/// Order in which the inputs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// The order in which the inputs are given.
    #[default]
    AsGiven,
    /// The order in which the open inputs become ready. An input is ready if it is a regular file,
    /// a stream that has ended, or a stream whose read-ahead buffer is full. Each input is written
    /// completely before the next.
    AsCompleted,
}

/// Display options, as POSIX and GNU `cat` define them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Display {
    /// Lines that are numbered. Default: none.
    pub numbers: Numbers,
    /// Whether only the first of several adjacent empty lines is displayed. Default: no.
    pub squeeze_blank: bool,
    /// Whether `$` is displayed at the end of each line, and a carriage return before it as `^M`.
    /// Default: no.
    pub ends: bool,
    /// Whether tabs are displayed as `^I`. Default: no.
    pub tabs: bool,
    /// Whether control characters except tabs and newlines are displayed as `^X`, and bytes from
    /// 128 as `M-X`. Default: no.
    pub nonprinting: bool,
}

impl Display {
    /// Returns whether each byte is copied unchanged, without additions.
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Returns whether the output can be longer than the input.
    pub(crate) fn can_grow(&self) -> bool {
        *self
            != Self {
                squeeze_blank: self.squeeze_blank,
                ..Self::default()
            }
    }
}

/// Lines that are numbered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Numbers {
    /// No lines.
    #[default]
    None,
    /// All lines.
    All,
    /// All lines that are not empty.
    NonBlank,
}
