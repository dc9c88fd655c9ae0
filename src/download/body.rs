//! Moves a body from its connection to where it is kept.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use futures_lite::{AsyncRead, AsyncReadExt as _};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// A body up to this long is one write, made where it was read: it goes into the page cache,
/// which stalls nobody, while a hop to the pool for blocking work costs more than the write.
const SMALL: usize = 256 * 1024;

/// A longer one is written in pieces of this size, on that pool.
const PIECE: usize = 1024 * 1024;

/// What goes into a writer goes in pieces of at most this size, as they come.
const SIP: usize = 64 * 1024;

/// Which side failed.
#[derive(Debug)]
pub(super) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// A body on its way: `seen` is told the number of bytes that have come, again and again.
pub(super) struct Body<R, S> {
    reader: R,
    position: u64,
    seen: S,
}

impl<R: AsyncRead + Unpin, S: FnMut(u64)> Body<R, S> {
    pub(super) fn new(reader: R, seen: S) -> Self {
        Self { reader, position: 0, seen }
    }

    /// Writes the body, of `length` bytes if that is known, to `file`; returns how many came.
    pub(super) async fn save(
        mut self,
        length: Option<u64>,
        file: Arc<File>,
    ) -> Result<u64, CopyError> {
        if let Some(length) = length.filter(|length| *length > SMALL as u64) {
            let reserved = Arc::clone(&file);
            let reserve = smol::unblock(move || reserve(&reserved, length));
            reserve.await.map_err(CopyError::Write)?;
            return self.pump(file, PIECE, PIECE).await;
        }
        // One byte more than the body shows its end without another buffer.
        let size = length.map_or(SMALL, |length| length as usize) + 1;
        let mut buffer = vec![0; size];
        let count = self.fill(&mut buffer, size).await?;
        (&*file).write_all(&buffer[..count]).map_err(CopyError::Write)?;
        if count < size { Ok(self.position) } else { self.pump(file, PIECE, PIECE).await }
    }

    /// Writes the body into `writer` as it comes; returns how many bytes came.
    pub(super) async fn send(mut self, writer: Box<dyn Write + Send>) -> Result<u64, CopyError> {
        self.pump(writer, SIP, 1).await
    }

    /// Writes on the pool for blocking work, at least `least` bytes at a time, with two buffers
    /// in turn: while one is written, the other is read.
    async fn pump<W>(&mut self, mut out: W, size: usize, least: usize) -> Result<u64, CopyError>
    where
        W: Write + Send + 'static,
    {
        let (mut full, mut spare) = (vec![0; size], vec![0; size]);
        let mut count = self.fill(&mut full, least).await?;
        while count > 0 {
            let writing = smol::unblock(move || {
                let result = out.write_all(&full[..count]).and_then(|()| out.flush());
                (out, full, result)
            });
            let next = self.fill(&mut spare, least).await;
            let (back, empty, written) = writing.await;
            written.map_err(CopyError::Write)?;
            count = next?;
            (out, full, spare) = (back, spare, empty);
        }
        Ok(self.position)
    }

    /// Reads at least `least` bytes into `buffer`, fewer only at the end of the body.
    async fn fill(&mut self, buffer: &mut [u8], least: usize) -> Result<usize, CopyError> {
        let mut count = 0;
        while count < least {
            let more = self.reader.read(&mut buffer[count..]).await.map_err(CopyError::Read)?;
            if more == 0 {
                break;
            }
            count += more;
            self.position += more as u64;
            (self.seen)(self.position);
        }
        Ok(count)
    }
}

/// Sets room aside for a file of `length` bytes: a disk that is too full fails now, and what is
/// written later lies together.
fn reserve(file: &File, length: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, length) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno.into()),
        // Not every file system can.
        _ => Ok(()),
    }
}
