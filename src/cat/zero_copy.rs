//! Ways for bytes from an input to the output that never pass through our memory.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::FileType;
use rustix::io::retry_on_intr;
use rustix::pipe::SpliceFlags;

/// The most that is moved by one call: large, and yet soon done.
const MOST: usize = 4 << 20;

/// What a pipe is asked to hold; the usual 64 KiB would mean a call for each of them.
const PIPE: usize = 1 << 20;

/// A system call that moves bytes from one open file to another.
///
/// Each of them may be refused, by a file system or for a file that is open for appending, and
/// tells only that something failed, not on which side. So one that fails, or sees an end, is
/// left for read and write, which go on where it stopped: what was wrong they meet again, and
/// know whose fault it is.
///
/// Pages are handed on, not copied: whoever changes a file while its bytes wait in a pipe changes
/// them there too.
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
    make_hold(pipe, PIPE);
}

fn make_hold(pipe: BorrowedFd<'_>, bytes: usize) {
    if rustix::pipe::fcntl_getpipe_size(pipe).is_ok_and(|size| size < bytes) {
        // Only speed depends on it.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, bytes);
    }
}

/// A pipe of our own between a file and the pipe that is written to. While the system fills a
/// pipe from a file, nobody can read from it; handing on from pipe to pipe takes next to no time,
/// so the reader works while the next pages are fetched.
#[derive(Debug)]
pub(super) struct Relay {
    entry: PipeWriter,
    exit: PipeReader,
}

impl Relay {
    /// What it holds; more was measured to be slower.
    const HOLDS: usize = 256 << 10;

    pub(super) fn new() -> io::Result<Self> {
        let (exit, entry) = io::pipe()?;
        make_hold(entry.as_fd(), Self::HOLDS);
        Ok(Self { entry, exit })
    }

    /// Where bytes are put in. It must be empty.
    pub(super) fn entry(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }

    /// Hands on the `count` bytes that were put in, and tells how many; if that fails, the others
    /// are appended to `rest`, and a write of them will tell why.
    pub(super) fn hand_on(
        &self,
        count: usize,
        to: BorrowedFd<'_>,
        rest: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut handed = 0;
        while handed < count
            && let Ok(moved @ 1..) = retry_on_intr(|| {
                let rest = count - handed;
                rustix::pipe::splice(&self.exit, None, to, None, rest, SpliceFlags::empty())
            })
        {
            handed += moved;
        }
        (&self.exit)
            .take((count - handed) as u64)
            .read_to_end(rest)?;
        Ok(handed)
    }
}
