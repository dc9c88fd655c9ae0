//! Version of a file on disk.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Identity, length and modification time of a file, which show whether it was changed or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileVersion {
    inode: u64,
    len: u64,
    /// Modification time in seconds and nanoseconds since 1970.
    modified: (i64, i64),
}

impl FileVersion {
    pub(crate) fn new(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// Returns whether this version of the file is still at `path`.
    pub(crate) fn is_at(&self, path: &Path) -> bool {
        let metadata = fs::symlink_metadata(path);
        metadata.is_ok_and(|metadata| metadata.is_file() && Self::new(&metadata) == *self)
    }
}
