//! Open inputs.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_lite::future;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::compression::{MAX_MAGIC_LEN, Magic};
use super::decompress::{Decoder, DecompressThread};
use super::pump::Pump;
use super::source::{FileId, Source};
use super::zero_copy::{self, Syscall};

/// Maximum number of bytes that are read ahead from one input.
const MAX_READ_AHEAD_LEN: usize = 256 << 10;

/// Length of one read ahead of the input's turn, and the default capacity of a pipe.
const READ_CHUNK_LEN: usize = 64 << 10;

/// Minimum size of a regular file for zero-copy. Smaller files are gathered in the output buffer.
const MIN_ZERO_COPY_LEN: u64 = 128 << 10;

/// Kind of an input, by the way it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputKind {
    /// Regular file or block device: a read returns soon, and reading ahead gains nothing over the
    /// kernel's own read-ahead.
    Seekable,
    /// Pipe or socket: a read may wait for a writer, and unread data blocks the writer.
    Stream,
    /// Terminal or other character device: a read may wait and has side effects, so it is never
    /// read ahead.
    Device,
}

/// Result of a read that does not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadResult {
    /// Number of bytes read, at least one.
    Bytes(usize),
    /// No data is available yet.
    NotReady,
    /// The end of the input.
    Eof,
}

/// An open input.
#[derive(Debug)]
pub(super) struct Input {
    fd: Arc<OwnedFd>,
    pub(super) id: FileId,
    file_type: FileType,
    /// Time of the last change before it was opened.
    modified_at: (i64, u64),
    kind: InputKind,
    /// Whether the kernel may move the bytes directly to the output.
    zero_copy: bool,
    pub(super) opened_at: Instant,
    /// Bytes that were read ahead.
    read_ahead: Vec<u8>,
    /// Decoder of a compressed file.
    decoder: Option<Box<Decoder<SharedFd>>>,
    /// The thread that copies a reader to a pipe.
    pump: Option<Pump>,
    /// The thread that writes to the pipe `fd`, if a stream may be compressed.
    decompressor: Option<DecompressThread>,
    /// Time and result of the last read, if the end was reached or reading failed while reading
    /// ahead.
    end: Option<(Instant, io::Result<()>)>,
}

