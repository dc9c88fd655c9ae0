//! Decompression threads. Each reads a compressed input and writes the decompressed bytes to a
//! pipe, which is read like any other stream.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use lzma_rust2::XzReader;
use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;

use crate::decompress::{self, CHUNK_LEN, copy, map_decode_error};

/// Memory limit of the xz decoder in KiB; `xz -9` needs a quarter of it.
const MAX_XZ_MEMORY_KIB: u32 = 256 << 10;

/// Compression format, detected by magic bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Gzip,
    Zstd,
    Xz,
}

impl Format {
    /// Length of the longest magic number.
    pub(super) const MAX_MAGIC_LEN: usize = 6;

    /// Returns the format of data that starts with `head`.
    pub(super) fn detect(head: &[u8]) -> Option<Self> {
        match head {
            // RFC 1952, section 2.3.1; 8 is the only compression method.
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            // RFC 8878, sections 3.1.1 and 3.1.2: a frame or a skippable frame.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Some(Self::Zstd),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }

    fn decompress(self, from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Gzip => decompress::gzip(from, to),
            Self::Zstd => decompress::zstd(from, to),
            Self::Xz => copy(XzReader::new_mem_limit(from, true, MAX_XZ_MEMORY_KIB), to)
                .map_err(|error| map_decode_error("xz", error)),
        }
    }
}

/// A thread that decompresses an input.
#[derive(Debug)]
pub(super) struct DecompressThread(thread::JoinHandle<io::Result<()>>);

impl DecompressThread {
    /// Starts a thread that decompresses `input`, or copies it if it is not compressed. The thread
    /// ends when the returned pipe is read to its end or closed.
    pub(super) fn spawn(input: OwnedFd) -> io::Result<(PipeReader, Self)> {
        let (reader, mut writer) = io::pipe()?;
        let input = InputUntilClosed {
            input: input.into(),
            output: writer.try_clone()?,
        };
        let thread = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn(move || decompress(input, &mut writer))?;
        Ok((reader, Self(thread)))
    }

    /// Returns the result of the thread, after the end of its pipe.
    pub(super) fn join(self) -> io::Result<()> {
        self.0
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the decoder failed")))
    }
}

fn decompress(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut head = Vec::with_capacity(Format::MAX_MAGIC_LEN);
    from.by_ref()
        .take(Format::MAX_MAGIC_LEN as u64)
        .read_to_end(&mut head)?;
    let format = Format::detect(&head);
    let from = BufReader::with_capacity(CHUNK_LEN, Cursor::new(head).chain(from));
    match format {
        Some(format) => format.decompress(from, to),
        None => copy(from, to),
    }
}

/// Reader of an input that stops waiting for data when the output pipe is closed.
#[derive(Debug)]
struct InputUntilClosed {
    input: File,
    output: PipeWriter,
}

impl Read for InputUntilClosed {
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
