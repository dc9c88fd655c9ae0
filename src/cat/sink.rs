//! Destination of the bytes.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::error::Error;
use crate::atomic_file::AtomicFile;

/// Destination of the bytes.
#[derive(Debug)]
pub enum Sink {
    /// An open descriptor, such as standard output.
    Stream(OwnedFd),
    /// A file.
    File {
        /// Path of the file. Symbolic links are followed.
        path: PathBuf,
        /// Whether existing content is replaced or appended to.
        mode: WriteMode,
        /// Whether the file is written to disk before the run ends.
        fsync: bool,
        /// A stream to which all bytes are written as well.
        tee: Option<OwnedFd>,
    },
}

/// Effect on existing content of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WriteMode {
    /// A regular file is replaced atomically: a new file is written in the same folder and renamed
    /// when all inputs have been processed, including those that failed. If the run fails, the old
    /// file stays. The new file gets the mode and, where permitted, the owner of the old one;
    /// other hard links keep the old content. Devices and FIFOs are written into.
    #[default]
    Replace,
    /// The bytes are appended.
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
    replacement: Option<AtomicFile>,
}

impl Sink {
    /// Returns whether opening may block: a FIFO waits for its reader, and so may a device.
    pub(super) fn open_may_block(&self) -> bool {
        match self {
            Self::Stream(_) => false,
            Self::File { path, .. } => fs::metadata(path).is_ok_and(|file| !file.is_file()),
        }
    }

    /// Opens all outputs.
    pub(super) fn open(self) -> Result<(Vec<Target>, Finish), Error> {
        let (path, mode, fsync, tee) = match self {
            Self::Stream(fd) => return Ok((vec![Target { fd, path: None }], Finish::default())),
            Self::File {
                path,
                mode,
                fsync,
                tee,
            } => (path, mode, fsync, tee),
        };
        let opened = match mode {
            WriteMode::Append => open_append(&path).map(|fd| (fd, None)),
            WriteMode::Replace => open_replace(&path),
        };
        let (fd, replacement) = opened.map_err(|source| Error::Create {
            path: path.clone(),
            source,
        })?;
        let mut targets = vec![Target {
            fd,
            path: Some(path),
        }];
        targets.extend(tee.map(|fd| Target { fd, path: None }));
        Ok((targets, Finish { fsync, replacement }))
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
    /// Replaces the old file with the new one, if a file is to be replaced.
    pub(super) fn commit(self) -> Result<(), Error> {
        let Some(replacement) = self.replacement else {
            return Ok(());
        };
        let path = replacement.path().to_owned();
        replacement
            .commit(self.fsync)
            .map_err(|source| Error::Replace { path, source })
    }
}

fn open_append(path: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .into())
}

fn open_replace(path: &Path) -> io::Result<(OwnedFd, Option<AtomicFile>)> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            // Neither created nor truncated: a regular file may have taken its place since.
            let device = OpenOptions::new()
                .write(true)
                .custom_flags(OFlags::NOCTTY.bits() as i32)
                .open(path)?;
            return Ok((device.into(), None));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (file, replacement) = AtomicFile::create(path, old.as_ref())?;
    Ok((file.into(), Some(replacement)))
}
