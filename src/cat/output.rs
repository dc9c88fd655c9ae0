//! The open output: gathers small pieces, writes them, and knows what would feed on it.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, retry_on_intr};

use super::error::Error;
use super::input::{FileId, Got, Input};
use super::sink::Target;
use super::throttle::Pace;
use super::zero_copy::{self, Relay, Way};

/// The bytes that are gathered before they are written.
const GATHERED: usize = 128 << 10;

/// All that is written to, and what is to be written.
#[derive(Debug)]
pub(super) struct Output {
    files: Vec<Written>,
    /// What waits to be written.
    pending: Vec<u8>,
    /// On the way of large files to a pipe; made when it is first needed.
    relay: Option<Relay>,
    pace: Pace,
    /// Whether somebody watches: nothing is gathered then.
    watched: bool,
    bytes: u64,
}

/// One that is written to.
#[derive(Debug)]
struct Written {
    target: Target,
    id: FileId,
    file_type: FileType,
    appends: bool,
    /// Whether it is a pipe as small as pipes are made.
    narrow: bool,
}

impl Output {
    pub(super) fn new(targets: Vec<Target>, pace: Pace) -> Result<Self, Error> {
        let files = targets
            .into_iter()
            .map(Written::new)
            .collect::<Result<Vec<_>, _>>()?;
        let watched = files
            .iter()
            .any(|file| rustix::termios::isatty(&file.target.fd));
        let pending = Vec::with_capacity(2 * GATHERED);
        Ok(Self {
            files,
            pending,
            relay: None,
            pace,
            watched,
            bytes: 0,
        })
    }

    /// Whether reading this input would read what has been written here, without end. A copy
    /// onto itself that ends (`cat a b 1<>a`) is none of these, unless `grows` and so overtakes
    /// the place where it reads.
    pub(super) fn feeds(&mut self, input: &Input, grows: bool) -> Result<bool, Error> {
        if !self.files.iter().any(|file| file.id == input.id) {
            return Ok(false);
        }
        self.flush()?;
        Ok(self
            .files
            .iter()
            .any(|file| file.id == input.id && file.feeds(input, grows)))
    }

    /// Writes what is pending, as much as the pace allows; tells until when to wait if it does
    /// not allow all of it now.
    pub(super) fn release(&mut self) -> Result<Option<Instant>, Error> {
        if self.pace.is_free() {
            return Ok(None);
        }
        loop {
            let now = Instant::now();
            if let Some(due) = self.pace.due(now) {
                return Ok(Some(due));
            }
            if self.pending.is_empty() {
                return Ok(None);
            }
            let piece = self.pace.piece(&self.pending);
            self.pace.wrote(&self.pending[..piece], now);
            self.write(piece)?;
        }
    }

