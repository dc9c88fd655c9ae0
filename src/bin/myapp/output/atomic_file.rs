//! A file that gets its name when it is whole.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempPath;

use crate::exit_code::{Code, Failure};
use crate::output::stderr;

/// A file that is open, so that it can be written when there is something to write.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    /// What gets the name in the end; nothing for a device or a FIFO, which is written into.
    replacement: Option<TempPath>,
}

impl NewFile {
    /// Opens what will be, or take the place of, the file at `path`. Whatever keeps it from being
    /// written is told now, and an old file stays as it is until [`NewFile::write`].
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let opened = open(path);
        let (path, file, replacement) = opened.map_err(|error| failed("create", path, error))?;
        Ok(Self {
            path,
            file,
            replacement,
        })
    }

    /// Writes all of it, and gives it its name.
    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.file.write_all(bytes);
        let named = written.and_then(|()| match self.replacement {
            Some(replacement) => replacement.persist(&self.path).map_err(|error| error.error),
            None => Ok(()),
        });
        named.map_err(|error| failed("write", &self.path, error))
    }
}

fn open(path: &Path) -> io::Result<(PathBuf, File, Option<TempPath>)> {
    let (path, mode) = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            let file = File::options().write(true).open(path)?;
            return Ok((path.to_owned(), file, None));
        }
        // A link stays, and what it leads to is replaced.
        Ok(old) => (fs::canonicalize(path)?, old.permissions().mode()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), 0o666),
        Err(error) => return Err(error),
    };
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Errno::ISDIR.into());
    }
    let beside = path.with_file_name(format!(".myapp-{:016x}", fastrand::u64(..)));
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    Ok((path, file, Some(TempPath::try_from_path(beside)?)))
}

fn failed(tried: &str, path: &Path, error: io::Error) -> Failure {
    let context = format!("{tried} {}", stderr::path(path));
    Failure::new(Code::LocalFile, anyhow::Error::new(error).context(context))
}
