//! Allocation of the final path of each download.
//!
//! The lock on the file at the path of a part owns the part, and with it the final path: another
//! transfer, in this process or another one, finds it locked and uses the next number. An
//! unlocked part was left by an earlier run. It is resumed if that is configured and its state
//! fits, else replaced.
//!
//! The system calls here are made on the executor thread, not on the blocking pool: opening and
//! renaming take a few microseconds, ten times less than the detour through the pool.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::warn;
use url::Url;

use crate::atomic_file::Obstacle;
use crate::download::config::{Config, OnConflict};
use crate::download::error::Error;
use crate::download::store::filename::{numbered_path, part_path};
use crate::download::store::foreign::ForeignFile;
use crate::download::store::marker::{Marker, MarkerLookup};
use crate::download::store::part::{Part, open_in_place, regular_file};
use crate::download::store::part_file::{
    OpenPart, create_part, exists, is_available, reopen_part, was_part,
};
use crate::download::store::resume_state::{ResumeState, StateError};
use crate::download::store::sink::FileSink;
use crate::download::store::tmpfile::DirCache;
use crate::download::store::used_paths::UsedPaths;
use crate::escape::Escaped;

/// Maximum number of names for which the last number is cached.
const MAX_CACHED_NUMBERS: usize = 1024;

/// Allocator of a distinct final path for each download.
#[derive(Debug, Default)]
pub(crate) struct PathAllocator {
    /// First number to try for a name that was taken. It avoids a quadratic number of lookups for
    /// many files of one name; it may be lost.
    next_number: Mutex<HashMap<PathBuf, u32>>,
    used: Arc<UsedPaths>,
    /// Final paths of anonymous files, which no lock protects.
    reserved: Arc<UsedPaths>,
    dirs: DirCache,
}

/// Result of an allocation.
#[derive(Debug)]
pub(crate) enum Allocation {
    Part(Part),
    /// The file exists already and is kept.
    Existing(PathBuf),
}

/// Unlocked part of an earlier run.
enum EarlierPart {
    /// The part of the same URL.
    Own(Part),
    /// There are only parts of URLs with another query.
    OfOtherQuery,
    None,
}

/// Existing file under a requested name.
enum ExistingPath {
    /// The file is kept, and nothing is requested.
    Kept(PathBuf),
    /// The file was completed by this program, but lost its bytes in a power cut.
    Lost(PathBuf),
    /// The file was not completed by this program, or it was changed since.
    Foreign(ForeignFile),
}

impl PathAllocator {
    /// Opens the part of the first path from `requested` on (`f`, `f.1`, `f.2` …) that neither
    /// exists nor belongs to another transfer; or finds that an existing file is to be kept.
    /// Creates missing directories.
    pub(crate) fn allocate(
        &self,
        requested: &Path,
        url: &Url,
        config: &Config,
    ) -> Result<Allocation, Error> {
        if let Some(part) = self.create_anonymous(requested, config) {
            return Ok(Allocation::Part(part));
        }
        let mut other_query = None;
        if config.output.resume {
            match self.part_of_earlier_run(requested, url, config) {
                EarlierPart::Own(part) => {
                    check_target(&part.target(), config)?;
                    return Ok(Allocation::Part(part));
                }
                EarlierPart::OfOtherQuery => other_query = Some(url),
                EarlierPart::None => {}
            }
        }
        let foreign = match self.existing_file(requested, config)? {
            Some(ExistingPath::Kept(path)) => return Ok(Allocation::Existing(path)),
            Some(ExistingPath::Lost(path)) => {
                fs::remove_file(&path).map_err(|error| Error::file("replace", &path, error))?;
                self.used.remove(&path);
                None
            }
            Some(ExistingPath::Foreign(file)) => Some(file),
            None => None,
        };
        let mut part = self.create_part(requested, foreign, other_query, config)?;
        part.may_continue_other_query = other_query.is_some();
        if config.output.resume || config.output.on_conflict != OnConflict::Rename {
            self.used.insert(&part.target());
        }
        Ok(Allocation::Part(part))
    }

    /// Returns the path that a transfer would get if the directory does not change, and whether it
    /// would keep an existing file. Reserves the path, but creates nothing.
    pub(crate) fn plan(&self, requested: PathBuf, config: &Config) -> (PathBuf, bool) {
        let resumes = config.output.resume && exists(&part_path(&requested));
        if !resumes {
            match self.existing_file(&requested, config) {
                Ok(Some(ExistingPath::Kept(path))) => return (path, true),
                Ok(Some(ExistingPath::Lost(path))) => return (path, false),
                _ => {}
            }
        }
        let is_free = |path: &Path| {
            !self.used.contains(path)
                && (config.output.on_conflict.replaces() || resumes || !exists(path))
        };
        let mut number = self.first_number(&requested);
        while !is_free(&numbered_path(&requested, number)) {
            number += 1;
        }
        self.cache_number(&requested, number);
        let path = numbered_path(&requested, number);
        self.used.insert(&path);
        (path, false)
    }

