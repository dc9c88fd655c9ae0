//! Names of inputs, and the identity of files.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use futures_lite::AsyncRead;
use rustix::fs::Stat;

use super::pump::ReaderSource;
use crate::escape::Escaped;

/// Input to read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A file, FIFO or device.
    Path(PathBuf),
    /// Standard input, from its current position. It may be given several times, as in any `cat`.
    Stdin,
    /// A reader, see [`Source::reader`].
    Reader(ReaderSource),
}

impl Source {
    /// Returns an input that is read from an asynchronous reader, such as a socket, of any runtime.
    /// It is read ahead like a pipe, by a thread while it is open. `name` is for errors and labels.
    pub fn reader(name: &str, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self::Reader(ReaderSource::new(name, reader))
    }
}

impl From<OsString> for Source {
    /// Converts a command-line argument: `-` is standard input.
    fn from(text: OsString) -> Self {
        if text == "-" {
            Self::Stdin
        } else {
            Self::Path(text.into())
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => Escaped(path.as_os_str().as_bytes()).fmt(f),
            Self::Stdin => f.write_str("standard input"),
            Self::Reader(reader) => Escaped(reader.name.as_bytes()).fmt(f),
        }
    }
}

/// Identity of a file: its device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    // The types of the fields differ between platforms.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn from_stat(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }

    /// Returns the identity of the file that `source` refers to now.
    pub(super) fn from_source(source: &Source) -> io::Result<Self> {
        let stat = match source {
            Source::Path(path) => rustix::fs::stat(path)?,
            Source::Stdin => rustix::fs::fstat(io::stdin())?,
            Source::Reader(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        Ok(Self::from_stat(&stat))
    }
}
