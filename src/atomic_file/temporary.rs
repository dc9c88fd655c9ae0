//! New file beside another one, with or without a temporary name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, rename, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;
use tempfile::TempPath;

/// Maximum length of a chain of symbolic links, as in Linux.
const MAX_SYMLINKS: usize = 40;

/// Maximum length of the part of a temporary name that is taken from the file. The complete name
/// must not exceed 255 bytes.
const MAX_STEM_LEN: usize = 240;

/// Suffix of [`TemporaryName::Reused`].
const REUSED_SUFFIX: &str = "myapp-new";

/// A file that is not complete yet. It is removed if it is dropped.
#[derive(Debug)]
pub(crate) enum TemporaryFile {
    /// Without a name, so that nothing is left even if the process is killed.
    Anonymous(File),
    /// With a name, on file systems without `O_TMPFILE`.
    Named(TempPath),
}

/// Choice of a temporary name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TemporaryName {
    /// The same name in each run, if it is free. The file is locked: one that a killed run of the
    /// same user has left is removed.
    Reused,
    /// A name that was not used before.
    Unique,
}

impl TemporaryFile {
    /// Creates a file in the directory of `path`.
    pub(crate) fn create_beside(path: &Path, options: &OpenOptions) -> io::Result<(File, Self)> {
        Self::create_anonymous(path, options).or_else(|_| Self::create_named(path, options))
    }

    fn create_anonymous(path: &Path, options: &OpenOptions) -> io::Result<(File, Self)> {
        let dir = match parent(path)? {
            dir if dir.as_os_str().is_empty() => Path::new("."),
            dir => dir,
        };
        let file = options
            .clone()
            .custom_flags(OFlags::TMPFILE.bits() as i32)
            .open(dir)?;
        // Fails without /proc, which is needed to name the file later.
        fs::metadata(proc_path(&file))?;
        Ok((file.try_clone()?, Self::Anonymous(file)))
    }

    fn create_named(path: &Path, options: &OpenOptions) -> io::Result<(File, Self)> {
        // With a reused name, a later run could remove the file of this one, or its own input.
        let create = |name: &Path| options.clone().create_new(true).open(name);
        let (file, name) = with_temporary_name(path, TemporaryName::Unique, create)?;
        Ok((file, Self::Named(name)))
    }

    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let mode = Permissions::from_mode(mode);
        match self {
            Self::Anonymous(file) => file.set_permissions(mode),
            Self::Named(name) => fs::set_permissions(name, mode),
        }
    }

    /// Gives the file a temporary name beside `path`, unless it has one.
    pub(super) fn into_named(self, path: &Path) -> io::Result<TempPath> {
        match self {
            Self::Named(name) => Ok(name),
            Self::Anonymous(file) => link_temporary(&file, path, TemporaryName::Unique),
        }
    }

    /// Renames the file to `path`, which must not exist.
    pub(crate) fn rename_to_free(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Named(name) => {
                rename_to_free(&name, path)?;
                name.keep()?;
            }
            Self::Anonymous(file) => link_anonymous(&file, CWD, path)?,
        }
        Ok(())
    }

    /// Renames the file to `path`. An anonymous file gets a temporary name first, as `linkat`
    /// cannot replace a file.
    pub(crate) fn rename_to(self, path: &Path) -> io::Result<()> {
        let persist = |name: TempPath| name.persist(path).map_err(|error| error.error);
        match self {
            Self::Named(name) => persist(name),
            // The file stays open, and so locked, until it is renamed.
            Self::Anonymous(file) => persist(link_temporary(&file, path, TemporaryName::Reused)?),
        }
    }
}

fn link_temporary(file: &File, path: &Path, name: TemporaryName) -> io::Result<TempPath> {
    // On a file system without locks, no run removes the file of another one.
    let _ = file.try_lock();
    let link = |name: &Path| Ok(link_anonymous(file, CWD, name)?);
    Ok(with_temporary_name(path, name, link)?.1)
}

/// Links an anonymous file under a name in `dir` that does not exist yet.
pub(crate) fn link_anonymous(
    file: &File,
    dir: impl AsFd,
    name: impl AsRef<Path>,
) -> rustix::io::Result<()> {
    match linkat(file, "", &dir, name.as_ref(), AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 this needs a privilege.
        Err(Errno::NOENT) => {
            let flags = AtFlags::SYMLINK_FOLLOW;
            linkat(CWD, proc_path(file), &dir, name.as_ref(), flags)
        }
        result => result,
    }
}

/// Renames a file unless the new path exists.
pub(crate) fn rename_to_free(from: &Path, to: &Path) -> rustix::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some network file systems do not support an atomic rename to a free name.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if fs::symlink_metadata(to).is_ok() => {
            Err(Errno::EXIST)
        }
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => rename(from, to),
        result => result,
    }
}

/// Returns the options of a new file, with the permissions of any new file if `public`.
pub(crate) fn write_options(public: bool) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(if public { 0o666 } else { 0o600 });
    options
}

