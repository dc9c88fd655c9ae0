//! Output file that is opened before a run and written after it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use myapp::internals::AtomicFile;

use crate::exit_code::{CommandError, ExitCode};
use crate::output::stderr;

/// Output file that is opened before a run. Most errors of the later write occur at once, and an
/// old file stays unchanged until [`ReportFile::write`].
#[derive(Debug)]
pub(crate) struct ReportFile {
    path: PathBuf,
    file: File,
    /// `None` for a device or a FIFO, which is written directly.
    replacement: Option<AtomicFile>,
}

impl ReportFile {
    /// Creates a temporary file beside `path`, or opens a device or a FIFO.
    pub(crate) fn create(path: &Path) -> Result<Self, CommandError> {
        let opened = open(path).map_err(|error| failed("create", path, error));
        let (file, replacement) = opened?;
        Ok(Self {
            path: path.to_owned(),
            file,
            replacement,
        })
    }

    /// Does the same for a file that only the owner may read.
    pub(crate) fn create_private(path: &Path) -> Result<Self, CommandError> {
        let file = Self::create(path)?;
        if file.replacement.is_some() {
            let private = Permissions::from_mode(0o600);
            let restricted = file.file.set_permissions(private);
            restricted.map_err(|error| failed("restrict", path, error))?;
        }
        Ok(file)
    }

    /// Writes all bytes and replaces the old file.
    pub(crate) fn write(mut self, bytes: &[u8]) -> Result<(), CommandError> {
        match self.write_all(bytes) {
            Ok(()) => self.commit(),
            Err(error) => Err(write_error(&self.path, error)),
        }
    }

    /// Replaces the old file by the bytes written so far.
    pub(crate) fn commit(self) -> Result<(), CommandError> {
        let replaced = match self.replacement {
            Some(replacement) => replacement.commit(false),
            None => Ok(()),
        };
        replaced.map_err(|error| write_error(&self.path, error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for ReportFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Wraps the error of a write.
pub(crate) fn write_error(path: &Path, error: io::Error) -> CommandError {
    failed("write", path, error)
}

fn open(path: &Path) -> io::Result<(File, Option<AtomicFile>)> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => return Ok((File::options().write(true).open(path)?, None)),
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let (file, replacement) = AtomicFile::create(path, old.as_ref())?;
    Ok((file, Some(replacement)))
}

fn failed(action: &str, path: &Path, error: io::Error) -> CommandError {
    let context = format!("{action} {}", stderr::path(path));
    CommandError::new(
        ExitCode::LocalFile,
        anyhow::Error::new(error).context(context),
    )
}
