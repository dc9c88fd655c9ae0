//! Reasons why a file cannot be replaced by a rename, detected in advance.

use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, accessat, statx};
use rustix::io::Errno;
use rustix::process::geteuid;
use rustix::thread::CapabilitySet;

use super::temporary::{absolute_target, parent};

/// Mode bit of a directory in which only owners may remove files (`S_ISVTX`).
const STICKY: u32 = 0o1000;

/// Reason why a file cannot be replaced by a rename.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// The file itself is mounted, for example into a container.
    MountPoint,
    /// The file is immutable, or may only be appended to (`chattr`).
    Immutable,
    /// The directory is not writable for this user.
    UnwritableDirectory,
    /// The directory is sticky, and file and directory belong to other users.
    StickyDirectory,
    /// The file is not writable for this user. A rename would nevertheless replace it.
    ReadOnly,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MountPoint => "it is a mount point",
            Self::Immutable => "it is immutable or append-only",
            Self::UnwritableDirectory => "its directory is not writable",
            Self::StickyDirectory => "its directory is sticky, and it belongs to another user",
            Self::ReadOnly => "it is read-only",
        })
    }
}

impl Obstacle {
    /// Returns the first obstacle to replacing `old`, the file at `path`, if there is one.
    pub(crate) fn find(path: &Path, old: &Metadata) -> Option<Self> {
        let path = absolute_target(path).ok()?;
        let directory = parent(&path).ok()?;
        let is_denied = |path: &Path| {
            accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ACCESS)
        };
        let attributes = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty());
        let attributes = attributes.map_or(StatxAttributes::empty(), |found| found.stx_attributes);
        if attributes.contains(StatxAttributes::MOUNT_ROOT) {
            Some(Self::MountPoint)
        } else if attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
            Some(Self::Immutable)
        } else if is_denied(directory) {
            Some(Self::UnwritableDirectory)
        } else if is_sticky(directory, old) {
            Some(Self::StickyDirectory)
        } else if is_denied(&path) {
            Some(Self::ReadOnly)
        } else {
            None
        }
    }
}

fn is_sticky(directory: &Path, old: &Metadata) -> bool {
    let Ok(directory) = fs::metadata(directory) else {
        return false;
    };
    let user = geteuid().as_raw();
    directory.mode() & STICKY != 0
        && directory.uid() != user
        && old.uid() != user
        && !may_act_as_owner()
}

fn may_act_as_owner() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER))
}
