//! Files that have no name yet, and so need none of what goes with one: nobody else can open
//! them, and they are gone by themselves if the program is killed. A small file gets its name
//! when it is whole; one for which a later run may want to go on gets that of its part before.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open, openat, statat};
use rustix::io::Errno;

use crate::download::store::filename::{PART, numbered};

/// The folder that was used last, which is most often that of the next file too.
#[derive(Debug, Default)]
pub(crate) struct Folders(Mutex<Option<Folder>>);

/// A folder held open: a name in it is found without walking its whole path.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    handle: Arc<OwnedFd>,
}

/// What a file without a name is to be called.
#[derive(Debug)]
pub(crate) struct Unnamed {
    folder: Folder,
    name: OsString,
}

impl Folders {
    /// Opens a folder; `None` where it is none in which files without a name can be made, and
    /// named later.
    pub(crate) fn open(&self, path: &Path) -> Option<Folder> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = last.as_ref().filter(|folder| folder.path == path) {
            return Some(folder.clone());
        }
        let real = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = Arc::new(open(real, flags, Mode::empty()).ok()?);
        let folder = Folder {
            path: path.to_owned(),
            handle,
        };
        // Who may not link fails otherwise than because the name is taken.
        let probe = folder
            .make()
            .and_then(|file| folder.link(&file, ".".as_ref()));
        if probe != Err(Errno::EXIST) {
            return None;
        }
        *last = Some(folder.clone());
        Some(folder)
    }
}

impl Folder {
    /// Whether anything has this name in it: a file, a folder, a symlink wherever it leads.
    fn has(&self, name: &OsStr) -> bool {
        statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn make(&self) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        openat(&self.handle, ".", flags, Mode::from_raw_mode(0o666)).map(File::from)
    }

    /// Names a file as nothing else in the folder is named.
    fn link(&self, file: &File, name: &OsStr) -> rustix::io::Result<()> {
        match linkat(file, "", &self.handle, name, AtFlags::EMPTY_PATH) {
            // Before Linux 6.10 that needs a privilege.
            Err(Errno::NOENT) => {
                let file = format!("/proc/self/fd/{}", file.as_raw_fd());
                linkat(CWD, file, &self.handle, name, AtFlags::SYMLINK_FOLLOW)
            }
            linked => linked,
        }
    }

    /// Makes a file that is to be called `name`, if neither a file nor a part is called so.
    pub(crate) fn make_unnamed(self, name: &OsStr) -> Option<(File, Unnamed)> {
        if self.has(name) || self.has(&part_of(name, 0)) {
            return None;
        }
        let file = self.make().ok()?;
        Some((
            file,
            Unnamed {
                folder: self,
                name: name.to_owned(),
            },
        ))
    }
}

impl Unnamed {
    /// The part that it becomes if nobody else takes the name.
    pub(crate) fn part(&self) -> PathBuf {
        self.folder.path.join(part_of(&self.name, 0))
    }

    /// Makes `file` a part, whose path is returned.
    pub(crate) fn name_part(&self, file: &File) -> rustix::io::Result<PathBuf> {
        // Before it has a name, or another process could take it for abandoned. A file system
        // without locks has none for that other either.
        let _ = file.try_lock();
        let mut number = 0;
        loop {
            let name = part_of(&self.name, number);
            match self.folder.link(file, &name) {
                Ok(()) => return Ok(self.folder.path.join(name)),
                Err(Errno::EXIST) => number += 1,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Gives `file` its final name, in the same folder.
    pub(crate) fn name_whole(&self, file: &File, name: &OsStr) -> rustix::io::Result<()> {
        self.folder.link(file, name)
    }
}

fn part_of(name: &OsStr, number: u32) -> OsString {
    let mut part = numbered(name, number);
    part.push(PART);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[track_caller]
    fn make(folder: &Path, name: &str) -> Option<(File, Unnamed)> {
        let folder = Folders::default()
            .open(folder)
            .expect("this file system has them");
        folder.make_unnamed(name.as_ref())
    }

    #[test]
    fn nothing_is_seen_of_a_file_before_it_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let (mut file, unnamed) = make(folder.path(), "f").unwrap();
        file.write_all(b"x").unwrap();
        assert!(fs::read_dir(folder.path()).unwrap().next().is_none());
        unnamed.name_whole(&file, "f".as_ref()).unwrap();
        assert_eq!(fs::read(folder.path().join("f")).unwrap(), b"x");
        assert_eq!(unnamed.name_whole(&file, "f".as_ref()), Err(Errno::EXIST));
    }

    #[test]
    fn a_name_that_is_taken_or_that_of_a_part_is_none_for_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "").unwrap();
        fs::write(folder.path().join("g.part"), "").unwrap();
        assert!(make(folder.path(), "f").is_none() && make(folder.path(), "g").is_none());
    }

    #[test]
    fn a_part_is_locked_and_takes_no_name_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let (file, unnamed) = make(folder.path(), "f").unwrap();
        fs::write(folder.path().join("f.part"), "mine").unwrap();
        let path = unnamed.name_part(&file).unwrap();
        assert_eq!(path, folder.path().join("f.1.part"));
        assert!(File::open(path).unwrap().try_lock().is_err());
        assert_eq!(fs::read(folder.path().join("f.part")).unwrap(), b"mine");
    }

    #[test]
    fn a_folder_that_is_none_has_none() {
        assert!(Folders::default().open(Path::new("/proc")).is_none());
        assert!(Folders::default().open(Path::new("/nowhere")).is_none());
    }
}
