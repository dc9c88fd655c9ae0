//! Incomplete file of a download, which gets its final name when it is complete.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open, rename};
use rustix::io::Errno;
use url::Url;

use crate::atomic_file::{copy_into, rename_to_free};
use crate::download::config::OnConflict;
use crate::download::error::Error;
use crate::download::store::filename::{PART_SUFFIX, numbered_path, part_path};
use crate::download::store::foreign::ForeignFile;
use crate::download::store::marker::{CompleteMarker, Marker, MarkerLookup};
use crate::download::store::part_file::{exists, reopen_part};
use crate::download::store::resume_state::ResumeState;
use crate::download::store::sink::FileSink;
use crate::download::store::used_paths::UsedPaths;
use crate::download::transfer::resume::Validators;

/// Incomplete file of a download. If it is dropped before [`Part::finish`], its bytes and their
/// state stay for a later run.
#[derive(Debug)]
pub(crate) struct Part {
    pub(super) sink: Arc<FileSink>,
    pub(super) requested: PathBuf,
    pub(super) number: u32,
    pub(super) on_conflict: OnConflict,
    /// Whether complete files of earlier runs are kept.
    pub(super) keeps_existing: bool,
    /// Whether the file is copied into an existing one that it replaces.
    pub(super) in_place: bool,
    pub(super) fsync: bool,
    pub(super) used: Arc<UsedPaths>,
    /// Set that contains the final path of an anonymous file.
    pub(super) reserved: Option<Arc<UsedPaths>>,
    /// Existing file under the requested name that may be the same file.
    pub(super) foreign: Option<ForeignFile>,
    /// Whether an earlier run left parts of URLs that differ in their query.
    pub(super) may_continue_other_query: bool,
    pub(super) is_finished: bool,
}

impl Part {
    /// Returns the existing file under the requested name that may be the same file.
    pub(crate) fn foreign(&self) -> Option<&ForeignFile> {
        self.foreign.as_ref()
    }

    /// Returns whether an earlier run left parts of URLs that differ from that of this part in their
    /// query.
    pub(crate) fn may_continue_other_query(&self) -> bool {
        self.may_continue_other_query
    }

    /// Opens and locks the first part of an earlier run whose URL differs from `url` in its query, and
    /// whose state and number of contiguous bytes are accepted.
    pub(crate) fn open_other_query(
        &self,
        url: &Url,
        is_accepted: impl Fn(&ResumeState, u64) -> bool,
    ) -> Option<FileSink> {
        for number in 0.. {
            let target = numbered_path(&self.requested, number);
            let path = part_path(&target);
            if !exists(&path) && !exists(&target) {
                break;
            }
            if self.used.contains(&path) {
                continue;
            }
            let load = |path: &Path| ResumeState::load_other_query(path, url);
            if let Some(Ok((part, len, state))) = reopen_part(&path, load) {
                let sink = FileSink::part(part, path, len, Some(state.clone()));
                if is_accepted(&state, sink.prefix_len()) {
                    return Some(sink);
                }
            }
        }
        None
    }

    /// Returns the sink for the bytes.
    pub(crate) fn sink(&self) -> Arc<FileSink> {
        Arc::clone(&self.sink)
    }

    /// Returns the final path, unless it is taken by then.
    pub(crate) fn target(&self) -> PathBuf {
        numbered_path(&self.requested, self.number)
    }