impl Input {
    /// Opens an input without waiting for a writer.
    pub(super) fn open(source: &Source) -> io::Result<Self> {
        let mut pump = None;
        let fd = match source {
            Source::Reader(reader) => {
                let (pipe, thread) = reader.open()?;
                pump = Some(thread);
                pipe.into()
            }
            Source::Path(path) => open_path(path)?,
            // A duplicate: standard input stays open when this input is closed.
            Source::Stdin => io::stdin().as_fd().try_clone_to_owned()?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let kind = match file_type {
            FileType::RegularFile | FileType::BlockDevice => InputKind::Seekable,
            FileType::Directory => return Err(Errno::ISDIR.into()),
            FileType::CharacterDevice => InputKind::Device,
            _ => InputKind::Stream,
        };
        Ok(Self {
            fd: Arc::new(fd),
            id: FileId::from_stat(&stat),
            file_type,
            modified_at: modified_at(&stat),
            kind,
            zero_copy: kind == InputKind::Stream || stat.st_size as u64 >= MIN_ZERO_COPY_LEN,
            opened_at: Instant::now(),
            read_ahead: Vec::new(),
            decoder: None,
            pump,
            decompressor: None,
            end: None,
        })
    }

    /// Decompresses the input if it is compressed. The format of a stream is detected by the
    /// decompression thread, as its first bytes may take any time; a terminal is never compressed.
    pub(super) fn decompressed(mut self, max_memory: u64) -> io::Result<Self> {
        match self.kind {
            InputKind::Device => {}
            InputKind::Seekable => {
                if self.is_compressed()? {
                    let file = SharedFd(Arc::clone(&self.fd));
                    self.decoder = Some(Box::new(Decoder::new(file, max_memory)));
                    self.zero_copy = false;
                }
            }
            InputKind::Stream => {
                let stream = self.fd.try_clone()?;
                let (pipe, decompressor) = DecompressThread::spawn(stream, max_memory)?;
                self.fd = Arc::new(pipe.into());
                self.file_type = FileType::Fifo;
                self.zero_copy = true;
                self.decompressor = Some(decompressor);
            }
        }
        Ok(self)
    }

    /// Returns whether `path` refers to another file than this regular file, which was opened by
    /// that name, or the file has been changed since.
    pub(super) fn is_outdated(&self, path: &Path) -> bool {
        self.file_type == FileType::RegularFile
            && rustix::fs::stat(path).map_or(true, |stat| {
                FileId::from_stat(&stat) != self.id || modified_at(&stat) != self.modified_at
            })
    }

    fn is_compressed(&self) -> io::Result<bool> {
        let mut head = [0; MAX_MAGIC_LEN];
        let position = rustix::fs::tell(&self.fd)?;
        let count = retry_on_intr(|| rustix::io::pread(&self.fd, &mut head, position))?;
        Ok(Magic::detect(&head[..count]).is_some())
    }

    /// Returns whether the bytes read are not those of the input.
    pub(super) fn is_decompressed(&self) -> bool {
        self.decoder.is_some() || self.decompressor.is_some()
    }

    /// Returns the result of the threads of this input, after the end of their pipe.
    fn finish_threads(&mut self) -> io::Result<()> {
        let decompressed = self
            .decompressor
            .take()
            .map_or(Ok(()), DecompressThread::join);
        // An error of the decompressor may be that of an incomplete input.
        if let Some(pump) = self.pump.take() {
            future::block_on(pump.finish())?;
        }
        decompressed
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Returns whether a read may have to wait.
    pub(super) fn may_block(&self) -> bool {
        self.kind != InputKind::Seekable
    }

    /// Returns whether more can be read ahead.
    pub(super) fn can_read_ahead(&self) -> bool {
        self.kind == InputKind::Stream
            && self.end.is_none()
            && self.read_ahead.len() < MAX_READ_AHEAD_LEN
    }

    /// Returns whether data can be appended after the end was read.
    pub(super) fn can_grow(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.file_type == FileType::Fifo
    }

    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_size as u64)
    }

    /// Sets the position at which the file is read next.
    pub(super) fn seek_to(&self, position: u64) -> io::Result<()> {
        rustix::fs::seek(&self.fd, SeekFrom::Start(position))?;
        Ok(())
    }

    /// Returns whether the input can be written now: it is seekable, has ended, or has a full
    /// read-ahead buffer.
    pub(super) fn is_ready(&self) -> bool {
        match self.kind {
            InputKind::Seekable => true,
            InputKind::Stream => !self.can_read_ahead(),
            InputKind::Device => false,
        }
    }

    /// Returns whether another input of this file would take bytes away from this one.
    pub(super) fn shares_stream(&self, id: FileId) -> bool {
        self.may_block() && self.id == id
    }

    /// Reads available bytes ahead of the input's turn.
    pub(super) fn read_ahead(&mut self) {
        self.read_ahead.reserve(READ_CHUNK_LEN);
        let read =
            retry_on_intr(|| rustix::io::read(&self.fd, spare_capacity(&mut self.read_ahead)));
        let result = match read {
            Ok(1..) | Err(Errno::AGAIN) => return,
            Ok(0) => Ok(()),
            Err(error) => Err(error.into()),
        };
        self.end = Some((Instant::now(), result));
    }

    /// Returns the time at which the end was read, for an input that has ended.
    pub(super) fn finished_at(&self) -> Instant {
        self.end
            .as_ref()
            .map_or_else(Instant::now, |(finished_at, _)| *finished_at)
    }

