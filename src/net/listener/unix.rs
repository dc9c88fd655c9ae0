//! Binding and removing the path of a Unix socket.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf, absolute};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Stat, chmodat, fchmod, lstat};
use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketAddrUnix, bind, connect};

use crate::net::address::UnixPath;
use crate::net::unix::{socket_addr, stream_socket};

/// Path of a bound Unix socket. Dropping the guard removes the path, if it still belongs to the
/// socket.
///
/// The socket must outlive the guard: while it is open, no other file can have its inode.
#[derive(Debug)]
pub(crate) struct SocketPathGuard {
    path: PathBuf,
    file: (u64, u64),
}

impl SocketPathGuard {
    /// Binds `socket` at `path` with the permissions `mode`. A stale socket is removed first.
    pub(super) fn bind(socket: &OwnedFd, path: &UnixPath, mode: Mode) -> io::Result<Self> {
        // The file gets the permissions of the socket minus the umask: never too many.
        fchmod(socket, mode)?;
        let address = socket_addr(path)?;
        match bind(socket, &address) {
            Err(Errno::ADDRINUSE) => {
                remove_stale(path.as_ref(), &address)?;
                bind(socket, &address)?;
            }
            result => result?,
        }
        let stat = lstat(path.as_ref())?;
        let claim = Self {
            path: absolute(path)?,
            file: identity(&stat),
        };
        if Mode::from_raw_mode(stat.st_mode) != mode {
            chmodat(CWD, path.as_ref(), mode, AtFlags::empty())?;
        }
        Ok(claim)
    }
}

impl Drop for SocketPathGuard {
    fn drop(&mut self) {
        if lstat(&self.path).is_ok_and(|stat| identity(&stat) == self.file) {
            // A path that cannot be removed is replaced by the next server.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Removes a stale socket, and nothing else.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> io::Result<()> {
    let stat = lstat(path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        let text = "there is a file that is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    let probe = stream_socket()?;
    match connect(&probe, address) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        Err(error @ Errno::ACCESS) => Err(error.into()),
        // Accepted, a full backlog (EAGAIN), or a datagram socket (EPROTOTYPE): the socket is live.
        _ => Err(Errno::ADDRINUSE.into()),
    }
}

/// Returns the name of a Unix socket: its path, or `@` and its abstract name.
pub(super) fn name(address: SocketAddrAny) -> Option<PathBuf> {
    let address = SocketAddrUnix::try_from(address).ok()?;
    if let Some(path) = address.path() {
        return Some(OsStr::from_bytes(path.to_bytes()).into());
    }
    let name = [b"@", address.abstract_name()?].concat();
    Some(OsStr::from_bytes(&name).into())
}

#[cfg(test)]
mod tests {
    use super::super::{ListenError, Listener};
    use super::*;
    use std::fs::Permissions;
    use std::num::NonZeroUsize;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

    fn listen(path: &Path) -> io::Result<Vec<Listener>> {
        let path = UnixPath::new(path).unwrap();
        match Listener::bind_unix(&path, 0o600, NonZeroUsize::new(2).unwrap()) {
            Err(ListenError::Bind { source, .. }) => Err(source),
            result => Ok(result.unwrap()),
        }
    }

    #[test]
    fn socket_file_exists_while_a_listener_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let mut listeners = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        listeners.pop();
        UnixStream::connect(&path).unwrap();
        listeners.pop();
        assert!(!path.exists());
    }

    #[test]
    fn stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listeners = listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn used_socket_and_other_files_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let _live = UnixListener::bind(path("live")).unwrap();
        let _datagrams = UnixDatagram::bind(path("datagrams")).unwrap();
        fs::write(path("file"), "text").unwrap();
        fs::create_dir(path("folder")).unwrap();
        symlink("nowhere", path("link")).unwrap();
        for (name, kind) in [
            ("live", io::ErrorKind::AddrInUse),
            ("datagrams", io::ErrorKind::AddrInUse),
            ("file", io::ErrorKind::AlreadyExists),
            ("folder", io::ErrorKind::AlreadyExists),
            ("link", io::ErrorKind::AlreadyExists),
            ("none/s", io::ErrorKind::NotFound),
        ] {
            let before = fs::symlink_metadata(path(name))
                .ok()
                .map(|found| found.ino());
            assert_eq!(listen(&path(name)).unwrap_err().kind(), kind, "{name}");
            let after = fs::symlink_metadata(path(name))
                .ok()
                .map(|found| found.ino());
            assert_eq!(before, after, "{name} is still there");
        }
    }

    #[test]
    fn replaced_socket_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let ours = listen(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = UnixListener::bind(&path).unwrap();
        drop(ours);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn permissions_are_independent_of_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o666, 0o777, 0o000] {
            let path = folder.path().join(format!("{mode:o}"));
            let path = UnixPath::new(path).unwrap();
            let _listeners = Listener::bind_unix(&path, mode, NonZeroUsize::MIN).unwrap();
            let found = fs::metadata(&path).unwrap().permissions();
            assert_eq!(found.mode() & 0o7777, Permissions::from_mode(mode).mode());
        }
    }
}
