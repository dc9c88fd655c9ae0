//! Changes of files and names, reported by inotify.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Length of the buffer for events; each takes up to 272 bytes.
const EVENTS_LEN: usize = 8 << 10;

/// Changes of a file itself.
const FILE_EVENTS: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF);

/// Changes of the names in a directory. Those of other directories of the same inode are added.
const NAME_EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MASK_ADD);

/// Something that may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// The content of the file with this index.
    Content(usize),
    /// The file that the name of the file with this index refers to.
    Name(usize),
    /// Anything, as events were lost.
    All,
}

/// Watches of files by descriptor and of names by directory. Files are identified by an index.
#[derive(Debug)]
pub(super) struct Watcher {
    inotify: OwnedFd,
    files: HashMap<i32, Vec<usize>>,
    names: HashMap<i32, HashMap<OsString, Vec<usize>>>,
    buffer: Vec<MaybeUninit<u8>>,
}

impl Watcher {
    pub(super) fn new() -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify,
            files: HashMap::new(),
            names: HashMap::new(),
            buffer: vec![MaybeUninit::uninit(); EVENTS_LEN],
        })
    }

    /// Returns the descriptor that is readable when there are changes.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Watches an open file. Returns the number of the watch.
    pub(super) fn watch_file(&mut self, file: BorrowedFd<'_>, index: usize) -> io::Result<i32> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let watch = inotify::add_watch(&self.inotify, path, FILE_EVENTS)?;
        self.files.entry(watch).or_default().push(index);
        Ok(watch)
    }

    /// Ends the watch of a file, unless another index has the same file.
    pub(super) fn unwatch_file(&mut self, watch: i32, index: usize) {
        let Some(indexes) = self.files.get_mut(&watch) else {
            return;
        };
        if let Some(at) = indexes.iter().position(|found| *found == index) {
            indexes.swap_remove(at);
        }
        if indexes.is_empty() {
            self.files.remove(&watch);
            // Fails if the file has been deleted, which ends its watch.
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Watches the directory of a path for changes of its last component. Returns the number of the
    /// watch, which is the same for the same directory.
    pub(super) fn watch_name(&mut self, path: &Path, index: usize) -> io::Result<i32> {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let Some(name) = path.file_name() else {
            return Err(Errno::NOENT.into());
        };
        let watch = inotify::add_watch(&self.inotify, directory, NAME_EVENTS)?;
        let names = self.names.entry(watch).or_default();
        let indexes = names.entry(name.to_owned()).or_default();
        if !indexes.contains(&index) {
            indexes.push(index);
        }
        Ok(watch)
    }

    /// Ends the watch of the directory of a name, unless another index has a name in it.
    pub(super) fn unwatch_name(&mut self, watch: i32, index: usize) {
        let Some(names) = self.names.get_mut(&watch) else {
            return;
        };
        names.retain(|_, indexes| {
            indexes.retain(|found| *found != index);
            !indexes.is_empty()
        });
        if names.is_empty() {
            self.names.remove(&watch);
            let _ = inotify::remove_watch(&self.inotify, watch);
        }
    }

    /// Reads all events.
    pub(super) fn read(&mut self, mut on_change: impl FnMut(Change)) -> io::Result<()> {
        let mut reader = Reader::new(&self.inotify, &mut self.buffer);
        loop {
            let event = match reader.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                on_change(Change::All);
            } else if let Some(name) = event.file_name() {
                let name = OsStr::from_bytes(name.to_bytes());
                let names = self.names.get(&event.wd());
                let indexes = names.and_then(|names| names.get(name));
                indexes
                    .into_iter()
                    .flatten()
                    .copied()
                    .map(Change::Name)
                    .for_each(&mut on_change);
            } else {
                let change = if flags == ReadFlags::MODIFY {
                    Change::Content
                } else {
                    Change::Name
                };
                let indexes = self.files.get(&event.wd());
                indexes
                    .into_iter()
                    .flatten()
                    .copied()
                    .map(change)
                    .for_each(&mut on_change);
            }
            if flags.contains(ReadFlags::IGNORED) {
                self.files.remove(&event.wd());
                self.names.remove(&event.wd());
            }
            if reader.is_buffer_empty() {
                return Ok(());
            }
        }
    }
}