    /// Appends the bytes that were read ahead to `buffer`, or else reads into its free capacity
    /// if that is possible without waiting.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<ReadResult> {
        if !self.read_ahead.is_empty() {
            let bytes = std::mem::take(&mut self.read_ahead);
            buffer.extend_from_slice(&bytes);
            return Ok(ReadResult::Bytes(bytes.len()));
        }
        if let Some((_, result)) = &mut self.end {
            return std::mem::replace(result, Ok(())).map(|()| ReadResult::Eof);
        }
        if let Some(decoder) = &mut self.decoder {
            let len = buffer.len();
            buffer.resize(len + READ_CHUNK_LEN, 0);
            let count = decoder.read(&mut buffer[len..]);
            buffer.truncate(len + *count.as_ref().unwrap_or(&0));
            return Ok(match count? {
                0 => ReadResult::Eof,
                count => ReadResult::Bytes(count),
            });
        }
        if self.may_block() && !self.is_readable()? {
            return Ok(ReadResult::NotReady);
        }
        match retry_on_intr(|| rustix::io::read(&self.fd, spare_capacity(buffer))) {
            Ok(0) => self.finish_threads().map(|()| ReadResult::Eof),
            Ok(count) => Ok(ReadResult::Bytes(count)),
            Err(Errno::AGAIN) => {
                // Some files of /proc and /sys are regular by type and nevertheless block.
                if !self.may_block() {
                    self.kind = InputKind::Device;
                }
                Ok(ReadResult::NotReady)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the system call that moves the next bytes to an output of type `output`, if
    /// zero-copy is possible.
    pub(super) fn syscall_to(&self, output: FileType) -> Option<Syscall> {
        if self.zero_copy && self.read_ahead.is_empty() && self.end.is_none() {
            Syscall::between(self.file_type, output)
        } else {
            None
        }
    }

    /// Moves some bytes to `to` inside the kernel. Returns none if that fails; it is then not
    /// tried again for this input.
    pub(super) fn transfer(
        &mut self,
        syscall: Syscall,
        to: BorrowedFd<'_>,
    ) -> io::Result<Option<ReadResult>> {
        if self.may_block() && !self.is_readable()? {
            return Ok(Some(ReadResult::NotReady));
        }
        let count = syscall.transfer(self.fd(), to).unwrap_or_default();
        self.zero_copy = count > 0;
        if count == READ_CHUNK_LEN {
            // The pipe was full: with more capacity its writer can write larger chunks.
            zero_copy::enlarge_pipe(self.fd());
        }
        Ok(self.zero_copy.then_some(ReadResult::Bytes(count)))
    }

    /// Returns whether a regular file has become shorter than what was read of it.
    pub(super) fn is_truncated(&self) -> bool {
        let position = rustix::fs::tell(&self.fd);
        matches!((self.size(), position), (Ok(size), Ok(position)) if size < position)
    }

    /// Moves the position back by `count` bytes, which are then read without zero-copy.
    pub(super) fn rewind(&mut self, count: usize) -> io::Result<()> {
        self.zero_copy = false;
        rustix::fs::seek(&self.fd, SeekFrom::Current(-(count as i64)))?;
        Ok(())
    }

    /// Returns whether a read would return at once. Checked before each read, since a FIFO without
    /// a first writer would report its end.
    fn is_readable(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(retry_on_intr(|| rustix::event::poll(&mut fds, Some(&Timespec::default())))? > 0)
    }
}

/// Reader of a file that is also used by its [`Input`].
#[derive(Debug)]
struct SharedFd(Arc<OwnedFd>);

impl Read for SharedFd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

// The types of the fields differ between platforms.
#[allow(clippy::unnecessary_cast)]
fn modified_at(stat: &Stat) -> (i64, u64) {
    (stat.st_mtime as i64, stat.st_mtime_nsec as u64)
}

/// Opens a file for reading. A FIFO is opened at once, even without a writer.
fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open = |flags| retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    match open(flags | OFlags::NONBLOCK) {
        // Another process holds a lease on the file: a blocking open waits until it is released.
        Err(Errno::AGAIN) => Ok(open(flags)?),
        opened => Ok(opened?),
    }
}
