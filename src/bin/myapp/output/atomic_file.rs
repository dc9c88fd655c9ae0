//! File that replaces another one atomically.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempPath;

use crate::exit_code::{Code, Failure};
use crate::output::stderr;

/// Output file that is opened early and replaces an old file when it is written.
#[derive(Debug)]
pub(crate) struct NewFile {
    path: PathBuf,
    file: File,
    /// Temporary file that is renamed; `None` for a device or a FIFO, which is written directly.
    replacement: Option<TempPath>,
}

impl NewFile {
    /// Creates a temporary file beside `path`. Most errors of a later write occur here; an old file
    /// stays unchanged until [`NewFile::write`].
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let opened = open(path);
        let (path, file, replacement) = opened.map_err(|error| failed("create", path, error))?;
        Ok(Self {
            path,
            file,
            replacement,
        })
    }

    /// Writes all bytes and renames the file.
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
        // A symbolic link stays; its target is replaced.
        Ok(old) => (fs::canonicalize(path)?, old.permissions().mode()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (path.to_owned(), 0o666),
        Err(error) => return Err(error),
    };
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Errno::ISDIR.into());
    }
    let temporary = path.with_file_name(format!(".myapp-{:016x}", fastrand::u64(..)));
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    Ok((path, file, Some(TempPath::try_from_path(temporary)?)))
}

fn failed(action: &str, path: &Path, error: io::Error) -> Failure {
    let context = format!("{action} {}", stderr::path(path));
    Failure::new(Code::LocalFile, anyhow::Error::new(error).context(context))
}
