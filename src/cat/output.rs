//! The open output: buffers small writes, and detects inputs that are also the output.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SocketType, sockopt};

use super::aligned_buffer::AlignedBuffer;
use super::error::Error;
use super::input::{Input, ReadResult};
use super::sink::Target;
use super::source::FileId;
use super::throttle::Throttle;
use super::zero_copy::{self, PipeRelay, Syscall};
use crate::checksum::{Algorithm, Hasher};

/// Number of buffered bytes that are written at once.
const WRITE_LEN: usize = 128 << 10;

/// All open output files, and the bytes to be written to them.
#[derive(Debug)]
pub(super) struct Output {
    files: Vec<OutputFile>,
    buffer: AlignedBuffer,
    /// Intermediate pipe from large files to a pipe; created on first use.
    relay: Option<PipeRelay>,
    throttle: Throttle,
    /// Whether an output is a terminal: nothing is buffered then.
    is_terminal: bool,
    /// Whether the first file is written only if no input fails.
    is_all_or_nothing: bool,
    bytes_written: u64,
    /// State of the checksum of the written bytes.
    hasher: Option<Hasher>,
}

#[derive(Debug)]
struct OutputFile {
    target: Target,
    id: FileId,
    file_type: FileType,
    is_append: bool,
    /// Whether it is a pipe whose capacity has not been increased.
    is_small_pipe: bool,
    /// Whether it is a socket that preserves the limits of messages: each write is a message.
    is_message_socket: bool,
}

impl Output {
    pub(super) fn new(
        targets: Vec<Target>,
        throttle: Throttle,
        is_all_or_nothing: bool,
        checksum: Option<Algorithm>,
    ) -> Result<Self, Error> {
        let files = targets
            .into_iter()
            .map(OutputFile::new)
            .collect::<Result<Vec<_>, _>>()?;
        let is_terminal = files
            .iter()
            .any(|file| rustix::termios::isatty(&file.target.fd));
        Ok(Self {
            files,
            buffer: AlignedBuffer::with_capacity(2 * WRITE_LEN),
            relay: None,
            throttle,
            is_terminal,
            is_all_or_nothing,
            bytes_written: 0,
            hasher: checksum.map(Hasher::new),
        })
    }

    /// Returns whether reading this input would read the copy's own output in an endless loop. A
    /// copy of a file onto itself that ends (`cat a b 1<>a`) is no loop, unless the output
    /// `can_grow` and so overtakes the read position.
    pub(super) fn would_loop(&mut self, input: &Input, can_grow: bool) -> Result<bool, Error> {
        if !self.files.iter().any(|file| file.id == input.id) {
            return Ok(false);
        }
        self.flush()?;
        Ok(self
            .files
            .iter()
            .any(|file| file.id == input.id && file.would_loop(input, can_grow)))
    }

    /// Returns whether a regular file or pipe is also an output.
    pub(super) fn is_output(&self, id: FileId) -> bool {
        let is_same = |file: &OutputFile| {
            file.id == id && matches!(file.file_type, FileType::RegularFile | FileType::Fifo)
        };
        self.files.iter().any(is_same)
    }

    /// Writes buffered bytes as far as the throttle permits. Returns the time of the next write
    /// if it has to be waited for.
    pub(super) fn write_throttled(&mut self) -> Result<Option<Instant>, Error> {
        if self.throttle.is_unlimited() {
            return Ok(None);
        }
        loop {
            let now = Instant::now();
            if let Some(next_write) = self.throttle.wait_until(now) {
                return Ok(Some(next_write));
            }
            let content = self.buffer.content();
            if content.is_empty() {
                return Ok(None);
            }
            let len = self.throttle.chunk_len(content);
            self.throttle.record(&content[..len], now);
            self.write(len)?;
        }
    }

