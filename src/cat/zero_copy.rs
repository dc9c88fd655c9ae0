//! System calls that move bytes from an input to the output inside the kernel.

use std::io::{self, PipeReader, PipeWriter, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::FileType;
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::SpliceFlags;

/// Maximum number of bytes moved by one call: large, but done soon.
const MAX_TRANSFER_LEN: usize = 4 << 20;

/// Capacity requested for pipes; the default of 64 KiB would need a call for each 64 KiB.
const PIPE_CAPACITY: usize = 1 << 20;

/// A system call that moves bytes from one open file to another.
///
/// Each of them may be refused, by a file system or for a file that is open for appending, and
/// does not report which side failed. After a failure or at the end of the input, the copy
/// therefore continues with read and write: they meet the same error again and attribute it to
/// the input or the output.
///
/// Pages are passed on, not copied: a change to a file also changes its bytes that are still in
/// a pipe, and truncating it may clear them. This is detected as long as they are in the
/// [`PipeRelay`]; the reader of the output may see it in the bytes of the output pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Syscall {
    /// Moves pages; one side is a pipe.
    Splice,
    /// Copies between files; some file systems share the blocks instead.
    CopyFileRange,
    /// Copies from a file to something other than a file.
    Sendfile,
}

impl Syscall {
    /// Returns the fastest call for these types of files, if one is faster than read and write.
    pub(super) fn between(input: FileType, output: FileType) -> Option<Self> {
        use FileType::{CharacterDevice, Fifo, RegularFile, Socket};
        match (input, output) {
            (RegularFile | Fifo, Fifo) | (Fifo, RegularFile | CharacterDevice | Socket) => {
                Some(Self::Splice)
            }
            (RegularFile, RegularFile) => Some(Self::CopyFileRange),
            (RegularFile, CharacterDevice | Socket) => Some(Self::Sendfile),
            _ => None,
        }
    }

    /// Moves some bytes and returns their number, 0 at the end of the input.
    pub(super) fn transfer(self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<usize> {
        let len = MAX_TRANSFER_LEN;
        let moved = retry_on_intr(|| match self {
            Self::Splice => rustix::pipe::splice(from, None, to, None, len, SpliceFlags::empty()),
            Self::CopyFileRange => rustix::fs::copy_file_range(from, None, to, None, len),
            Self::Sendfile => rustix::fs::sendfile(to, from, None, len),
        });
        Ok(moved?)
    }
}

/// Increases the capacity of a pipe, if `pipe` is one and the kernel permits it.
pub(super) fn enlarge_pipe(pipe: BorrowedFd<'_>) {
    set_min_capacity(pipe, PIPE_CAPACITY);
}

fn set_min_capacity(pipe: BorrowedFd<'_>, capacity: usize) {
    if rustix::pipe::fcntl_getpipe_size(pipe).is_ok_and(|size| size < capacity) {
        // A failure only makes the copy slower.
        let _ = rustix::pipe::fcntl_setpipe_size(pipe, capacity);
    }
}

/// An intermediate pipe between a file and the output pipe. While the kernel fills a pipe from a
/// file, the pipe cannot be read; splicing from pipe to pipe is short, so the reader of the output
/// works while the next pages are loaded.
#[derive(Debug)]
pub(super) struct PipeRelay {
    writer: PipeWriter,
    reader: PipeReader,
}

impl PipeRelay {
    /// Capacity of the pipe. A larger one was measured to be slower.
    const CAPACITY: usize = 256 << 10;

    pub(super) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        set_min_capacity(writer.as_fd(), Self::CAPACITY);
        Ok(Self { writer, reader })
    }

    /// Returns the end to fill. The pipe is empty.
    pub(super) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Moves `count` bytes from the pipe to `to` and returns how many were moved. After a failure
    /// the others are appended to `unsent`; writing them will return the error. If the bytes are
    /// not intact any more, the others are left in the pipe, which must then not be used again.
    pub(super) fn forward(
        &self,
        count: usize,
        to: BorrowedFd<'_>,
        is_intact: impl Fn() -> bool,
        unsent: &mut Vec<u8>,
    ) -> io::Result<usize> {
        let mut forwarded = 0;
        while forwarded < count {
            // Also after each wait for the reader of the output.
            if !is_intact() {
                return Ok(forwarded);
            }
            let len = count - forwarded;
            let flags = SpliceFlags::NONBLOCK;
            match retry_on_intr(|| rustix::pipe::splice(&self.reader, None, to, None, len, flags)) {
                Ok(moved @ 1..) => forwarded += moved,
                Err(Errno::AGAIN) => {
                    let mut fds = [PollFd::new(&to, PollFlags::OUT)];
                    retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
                }
                Ok(_) | Err(_) => break,
            }
        }
        (&self.reader)
            .take((count - forwarded) as u64)
            .read_to_end(unsent)?;
        Ok(forwarded)
    }
}
