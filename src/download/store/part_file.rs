//! Files at the path of a part: creation, locking, and recognition of parts of earlier runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, retry_on_intr};
use url::Url;

use crate::download::store::marker::{Marker, MarkerLookup, Nonce};
use crate::download::store::resume_state::{ResumeState, StateError, is_own_file};

/// Returns whether a path exists: a file, a directory, or a symbolic link to anything.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Part that is open and locked.
#[derive(Debug)]
pub(crate) struct OpenPart {
    pub(crate) file: File,
    /// Nonce that its resume state must contain; `None` without extended attributes.
    pub(crate) nonce: Option<Nonce>,
}

/// Returns whether a part can be created at `path`: the names of the part and of its state do not
/// exist, or are files of this program.
pub(crate) fn is_available(path: &Path) -> bool {
    let is_part_available = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.is_file() && is_own_part(MarkerLookup::of_path(path), path),
        Err(_) => true,
    };
    is_part_available && ResumeState::is_name_available(path)
}

/// Returns whether a file at the path of a part was created by this program. Without extended
/// attributes, only its resume state shows that.
fn is_own_part(lookup: MarkerLookup, path: &Path) -> bool {
    match lookup {
        MarkerLookup::Found(Marker::Part(_)) => true,
        // The program was killed before it renamed the complete part.
        MarkerLookup::Found(Marker::Complete(marker)) => {
            marker.nonce().is_some() && ResumeState::nonce_of(path) == marker.nonce()
        }
        MarkerLookup::Missing => false,
        MarkerLookup::Unsupported => ResumeState::exists(path),
    }
}

/// Creates and locks the part at `path`. Returns `None` if another transfer or program has it.
pub(crate) fn create_part(path: &Path) -> io::Result<Option<OpenPart>> {
    let mut created_dir = false;
    loop {
        match create(path) {
            Ok(file) if lock_new(&file) => {
                let nonce = Nonce::mark(&file);
                return Ok(Some(OpenPart { file, nonce }));
            }
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
    retry_on_intr(|| open(path, flags, Mode::from_raw_mode(0o666))).map(File::from)
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
/// state, or `None` if it is locked or was not created by this user and program.
pub(crate) fn reopen_part(
    path: &Path,
    url: &Url,
) -> Option<Result<(OpenPart, u64, ResumeState), StateError>> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::empty()).ok()?);
    // Without locks, a part that is in use cannot be recognised.
    if !is_own_file(&file).ok()? || file.try_lock().is_err() || !is_same(&file, path) {
        return None;
    }
    let nonce = match MarkerLookup::of_file(&file) {
        MarkerLookup::Found(Marker::Part(nonce)) => Some(nonce),
        MarkerLookup::Found(Marker::Complete(marker)) => Some(marker.nonce()?),
        MarkerLookup::Unsupported => None,
        MarkerLookup::Missing => return None,
    };
    let length = file.metadata().ok()?.len();
    let state = match ResumeState::load(path, url) {
        Ok(state) if state.nonce != nonce => return Some(Err(StateError::OtherPart)),
        Ok(state) => state,
        Err(error) => return Some(Err(error)),
    };
    Some(Ok((OpenPart { file, nonce }, length, state)))
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
    is_own_part(MarkerLookup::of_file(&file), path) && fs::remove_file(path).is_ok()
}

fn is_same(file: &File, path: &Path) -> bool {
    let id = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}
