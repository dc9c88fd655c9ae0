//! New content for a file that is written into, as it cannot be replaced.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};

use super::temporary::{TemporaryFile, absolute_target};
use crate::escape::Escaped;

/// Number of bytes copied at once.
const CHUNK_LEN: usize = 256 << 10;

/// New content of an existing file. It is collected in another file, and copied into the existing
/// one when it is complete. Owner, mode, links and attributes of the existing file stay as they
/// are.
#[derive(Debug)]
pub(crate) struct InPlaceFile {
    spool: TemporaryFile,
    content: File,
    target: File,
    path: PathBuf,
    /// Path whose directory and name the spool gets if it is kept.
    spool_path: PathBuf,
}

/// Failure to copy the new content into the file.
#[derive(Debug, thiserror::Error)]
#[error("{}the complete new content is in {}", if *is_mixed { "it may have old and new bytes; " } else { "" }, escaped(spool))]
pub struct InPlaceError {
    /// Whether the file may have been changed.
    pub is_mixed: bool,
    /// File with the complete new content.
    pub spool: PathBuf,
    /// The cause.
    pub source: io::Error,
}

impl InPlaceFile {
    /// Opens `path` for writing, and creates a file for its new content: in the same directory, or
    /// else in `spool_dir`.
    ///
    /// # Errors
    ///
    /// The I/O error of opening `path` or of creating the other file.
    pub(crate) fn create(path: &Path, spool_dir: &Path) -> io::Result<(File, Self)> {
        let target = OpenOptions::new().write(true).open(path)?;
        let path = absolute_target(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let create = |path: PathBuf| {
            let (content, spool) = TemporaryFile::create_beside(&path, &options)?;
            io::Result::Ok((content, spool, path))
        };
        let name = path.file_name().ok_or(Errno::ISDIR)?;
        let elsewhere = std::path::absolute(spool_dir)?.join(name);
        let (content, spool, spool_path) = create(path.clone()).or_else(|_| create(elsewhere))?;
        let file = content.try_clone()?;
        let in_place = Self {
            spool,
            content,
            target,
            path,
            spool_path,
        };
        Ok((file, in_place))
    }

    /// Returns the absolute path of the existing file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Copies the new content into the file, and writes it to disk if `fsync`. The other file has a
    /// name while that lasts, so that the content survives even if the process is killed.
    ///
    /// # Errors
    ///
    /// [`InPlaceError`], which names the file with the new content. The space is allocated first:
    /// if the disk is too full for it, the old content is unchanged.
    pub(crate) fn commit(mut self, fsync: bool) -> Result<(), InPlaceError> {
        let name = self.spool.into_named(&self.spool_path);
        let name = name.map_err(|source| InPlaceError {
            is_mixed: false,
            spool: self.spool_path,
            source,
        })?;
        let copied = copy_into(&mut self.content, &name, &mut self.target, fsync);
        if copied.is_err() {
            // The name is kept even if this fails.
            let _ = name.keep();
        }
        copied
    }
}

/// Replaces the content of `to` by that of `from`, the file at `path`, and writes it to disk if
/// `fsync`.
pub(crate) fn copy_into(
    from: &mut File,
    path: &Path,
    to: &mut File,
    fsync: bool,
) -> Result<(), InPlaceError> {
    let mut is_mixed = false;
    let copied = copy(from, to, &mut is_mixed);
    let synced = copied.and_then(|()| if fsync { to.sync_all() } else { Ok(()) });
    synced.map_err(|source| InPlaceError {
        is_mixed,
        spool: path.to_owned(),
        source,
    })
}

/// Replaces the content of `to`. Sets `is_mixed` before the first change.
fn copy(from: &mut File, to: &mut File, is_mixed: &mut bool) -> io::Result<()> {
    let len = from.metadata()?.len();
    if len > 0 {
        match retry_on_intr(|| fallocate(&*to, FallocateFlags::KEEP_SIZE, 0, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    *is_mixed = true;
    from.rewind()?;
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => to.write_all(&chunk[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    to.set_len(len)
}

fn escaped(path: &Path) -> impl std::fmt::Display + '_ {
    use std::os::unix::ffi::OsStrExt as _;
    Escaped(path.as_os_str().as_bytes())
}
