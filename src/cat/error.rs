//! Errors of inputs and of the output.

use std::io;
use std::path::{Path, PathBuf};

use super::source::Source;
use crate::atomic_file::{Attribute, InPlaceError, Obstacle};
use crate::checksum::Algorithm;
use crate::escape::Escaped;

/// Error of an input or of the output.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input cannot be opened.
    #[error("open {input}")]
    Open {
        /// The input.
        input: Source,
        /// The cause.
        source: io::Error,
    },
    /// An input cannot be read to its end.
    #[error("read {input}")]
    Read {
        /// The input.
        input: Source,
        /// The cause.
        source: io::Error,
    },
    /// An input is also the output, and the copy would read its own output.
    #[error("{input}: input file is output file")]
    InputIsOutput {
        /// The input.
        input: Source,
    },
    /// The output file cannot be created or opened.
    #[error("open {} for writing", escaped(path))]
    Create {
        /// Path of the output.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("{}write error", prefix(path.as_deref()))]
    Write {
        /// Path of the output; none for a stream.
        path: Option<PathBuf>,
        /// The cause.
        source: io::Error,
    },
    /// The complete new file cannot replace the old one.
    #[error("replace {}", escaped(path))]
    Replace {
        /// Path of the output.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The output file cannot be replaced by a rename.
    #[error("replace {}: {obstacle}", escaped(path))]
    NotReplaceable {
        /// Path of the output.
        path: PathBuf,
        /// The reason.
        obstacle: Obstacle,
    },
    /// The new file cannot have an attribute of the old one.
    #[error("keep {attribute} of {}", escaped(path))]
    AttributeNotKept {
        /// Path of the output.
        path: PathBuf,
        /// The attribute.
        attribute: Attribute,
        /// The cause.
        source: io::Error,
    },
    /// The complete new content cannot be copied into the old file.
    #[error("write {} in place", escaped(path))]
    WriteInPlace {
        /// Path of the output.
        path: PathBuf,
        /// The cause, with the path of the new content.
        source: InPlaceError,
    },
    /// An input failed, so that the output file was not replaced, or not appended to any further.
    #[error("{}: not written completely, as an input failed", escaped(path))]
    Incomplete {
        /// Path of the output.
        path: PathBuf,
    },
    /// The written bytes have another checksum than the expected one.
    #[error("{}{algorithm} mismatch: expected {expected}, got {found}", prefix(path.as_deref()))]
    ChecksumMismatch {
        /// Path of the output; none for a stream.
        path: Option<PathBuf>,
        /// The algorithm.
        algorithm: Algorithm,
        /// The expected checksum, in hexadecimal.
        expected: String,
        /// The checksum of the written bytes, in hexadecimal.
        found: String,
    },
    /// Changes of followed files are not reported by the kernel. All files are checked every second.
    #[error("watch files, checking them every second instead")]
    Watch(#[source] io::Error),
    /// Waiting for an input failed.
    #[error("wait for input")]
    Wait(#[source] io::Error),
}

impl Error {
    /// Returns whether an input does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Returns whether the output has no reader any more.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn prefix(path: Option<&Path>) -> String {
    path.map(|path| format!("{}: ", escaped(path)))
        .unwrap_or_default()
}

fn escaped(path: &Path) -> impl std::fmt::Display + '_ {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped(path.as_os_str().as_bytes())
}