    /// Where the next bytes are put. There is always room for at least [`GATHERED`].
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Writes what was put into the buffer, unless it can wait for more to come.
    pub(super) fn filled(&mut self, more_may_wait: bool) -> Result<(), Error> {
        let full = self.pending.len() >= GATHERED;
        if full {
            self.files.iter_mut().for_each(Written::widen);
        }
        let write = full || more_may_wait || self.watched;
        if write && self.pace.is_free() {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Fails when nobody reads any more, which else only the next write would tell.
    pub(super) fn still_read(&self) -> Result<(), Error> {
        for Written { target, .. } in &self.files {
            let mut fds = [PollFd::new(&target.fd, PollFlags::empty())];
            let polled = rustix::event::poll(&mut fds, Some(&Timespec::default()));
            if polled.is_ok() && fds[0].revents().contains(PollFlags::ERR) {
                return Err(Error::Write {
                    to: target.path.clone(),
                    source: Errno::PIPE.into(),
                });
            }
        }
        Ok(())
    }

    /// The bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Has the system move bytes of the input to the output, where it can and nothing is to be
    /// done with them on the way.
    pub(super) fn fetch(&mut self, input: &mut Input) -> Result<Option<io::Result<Got>>, Error> {
        if self.files.len() > 1 || !self.pace.is_free() || self.watched {
            return Ok(None);
        }
        let Some(way) = self
            .files
            .first()
            .and_then(|file| input.way_to(file.file_type))
        else {
            return Ok(None);
        };
        self.flush()?;
        self.files[0].widen();
        let relayed = way == Way::Splice && !input.may_wait();
        if relayed && self.relay.is_none() {
            // Without a descriptor for one it goes without.
            self.relay = Relay::new().ok();
        }
        let to = self.files[0].target.fd.as_fd();
        let relay = self.relay.as_ref().filter(|_| relayed);
        let got = input.send(way, relay.map_or(to, Relay::entry));
        if let Ok(Some(Got::Bytes(count))) = got {
            let handed_on = relay.map_or(Ok(count), |relay| {
                relay.hand_on(count, to, &mut self.pending)
            });
            let failed = |source| Error::Write {
                to: self.files[0].target.path.clone(),
                source,
            };
            self.bytes += handed_on.map_err(failed)? as u64;
        }
        Ok(got.transpose())
    }

    /// Writes all that is pending.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.write(self.pending.len())
    }

    fn write(&mut self, count: usize) -> Result<(), Error> {
        for file in &self.files {
            write_all(&file.target, &self.pending[..count])?;
        }
        self.pending.drain(..count);
        self.bytes += count as u64;
        Ok(())
    }

    /// Closes all.
    pub(super) fn close(self, fsync: bool) -> Result<(), Error> {
        for Written { target, .. } in self.files {
            if fsync {
                let to = target.path.clone();
                target
                    .sync()
                    .map_err(|source| Error::Write { to, source })?;
            }
            target.close()?;
        }
        Ok(())
    }
}

impl Written {
    fn new(target: Target) -> Result<Self, Error> {
        let told = rustix::fs::fstat(&target.fd)
            .and_then(|stat| Ok((stat, rustix::fs::fcntl_getfl(&target.fd)?)));
        match told {
            Err(error) => Err(Error::Write {
                to: target.path,
                source: error.into(),
            }),
            Ok((stat, flags)) => {
                let file_type = FileType::from_raw_mode(stat.st_mode);
                Ok(Self {
                    id: FileId::of(&stat),
                    file_type,
                    appends: flags.contains(OFlags::APPEND),
                    narrow: file_type == FileType::Fifo,
                    target,
                })
            }
        }
    }

    /// Prepares for many bytes.
    fn widen(&mut self) {
        if std::mem::take(&mut self.narrow) {
            zero_copy::widen(self.target.fd.as_fd());
        }
    }

    fn feeds(&self, input: &Input, grows: bool) -> bool {
        match self.file_type {
            // What goes round in a pipe never ends, and no other reader gets it whole.
            FileType::Fifo => true,
            FileType::RegularFile | FileType::BlockDevice => {
                // The same file, and yet read through a pipe: it is unpacked on the way.
                let Ok(read) = rustix::fs::tell(input.fd()) else {
                    return true;
                };
                let Ok(written) = rustix::fs::tell(&self.target.fd) else {
                    return true;
                };
                let size = rustix::fs::fstat(input.fd()).map_or(0, |stat| stat.st_size as u64);
                let at_end = self.file_type == FileType::RegularFile && read >= size;
                !at_end && (self.appends || read < written || (grows && read == written))
            }
            _ => false,
        }
    }
}

/// Writes all bytes, also to what somebody else has set to never wait.
fn write_all(to: &Target, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        let result = match retry_on_intr(|| rustix::io::write(&to.fd, bytes)) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                Ok(())
            }
            Err(Errno::AGAIN) => writable(to),
            Err(error) => Err(error.into()),
        };
        result.map_err(|source| Error::Write {
            to: to.path.clone(),
            source,
        })?;
    }
    Ok(())
}

fn writable(to: &Target) -> io::Result<()> {
    let mut fds = [PollFd::from_borrowed_fd(to.fd.as_fd(), PollFlags::OUT)];
    retry_on_intr(|| rustix::event::poll(&mut fds, None))?;
    Ok(())
}
