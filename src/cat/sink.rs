//! Destination of the bytes.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use futures_lite::AsyncWrite;
use rustix::io::Errno;

use super::error::Error;
use super::pump::{Pump, WriterSink};
use super::report::Event;
use crate::atomic_file::{AtomicFile, InPlaceFile, Obstacle};
use crate::checksum::{self, Checksum};
use crate::descriptor;

/// Destination of the bytes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Sink {
    /// An open descriptor, such as standard output.
    Stream(OwnedFd),
    /// A file.
    File(FileSink),
    /// A writer, see [`Sink::writer`].
    Writer(WriterSink),
}

/// Output file.
///
/// Devices, FIFOs and descriptors (`/dev/fd/N`) are written into in every mode.
#[derive(Debug)]
pub struct FileSink {
    /// Path of the file. Symbolic links are followed.
    pub path: PathBuf,
    /// Effect on existing content.
    pub mode: WriteMode,
    /// Whether the file is replaced or appended to although an input failed, and replaced although
    /// an attribute cannot be kept. Implied by [`Config::follow`](super::Config::follow), which
    /// waits for missing files. Default: no.
    pub partial: bool,
    /// Whether a file is replaced that is not writable for this user. Default: no.
    pub force: bool,
    /// Whether the file is written to disk before the run ends. Default: no.
    pub fsync: bool,
    /// A stream to which all bytes are written as well. Default: none.
    pub tee: Option<OwnedFd>,
}

impl FileSink {
    /// Returns a sink with the defaults of all other fields.
    pub fn new(path: impl Into<PathBuf>, mode: WriteMode) -> Self {
        Self {
            path: path.into(),
            mode,
            partial: false,
            force: false,
            fsync: false,
            tee: None,
        }
    }
}

/// Effect on existing content of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteMode {
    /// A regular file is replaced atomically: a new file is written in the same folder and renamed
    /// when all inputs have been read to their end. Otherwise the old file stays. The new file gets
    /// owner (or else the group alone), mode, ACL and extended attributes of the old one; other
    /// hard links keep the old content. If that is not possible, the run fails before anything is
    /// read.
    #[default]
    Replace,
    /// The new content is collected in an unlinked file beside the old one, and copied into the old
    /// file when all inputs have been read to their end. This works for mounted files, in
    /// directories without write permission, and keeps hard links, but is not atomic. If copying
    /// fails, the error names a file with the new content. A missing file is created as by
    /// [`WriteMode::Replace`].
    InPlace {
        /// Directory for the new content if that of the file is not writable.
        spool_dir: PathBuf,
    },
    /// The bytes are appended, up to the first input that fails.
    Append,
}

/// An open output file or stream.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) fd: OwnedFd,
    /// `None` for a stream.
    pub(super) path: Option<PathBuf>,
}

/// Work that is left when all bytes have been written.
#[derive(Debug, Default)]
pub(super) struct Finish {
    pub(super) fsync: bool,
    replacement: Replacement,
    /// Path of the output file; none for a stream.
    path: Option<PathBuf>,
    /// Whether the file is written only if no input fails.
    is_all_or_nothing: bool,
    /// The thread that writes to the writer.
    pump: Option<Pump>,
}

/// Way in which the new content takes the place of the old one.
#[derive(Debug, Default)]
enum Replacement {
    /// It has been written already.
    #[default]
    None,
    Rename(AtomicFile),
    Copy(InPlaceFile),
}

impl Sink {
    /// Returns an output to an asynchronous writer, such as a socket, of any runtime. A thread writes
    /// to it until the run ends, and closes it at the end of a run that succeeds.
    pub fn writer(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::Writer(WriterSink::new(writer))
    }

    /// Returns whether opening may block: a FIFO waits for its reader, and so may a device.
    pub(super) fn open_may_block(&self) -> bool {
        match self {
            Self::Stream(_) | Self::Writer(_) => false,
            Self::File(sink) => fs::metadata(&sink.path).is_ok_and(|file| !file.is_file()),
        }
    }

    /// Opens all outputs. Calls `on_event` for attributes of an old file that cannot be kept.
    pub(super) fn open(
        self,
        is_endless: bool,
        on_event: &mut impl FnMut(Event),
    ) -> Result<(Vec<Target>, Finish), Error> {
        let mut sink = match self {
            Self::Stream(fd) => return Ok((vec![Target { fd, path: None }], Finish::default())),
            Self::Writer(writer) => {
                let opened = writer.open();
                let (fd, pump) = opened.map_err(|source| Error::Write { path: None, source })?;
                let target = Target {
                    fd: fd.into(),
                    path: None,
                };
                let finish = Finish {
                    pump: Some(pump),
                    ..Finish::default()
                };
                return Ok((vec![target], finish));
            }
            Self::File(sink) => sink,
        };
        sink.partial |= is_endless;
        let (fd, replacement) = sink.open(on_event)?;
        let mut targets = vec![Target {
            fd,
            path: Some(sink.path.clone()),
        }];
        targets.extend(sink.tee.map(|fd| Target { fd, path: None }));
        let finish = Finish {
            fsync: sink.fsync,
            replacement,
            path: Some(sink.path),
            is_all_or_nothing: !sink.partial,
            pump: None,
        };
        Ok((targets, finish))
    }
}