    /// Returns the existing file that may make the download unnecessary. Each run assigns the same
    /// numbers to the downloads of a list, so the file at a number is the one that was saved for
    /// that download.
    fn existing_file(
        &self,
        requested: &Path,
        config: &Config,
    ) -> Result<Option<ExistingPath>, Error> {
        let path = match config.output.on_conflict {
            OnConflict::Skip if exists(requested) && !self.used.contains(requested) => {
                return Ok(Some(ExistingPath::Kept(requested.to_owned())));
            }
            OnConflict::Rename if config.output.resume => {
                self.used.insert_existing(requested, |_| true)
            }
            _ => None,
        };
        let Some(path) = path else {
            return Ok(None);
        };
        let metadata = fs::metadata(&path).map_err(|error| Error::file("open", &path, error))?;
        if !metadata.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(Error::file("resume", &path, error));
        }
        Ok(Some(match MarkerLookup::of_path(&path) {
            MarkerLookup::Found(Marker::Complete(marker)) if marker.matches(&metadata) => {
                ExistingPath::Kept(path)
            }
            MarkerLookup::Found(Marker::Complete(marker)) if marker.is_lost(&metadata) => {
                ExistingPath::Lost(path)
            }
            lookup => ExistingPath::Foreign(ForeignFile {
                path,
                len: metadata.len(),
                can_be_marked: lookup != MarkerLookup::Unsupported,
            }),
        }))
    }

    /// Creates a file without a name. Returns `None` if that is not possible, if a file or a part
    /// of the name exists, or if it could conflict with the file of another transfer.
    fn create_anonymous(&self, requested: &Path, config: &Config) -> Option<Part> {
        // A link cannot replace a file.
        if config.output.on_conflict.replaces() {
            return None;
        }
        let dir = self.dirs.open(requested.parent()?)?;
        if self.used.contains(requested) || !self.reserved.insert(requested) {
            return None;
        }
        let Some((file, anonymous)) = dir.create(requested.file_name().unwrap_or_default()) else {
            self.reserved.remove(requested);
            return None;
        };
        let sink = FileSink::anonymous(file, anonymous);
        let mut part = self.part(sink, requested, 0, config);
        part.reserved = Some(Arc::clone(&self.reserved));
        Some(part)
    }

    /// Creates a part for the first free path, or for that of an existing file, which it may
    /// continue. Parts of URLs with another query than `other_query` stay: they may belong to
    /// further items.
    fn create_part(
        &self,
        requested: &Path,
        foreign: Option<ForeignFile>,
        other_query: Option<&Url>,
        config: &Config,
    ) -> Result<Part, Error> {
        let is_foreign = |target: &Path| foreign.as_ref().is_some_and(|file| file.path == target);
        let mut number = match foreign {
            Some(_) => 0,
            None => self.first_number(requested),
        };
        loop {
            let target = numbered_path(requested, number);
            if config.output.on_conflict.replaces() && target.is_dir() {
                let error = io::ErrorKind::IsADirectory.into();
                return Err(Error::file("replace", &target, error));
            }
            check_target(&target, config)?;
            if is_foreign(&target) {
                check_replaceable(&target)?;
            }
            if (is_foreign(&target) || self.is_free(&target, config))
                && let Some((part, path)) = self.create_own_part(requested, number, other_query)?
            {
                self.cache_number(requested, number);
                ResumeState::remove(&path);
                let sink = FileSink::part(part, path, 0, None);
                let mut part = self.part(sink, requested, number, config);
                part.foreign = foreign;
                return Ok(part);
            }
            number += 1;
        }
    }

    /// Returns whether a download may get this final path.
    fn is_free(&self, target: &Path, config: &Config) -> bool {
        let is_used = self.used.contains(target) || self.reserved.contains(target);
        !is_used && (config.output.on_conflict.replaces() || !exists(target))
    }

    /// Creates the part for the final path of this number. Returns `None` if another transfer has
    /// it, which thereby owns that final path; unless parts of URLs with another query than
    /// `other_query` have shifted the numbers.
    fn create_own_part(
        &self,
        requested: &Path,
        number: u32,
        other_query: Option<&Url>,
    ) -> Result<Option<(OpenPart, PathBuf)>, Error> {
        let mut number = number;
        loop {
            number = self.own_part_number(requested, number, other_query);
            let path = part_path(&numbered_path(requested, number));
            let part = create_part(&path).map_err(|error| Error::file("create", &path, error))?;
            if part.is_some() || other_query.is_none() {
                return Ok(part.map(|part| (part, path)));
            }
            number += 1;
        }
    }

    /// Returns the number of the part for the final path of this number. Files of other programs and
    /// users with the same suffix are skipped, and so are parts of URLs with another query than
    /// `other_query`.
    fn own_part_number(&self, requested: &Path, number: u32, other_query: Option<&Url>) -> u32 {
        let mut number = number;
        loop {
            let path = part_path(&numbered_path(requested, number));
            let is_kept = other_query.is_some_and(|url| ResumeState::is_of_other_query(&path, url));
            if !is_kept && !self.used.contains(&path) && is_available(&path) {
                return number;
            }
            number += 1;
        }
    }

    /// Opens the unlocked part of `url` that an earlier run left for this name or one of its
    /// numbers.
    fn part_of_earlier_run(&self, requested: &Path, url: &Url, config: &Config) -> EarlierPart {
        let mut unusable = None;
        let mut is_of_other_query = false;
        for number in 0.. {
            let target = numbered_path(requested, number);
            let path = part_path(&target);
            if !exists(&path) {
                if !exists(&target) {
                    break;
                }
                if !config.output.on_conflict.replaces() {
                    // Left by a run that was killed after it had renamed the complete part.
                    ResumeState::remove_or_lost(&path, || was_part(&target));
                }
                continue;
            }
            match reopen_part(&path, |path| ResumeState::load(path, url)) {
                Some(Ok((part, len, state))) => {
                    // The part may have a higher number than its final path, because files of
                    // other programs had the paths of the first parts.
                    let part_number = number;
                    let owns_part = |number: &u32| {
                        self.is_free(&numbered_path(requested, *number), config)
                            && self.own_part_number(requested, *number, None) == part_number
                    };
                    let continues = |number: &u32| {
                        let target = numbered_path(requested, *number);
                        state
                            .continued
                            .is_some_and(|version| version.is_at(&target))
                    };
                    let found = (0..=number).find(continues);
                    let number = found
                        .or_else(|| (0..number).find(owns_part))
                        .unwrap_or(number);
                    let sink = FileSink::part(part, path, len, Some(state));
                    return EarlierPart::Own(self.part(sink, requested, number, config));
                }
                Some(Err(StateError::OtherQuery)) => {
                    // A part of this run belongs to a download that has failed.
                    is_of_other_query |= !self.used.contains(&path);
                }
                Some(Err(error)) if number == 0 => unusable = Some((path, error)),
                _ => {}
            }
        }
        if is_of_other_query && !config.compressed {
            return EarlierPart::OfOtherQuery;
        }
        if let Some((path, error)) = unusable {
            let path = Escaped(path.as_os_str().as_encoded_bytes()).to_string();
            warn!(path, "cannot resume the part of an earlier run: {error}");
        }
        EarlierPart::None
    }

    fn part(&self, sink: FileSink, requested: &Path, number: u32, config: &Config) -> Part {
        let on_conflict = config.output.on_conflict;
        let keeps_existing = on_conflict == OnConflict::Skip
            || config.output.resume && on_conflict == OnConflict::Rename;
        Part {
            sink: Arc::new(sink),
            requested: requested.to_owned(),
            number,
            on_conflict,
            keeps_existing,
            in_place: config.output.in_place,
            fsync: config.output.fsync,
            used: Arc::clone(&self.used),
            reserved: None,
            foreign: None,
            may_continue_other_query: false,
            is_finished: false,
        }
    }

    fn first_number(&self, requested: &Path) -> u32 {
        let next = self
            .next_number
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        next.get(requested).copied().unwrap_or(0)
    }

    fn cache_number(&self, requested: &Path, number: u32) {
        if number == 0 {
            return;
        }
        let mut next = self
            .next_number
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if next.len() >= MAX_CACHED_NUMBERS {
            next.clear();
        }
        next.insert(requested.to_owned(), number);
    }
}

