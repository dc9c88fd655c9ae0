//! Outputs that are written into directly: descriptors (`/dev/fd/3`, `/dev/stdout`), FIFOs and
//! devices.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Maximum length of a chain of symbolic links, as in Linux.
const MAX_SYMLINKS: usize = 40;

/// Returns whether `path` refers to a descriptor, a FIFO or a device.
pub(crate) fn is_stream(path: &Path) -> bool {
    let is_special = |data: fs::Metadata| !data.is_file() && !data.is_dir();
    fs::metadata(path).is_ok_and(is_special) || descriptor_link(path).is_some()
}

/// Opens a FIFO or a device for writing. It is neither created nor truncated, because a regular
/// file may have taken its place. Opening a FIFO blocks until it has a reader.
pub(crate) fn open_special(path: &Path) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options
        .write(true)
        .custom_flags(OFlags::NOCTTY.bits() as i32);
    Ok(options.open(path)?.into())
}

/// Opens the descriptor for writing that `path` refers to; none if it refers to something else.
///
/// A descriptor of this process is duplicated, so that writing continues at its position. Opening
/// its path instead would start at position 0, and fails for a socket. One of another process is
/// opened by its path.
pub(crate) fn open(path: &Path) -> Option<io::Result<OwnedFd>> {
    let directory = fs::canonicalize("/proc/self/fd").ok()?;
    let link = descriptor_link(path)?;
    let own = link.strip_prefix(directory).ok();
    let number = own.and_then(|number| number.to_str()?.parse().ok());
    Some(match number {
        Some(number) => duplicate(number, &link),
        None => open_path(&link),
    })
}

/// Follows symbolic links to one in `/proc/PID/fd`, whose text is no path.
fn descriptor_link(path: &Path) -> Option<PathBuf> {
    let mut path = std::path::absolute(path).ok()?;
    for _ in 0..MAX_SYMLINKS {
        let link = fs::read_link(&path).ok()?;
        let directory = fs::canonicalize(path.parent()?).ok()?;
        if directory.starts_with("/proc") && directory.ends_with("fd") {
            return Some(directory.join(path.file_name()?));
        }
        path = directory.join(link);
    }
    None
}

fn duplicate(number: i32, link: &Path) -> io::Result<OwnedFd> {
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let fd = match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
        // Some containers do not permit the call.
        Err(Errno::PERM | Errno::NOSYS) => return open_path(link),
        fd => fd?,
    };
    if rustix::fs::fcntl_getfl(&fd)?.intersection(OFlags::ACCMODE) == OFlags::RDONLY {
        return Err(Errno::BADF.into());
    }
    Ok(fd)
}

fn open_path(link: &Path) -> io::Result<OwnedFd> {
    Ok(OpenOptions::new().append(true).open(link)?.into())
}
