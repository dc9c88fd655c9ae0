//! Pipe through which splice(2) moves a body into a file without copying it into the memory of
//! this process.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

/// Capacity of a pipe in bytes: the limit for unprivileged users.
pub(crate) const PIPE_CAPACITY: usize = 1024 * 1024;

/// Both ends of a pipe.
#[derive(Debug)]
pub(crate) struct Pipe {
    reader: File,
    writer: OwnedFd,
}

impl Pipe {
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // A user with many pipes gets smaller ones, which are only slower.
        let _ = fcntl_setpipe_size(&writer, PIPE_CAPACITY);
        Ok(Self {
            reader: reader.into(),
            writer,
        })
    }

    /// Returns the end to which bytes are written.
    pub(crate) fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Moves `count` bytes that are in the pipe into `file` at `offset`.
    pub(crate) fn splice_out(&self, file: &File, offset: u64, count: usize) -> io::Result<()> {
        let end = offset + count as u64;
        let mut position = offset;
        while position < end {
            let left = (end - position) as usize;
            match splice(
                &self.reader,
                None,
                file,
                Some(&mut position),
                left,
                SpliceFlags::MOVE,
            ) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) | Err(Errno::INTR) => {}
                // Not every file system supports it, nor does every sandbox permit it.
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    return self.copy(file, position, left);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn copy(&self, file: &File, offset: u64, count: usize) -> io::Result<()> {
        let mut bytes = vec![0; count];
        (&self.reader).read_exact(&mut bytes)?;
        file.write_all_at(&bytes, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;

    #[test]
    fn bytes_are_moved_to_their_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        fs::write(&path, "0123456789").unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        let pipe = Pipe::new().unwrap();
        File::from(pipe.writer().try_clone_to_owned().unwrap())
            .write_all(b"abcdef")
            .unwrap();
        pipe.splice_out(&file, 2, 3).unwrap();
        pipe.copy(&file, 8, 3).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"01abc567def");
    }
}
