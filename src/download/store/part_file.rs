//! What stands under the name of a part on the disk: made and locked, taken up again, or told from
//! what is none.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, open, rename, renameat_with};
use rustix::io::Errno;
use url::Url;

use crate::download::store::resume_state::{State, StateError, is_ours};

/// Whether anything has this name: a file, a folder, a symlink wherever it leads.
pub(crate) fn is_taken(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Whether a file is no part of ours: of one that holds bytes something is known.
pub(crate) fn is_foreign(path: &Path) -> bool {
    let holds_bytes = |data: fs::Metadata| data.is_file() && data.len() > 0;
    fs::symlink_metadata(path).is_ok_and(holds_bytes) && !State::is_there(path)
}

/// Makes and locks the part at `path`; `None` if someone else has it.
pub(crate) fn open_part(path: &Path) -> io::Result<Option<File>> {
    let mut made = false;
    loop {
        match create(path) {
            Ok(file) if lock_new(&file) => return Ok(Some(file)),
            // Another process took it for abandoned before it was locked.
            Ok(_) => {}
            Err(Errno::EXIST) if remove_abandoned(path) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(Errno::NOENT) if !made => {
                fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
                made = true;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

fn create(path: &Path) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

/// Locks a file just made, and looks whether it still has its name.
fn lock_new(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => file.metadata().is_ok_and(|data| data.nlink() > 0),
        Err(TryLockError::WouldBlock) => false,
        // A file system without locks: that the file was made new must do.
        Err(TryLockError::Error(_)) => true,
    }
}

/// Opens and locks the part at `path` as an earlier run has left it, with its length and state.
/// `None` if it is held, or nothing of ours.
pub(crate) fn reopen_part(
    path: &Path,
    url: &Url,
) -> Option<Result<(File, u64, State), StateError>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).ok()?);
    // Without locks nobody can tell whether it is held.
    if !is_ours(&file).ok()? || file.try_lock().is_err() || !is_same(&file, path) {
        return None;
    }
    let length = file.metadata().ok()?.len();
    Some(State::load(path, url).map(|state| (file, length, state)))
}

/// Removes the part at `path` if no transfer holds it, and tells whether the name may be free.
fn remove_abandoned(path: &Path) -> bool {
    // Neither a symlink is followed nor a FIFO waited for.
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(errno) => return errno == Errno::NOENT,
    };
    if !file.metadata().is_ok_and(|data| data.is_file()) || file.try_lock().is_err() {
        return false;
    }
    // The lock is on the file that was opened; the name may be another's by now.
    if !is_same(&file, path) {
        return true;
    }
    // First, for with the part go the rights to its other names.
    State::remove_unsaved(path);
    fs::remove_file(path).is_ok()
}

fn is_same(file: &File, path: &Path) -> bool {
    let id = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// Renames unless the new name is taken.
pub(crate) fn rename_to_free(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems cannot look and rename in one step.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if is_taken(to) => Err(Errno::EXIST),
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename(from, to),
        result => result,
    }
}