/// Fails if `target` exists and could not be replaced, or written in place, as configured.
fn check_target(target: &Path, config: &Config) -> Result<(), Error> {
    if !config.output.on_conflict.replaces() {
        Ok(())
    } else if config.output.in_place {
        check_writable(target)
    } else {
        check_replaceable(target)
    }
}

/// Fails if `target` is an existing file that cannot be written into, or if there can be no part
/// beside it.
fn check_writable(target: &Path) -> Result<(), Error> {
    let Some(metadata) = regular_file(target) else {
        return Ok(());
    };
    if Obstacle::find(target, &metadata) == Some(Obstacle::UnwritableDirectory) {
        return Err(Error::NotReplaceable {
            path: target.to_owned(),
            obstacle: Obstacle::UnwritableDirectory,
        });
    }
    let opened = open_in_place(target);
    opened.map_err(|error| Error::file("open", target, error))?;
    Ok(())
}

/// Fails if a complete part could not be renamed over `target`, an existing file, so that nothing is
/// downloaded in vain. A read-only file can be renamed over, and so can a symbolic link.
fn check_replaceable(target: &Path) -> Result<(), Error> {
    let Some(metadata) = regular_file(target) else {
        return Ok(());
    };
    match Obstacle::find(target, &metadata) {
        None | Some(Obstacle::ReadOnly) => Ok(()),
        Some(obstacle) => Err(Error::NotReplaceable {
            path: target.to_owned(),
            obstacle,
        }),
    }
}
