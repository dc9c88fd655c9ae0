//! Files that are read on as they grow.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tracing::debug;

use super::input::{FileId, Input, Source};

/// How often to look without having been told: not every file system tells.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The files that were read to their end, and may grow.
#[derive(Debug)]
pub(super) struct Follow {
    files: Vec<Followed>,
    /// Tells when to look. It only makes it sooner: whatever it misses is seen at the next look.
    inotify: Option<OwnedFd>,
}

#[derive(Debug)]
struct Followed {
    path: PathBuf,
    /// None while the path has not led to a file yet.
    input: Option<Input>,
}

impl Follow {
    pub(super) fn new() -> Self {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok();
        Self {
            files: Vec::new(),
            inotify,
        }
    }

    /// Looks after a file from now on.
    pub(super) fn keep(&mut self, path: PathBuf, input: Option<Input>) {
        self.watch(&path);
        self.files.push(Followed { path, input });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Readable when there is a reason to look.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(OwnedFd::as_fd)
    }

    /// Takes the files of which there is something to read.
    pub(super) fn take_news(&mut self) -> Vec<(Source, Input)> {
        // What is told from here on is not lost: it ends the next wait at once.
        self.forget_told();
        let (mut news, mut rest) = (Vec::new(), Vec::new());
        for mut file in self.files.drain(..) {
            match file.news() {
                Some(input) => news.push((Source::Path(file.path), input)),
                None => rest.push(file),
            }
        }
        self.files = rest;
        news
    }

    fn forget_told(&self) {
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
        let file = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        // The file may be missing, the folder on a file system that tells nothing.
        let _ = inotify::add_watch(inotify, path, file);
        let _ = inotify::add_watch(
            inotify,
            folder.unwrap_or(Path::new(".")),
            WatchFlags::CREATE | WatchFlags::MOVED_TO,
        );
    }
}

impl Followed {
    /// What is to be read: more of the open file, all of it after it was cut, or the one that has
    /// taken its place. The old one is read to its end before the new one is opened.
    fn news(&mut self) -> Option<Input> {
        if self.input.as_ref().is_some_and(Input::has_changed) {
            return self.input.take();
        }
        let old = self.input.as_ref().map(|input| input.id);
        let source = Source::Path(self.path.clone());
        // Gone for now, or for good: what is written to the open file still comes.
        let new = FileId::of_source(&source)
            .ok()
            .filter(|new| Some(*new) != old)?;
        let input = Input::open(&source).ok().filter(Input::can_grow)?;
        debug!(path = %source, ?new, "follows the file that is there now");
        Some(input)
    }
}
