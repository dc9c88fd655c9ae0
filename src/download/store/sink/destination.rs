//! File or writer that receives the bytes.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use crate::download::error::Error;
use crate::download::store::marker::{CompleteMarker, Nonce};
use crate::download::store::tmpfile::AnonymousFile;

/// File or writer that receives the bytes.
pub(super) enum Destination {
    File {
        file: Arc<File>,
        /// Path of the part, which an anonymous file gets later.
        path: PathBuf,
        anonymous: Option<AnonymousFile>,
        /// Nonce of the part; `None` without extended attributes.
        nonce: Option<Nonce>,
    },
    /// Writer, whose bytes cannot be undone.
    Writer {
        writer: Box<dyn Write + Send>,
        /// Path of a FIFO or device.
        path: Option<PathBuf>,
    },
}

impl Destination {
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        match self {
            Self::File { file, .. } => Some(file),
            Self::Writer { .. } => None,
        }
    }

    /// Returns the path of the part, unless the file is anonymous.
    pub(super) fn part_path(&self) -> Option<&Path> {
        match self {
            Self::File {
                path,
                anonymous: None,
                ..
            } => Some(path),
            Self::File { .. } | Self::Writer { .. } => None,
        }
    }

    /// Returns the path and the nonce of the part, as which an anonymous file is linked first.
    /// Returns `None` of a writer.
    pub(super) fn link_part(&mut self) -> rustix::io::Result<Option<(&Path, Option<Nonce>)>> {
        match self {
            Self::File {
                file,
                path,
                anonymous,
                nonce,
            } => {
                if let Some(unlinked) = anonymous {
                    *nonce = Nonce::mark(file);
                    *path = unlinked.link_part(file)?;
                    *anonymous = None;
                }
                Ok(Some((path, *nonce)))
            }
            Self::Writer { .. } => Ok(None),
        }
    }

    /// Links an anonymous file under its final name, in its directory.
    pub(super) fn link_final(&self, name: &OsStr) -> rustix::io::Result<()> {
        match self {
            Self::File {
                file,
                anonymous: Some(anonymous),
                ..
            } => anonymous.link_final(file, name),
            Self::File { .. } | Self::Writer { .. } => Err(Errno::INVAL),
        }
    }

    /// Marks a file as complete.
    pub(super) fn mark_complete(&self, etag: Option<&str>) -> io::Result<()> {
        match self {
            Self::File { file, nonce, .. } => CompleteMarker::mark(file, *nonce, etag),
            Self::Writer { .. } => Ok(()),
        }
    }

    /// Writes bytes at `position`, at which a writer must be.
    pub(super) fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File { file, .. } => file.write_all_at(bytes, position),
            Self::Writer { writer, .. } => {
                writer.write_all(bytes)?;
                writer.flush()
            }
        }
    }

    /// Returns the error of a failed write.
    pub(super) fn write_error(&self, source: io::Error) -> Error {
        self.error("write", explain_file_size(source))
    }

    /// Returns the error of a failed action.
    pub(super) fn error(&self, action: &'static str, source: io::Error) -> Error {
        match self {
            Self::File { path, .. }
            | Self::Writer {
                path: Some(path), ..
            } => Error::file(action, path, source),
            Self::Writer { path: None, .. } => Error::WriteOutput { source },
        }
    }
}

/// Explains which limit the file exceeds: `EFBIG` stands for two.
fn explain_file_size(error: io::Error) -> io::Error {
    if Errno::from_io_error(&error) != Some(Errno::FBIG) {
        return error;
    }
    let text = match getrlimit(Resource::Fsize).current {
        Some(limit) => format!("file size limit of this process exceeded ({limit} bytes)"),
        None => "file too large for the file system".to_owned(),
    };
    io::Error::new(error.kind(), text)
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, .. } => f.debug_tuple("File").field(path).finish(),
            Self::Writer { .. } => f.write_str("Writer"),
        }
    }
}
