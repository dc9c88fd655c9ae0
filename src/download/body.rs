//! Moves a body from its connection to where it is kept.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{AsyncRead, AsyncReadExt as _};

use crate::download::decoded::Damaged;
use crate::download::error::DownloadError;
use crate::download::http::HttpError;
use crate::download::pace::TooSlow;
use crate::download::store::Store;

/// A body up to this long is one write, made where it was read: it goes into the page cache,
/// which stalls nobody, while a hop to the pool for blocking work costs more than the write.
const SMALL: usize = 256 * 1024;

/// A longer one is written in pieces of this size, on that pool.
const PIECE: usize = 1024 * 1024;

/// What goes into a writer goes in pieces of at most this size, as they come.
const SIP: usize = 64 * 1024;

/// What has come is written after this long even if it is no whole piece: if the program is
/// killed, no more is lost.
const OVERDUE: Duration = Duration::from_secs(1);

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

/// What a read has put into a buffer.
pub(super) struct Filled {
    pub(super) count: usize,
    /// How the body ended, if it did.
    pub(super) end: Option<Result<(), io::Error>>,
}

impl CopyError {
    /// What it means for the file.
    pub(super) fn into_error(self, store: &Store) -> DownloadError {
        match self {
            Self::Read(error) => match (error.get_ref(), error.to_string()) {
                (Some(cause), text) if cause.is::<TooSlow>() => DownloadError::TooSlow { text },
                (Some(cause), text) if cause.is::<Damaged>() => DownloadError::Damaged { text },
                _ => HttpError::from_io(error).into(),
            },
            Self::Write(error) => store.failed(error),
        }
    }
}

impl<R: AsyncRead + Unpin, S: FnMut(u64)> Body<R, S> {
    /// A body whose first byte is the one at `position` of the file.
    pub(super) fn new(reader: R, position: u64, seen: S) -> Self {
        Self { reader, position, seen }
    }

    /// Puts the body, of `length` bytes if that is known, into a file. What came before an error
    /// is written too.
    pub(super) async fn save(
        mut self,
        length: Option<u64>,
        store: Arc<Store>,
    ) -> Result<(), CopyError> {
        if let Some(length) = length.filter(|length| *length > SMALL as u64) {
            let (reserved, end) = (Arc::clone(&store), self.position + length);
            let reserve = smol::unblock(move || reserved.reserve(end));
            reserve.await.map_err(CopyError::Write)?;
            return self.pump(store, PIECE, PIECE).await;
        }
        // One byte more than the body shows its end without another buffer.
        let size = length.map_or(SMALL, |length| length as usize) + 1;
        let mut buffer = vec![0; size];
        let Filled { count, end } = self.fill(&mut buffer, size).await;
        match end {
            Some(end) => {
                store.write(&buffer[..count]).map_err(CopyError::Write)?;
                end.map_err(CopyError::Read)
            }
            None => {
                store.write_and_note(&buffer[..count]).map_err(CopyError::Write)?;
                self.pump(store, PIECE, PIECE).await
            }
        }
    }

    /// Puts the body into a writer as it comes.
    pub(super) async fn send(mut self, store: Arc<Store>) -> Result<(), CopyError> {
        self.pump(store, SIP, 1).await
    }

    /// Writes on the pool for blocking work, at least `least` bytes at a time, with two buffers
    /// in turn: while one is written, the other is read.
    async fn pump(
        &mut self,
        store: Arc<Store>,
        size: usize,
        least: usize,
    ) -> Result<(), CopyError> {
        let (mut full, mut spare) = (vec![0; size], vec![0; size]);
        let mut filled = self.fill(&mut full, least).await;
        loop {
            let (store, count) = (Arc::clone(&store), filled.count);
            let writing = smol::unblock(move || {
                let result = store.write_and_note(&full[..count]);
                (full, result)
            });
            let next = match filled.end {
                Some(_) => None,
                None => Some(self.fill(&mut spare, least).await),
            };
            let (empty, written) = writing.await;
            written.map_err(CopyError::Write)?;
            match (filled.end, next) {
                (None, Some(next)) => filled = next,
                (end, _) => return end.unwrap_or(Ok(())).map_err(CopyError::Read),
            }
            (full, spare) = (spare, empty);
        }
    }

    /// Reads at least `least` bytes into `buffer`; fewer at the end of the body, and when that
    /// takes long.
    pub(super) async fn fill(&mut self, buffer: &mut [u8], least: usize) -> Filled {
        let (mut count, start) = (0, Instant::now());
        while count < least && (count == 0 || start.elapsed() < OVERDUE) {
            match self.reader.read(&mut buffer[count..]).await {
                Ok(0) => return Filled { count, end: Some(Ok(())) },
                Ok(more) => {
                    count += more;
                    self.position += more as u64;
                    (self.seen)(self.position);
                }
                Err(error) => return Filled { count, end: Some(Err(error)) },
            }
        }
        Filled { count, end: None }
    }
}
