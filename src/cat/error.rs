//! What can fail.

use std::io;
use std::path::PathBuf;

use super::input::Source;
use crate::escape::Escaped;

/// Why an input was not read, or the output not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input cannot be opened.
    #[error("open {input}")]
    Open {
        /// The input.
        input: Source,
        /// What the system said.
        source: io::Error,
    },
    /// An input cannot be read, or not to its end.
    #[error("read {input}")]
    Read {
        /// The input.
        input: Source,
        /// What the system said.
        source: io::Error,
    },
    /// An input is also the output: reading it would feed on what is written.
    #[error("{input}: input file is output file")]
    InputIsOutput {
        /// The input.
        input: Source,
    },
    /// The output's file cannot be made or opened.
    #[error("open {} for writing", shown(path))]
    Create {
        /// The output's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("{}write error", to.as_deref().map(|path| format!("{}: ", shown(path))).unwrap_or_default())]
    Write {
        /// The output's path; none for a stream that was handed over open.
        to: Option<PathBuf>,
        /// What the system said.
        source: io::Error,
    },
    /// The whole new content cannot take the place of the old.
    #[error("replace {}", shown(path))]
    Replace {
        /// The output's path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Waiting for an input failed.
    #[error("wait for input")]
    Wait(#[source] io::Error),
}

impl Error {
    /// Whether there is no such file.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Open { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether nobody reads the output any more.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Write { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

fn shown(path: &std::path::Path) -> impl std::fmt::Display + '_ {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped(path.as_os_str().as_bytes())
}
