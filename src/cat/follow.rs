//! Files that are read further as they grow.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tracing::debug;

use super::input::Input;
use super::source::{FileId, Source};

/// Interval between checks without an inotify event, as not every file system reports changes.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The files that were read to their end and may grow.
#[derive(Debug)]
pub(super) struct Follower {
    files: Vec<FollowedFile>,
    /// Makes checks happen sooner. A change without an event is found at the next interval.
    inotify: Option<OwnedFd>,
}

#[derive(Debug)]
struct FollowedFile {
    path: PathBuf,
    /// `None` until the path refers to a file.
    input: Option<Input>,
}

impl Follower {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self {
            files: Vec::new(),
            inotify,
        }
    }

    /// Adds a file; without `input` if it does not exist yet.
    pub(super) fn add(&mut self, path: PathBuf, input: Option<Input>) {
        self.watch(&path);
        self.files.push(FollowedFile { path, input });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Returns a descriptor that is readable when a file may have changed.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(OwnedFd::as_fd)
    }

    /// Removes and returns the files with new data.
    pub(super) fn take_changed(&mut self) -> Vec<(Source, Input)> {
        // Events that arrive after this end the next wait at once, so no change is missed.
        self.drain_inotify();
        let mut changed = Vec::new();
        let mut unchanged = Vec::new();
        for mut file in self.files.drain(..) {
            match file.take_changed() {
                Some(input) => changed.push((Source::Path(file.path), input)),
                None => unchanged.push(file),
            }
        }
        self.files = unchanged;
        changed
    }

    fn drain_inotify(&self) {
        let mut events = [0; 4096];
        while self
            .inotify
            .as_ref()
            .is_some_and(|fd| rustix::io::read(fd, &mut events).is_ok_and(|count| count > 0))
        {
        }
    }

    fn watch(&self, path: &Path) {
        let Some(inotify) = &self.inotify else { return };
        let file_events = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        // Errors are ignored: the file may be missing, and the checks at intervals find all changes.
        let _ = inotify::add_watch(inotify, path, file_events);
        let _ = inotify::add_watch(
            inotify,
            folder.unwrap_or(Path::new(".")),
            WatchFlags::CREATE | WatchFlags::MOVED_TO,
        );
    }
}

impl FollowedFile {
    /// Returns the input with new data: the open file if it has grown or was truncated, else the
    /// file that has replaced it. The old file is read to its end before the new one is opened.
    fn take_changed(&mut self) -> Option<Input> {
        if self.input.as_ref().is_some_and(Input::has_new_data) {
            return self.input.take();
        }
        let old = self.input.as_ref().map(|input| input.id);
        let source = Source::Path(self.path.clone());
        // While the path does not exist, the open file is still checked for new data.
        let new = FileId::from_source(&source)
            .ok()
            .filter(|new| Some(*new) != old)?;
        let input = Input::open(&source).ok().filter(Input::can_grow)?;
        debug!(path = %source, ?new, "following new file");
        Some(input)
    }
}
