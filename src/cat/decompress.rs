//! Decompression of inputs. A file is decompressed as it is read. A pipe, whose reads may wait, is
//! decompressed by a thread, which writes to a pipe that is read like any other stream.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::thread;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::XzReader;
use rustix::event::{PollFd, PollFlags};
use rustix::io::retry_on_intr;

use super::compression::{Format, MAX_MAGIC_LEN, Magic};
use super::peek_reader::PeekReader;
use crate::decompress::{BinarySize, ZstdFrame, copy, map_decode_error};

/// Reader that decompresses an input of one format, or copies one that is not compressed.
#[derive(Debug)]
pub(super) struct Decoder<R: Read> {
    state: State<R>,
    /// `None` before the first stream.
    format: Option<Format>,
    max_memory: u64,
}

/// Position in the input. A compressed file is a sequence of streams (RFC 1952 and xz: members and
/// streams; RFC 8878: frames).
enum State<R: Read> {
    /// At the start, or after a stream.
    BetweenStreams(PeekReader<R>),
    NotCompressed(PeekReader<R>),
    Gzip(Box<GzDecoder<PeekReader<R>>>),
    Bzip2(BzDecoder<PeekReader<R>>),
    Zstd(Box<ZstdFrame<PeekReader<R>>>),
    Xz(Box<XzReader<PeekReader<R>>>),
    AtEnd,
}

impl<R: Read> Decoder<R> {
    /// `max_memory` limits the history of zstd and xz, which the input determines.
    pub(super) fn new(input: R, max_memory: u64) -> Self {
        Self {
            state: State::BetweenStreams(PeekReader::new(input)),
            format: None,
            max_memory,
        }
    }

    /// Begins the next stream, if there is one.
    fn begin_stream(&mut self, mut input: PeekReader<R>) -> io::Result<State<R>> {
        let Some(format) = self.format else {
            return match Magic::detect(input.peek(MAX_MAGIC_LEN)?) {
                None => Ok(State::NotCompressed(input)),
                Some(Magic::Unsupported(name)) => {
                    let text = format!("{name} data, which cannot be decompressed");
                    Err(io::Error::new(io::ErrorKind::Unsupported, text))
                }
                Some(Magic::Supported(format)) => {
                    self.format = Some(format);
                    Ok(self.decode(format, input))
                }
            };
        };
        // Padding, of tapes and of xz.
        if !input.skip_zeros()? {
            return Ok(State::AtEnd);
        }
        let head = input.peek(MAX_MAGIC_LEN)?;
        if Magic::detect(head) == Some(Magic::Supported(format)) {
            Ok(self.decode(format, input))
        } else {
            let text = format!(
                "{} data is complete, trailing garbage ignored",
                format.name()
            );
            Err(io::Error::new(io::ErrorKind::InvalidData, text))
        }
    }

    fn decode(&self, format: Format, input: PeekReader<R>) -> State<R> {
        match format {
            Format::Gzip => State::Gzip(Box::new(GzDecoder::new(input))),
            Format::Bzip2 => State::Bzip2(BzDecoder::new(input)),
            Format::Zstd => State::Zstd(Box::new(ZstdFrame::new(input, self.max_memory))),
            Format::Xz => {
                let max_memory = u32::try_from(self.max_memory >> 10).unwrap_or(u32::MAX);
                State::Xz(Box::new(XzReader::new_mem_limit(input, false, max_memory)))
            }
        }
    }

    fn map_error(&self, error: io::Error) -> io::Error {
        let name = self.format.map_or("compressed", Format::name);
        if error.kind() == io::ErrorKind::OutOfMemory && self.format == Some(Format::Xz) {
            let limit = BinarySize(self.max_memory);
            let text = format!("more memory than the limit of {limit}");
            return map_decode_error(name, io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        map_decode_error(name, error)
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = match &mut self.state {
                State::BetweenStreams(_) => Ok(0),
                State::NotCompressed(input) => return input.read(buffer),
                State::Gzip(stream) => stream.read(buffer),
                State::Bzip2(stream) => stream.read(buffer),
                State::Zstd(stream) => stream.read(buffer),
                State::Xz(stream) => stream.read(buffer),
                State::AtEnd => return Ok(0),
            };
            let count = count.map_err(|error| self.map_error(error))?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            let ended = std::mem::replace(&mut self.state, State::AtEnd);
            if let Some(input) = ended.into_input() {
                self.state = self.begin_stream(input)?;
            }
        }
    }
}

impl<R: Read> State<R> {
    fn into_input(self) -> Option<PeekReader<R>> {
        match self {
            Self::BetweenStreams(input) | Self::NotCompressed(input) => Some(input),
            Self::Gzip(stream) => Some(stream.into_inner()),
            Self::Bzip2(stream) => Some(stream.into_inner()),
            Self::Zstd(stream) => Some(stream.into_inner()),
            Self::Xz(stream) => Some(stream.into_inner()),
            Self::AtEnd => None,
        }
    }
}

impl<R: Read> std::fmt::Debug for State<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// A thread that decompresses a stream.
#[derive(Debug)]
pub(super) struct DecompressThread(thread::JoinHandle<io::Result<()>>);

impl DecompressThread {
    /// Starts a thread that decompresses `input`, or copies it if it is not compressed. The thread
    /// ends when the returned pipe is read to its end or closed.
    pub(super) fn spawn(input: OwnedFd, max_memory: u64) -> io::Result<(PipeReader, Self)> {
        let (reader, mut writer) = io::pipe()?;
        let input = InputUntilClosed {
            input: input.into(),
            output: writer.try_clone()?,
        };
        let thread = thread::Builder::new()
            .name("decompress".to_owned())
            .spawn(move || copy(Decoder::new(input, max_memory), &mut writer))?;
        Ok((reader, Self(thread)))
    }

    /// Returns the result of the thread, after the end of its pipe.
    pub(super) fn join(self) -> io::Result<()> {
        self.0
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the decoder failed")))
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
