//! Files at the path of a part: creation, locking, and recognition of parts of earlier runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, rename, renameat_with};
use rustix::io::Errno;
use url::Url;

use crate::download::store::resume_state::{ResumeState, StateError, is_own_file};

/// Returns whether a path exists: a file, a directory, or a symbolic link to anything.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Returns whether the file belongs to another program: a part with bytes has a resume state.
pub(crate) fn is_foreign(path: &Path) -> bool {
    let has_bytes = |data: fs::Metadata| data.is_file() && data.len() > 0;
    fs::symlink_metadata(path).is_ok_and(has_bytes) && !ResumeState::exists(path)
}

/// Creates and locks the part at `path`. Returns `None` if another transfer or program has it.
pub(crate) fn open_part(path: &Path) -> io::Result<Option<File>> {
    let mut created_dir = false;
    loop {
        match create(path) {
            Ok(file) if lock_new(&file) => return Ok(Some(file)),
            // Another process removed it as abandoned before it was locked.
            Ok(_) => {}
            Err(Errno::EXIST) if remove_abandoned(path) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(Errno::NOENT) if !created_dir => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
                created_dir = true;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn create(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// Locks a file that was just created. Returns whether it still has its name.
fn lock_new(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => file.metadata().is_ok_and(|data| data.nlink() > 0),
        Err(TryLockError::WouldBlock) => false,
        // On a file system without locks, exclusive creation has to suffice.
        Err(TryLockError::Error(_)) => true,
    }
}

/// Opens and locks the part that an earlier run left at `path`. Returns it with its length and
/// state, or `None` if it is locked or does not belong to this user.
pub(crate) fn reopen_part(
    path: &Path,
    url: &Url,
) -> Option<Result<(File, u64, ResumeState), StateError>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).ok()?);
    // Without locks, a part that is in use cannot be recognised.
    if !is_own_file(&file).ok()? || file.try_lock().is_err() || !is_same(&file, path) {
        return None;
    }
    let length = file.metadata().ok()?.len();
    Some(ResumeState::load(path, url).map(|state| (file, length, state)))
}

/// Removes the part at `path` if no transfer has locked it. Returns whether the name may be free.
fn remove_abandoned(path: &Path) -> bool {
    // Symbolic links are not followed, and opening a FIFO does not block.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(errno) => return errno == Errno::NOENT,
    };
    if !file.metadata().is_ok_and(|data| data.is_file()) || file.try_lock().is_err() {
        return false;
    }
    // The lock is on the opened file; another file may have its name by now.
    if !is_same(&file, path) {
        return true;
    }
    // First, because the lock of the part covers the names beside it.
    ResumeState::remove_unsaved(path);
    fs::remove_file(path).is_ok()
}

fn is_same(file: &File, path: &Path) -> bool {
    let id = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// Renames a file unless the new path exists.
pub(crate) fn rename_to_free(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not support an atomic rename to a free name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if exists(to) => Err(Errno::EXIST),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename(from, to),
        result => result,
    }
}