/// Returns a path to an open file that exists even if the file has no name.
fn proc_path(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Calls `create` with unused hidden names in the directory of `path` until it succeeds. The name is
/// removed when the returned [`TempPath`] is dropped.
fn with_temporary_name<T>(
    path: &Path,
    name: TemporaryName,
    mut create: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, TempPath)> {
    let file_name = path.file_name().ok_or(Errno::ISDIR)?.as_bytes();
    let stem = OsStr::from_bytes(&file_name[..file_name.len().min(MAX_STEM_LEN)]);
    let beside = |suffix: &str| {
        let mut name = OsString::from(".");
        name.push(stem);
        name.push(".");
        name.push(suffix);
        path.with_file_name(name)
    };
    let unique = || beside(&format!("{:08x}", fastrand::u32(..)));
    let mut is_reused = name == TemporaryName::Reused;
    let mut temporary = if is_reused {
        beside(REUSED_SUFFIX)
    } else {
        unique()
    };
    loop {
        match create(&temporary) {
            Ok(created) => return Ok((created, TempPath::try_from_path(temporary)?)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_free = std::mem::take(&mut is_reused) && remove_abandoned(&temporary);
                if !is_free {
                    temporary = unique();
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Locks a file that was just created. Returns whether it still has its name.
pub(crate) fn lock_new(file: &File) -> bool {
    match file.try_lock() {
        Ok(()) => file.metadata().is_ok_and(|data| data.nlink() > 0),
        Err(TryLockError::WouldBlock) => false,
        // On a file system without locks, exclusive creation has to suffice.
        Err(TryLockError::Error(_)) => true,
    }
}

/// Removes a file that a killed run has left. A running one has locked its file. Returns whether the
/// name may be free.
fn remove_abandoned(path: &Path) -> bool {
    // Symbolic links are not followed, and opening a FIFO does not block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(path, flags, Mode::empty()).map(File::from) else {
        return false;
    };
    let is_own = |data: fs::Metadata| {
        data.is_file() && data.nlink() == 1 && data.uid() == geteuid().as_raw()
    };
    let is_own = file.metadata().is_ok_and(is_own);
    let is_abandoned = is_own && file.try_lock().is_ok() && is_same(&file, path);
    is_abandoned && fs::remove_file(path).is_ok()
}

/// Returns whether `path` is the name of this open file.
pub(crate) fn is_same(file: &File, path: &Path) -> bool {
    let id = |data: &fs::Metadata| (data.dev(), data.ino());
    matches!((file.metadata(), fs::symlink_metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// Returns the absolute path of the file that `path` refers to, which may not exist yet.
pub(super) fn absolute_target(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(resolve_symlinks(path)?)?;
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(Errno::ISDIR.into());
    }
    Ok(path)
}

/// Follows symbolic links; the last one may be dangling.
fn resolve_symlinks(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_SYMLINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

/// Returns the directory of an absolute path.
pub(super) fn parent(path: &Path) -> io::Result<&Path> {
    Ok(path.parent().ok_or(Errno::ISDIR)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    type Create = fn(&Path, &OpenOptions) -> io::Result<(File, TemporaryFile)>;

    const CREATE: [Create; 2] = [TemporaryFile::create_anonymous, TemporaryFile::create_named];

    #[test]
    fn anonymous_and_named_files_replace_the_old_one() {
        for create in CREATE {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("n".repeat(255));
            fs::write(&path, "old").unwrap();
            let (mut file, temporary) = create(&path, &write_options(false)).unwrap();
            file.write_all(b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
            temporary.rename_to(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn existing_file_is_not_replaced_unasked() {
        for create in CREATE {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            for expected in [Ok(()), Err(io::ErrorKind::AlreadyExists)] {
                let (_, temporary) = create(&path, &write_options(false)).unwrap();
                let renamed = temporary.rename_to_free(&path);
                assert_eq!(renamed.map_err(|error| error.kind()), expected);
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
            }
        }
    }

    #[test]
    fn dropped_temporary_file_is_removed() {
        for create in CREATE {
            let folder = tempfile::tempdir().unwrap();
            drop(create(&folder.path().join("f"), &write_options(true)).unwrap());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn file_of_a_killed_run_is_removed_unless_locked_or_linked() {
        for is_kept in [None, Some("locked"), Some("linked")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("f");
            let abandoned = folder.path().join(".f.myapp-new");
            fs::write(&abandoned, "old").unwrap();
            let file = File::open(&abandoned).unwrap();
            match is_kept {
                Some("locked") => file.lock().unwrap(),
                Some(_) => fs::hard_link(&abandoned, folder.path().join("other")).unwrap(),
                None => {}
            }
            let created = TemporaryFile::create_anonymous(&path, &write_options(false));
            created.unwrap().1.rename_to(&path).unwrap();
            assert_eq!(abandoned.exists(), is_kept.is_some(), "{is_kept:?}");
        }
    }

    #[test]
    fn file_with_a_name_leaves_those_of_other_runs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let other = folder.path().join(".f.myapp-new");
        fs::write(&other, "other").unwrap();
        let (_, temporary) = TemporaryFile::create_named(&path, &write_options(false)).unwrap();
        temporary.rename_to(&path).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"other");
    }
}
