//! Files at the path of a part: creation, locking, and recognition of parts of earlier runs.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{Advice, CWD, Mode, OFlags, SeekFrom, fadvise, open, seek};
use rustix::io::{Errno, retry_on_intr};

use crate::atomic_file::{is_same, link_anonymous, lock_new};
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
    match fs::symlink_metadata(path) {
        Ok(metadata) => {
            let is_own = metadata.is_file() && is_own_part(MarkerLookup::of_path(path), path);
            is_own && (ResumeState::is_name_available(path) || ResumeState::is_lost(path))
        }
        Err(_) => ResumeState::is_name_available(path),
    }
}

/// Returns whether a file at the path of a part was created by this program. Without extended
/// attributes, only its resume state shows that.
fn is_own_part(lookup: MarkerLookup, path: &Path) -> bool {
    match lookup {
        MarkerLookup::Found(Marker::Part(_)) => true,
        // The program was killed before it renamed the complete part.
        MarkerLookup::Found(Marker::Complete(marker)) => {
            let is_state_own =
                || ResumeState::nonce_of(path) == marker.nonce() || ResumeState::is_lost(path);
            marker.nonce().is_some() && is_state_own()
        }
        MarkerLookup::Missing => false,
        MarkerLookup::Unsupported => ResumeState::exists(path),
    }
}

/// Returns whether the file at `path` was completed by this program, and was a part before.
pub(crate) fn was_part(path: &Path) -> bool {
    matches!(
        MarkerLookup::of_path(path),
        MarkerLookup::Found(Marker::Complete(marker)) if marker.nonce().is_some()
    )
}

/// Creates and locks the part at `path`. Returns `None` if another transfer or program has it.
pub(crate) fn create_part(path: &Path) -> io::Result<Option<OpenPart>> {
    let mut created_dir = false;
    loop {
        match create_marked(path).unwrap_or_else(|| create(path)) {
            Ok(Some(part)) => return Ok(Some(part)),
            // Another process removed it as abandoned before it was locked.
            Ok(None) => {}
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

/// Creates a part that is locked and marked before it has a name. If the program is killed between
/// these calls, nothing is left that a later run takes for a file of another program. Returns
/// `None` if the file system does not support that.
fn create_marked(path: &Path) -> Option<rustix::io::Result<Option<OpenPart>>> {
    let dir = match path.parent()? {
        dir if dir.as_os_str().is_empty() => Path::new("."),
        dir => dir,
    };
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file = File::from(open(dir, flags, Mode::from_raw_mode(0o666)).ok()?);
    // A file system without locks has none for another process either.
    let _ = file.try_lock();
    let nonce = Nonce::mark(&file);
    match link_anonymous(&file, CWD, path) {
        Ok(()) => Some(Ok(Some(OpenPart { file, nonce }))),
        Err(Errno::EXIST) => Some(Err(Errno::EXIST)),
        Err(_) => None,
    }
}

/// Creates, locks and marks a part. Returns `None` if it was removed meanwhile.
fn create(path: &Path) -> rustix::io::Result<Option<OpenPart>> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = retry_on_intr(|| open(path, flags, Mode::from_raw_mode(0o666))).map(File::from)?;
    if !lock_new(&file) {
        return Ok(None);
    }
    let nonce = Nonce::mark(&file);
    Ok(Some(OpenPart { file, nonce }))
}

/// Opens and locks the part that an earlier run left at `path`, and loads its state by `load`. Returns
/// it with its length and state, or `None` if it is locked or was not created by this user and
/// program.
pub(crate) fn reopen_part(
    path: &Path,
    load: impl FnOnce(&Path) -> Result<ResumeState, StateError>,
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
    let state = match load(path) {
        Ok(state) if state.nonce != nonce => return Some(Err(StateError::OtherPart)),
        Ok(state) => state,
        Err(error) => return Some(Err(error)),
    };
    let length = if state.ranges().is_some() {
        file.metadata().ok()?.len()
    } else {
        truncate_at_hole(&file).ok()?
    };
    Some(Ok((OpenPart { file, nonce }, length, state)))
}

/// Truncates a sequential part at its first hole, and returns its length. In a power cut, ext4
/// and btrfs may have written the length of a file, but not the bytes before it, which then read as zeros.
fn truncate_at_hole(file: &File) -> io::Result<u64> {
    // A page that was read since would hide the hole.
    let _ = fadvise(file, 0, None, Advice::DontNeed);
    let length = file.metadata()?.len();
    // Fails for an empty file, and on a file system that cannot tell holes from bytes.
    let hole = seek(file, SeekFrom::Hole(0)).unwrap_or(length);
    if hole < length {
        file.set_len(hole)?;
    }
    Ok(hole.min(length))
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
    if !is_own_part(MarkerLookup::of_file(&file), path) {
        return false;
    }
    ResumeState::remove_or_lost(path, || true);
    fs::remove_file(path).is_ok()
}
