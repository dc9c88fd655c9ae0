//! Where the bytes go: opened, and brought to its final place when whole.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Uid};
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
    /// The file that takes its place then; removed if it never does.
    replacement: Option<(TempPath, PathBuf)>,
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
            Self::File { path, mode, fsync, tee } => (path, mode, fsync, tee),
        };
        let opened = match mode {
            Mode::Append => append(&path).map(|fd| (fd, None)),
            Mode::Replace => replace(&path),
        };
        let (fd, replacement) =
            opened.map_err(|source| Error::Create { path: path.clone(), source })?;
        let mut targets = vec![Target { fd, path: Some(path) }];
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
        closed.map_err(|error| Error::Write { to: self.path, source: error.into() })
    }
}

impl Finish {
    /// Puts the new file in the old one's place. Whoever opens it finds the old or the new one,
    /// never a part.
    pub(super) fn commit(self) -> Result<(), Error> {
        let Some((temporary, path)) = self.replacement else { return Ok(()) };
        let renamed = temporary.persist(&path).map_err(|error| error.error);
        let synced = renamed.and_then(|()| if self.fsync { sync_folder(&path) } else { Ok(()) });
        synced.map_err(|source| Error::Replace { path, source })
    }
}

fn append(path: &Path) -> io::Result<OwnedFd> {
    Ok(fs::OpenOptions::new().append(true).create(true).open(path)?.into())
}

fn replace(path: &Path) -> io::Result<(OwnedFd, Option<(TempPath, PathBuf)>)> {
    let old = match fs::metadata(path) {
        Ok(old) if !old.is_file() => {
            // Neither made nor cut: it may have gone since, and a regular file come.
            let device = fs::OpenOptions::new().write(true).custom_flags(NOCTTY).open(path)?;
            return Ok((device.into(), None));
        }
        Ok(old) => Some(old),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let path = std::path::absolute(resolve(path)?)?;
    let (file, temporary) = temporary(&path, old.is_none())?;
    if let Some(old) = old {
        take_after(&file, &old)?;
    }
    Ok((file.into(), Some((temporary, path))))
}

const NOCTTY: i32 = rustix::fs::OFlags::NOCTTY.bits() as i32;

/// Makes a file beside `path`, with the permissions of any new file if `public`.
fn temporary(path: &Path, public: bool) -> io::Result<(File, TempPath)> {
    let name = path.file_name().ok_or(Errno::ISDIR)?.as_bytes();
    // With what is put around it, a name must not grow over 255 bytes.
    let name = OsStr::from_bytes(&name[..name.len().min(240)]);
    let mode = if public { 0o666 } else { 0o600 };
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode);
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{:08x}", fastrand::u32(..)));
        let temporary = path.with_file_name(hidden);
        match options.open(&temporary) {
            Ok(file) => return Ok((file, TempPath::try_from_path(temporary)?)),
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
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
