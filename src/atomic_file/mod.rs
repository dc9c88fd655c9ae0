//! Atomic replacement of a file: the new file is written in the same directory, without a name
//! where the file system supports that (`O_TMPFILE`), and replaces the old one by a rename.

mod attributes;
mod in_place;
mod obstacle;
mod temporary;

use std::fs::{File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

pub use attributes::Attribute;
pub(crate) use attributes::UnkeptAttribute;
pub use in_place::InPlaceError;
pub(crate) use in_place::{InPlaceFile, copy_into};
pub use obstacle::Obstacle;
pub(crate) use temporary::{
    TemporaryFile, is_same, link_anonymous, lock_new, rename_to_free, write_options,
};

use temporary::{absolute_target, parent};

/// New file that replaces another one when it is complete. It is removed if it is dropped.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: TemporaryFile,
    path: PathBuf,
    /// Mode that writing may change, as the kernel then removes the set-user-ID and set-group-ID
    /// bits.
    special_mode: Option<u32>,
    unkept: Vec<UnkeptAttribute>,
}

impl AtomicFile {
    /// Creates a new file for `path`, which may be a symbolic link. It gets the owner, the mode, the
    /// ACL and the extended attributes of `old`, the existing file, as far as that is permitted:
    /// see `unkept`. Without an old file it gets the permissions of any new file.
    ///
    /// # Errors
    ///
    /// The I/O error of creating the file beside `path`.
    pub fn create(path: &Path, old: Option<&Metadata>) -> io::Result<(File, Self)> {
        let path = absolute_target(path)?;
        let options = write_options(old.is_none());
        let (file, temporary) = TemporaryFile::create_beside(&path, &options)?;
        let mut created = Self {
            temporary,
            path,
            special_mode: None,
            unkept: Vec::new(),
        };
        if let Some(old) = old {
            let kept = attributes::copy(&created.path, old, &file)?;
            created.special_mode = attributes::with_special_bits(kept.mode);
            created.unkept = kept.unkept;
        }
        Ok((file, created))
    }

    /// Returns the attributes of the old file that the new one does not have, as setting them
    /// failed. The owner is not among them if the group could be kept.
    pub(crate) fn unkept(&mut self) -> impl Iterator<Item = UnkeptAttribute> {
        self.unkept.drain(..)
    }

    /// Returns the absolute path of the file to be replaced.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the old file, and writes the rename to disk if `fsync`. Other processes open
    /// either the complete old file or the complete new one.
    ///
    /// # Errors
    ///
    /// The I/O error of linking, renaming or syncing. Before the rename, the old file is unchanged.
    pub fn commit(self, fsync: bool) -> io::Result<()> {
        if let Some(mode) = self.special_mode {
            self.temporary.set_mode(mode)?;
        }
        // Opened first, so that a failure keeps the old file.
        let directory = if fsync {
            Some(File::open(parent(&self.path)?)?)
        } else {
            None
        };
        self.temporary.rename_to(&self.path)?;
        directory.map_or(Ok(()), |directory| directory.sync_all())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_of_a_directory_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("missing/");
        let error = AtomicFile::create(&path, None).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
