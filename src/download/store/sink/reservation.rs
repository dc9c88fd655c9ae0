//! Disk space that is allocated ahead of the written bytes.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

/// Length of the space that is allocated at once.
const WINDOW_LEN: u64 = 64 << 20;

/// Distance from the end of the allocated space at which more is allocated.
const MIN_AHEAD: u64 = WINDOW_LEN / 2;

/// Length of a block in `st_blocks`.
const STAT_BLOCK_LEN: u64 = 512;

/// Space that is allocated for a file in windows, so that an incomplete file occupies little more
/// than its bytes.
#[derive(Debug)]
pub(super) struct Reservation {
    /// Expected length of the file.
    len: u64,
    /// End of the allocated space.
    end: u64,
}

impl Reservation {
    /// Checks that a file of `len` bytes fits on the disk, and allocates the first window from
    /// `position` on.
    pub(super) fn new(file: &File, position: u64, len: u64) -> rustix::io::Result<Self> {
        check_space(file, len)?;
        let mut reservation = Self { len, end: position };
        reservation.extend(file, position)?;
        Ok(reservation)
    }

    /// Allocates the next window if `position` is near the end of the allocated space.
    pub(super) fn extend(&mut self, file: &File, position: u64) -> rustix::io::Result<()> {
        if self.end >= self.len || position + MIN_AHEAD < self.end {
            return Ok(());
        }
        let start = self.end.max(position);
        let len = WINDOW_LEN.min(self.len.saturating_sub(start));
        self.end = start + len;
        if len == 0 {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::KEEP_SIZE, start, len) {
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno),
            // Not every file system supports it.
            _ => Ok(()),
        }
    }
}

/// Returns an error if the disk has too little space for a file of `len` bytes.
fn check_space(file: &File, len: u64) -> rustix::io::Result<()> {
    let (Ok(disk), Ok(metadata)) = (fstatvfs(file), file.metadata()) else {
        return Ok(());
    };
    let available = disk.f_bavail.saturating_mul(disk.f_frsize);
    let allocated = metadata.blocks().saturating_mul(STAT_BLOCK_LEN);
    // Some network file systems report no blocks at all.
    if disk.f_blocks > 0 && len > available.saturating_add(allocated) {
        return Err(Errno::NOSPC);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_allocated_in_windows() {
        let file = tempfile::tempfile().unwrap();
        let allocated = || file.metadata().unwrap().blocks() * STAT_BLOCK_LEN;
        let mut reservation = Reservation::new(&file, 0, 200 << 20).unwrap();
        // tmpfs and others may not support it; then nothing is allocated.
        let first = allocated();
        assert!(first <= WINDOW_LEN + (1 << 20), "{first}");
        reservation.extend(&file, MIN_AHEAD - 1).unwrap();
        assert_eq!(allocated(), first, "half of the window is left");
        for position in [MIN_AHEAD, 3 * MIN_AHEAD, 5 * MIN_AHEAD, 7 * MIN_AHEAD] {
            reservation.extend(&file, position).unwrap();
        }
        assert_eq!(reservation.end, 200 << 20);
        assert!(allocated() <= 201 << 20);
    }

    #[test]
    fn file_larger_than_the_disk_is_refused() {
        let file = tempfile::tempfile().unwrap();
        let error = Reservation::new(&file, 0, 1 << 60).unwrap_err();
        assert_eq!(error, Errno::NOSPC);
        assert_eq!(file.metadata().unwrap().blocks(), 0);
    }
}
