//! Moves a body from its connection to where it is kept.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use futures_lite::{AsyncRead, AsyncReadExt as _};

use crate::download::body::decode::Damaged;
use crate::download::body::pipe::{Pipe, ROOM};
use crate::download::body::source::SpliceRead;
use crate::download::body::throttle::TooSlow;
use crate::download::error::Error;
use crate::download::http::HttpError;
use crate::download::store::sink::Store;

/// A body up to this long is one write, made where it was read: it goes into the page cache,
/// which stalls nobody, while a hop to the pool for blocking work costs more than the write.
const SMALL: usize = 256 * 1024;

/// One up to this long is several such writes: it is no more than a few small bodies.
const MEDIUM: u64 = 4 * 1024 * 1024;

/// A longer one is written in pieces of this size, on that pool.
const PIECE: usize = 1024 * 1024;

/// What goes into a writer goes in pieces of at most this size, as they come.
const SIP: usize = 64 * 1024;

/// What has come is written after this long even if it is no whole piece: if the program is
/// killed, no more is lost.
const OVERDUE: Duration = Duration::from_secs(1);

/// Which side failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// A body on its way: `seen` is told the number of bytes that have come, again and again.
pub(crate) struct Body<R, S> {
    reader: R,
    position: u64,
    seen: S,
}

/// What a read has put into a buffer.
pub(crate) struct Filled {
    pub(crate) count: usize,
    /// How the body ended, if it did.
    pub(crate) end: Option<Result<(), io::Error>>,
}

impl CopyError {
    /// What it means for the file.
    pub(crate) fn into_error(self, store: &Store) -> Error {
        match self {
            Self::Read(error) => match (error.get_ref(), error.to_string()) {
                (Some(cause), text) if cause.is::<TooSlow>() => Error::TooSlow { text },
                (Some(cause), text) if cause.is::<Damaged>() => Error::CorruptEncoding { text },
                _ => HttpError::from_io(error).into(),
            },
            Self::Write(error) => store.failed(error),
        }
    }
}

impl<R: SpliceRead, S: FnMut(u64)> Body<R, S> {
    /// Puts the body, of `length` bytes if that is known, into a file. What came before an error
    /// is written too.
    pub(crate) async fn save(
        mut self,
        length: Option<u64>,
        store: Arc<Store>,
    ) -> Result<(), CopyError> {
        if let Some(length) = length.filter(|length| *length > SMALL as u64) {
            return self.save_long(length, store).await;
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
                store
                    .write_and_note(&buffer[..count])
                    .map_err(CopyError::Write)?;
                self.pump(store, PIECE, PIECE).await
            }
        }
    }

    /// Puts a body that is not small into a file that has room set aside for it.
    async fn save_long(&mut self, length: u64, store: Arc<Store>) -> Result<(), CopyError> {
        let (reserved, end) = (Arc::clone(&store), self.position + length);
        let (is_medium, most) = match length {
            ..=MEDIUM => (true, ROOM),
            _ => (false, SMALL),
        };
        let reserve = move || reserved.reserve(end);
        let room = if is_medium {
            reserve()
        } else {
            smol::unblock(reserve).await
        };
        room.map_err(CopyError::Write)?;
        if let Some(pipe) = store.wants_no_bytes().then(Pipe::new).and_then(Result::ok)
            && self.stream(pipe, most, &store).await?
        {
            return Ok(());
        }
        if is_medium {
            self.write_here(&store).await
        } else {
            self.pump(store, PIECE, PIECE).await
        }
    }

    /// Lets the system move the body; whether it can. What comes at once is moved into the file at
    /// once: up to `most` of it here, more on the pool for blocking work.
    async fn stream(
        &mut self,
        mut pipe: Pipe,
        most: usize,
        store: &Arc<Store>,
    ) -> Result<bool, CopyError> {
        let mut filled = self.fill_pipe(&pipe).await;
        if filled.is_none() {
            self.sip(store).await?;
            filled = self.fill_pipe(&pipe).await;
        }
        while let Some(Filled { count, end }) = filled {
            let poured = if count <= most {
                store.pour(&pipe, count)
            } else {
                let store = Arc::clone(store);
                let (poured, empty) = smol::unblock(move || (store.pour(&pipe, count), pipe)).await;
                pipe = empty;
                poured
            };
            poured.map_err(CopyError::Write)?;
            if let Some(end) = end {
                return end.map(|()| true).map_err(CopyError::Read);
            }
            filled = self.fill_pipe(&pipe).await;
        }
        Ok(false)
    }

    /// Reads what came together with the head, and writes it.
    async fn sip(&mut self, store: &Store) -> Result<(), CopyError> {
        let mut buffer = vec![0; SIP];
        let Filled { count, end } = self.fill(&mut buffer, 1).await;
        store
            .write_and_note(&buffer[..count])
            .map_err(CopyError::Write)?;
        end.unwrap_or(Ok(())).map_err(CopyError::Read)
    }

    /// Moves what has come into the pipe, which is empty, and waits only for the first of it.
    async fn fill_pipe(&mut self, pipe: &Pipe) -> Option<Filled> {
        let (mut count, mut end) = (0, None);
        while count < ROOM && end.is_none() {
            let reader = &mut self.reader;
            let more = poll_fn(|cx| reader.poll_splice(cx, pipe.entry(), ROOM - count));
            let moved = match count {
                0 => Some(more.await),
                _ => poll_once(more).await,
            };
            match moved {
                Some(Ok(None)) if count == 0 => return None,
                None | Some(Ok(None)) => break,
                Some(Ok(Some(0))) => end = Some(Ok(())),
                Some(Err(error)) => end = Some(Err(error)),
                Some(Ok(Some(more))) => {
                    count += more;
                    self.position += more as u64;
                    (self.seen)(self.position);
                }
            }
        }
        Some(Filled { count, end })
    }
}

impl<R: AsyncRead + Unpin, S: FnMut(u64)> Body<R, S> {
    /// A body whose first byte is the one at `position` of the file.
    pub(crate) fn new(reader: R, position: u64, seen: S) -> Self {
        Self {
            reader,
            position,
            seen,
        }
    }

    /// Puts the body into a writer as it comes.
    pub(crate) async fn send(mut self, store: Arc<Store>) -> Result<(), CopyError> {
        self.pump(store, SIP, 1).await
    }

    /// Writes where it is read.
    async fn write_here(&mut self, store: &Store) -> Result<(), CopyError> {
        let mut buffer = vec![0; SMALL];
        loop {
            let Filled { count, end } = self.fill(&mut buffer, SMALL).await;
            store
                .write_and_note(&buffer[..count])
                .map_err(CopyError::Write)?;
            if let Some(end) = end {
                return end.map_err(CopyError::Read);
            }
        }
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
    pub(crate) async fn fill(&mut self, buffer: &mut [u8], least: usize) -> Filled {
        let (mut count, start) = (0, Instant::now());
        while count < least && (count == 0 || start.elapsed() < OVERDUE) {
            match self.reader.read(&mut buffer[count..]).await {
                Ok(0) => {
                    return Filled {
                        count,
                        end: Some(Ok(())),
                    };
                }
                Ok(more) => {
                    count += more;
                    self.position += more as u64;
                    (self.seen)(self.position);
                }
                Err(error) => {
                    return Filled {
                        count,
                        end: Some(Err(error)),
                    };
                }
            }
        }
        Filled { count, end: None }
    }
}
