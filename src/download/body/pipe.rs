//! A pipe, through which the system moves a body into a file: its bytes never come into the
//! memory of this program.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// The most that is in the pipe at once: as large as anyone may make one.
pub(crate) const ROOM: usize = 1024 * 1024;

/// Both ends.
#[derive(Debug)]
pub(crate) struct Pipe {
    exit: File,
    entry: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (exit, entry) = pipe_with(PipeFlags::CLOEXEC)?;
        // A user who has many pipes gets small ones: that is slower, nothing else.
        let _ = fcntl_setpipe_size(&entry, ROOM);
        Ok(Self {
            exit: exit.into(),
            entry,
        })
    }

    pub(crate) fn entry(&self) -> BorrowedFd<'_> {
        self.entry.as_fd()
    }

    /// Moves the next `count` bytes, which are in the pipe, into `file` from the byte `at` on.
    pub(crate) fn pour(&self, file: &File, at: u64, count: usize) -> io::Result<()> {
        let (mut place, end) = (at, at + count as u64);
        while place < end {
            let left = (end - place) as usize;
            match splice(
                &self.exit,
                None,
                file,
                Some(&mut place),
                left,
                SpliceFlags::MOVE,
            ) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // Not every file system can.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    return self.copy(file, place, left);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn copy(&self, file: &File, at: u64, count: usize) -> io::Result<()> {
        let mut bytes = vec![0; count];
        (&self.exit).read_exact(&mut bytes)?;
        file.write_all_at(&bytes, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn what_is_in_the_pipe_comes_to_its_place_in_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "0123456789").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let pipe = Pipe::new().unwrap();
        File::from(pipe.entry().try_clone_to_owned().unwrap())
            .write_all(b"abcdef")
            .unwrap();
        pipe.pour(&file, 2, 3).unwrap();
        pipe.copy(&file, 8, 3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"01abc567def");
    }
}
