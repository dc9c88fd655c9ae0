//! Paths that this run has used.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::download::store::filename::{numbered_path, part_path};
use crate::download::store::part_file::exists;

/// Paths that this run has used, which distinguishes its own files from those of earlier runs.
/// Takes eight bytes per path.
#[derive(Debug, Default)]
pub(super) struct UsedPaths {
    hashes: Mutex<HashSet<u64>>,
    hasher: RandomState,
}

impl UsedPaths {
    /// Adds a path. Returns whether it was new.
    pub(super) fn insert(&self, path: &Path) -> bool {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(self.hasher.hash_one(path))
    }

    pub(super) fn remove(&self, path: &Path) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.remove(&self.hasher.hash_one(path));
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        let hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.contains(&self.hasher.hash_one(path))
    }

    /// Adds and returns the first existing file of this name or one of its numbers that is
    /// accepted and was not used in this run.
    pub(super) fn insert_existing(
        &self,
        requested: &Path,
        is_accepted: impl Fn(&Path) -> bool,
    ) -> Option<PathBuf> {
        for number in 0.. {
            let path = numbered_path(requested, number);
            let is_file = exists(&path);
            let is_used = self.contains(&path);
            if is_file && !is_used && is_accepted(&path) {
                self.insert(&path);
                return Some(path);
            }
            if !is_file && !is_used && !exists(&part_path(&path)) {
                return None;
            }
        }
        None
    }
}
