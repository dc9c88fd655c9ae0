//! An input: named, then opened.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Stat};
use rustix::io::{Errno, retry_on_intr};

use super::decompress::{Format, Unpacking};
use super::zero_copy::{self, Way};
use crate::escape::Escaped;

/// Of an input that has this much in store nothing more is read before its turn.
const READ_AHEAD: usize = 256 << 10;

/// The room for one read of an input before its turn: what a pipe holds.
const PIECE: usize = 64 << 10;

/// Of a smaller file the bytes are gathered with those of others.
const LARGE: u64 = 128 << 10;

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file, FIFO or device.
    Path(PathBuf),
    /// The process's standard input, read on from where it stands. It may come several times, as
    /// in any `cat`.
    Stdin,
}

impl From<OsString> for Source {
    /// As on a command line: `-` is the standard input.
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
        }
    }
}

/// What tells two open files apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    // The fields' types differ from system to system.
    #[allow(clippy::unnecessary_cast)]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
        }
    }

    /// Of what would be opened.
    pub(super) fn of_source(source: &Source) -> io::Result<Self> {
        let stat = match source {
            Source::Path(path) => rustix::fs::stat(path)?,
            Source::Stdin => rustix::fs::fstat(io::stdin())?,
        };
        Ok(Self::of(&stat))
    }
}

/// How an input is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Regular files and disks: a read returns soon, and each place can be read when its turn
    /// has come.
    Steady,
    /// Pipes and sockets: a read may wait for a writer, and what is not read holds the writer up.
    Stream,
    /// Terminals and other character devices: a read may wait, and has effects, so it is never
    /// done before its turn.
    Device,
}

/// What a try to read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    NotReady,
    /// Nothing any more.
    End,
}

/// An open input.
#[derive(Debug)]
pub(super) struct Input {
    fd: OwnedFd,
    pub(super) id: FileId,
    file_type: FileType,
    kind: Kind,
    /// Whether the system may move its bytes to the output by itself.
    direct: bool,
    pub(super) opened: Instant,
    /// What was read before its turn.
    ahead: Vec<u8>,
    /// The thread that fills the pipe that is read, if the input is compressed.
    unpacking: Option<Unpacking>,
    /// How reading ended, if it did before its turn.
    end: Option<(Instant, io::Result<()>)>,
}

impl Input {
    /// Opens an input without waiting for anybody.
    pub(super) fn open(source: &Source) -> io::Result<Self> {
        let fd = match source {
            Source::Path(path) => open_path(path)?,
            // A copy: the standard input stays open when this input is closed.
            Source::Stdin => io::stdin().as_fd().try_clone_to_owned()?,
        };
        let stat = rustix::fs::fstat(&fd)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let kind = match file_type {
            FileType::RegularFile | FileType::BlockDevice => Kind::Steady,
            FileType::Directory => return Err(Errno::ISDIR.into()),
            FileType::CharacterDevice => Kind::Device,
            _ => Kind::Stream,
        };
        let (id, opened) = (FileId::of(&stat), Instant::now());
        let direct = kind == Kind::Stream || stat.st_size as u64 >= LARGE;
        let (ahead, unpacking, end) = (Vec::new(), None, None);
        Ok(Self {
            fd,
            id,
            file_type,
            kind,
            direct,
            opened,
            ahead,
            unpacking,
            end,
        })
    }

    /// Reads from now on what is in the input, if that is compressed. Of a stream only a thread
    /// can tell, for that may take any time; a terminal is never compressed.
    pub(super) fn unpacked(self) -> io::Result<Self> {
        let unpack = match self.kind {
            Kind::Stream => true,
            Kind::Steady => self.begins_compressed()?,
            Kind::Device => false,
        };
        if !unpack {
            return Ok(self);
        }
        let (pipe, unpacking) = Unpacking::start(self.fd)?;
        let (fd, file_type, kind) = (pipe.into(), FileType::Fifo, Kind::Stream);
        Ok(Self {
            fd,
            file_type,
            kind,
            direct: true,
            unpacking: Some(unpacking),
            ..self
        })
    }

    fn begins_compressed(&self) -> io::Result<bool> {
        let mut head = [0; Format::MAGIC];
        let at = rustix::fs::tell(&self.fd)?;
        let count = retry_on_intr(|| rustix::io::pread(&self.fd, &mut head, at))?;
        Ok(Format::of(&head[..count]).is_some())
    }

