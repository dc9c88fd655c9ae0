//! Where the bytes go: opened, and brought to its final place when whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Uid};
use rustix::io::Errno;
use tempfile::TempPath;

use super::error::Error;

/// Symbolic links that may lead from one to the next, as many as Linux allows.
const LINKS: usize = 40;

/// Where the bytes go.
#[derive(Debug)]
pub enum Sink {
    /// Something open, such as the standard output.
    Stream(OwnedFd),
    /// A file.
    File {
        /// Its path. A symbolic link stays, and what it leads to is written.
        path: PathBuf,
        /// What becomes of what the file holds.
        mode: Mode,
        /// Whether the run ends only when the bytes are on the disk.
        fsync: bool,
        /// A stream that gets all bytes as well.
        tee: Option<OwnedFd>,
    },
}

/// What becomes of what a file holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// A regular file is replaced, with a file that is made beside it and renamed when all inputs
    /// have had their turn, also those that failed; until then, and if the run fails, the old one
    /// stays. The new one gets the mode, and
    /// where that is permitted the owner, of the old; further hard links keep the old content.
    /// Anything else, such as a device or a FIFO, is written into.
    #[default]
    Replace,
    /// The bytes are appended.
    Append,
}

/// What is open for writing.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) fd: OwnedFd,
    /// None for a stream.
    pub(super) path: Option<PathBuf>,
}

/// What is left to do when all has been written.
#[derive(Debug, Default)]
pub(super) struct Finish {
    pub(super) fsync: bool,
    replacement: Option<Replacement>,
}

/// The file that takes another's place when it is whole, and is gone if it never is.
#[derive(Debug)]
struct Replacement {
    new: New,
    path: PathBuf,
}

/// A file that is being written.
#[derive(Debug)]
enum New {
    /// Without a name until it is whole, so that nothing of it stays however the program ends.
    Unnamed(File),
    /// For file systems that have no files without a name.
    Named(TempPath),
}

impl Sink {
    /// Whether opening may have to wait: for the reader of a FIFO, or for what a device does.
    pub(super) fn may_wait(&self) -> bool {
        match self {
            Self::Stream(_) => false,
            Self::File { path, .. } => fs::metadata(path).is_ok_and(|file| !file.is_file()),
        }
    }

    /// Opens all that is to be written.
    pub(super) fn open(self) -> Result<(Vec<Target>, Finish), Error> {
        let (path, mode, fsync, tee) = match self {
            Self::Stream(fd) => return Ok((vec![Target { fd, path: None }], Finish::default())),
            Self::File {
                path,
                mode,
                fsync,
                tee,
            } => (path, mode, fsync, tee),
        };
        let opened = match mode {
            Mode::Append => append(&path).map(|fd| (fd, None)),
            Mode::Replace => replace(&path),
        };
        let (fd, replacement) = opened.map_err(|source| Error::Create {
            path: path.clone(),
            source,
        })?;
        let mut targets = vec![Target {
            fd,
            path: Some(path),
        }];
        targets.extend(tee.map(|fd| Target { fd, path: None }));
        Ok((targets, Finish { fsync, replacement }))
    }
}

impl Target {
    /// Writes what the system keeps in memory to the disk, if it is a disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.fd) {
            Err(Errno::INVAL | Errno::ROFS | Errno::NOTSUP) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Closes, and tells what only closing tells: some network file systems write that late.
    pub(super) fn close(self) -> Result<(), Error> {
        let closed = nix::unistd::close(self.fd);
        closed.map_err(|error| Error::Write {
            to: self.path,
            source: error.into(),
        })
    }
}

impl Finish {
    /// Puts the new file in the old one's place. Whoever opens it finds the old or the new one,
    /// never a part.
    pub(super) fn commit(self) -> Result<(), Error> {
        let Some(Replacement { new, path }) = self.replacement else {
            return Ok(());
        };
        let renamed = new.take_place_of(&path);
        let synced = renamed.and_then(|()| {
            if self.fsync {
                sync_folder(&path)
            } else {
                Ok(())
            }
        });
        synced.map_err(|source| Error::Replace { path, source })
    }
}

