//! Compressed inputs: a thread each that reads one and writes what was in it into a pipe, which
//! then is read as any other stream, before its turn too.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use lzma_rust2::XzReader;
use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;

use crate::decompress::{self, CHUNK_LEN, copy, map_decode_error};

/// The most memory for the history of an xz file, in KiB; `xz -9` needs a quarter.
const XZ_MEMORY: u32 = 256 << 10;

/// A way of compressing, told by the first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Xz,
}

impl Format {
    /// The bytes that tell a format.
    pub(super) const MAGIC: usize = 6;

    pub(super) fn of(head: &[u8]) -> Option<Self> {
        match head {
            // RFC 1952, section 2.3.1; 8 is the only method there is.
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            // RFC 8878, sections 3.1.1 and 3.1.2: a frame, or one to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }

    fn unpack(self, from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Gzip => decompress::gzip(from, to),
            Self::Zstd => decompress::zstd(from, to),
            Self::Xz => copy(XzReader::new_mem_limit(from, true, XZ_MEMORY), to)
                .map_err(|error| map_decode_error("xz", error)),
        }
    }
}

/// The thread that unpacks an input.
#[derive(Debug)]
pub(super) struct Unpacking(thread::JoinHandle<io::Result<()>>);

impl Unpacking {
    /// Starts to unpack `input`, or to hand it on if it is not compressed. Reading the pipe to its
    /// end ends the thread, and so does closing it.
    pub(super) fn start(input: OwnedFd) -> io::Result<(PipeReader, Self)> {
        let (reader, mut writer) = io::pipe()?;
        let input = Waiting {
            input: input.into(),
            output: writer.try_clone()?,
        };
        let thread = thread::Builder::new()
            .name("unpack".to_owned())
            .spawn(move || unpack(input, &mut writer))?;
        Ok((reader, Self(thread)))
    }

    /// After the end of the pipe: whether all went well.
    pub(super) fn end(self) -> io::Result<()> {
        self.0
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the decoder failed")))
    }
}

fn unpack(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut head = Vec::with_capacity(Format::MAGIC);
    from.by_ref()
        .take(Format::MAGIC as u64)
        .read_to_end(&mut head)?;
    let format = Format::of(&head);
    let from = BufReader::with_capacity(CHUNK_LEN, Cursor::new(head).chain(from));
    match format {
        Some(format) => format.unpack(from, to),
        None => copy(from, to),
    }
}

/// An input that may have to be waited for, as long as somebody wants what is in it.
#[derive(Debug)]
struct Waiting {
    input: File,
    output: PipeWriter,
}

impl Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [
            PollFd::from_borrowed_fd(self.input.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::empty()),
        ];
        retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
        if !fds[1].revents().is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.input.read(buffer)
    }
}
