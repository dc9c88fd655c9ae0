//! Ways for bytes from an input to the output that never pass through our memory.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;
use rustix::io::retry_on_intr;
use rustix::pipe::SpliceFlags;

/// The most that is moved by one call: large, and yet soon done.
const MOST: usize = 16 << 20;

/// What a pipe is asked to hold; the usual 64 KiB would mean a call for each of them.
const PIPE: usize = 1 << 20;

/// A system call that moves bytes from one open file to another.
///
/// Each of them may be refused, by a file system or for a file that is open for appending, and
/// tells only that something failed, not on which side. So one that fails, or sees an end, is
/// left for read and write, which go on where it stopped: what was wrong they meet again, and
/// know whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Hands on the pages themselves; one side is a pipe.
    Splice,
    /// Between files; some file systems only note that they share their blocks.
    CopyRange,
    /// From a file to what is no file.
    SendFile,
}

impl Way {
    /// The fastest way from one kind of file to another, if there is one that beats read and
    /// write.
    pub(super) fn between(input: FileType, output: FileType) -> Option<Self> {
        use FileType::{CharacterDevice, Fifo, RegularFile, Socket};
        match (input, output) {
            (RegularFile | Fifo, Fifo) | (Fifo, RegularFile | CharacterDevice | Socket) => {
                Some(Self::Splice)
            }
            (RegularFile, RegularFile) => Some(Self::CopyRange),
            (RegularFile, CharacterDevice | Socket) => Some(Self::SendFile),
            _ => None,
        }
    }

    /// Moves some bytes; none at the end of the input.
    pub(super) fn go(self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
        let moved = retry_on_intr(|| match self {
            Self::Splice => rustix::pipe::splice(from, None, to, None, MOST, SpliceFlags::empty()),
            Self::CopyRange => rustix::fs::copy_file_range(from, None, to, None, MOST),
            Self::SendFile => rustix::fs::sendfile(to, from, None, MOST),
        });
        Ok(moved?)
    }
}

/// Makes a pipe hold more, if it is one and the system allows it.
pub(super) fn widen(pipe: BorrowedFd<'_>) {
    if rustix::pipe::fcntl_getpipe_size(pipe).is_ok_and(|size| size < PIPE) {
        // Only speed depends on it.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
    }
}