    /// At the end of what can be read: whether that was all.
    fn ended(&mut self) -> io::Result<()> {
        self.unpacking.take().map_or(Ok(()), Unpacking::end)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether a read may have to wait.
    pub(super) fn may_wait(&self) -> bool {
        self.kind != Kind::Steady
    }

    /// Whether more can be read before its turn.
    pub(super) fn has_room(&self) -> bool {
        self.kind == Kind::Stream && self.end.is_none() && self.ahead.len() < READ_AHEAD
    }

    /// Whether more can come after its end.
    pub(super) fn can_grow(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    /// Whether a regular file that was read to its end is now longer, or shorter: then it is read
    /// from its start, for it has been written anew.
    pub(super) fn has_changed(&self) -> bool {
        let (Ok(stat), Ok(at)) = (rustix::fs::fstat(&self.fd), rustix::fs::tell(&self.fd)) else {
            return false;
        };
        let size = stat.st_size as u64;
        let cut = size < at && rustix::fs::seek(&self.fd, SeekFrom::Start(0)).is_ok();
        (cut && size > 0) || size > at
    }

    /// Whether its turn can come without waiting for more of it, however long it is.
    pub(super) fn is_ready_whole(&self) -> bool {
        self.kind == Kind::Steady || (self.kind == Kind::Stream && !self.has_room())
    }

    /// Whether another input that reads the same file would take bytes from this one.
    pub(super) fn competes_for(&self, id: FileId) -> bool {
        self.may_wait() && self.id == id
    }

    /// Reads what has come, before its turn.
    pub(super) fn read_ahead(&mut self) {
        self.ahead.reserve(PIECE);
        let result =
            match retry_on_intr(|| rustix::io::read(&self.fd, spare_capacity(&mut self.ahead))) {
                Ok(1..) | Err(Errno::AGAIN) => return,
                Ok(0) => Ok(()),
                Err(error) => Err(error.into()),
            };
        self.end = Some((Instant::now(), result));
    }

    /// When its last byte was read, once it has been.
    pub(super) fn read_to_end(&self) -> Instant {
        self.end.as_ref().map_or_else(Instant::now, |(at, _)| *at)
    }

    /// Appends to `buffer` what was read before, or else what fits into its free capacity, if
    /// that can be read without waiting.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<Got> {
        if !self.ahead.is_empty() {
            let kept = std::mem::take(&mut self.ahead);
            buffer.extend_from_slice(&kept);
            return Ok(Got::Bytes(kept.len()));
        }
        if let Some((_, result)) = &mut self.end {
            return std::mem::replace(result, Ok(())).map(|()| Got::End);
        }
        if self.may_wait() && !self.is_ready()? {
            return Ok(Got::NotReady);
        }
        match retry_on_intr(|| rustix::io::read(&self.fd, spare_capacity(buffer))) {
            Ok(0) => self.ended().map(|()| Got::End),
            Ok(count) => Ok(Got::Bytes(count)),
            Err(Errno::AGAIN) => {
                // Also some files of /proc and /sys that call themselves regular.
                self.kind = if self.may_wait() {
                    self.kind
                } else {
                    Kind::Device
                };
                Ok(Got::NotReady)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The way for its next bytes to such an output, without passing through our memory.
    pub(super) fn way_to(&self, output: FileType) -> Option<Way> {
        let direct = self.direct && self.ahead.is_empty() && self.end.is_none();
        direct
            .then(|| Way::between(self.file_type, output))
            .flatten()
    }

    /// Has the system move some bytes; none if that fails, which is not tried again.
    pub(super) fn send(&mut self, way: Way, to: BorrowedFd<'_>) -> io::Result<Option<Got>> {
        if self.may_wait() && !self.is_ready()? {
            return Ok(Some(Got::NotReady));
        }
        let moved = way.go(self.fd(), to).unwrap_or_default();
        self.direct = moved > 0;
        if moved == PIECE {
            // It was full: who writes to it can do so in larger pieces.
            zero_copy::widen(self.fd());
        }
        Ok(self.direct.then_some(Got::Bytes(moved)))
    }

    /// Whether a read would return at once. Asked before each read: a FIFO that nobody has opened
    /// for writing yet would tell its end.
    fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        Ok(retry_on_intr(|| rustix::event::poll(&mut fds, Some(&Timespec::default())))? > 0)
    }
}

/// Opens for reading. A FIFO opens at once, before its first writer.
fn open_path(path: &PathBuf) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    let open = |flags| retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    match open(flags | OFlags::NONBLOCK) {
        // Somebody holds a lease on the file: the system asks for it back while we wait.
        Err(Errno::AGAIN) => Ok(open(flags)?),
        opened => Ok(opened?),
    }
}