impl New {
    /// Makes a file in the folder of `path`, with the permissions of any new file if `public`.
    fn beside(path: &Path, public: bool) -> io::Result<(File, Self)> {
        Self::unnamed_beside(path, public).or_else(|_| Self::named_beside(path, public))
    }

    fn unnamed_beside(path: &Path, public: bool) -> io::Result<(File, Self)> {
        let file = writing(public).custom_flags(TMPFILE).open(folder(path)?)?;
        // What is to lead to it later may not be there.
        fs::metadata(opened(&file))?;
        Ok((file.try_clone()?, Self::Unnamed(file)))
    }

    fn named_beside(path: &Path, public: bool) -> io::Result<(File, Self)> {
        let create = |name: &Path| writing(public).create_new(true).open(name);
        let (file, name) = with_name_beside(path, create)?;
        Ok((file, Self::Named(name)))
    }

    fn take_place_of(self, path: &Path) -> io::Result<()> {
        let name = match self {
            Self::Named(name) => name,
            Self::Unnamed(file) => {
                let link = |name: &Path| {
                    let follow = rustix::fs::AtFlags::SYMLINK_FOLLOW;
                    Ok(rustix::fs::linkat(CWD, opened(&file), CWD, name, follow)?)
                };
                with_name_beside(path, link)?.1
            }
        };
        name.persist(path).map_err(|error| error.error)
    }
}

fn writing(public: bool) -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).mode(if public { 0o666 } else { 0o600 });
    options
}

/// A path that leads to an open file, also to one without a name.
fn opened(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn append(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?
        .into())
}

fn replace(path: &Path) -> io::Result<(OwnedFd, Option<Replacement>)> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            // Neither made nor cut: it may have gone since, and a regular file come.
            let device = fs::OpenOptions::new()
                .write(true)
                .custom_flags(NOCTTY)
                .open(path)?;
            return Ok((device.into(), None));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let path = std::path::absolute(resolve(path)?)?;
    let (file, new) = New::beside(&path, old.is_none())?;
    if let Some(old) = old {
        take_after(&file, &old)?;
    }
    Ok((file.into(), Some(Replacement { new, path })))
}

const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits() as i32;
const TMPFILE: i32 = rustix::fs::OFlags::TMPFILE.bits() as i32;

/// Makes something beside `path` under a hidden name that nothing has yet; it is removed when the
/// name is dropped.
fn with_name_beside<T>(
    path: &Path,
    mut make: impl FnMut(&Path) -> io::Result<T>,
) -> io::Result<(T, TempPath)> {
    let name = path.file_name().ok_or(Errno::ISDIR)?.as_bytes();
    // With what is put around it, a name must not grow over 255 bytes.
    let name = OsStr::from_bytes(&name[..name.len().min(240)]);
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:08x}", fastrand::u32(..)));
        let hidden = path.with_file_name(hidden);
        match make(&hidden) {
            Ok(made) => return Ok((made, TempPath::try_from_path(hidden)?)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives the new file the mode and the owner of the old one.
fn take_after(file: &File, old: &fs::Metadata) -> io::Result<()> {
    let new = file.metadata()?;
    let mut mode = old.mode() & 0o7777;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        let (owner, group) = (Uid::from_raw(old.uid()), Gid::from_raw(old.gid()));
        if rustix::fs::fchown(file, Some(owner), Some(group)).is_err() {
            // A set-user-ID bit of another owner would be a different one.
            mode &= 0o777;
        }
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Follows symbolic links, also to where nothing is yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Errno::LOOP.into())
}

fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path)?)?.sync_all()
}

/// The folder of an absolute path.
fn folder(path: &Path) -> io::Result<&Path> {
    Ok(path.parent().ok_or(Errno::ISDIR)?)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_takes_the_place_of_another_with_and_without_a_name_before() {
        for make in [New::unnamed_beside, New::named_beside] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("n".repeat(255));
            fs::write(&path, "old").unwrap();
            let (mut file, new) = make(&path, false).unwrap();
            file.write_all(b"new").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
            new.take_place_of(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_file_that_never_takes_its_place_is_gone() {
        for make in [New::unnamed_beside, New::named_beside] {
            let folder = tempfile::tempdir().unwrap();
            drop(make(&folder.path().join("f"), true).unwrap());
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