    /// Returns the buffer, to which the next bytes are appended. At least [`WRITE_LEN`] bytes of
    /// its capacity are free.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.buffer.as_mut_vec()
    }

    /// Writes the buffer if it is full or if the input may block before more bytes are read.
    pub(super) fn write_buffered(&mut self, input_may_block: bool) -> Result<(), Error> {
        let is_full = self.buffer.content().len() >= WRITE_LEN;
        if is_full {
            self.files.iter_mut().for_each(OutputFile::enlarge_pipe);
        }
        let is_due = is_full || input_may_block || self.is_terminal;
        if is_due && self.throttle.is_unlimited() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Writes the buffer at the end of an input where two inputs must not share a message.
    pub(super) fn end_input(&mut self) -> Result<(), Error> {
        let has_messages = self.files.iter().any(|file| file.is_message_socket);
        if has_messages && self.throttle.is_unlimited() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Fails if an output pipe has no reader any more. Without this check, only the next write
    /// would fail.
    pub(super) fn check_readers(&self) -> Result<(), Error> {
        for OutputFile { target, .. } in &self.files {
            let mut fds = [PollFd::new(&target.fd, PollFlags::empty())];
            let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
            if polled.is_ok() && fds[0].revents().contains(PollFlags::ERR) {
                return Err(target.write_error(Errno::PIPE.into()));
            }
        }
        Ok(())
    }

    /// Closes a file that needs all inputs, as one has failed. Returns whether an output is left.
    pub(super) fn close_incomplete(&mut self) -> bool {
        if std::mem::take(&mut self.is_all_or_nothing) {
            self.files.remove(0);
        }
        !self.files.is_empty()
    }

    /// Returns the number of bytes written so far.
    pub(super) fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Moves bytes of the input to the output inside the kernel. Returns none where that is not
    /// possible.
    pub(super) fn transfer_from(
        &mut self,
        input: &mut Input,
    ) -> Result<Option<io::Result<ReadResult>>, Error> {
        let Some(syscall) = self.syscall_for(input) else {
            return Ok(None);
        };
        self.flush()?;
        self.files[0].enlarge_pipe();
        let needs_relay = syscall == Syscall::Splice && !input.may_block();
        if needs_relay && self.relay.is_none() {
            // Without a free descriptor for the relay, the bytes are moved directly.
            self.relay = PipeRelay::new().ok();
        }
        let relay = if needs_relay {
            self.relay.as_ref()
        } else {
            None
        };
        let target = &self.files[0].target;
        let to = target.fd.as_fd();
        let result = input.transfer(syscall, relay.map_or(to, PipeRelay::writer));
        let Ok(Some(ReadResult::Bytes(count))) = result else {
            return Ok(result.transpose());
        };
        let forwarded = match relay {
            Some(relay) => {
                let is_intact = || !input.is_truncated();
                relay.forward(count, to, is_intact, self.buffer.as_mut_vec())
            }
            None => Ok(count),
        };
        let forwarded = forwarded.map_err(|error| target.write_error(error))?;
        self.bytes_written += forwarded as u64;
        let sent = forwarded + self.buffer.content().len();
        if sent < count {
            // The rest in the pipe may have been cleared: it is read again.
            self.relay = None;
            return Ok(input
                .rewind(count - sent)
                .map(|()| (sent > 0).then_some(ReadResult::Bytes(sent)))
                .transpose());
        }
        Ok(Some(Ok(ReadResult::Bytes(count))))
    }

    /// Returns the system call that moves the next bytes of `input`, if there is only one output
    /// and it is neither throttled nor a terminal, and no checksum is computed.
    fn syscall_for(&self, input: &Input) -> Option<Syscall> {
        let [file] = &self.files[..] else {
            return None;
        };
        let needs_bytes = self.hasher.is_some() || !self.throttle.is_unlimited();
        if self.is_terminal || file.is_message_socket || needs_bytes {
            return None;
        }
        input.syscall_to(file.file_type)
    }

    /// Writes all buffered bytes.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.write(self.buffer.content().len())
    }

    fn write(&mut self, len: usize) -> Result<(), Error> {
        let bytes = &self.buffer.content()[..len];
        for file in &self.files {
            write_all(&file.target, bytes)?;
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.buffer.consume(len);
        self.bytes_written += len as u64;
        Ok(())
    }

    /// Closes all files, after writing them to disk if `fsync`. Returns the digest of the written bytes
    /// if there is one.
    pub(super) fn close(self, fsync: bool) -> Result<Option<Vec<u8>>, Error> {
        for OutputFile { target, .. } in self.files {
            if fsync {
                target.fsync()?;
            }
            target.close()?;
        }
        Ok(self.hasher.map(Hasher::finish))
    }
}

impl OutputFile {
    fn new(target: Target) -> Result<Self, Error> {
        let stat = rustix::fs::fstat(&target.fd);
        let stat = stat.map_err(|error| target.write_error(error.into()))?;
        let flags = rustix::fs::fcntl_getfl(&target.fd);
        let flags = flags.map_err(|error| target.write_error(error.into()))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let is_message_socket = file_type == FileType::Socket
            && sockopt::socket_type(&target.fd).is_ok_and(|found| found != SocketType::STREAM);
        Ok(Self {
            target,
            id: FileId::from_stat(&stat),
            file_type,
            is_append: flags.contains(OFlags::APPEND),
            is_small_pipe: file_type == FileType::Fifo,
            is_message_socket,
        })
    }

    /// Increases the capacity of a pipe, before the first large write.
    fn enlarge_pipe(&mut self) {
        if std::mem::take(&mut self.is_small_pipe) {
            zero_copy::enlarge_pipe(self.target.fd.as_fd());
        }
    }

    /// Returns whether reading `input`, which is the same file, would read the output.
    fn would_loop(&self, input: &Input, can_grow: bool) -> bool {
        match self.file_type {
            // Bytes would circulate in the pipe, and other readers would miss some of them.
            FileType::Fifo => true,
            FileType::RegularFile | FileType::BlockDevice => {
                if input.is_decompressed() {
                    return true;
                }
                let Ok(read_at) = rustix::fs::tell(input.fd()) else {
                    return true;
                };
                let Ok(written_at) = rustix::fs::tell(&self.target.fd) else {
                    return true;
                };
                let size = rustix::fs::fstat(input.fd()).map_or(0, |stat| stat.st_size as u64);
                let is_at_end = self.file_type == FileType::RegularFile && read_at >= size;
                let is_ahead = read_at < written_at || (can_grow && read_at == written_at);
                !is_at_end && (self.is_append || is_ahead)
            }
            _ => false,
        }
    }
}

/// Writes all bytes, also to a descriptor that another process has set to non-blocking.
fn write_all(to: &Target, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let result = match retry_on_intr(|| rustix::io::write(&to.fd, bytes)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                Ok(())
            }
            Err(Errno::AGAIN) => wait_writable(to),
            Err(error) => Err(error.into()),
        };
        result.map_err(|error| to.write_error(error))?;
    }
    Ok(())
}

fn wait_writable(to: &Target) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(to.fd.as_fd(), PollFlags::OUT)];
    retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}