    /// Returns the complete file of an earlier run under the name that the server chose, if such
    /// files are kept. The name alone proves little, so the length must match as well.
    pub(crate) fn existing_with_server_name(
        &self,
        name: &str,
        total: Option<u64>,
    ) -> Option<PathBuf> {
        if !self.keeps_existing {
            return None;
        }
        let has_length = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|metadata| {
                let is_length = |total| total == metadata.len();
                metadata.is_file() && total.is_none_or(is_length)
            })
        };
        self.used
            .insert_existing(&self.requested.with_file_name(name), has_length)
    }

    /// Returns the next existing file of the requested name or one of its numbers that this run
    /// has not used yet.
    pub(crate) fn next_existing(&self) -> Option<PathBuf> {
        self.used.insert_existing(&self.requested, |_| true)
    }

    /// Returns the file of this version that an earlier run completed under a further number of
    /// the requested name. Without extended attributes, its length must suffice.
    pub(crate) fn existing_copy(&self, validators: &Validators) -> Option<PathBuf> {
        let is_copy = |path: &Path| {
            let Ok(metadata) = fs::symlink_metadata(path) else {
                return false;
            };
            let has_length = |total| total == metadata.len();
            let is_complete = match MarkerLookup::of_path(path) {
                MarkerLookup::Found(Marker::Complete(marker)) => {
                    marker.matches(&metadata)
                        && marker.into_etag() == validators.etag
                        && validators.total.is_none_or(has_length)
                }
                MarkerLookup::Unsupported => validators.total.is_some_and(has_length),
                MarkerLookup::Found(Marker::Part(_)) | MarkerLookup::Missing => false,
            };
            metadata.is_file() && is_complete
        };
        self.used.insert_existing(&self.requested, is_copy)
    }

    /// Renames the file to its final path, which is returned: the requested one, or `name` in the
    /// same directory. An existing file stays, unless it is to be replaced: if the path was taken
    /// meanwhile, the next free number is used. A file that the part continues is replaced. Copying
    /// into an existing file waits for the disk.
    pub(crate) fn finish(mut self, name: Option<String>) -> Result<PathBuf, Error> {
        self.release_reservation();
        if let Some(name) = name {
            self.requested.set_file_name(name);
            self.number = 0;
        }
        let path = self.sink.part_path();
        let target = self.target();
        if self.in_place
            && let Some(path) = &path
            && regular_file(&target).is_some()
        {
            self.copy_to(path, &target)?;
            self.is_finished = true;
            return Ok(target);
        }
        loop {
            let target = self.target();
            match self.rename(path.as_deref(), &target) {
                Ok(()) => {
                    self.is_finished = true;
                    if let Some(path) = path
                        && self.sink.has_saved_state()
                    {
                        ResumeState::remove(&path);
                    }
                    // A complete file may have the path of another part.
                    if self.keeps_existing || has_part_suffix(&target) {
                        self.used.insert(&target);
                    }
                    return Ok(target);
                }
                Err(Errno::EXIST) if !self.on_conflict.replaces() => self.number += 1,
                Err(errno) => {
                    let path = path.as_deref().unwrap_or(&target);
                    return Err(Error::file("rename", path, errno.into()));
                }
            }
        }
    }

    /// Copies the complete part at `path` into `target`, and removes it.
    fn copy_to(&self, path: &Path, target: &Path) -> Result<(), Error> {
        let Some(part) = self.sink.file() else {
            return Ok(());
        };
        // If copying is interrupted, a later run copies again.
        self.sink.save_for_resume();
        let failed = |error| Error::file("open", target, error);
        let mut from = part.try_clone().map_err(failed)?;
        let mut to = open_in_place(target).map_err(failed)?;
        copy_into(&mut from, path, &mut to, self.fsync).map_err(|source| Error::WriteInPlace {
            path: target.to_owned(),
            source,
        })?;
        // Only a later `-N` needs date and marker, so a file system may refuse them.
        if let Ok(modified) = from.metadata().and_then(|metadata| metadata.modified()) {
            let _ = to.set_modified(modified);
        }
        if let MarkerLookup::Found(Marker::Complete(marker)) = MarkerLookup::of_file(&from) {
            let _ = CompleteMarker::mark(&to, None, marker.into_etag().as_deref());
        }
        // The file is complete; a part that stays is replaced by the next run.
        let _ = fs::remove_file(path);
        ResumeState::remove(path);
        Ok(())
    }

    fn rename(&self, path: Option<&Path>, target: &Path) -> rustix::io::Result<()> {
        match (path, self.on_conflict) {
            (None, _) => self.sink.link_final(target.file_name().unwrap_or_default()),
            (Some(path), OnConflict::Overwrite | OnConflict::IfModified) => rename(path, target),
            (Some(path), _) if self.sink.continues_file_at(target) => rename(path, target),
            (Some(path), OnConflict::Rename | OnConflict::Skip) => rename_to_free(path, target),
        }
    }

    fn release_reservation(&mut self) {
        if let Some(reserved) = self.reserved.take() {
            reserved.remove(&self.requested);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        if self.sink.save_for_resume() {
            // The part is unlocked now, but another download of this run must not take it over.
            self.used.insert(&self.target());
            if let Some(path) = self.sink.part_path() {
                self.used.insert(&path);
            }
        } else if let Some(path) = self.sink.part_path() {
            // The error that led here is reported already.
            let _ = fs::remove_file(&path);
            ResumeState::remove(&path);
        }
        self.release_reservation();
    }
}

/// Returns the metadata of a regular file; `None` also of a symbolic link, which a rename replaces.
pub(super) fn regular_file(path: &Path) -> Option<Metadata> {
    let metadata = fs::symlink_metadata(path).ok()?;
    metadata.is_file().then_some(metadata)
}

/// Opens an existing file to write into it, never through a symbolic link.
pub(super) fn open_in_place(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?.into())
}

fn has_part_suffix(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .ends_with(PART_SUFFIX.as_bytes())
}
