//! Anonymous files (`O_TMPFILE`), which have no name until they are linked.
//!
//! No other process can open one, and the kernel removes it if the program is killed. A short
//! file is linked under its final name when it is complete. A longer one, which a later run may
//! want to resume, becomes a part before that.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags, open, openat, statat};
use rustix::io::Errno;

use crate::atomic_file::link_anonymous;
use crate::download::store::filename::{PART_SUFFIX, numbered};

/// Cache of the directory used last, which most often is the directory of the next file.
#[derive(Debug, Default)]
pub(crate) struct DirCache(Mutex<Option<Dir>>);

/// Open directory. Names in it are resolved without a walk of its complete path.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    path: PathBuf,
    fd: Arc<OwnedFd>,
}

/// Directory and requested name of an anonymous file.
#[derive(Debug)]
pub(crate) struct AnonymousFile {
    dir: Dir,
    name: OsString,
}

impl DirCache {
    /// Opens a directory. Returns `None` if anonymous files cannot be created in it or cannot be
    /// linked later.
    pub(crate) fn open(&self, path: &Path) -> Option<Dir> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dir) = last.as_ref()
            && dir.path == path
        {
            return Some(dir.clone());
        }
        let real = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = Arc::new(open(real, flags, Mode::empty()).ok()?);
        let dir = Dir {
            path: path.to_owned(),
            fd,
        };
        // If links are not permitted, the error is another one than that the name is taken.
        let probe = dir
            .create_anonymous()
            .and_then(|file| dir.link(&file, ".".as_ref()));
        if probe != Err(Errno::EXIST) {
            return None;
        }
        *last = Some(dir.clone());
        Some(dir)
    }
}

impl Dir {
    /// Returns whether the name exists: a file, a directory, or a symbolic link to anything.
    fn contains(&self, name: &OsStr) -> bool {
        statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    fn create_anonymous(&self) -> rustix::io::Result<File> {
        let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
        openat(&self.fd, ".", flags, Mode::from_raw_mode(0o666)).map(File::from)
    }

    /// Links an anonymous file under a name that does not exist.
    fn link(&self, file: &File, name: &OsStr) -> rustix::io::Result<()> {
        link_anonymous(file, &self.fd, name)
    }

    /// Creates an anonymous file for `name`. Returns `None` if the name or its part exists.
    pub(crate) fn create(self, name: &OsStr) -> Option<(File, AnonymousFile)> {
        if self.contains(name) || self.contains(&part_name(name, 0)) {
            return None;
        }
        let file = self.create_anonymous().ok()?;
        let name = name.to_owned();
        Some((file, AnonymousFile { dir: self, name }))
    }
}

impl AnonymousFile {
    /// Returns the path of the part that the file becomes, unless the name is taken by then.
    pub(crate) fn part_path(&self) -> PathBuf {
        self.dir.path.join(part_name(&self.name, 0))
    }

    /// Links `file` as a part and returns the path of the part.
    pub(crate) fn link_part(&self, file: &File) -> rustix::io::Result<PathBuf> {
        // Locked before it has a name, because another process could otherwise take it for an
        // abandoned part. A file system without locks has none for that process either.
        let _ = file.try_lock();
        let mut number = 0;
        loop {
            let name = part_name(&self.name, number);
            let mut state_name = name.clone();
            state_name.push(".json");
            if self.dir.contains(&state_name) {
                number += 1;
                continue;
            }
            match self.dir.link(file, &name) {
                Ok(()) => return Ok(self.dir.path.join(name)),
                Err(Errno::EXIST) => number += 1,
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Links `file` under its final name in the same directory.
    pub(crate) fn link_final(&self, file: &File, name: &OsStr) -> rustix::io::Result<()> {
        self.dir.link(file, name)
    }
}

fn part_name(name: &OsStr, number: u32) -> OsString {
    let mut part = numbered(name, number);
    part.push(PART_SUFFIX);
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[track_caller]
    fn create(dir: &Path, name: &str) -> Option<(File, AnonymousFile)> {
        let dir = DirCache::default()
            .open(dir)
            .expect("this file system has anonymous files");
        dir.create(name.as_ref())
    }

    #[test]
    fn anonymous_file_is_invisible_until_linked() {
        let dir = tempfile::tempdir().unwrap();
        let (mut file, anonymous) = create(dir.path(), "f").unwrap();
        file.write_all(b"x").unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none());
        anonymous.link_final(&file, "f".as_ref()).unwrap();
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), b"x");
        assert_eq!(anonymous.link_final(&file, "f".as_ref()), Err(Errno::EXIST));
    }

    #[test]
    fn existing_name_or_part_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "").unwrap();
        fs::write(dir.path().join("g.part"), "").unwrap();
        assert!(create(dir.path(), "f").is_none() && create(dir.path(), "g").is_none());
    }

    #[test]
    fn linked_part_is_locked_and_has_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let (file, anonymous) = create(dir.path(), "f").unwrap();
        fs::write(dir.path().join("f.part"), "mine").unwrap();
        let path = anonymous.link_part(&file).unwrap();
        assert_eq!(path, dir.path().join("f.1.part"));
        assert!(File::open(path).unwrap().try_lock().is_err());
        assert_eq!(fs::read(dir.path().join("f.part")).unwrap(), b"mine");
    }

    #[test]
    fn unusable_directory_is_refused() {
        assert!(DirCache::default().open(Path::new("/proc")).is_none());
        assert!(DirCache::default().open(Path::new("/nowhere")).is_none());
    }
}