impl FileSink {
    fn open(&self, on_event: &mut impl FnMut(Event)) -> Result<(OwnedFd, Replacement), Error> {
        let path = &self.path;
        let written_into = match descriptor::open(path) {
            Some(fd) => Some(fd),
            None => self.open_into().transpose(),
        };
        if let Some(fd) = written_into {
            return Ok((
                fd.map_err(|error| self.create_error(error))?,
                Replacement::None,
            ));
        }
        let old = fs::metadata(path).ok();
        match (&self.mode, &old) {
            (WriteMode::InPlace { spool_dir }, Some(_)) => {
                let (file, in_place) = InPlaceFile::create(path, spool_dir)
                    .map_err(|error| self.create_error(error))?;
                Ok((file.into(), Replacement::Copy(in_place)))
            }
            _ => {
                if let Some(old) = &old {
                    self.check_replaceable(old)?;
                }
                let created = AtomicFile::create(path, old.as_ref());
                let (file, mut new) = created.map_err(|error| self.create_error(error))?;
                self.report_unkept(&mut new, on_event)?;
                Ok((file.into(), Replacement::Rename(new)))
            }
        }
    }

    /// Opens a file that is written into directly; none for one to be replaced.
    fn open_into(&self) -> io::Result<Option<OwnedFd>> {
        let mut options = OpenOptions::new();
        match fs::metadata(&self.path) {
            _ if self.mode == WriteMode::Append => options.append(true).create(true),
            Ok(file) if !file.is_file() => return descriptor::open_special(&self.path).map(Some),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => return Ok(None),
        };
        Ok(Some(options.open(&self.path)?.into()))
    }

    fn check_replaceable(&self, old: &Metadata) -> Result<(), Error> {
        match Obstacle::find(&self.path, old) {
            None => Ok(()),
            Some(Obstacle::ReadOnly) if self.force => Ok(()),
            Some(obstacle) => Err(Error::NotReplaceable {
                path: self.path.clone(),
                obstacle,
            }),
        }
    }

    fn report_unkept(
        &self,
        new: &mut AtomicFile,
        on_event: &mut impl FnMut(Event),
    ) -> Result<(), Error> {
        for unkept in new.unkept() {
            let is_fatal = !self.partial && !unkept.is_unsupported();
            let error = Error::AttributeNotKept {
                path: self.path.clone(),
                attribute: unkept.attribute,
                source: unkept.source,
            };
            if is_fatal {
                return Err(error);
            }
            on_event(Event::Warning(error));
        }
        Ok(())
    }

    fn create_error(&self, source: io::Error) -> Error {
        Error::Create {
            path: self.path.clone(),
            source,
        }
    }
}

impl Target {
    /// Returns the error of a failed write to this target.
    pub(super) fn write_error(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.path.clone(),
            source,
        }
    }

    /// Writes cached data to disk, if the target is on one.
    pub(super) fn fsync(&self) -> Result<(), Error> {
        match rustix::fs::fsync(&self.fd) {
            Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP) | Ok(()) => Ok(()),
            Err(error) => Err(self.write_error(error.into())),
        }
    }

    /// Closes the target. Some network file systems report write errors only then.
    pub(super) fn close(self) -> Result<(), Error> {
        let closed = nix::unistd::close(self.fd);
        closed.map_err(|error| Error::Write {
            path: self.path,
            source: error.into(),
        })
    }
}

impl Finish {
    /// Returns the path of the file that is written only if no input fails.
    pub(super) fn all_or_nothing(&self) -> Option<&Path> {
        if self.is_all_or_nothing {
            self.path.as_deref()
        } else {
            None
        }
    }

    /// Waits until the writer has got all bytes and is closed, after the end of its pipe. Returns
    /// its error in place of that of the pipe.
    pub(super) async fn finish_writer<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        let is_written = match &result {
            Ok(_) => true,
            Err(error) => error.is_broken_pipe(),
        };
        match self.pump.take() {
            Some(pump) if is_written => {
                let written = pump.finish().await;
                written.map_err(|source| Error::Write { path: None, source })?;
            }
            _ => {}
        }
        result
    }

    /// Returns the error of an unexpected checksum of the written bytes.
    pub(super) fn mismatch(&self, expected: &Checksum, found: &[u8]) -> Error {
        Error::ChecksumMismatch {
            path: self.path.clone(),
            algorithm: expected.algorithm(),
            expected: expected.hex(),
            found: checksum::hex(found),
        }
    }

    /// Replaces the old file with the new one, if a file is to be replaced.
    pub(super) fn commit(self) -> Result<(), Error> {
        match self.replacement {
            Replacement::None => Ok(()),
            Replacement::Rename(new) => {
                let path = new.path().to_owned();
                new.commit(self.fsync)
                    .map_err(|source| Error::Replace { path, source })
            }
            Replacement::Copy(new) => {
                let path = new.path().to_owned();
                new.commit(self.fsync)
                    .map_err(|source| Error::WriteInPlace { path, source })
            }
        }
    }
}
