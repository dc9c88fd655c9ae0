//! Copying a body to its sink.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future::poll_once;
use futures_lite::{AsyncRead, AsyncReadExt as _};

use crate::download::body::decode::CorruptEncoding;
use crate::download::body::pipe::{PIPE_CAPACITY, Pipe};
use crate::download::body::source::DirectRead;
use crate::download::body::throttle::TooSlow;
use crate::download::error::Error;
use crate::download::http::{HttpError, ReadTarget};
use crate::download::store::sink::FileSink;

/// Maximum length of a body that is written with one call on the executor thread: a write to the
/// page cache takes less time than the detour through the blocking pool.
const MAX_SMALL_LEN: usize = 256 * 1024;

/// Maximum length of a body that is written on the executor thread, in several such calls.
const MAX_MEDIUM_LEN: u64 = 4 * 1024 * 1024;

/// Length of the writes of a longer body, on the blocking pool.
const FILE_CHUNK_LEN: usize = 1024 * 1024;

/// Maximum length of the writes to a writer, which are made as soon as bytes are received.
const WRITER_CHUNK_LEN: usize = 64 * 1024;

/// Maximum age of received bytes that are not written yet. It bounds the loss if the process is
/// killed.
const MAX_BUFFERED_TIME: Duration = Duration::from_secs(1);

/// Failed side of a copy.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

/// Copy of a body. `on_progress` is called with the offset in the file behind the received bytes.
pub(crate) struct BodyCopy<R, P> {
    reader: R,
    position: u64,
    on_progress: P,
}

/// Result of filling a buffer.
pub(crate) struct ReadOutcome {
    pub(crate) count: usize,
    /// Result of the body, if it has ended.
    pub(crate) end: Option<Result<(), io::Error>>,
}

impl CopyError {
    /// Returns the error of the download.
    pub(crate) fn into_error(self, sink: &FileSink) -> Error {
        let error = match self {
            Self::Read(error) => error,
            Self::Write(error) => return sink.write_error(error),
        };
        let cause = error.get_ref();
        if let Some(TooSlow { received, limit }) = cause.and_then(|cause| cause.downcast_ref()) {
            return Error::TooSlow {
                received: *received,
                window: limit.window,
                bytes_per_sec: limit.bytes_per_sec,
            };
        }
        if cause.is_some_and(|cause| cause.is::<CorruptEncoding>()) {
            return Error::CorruptEncoding { source: error };
        }
        HttpError::from_io(error).into()
    }
}

impl<R: DirectRead, P: FnMut(u64)> BodyCopy<R, P> {
    /// Copies the body, of `len` bytes if known, to a file. Bytes received before an error are
    /// written.
    pub(crate) async fn into_file(
        mut self,
        len: Option<u64>,
        sink: Arc<FileSink>,
    ) -> Result<(), CopyError> {
        if let Some(len) = len
            && len > MAX_SMALL_LEN as u64
        {
            return self.copy_long(len, sink).await;
        }
        // One byte more than the body reaches its end without another read into a new buffer.
        let size = len.map_or(MAX_SMALL_LEN, |len| len as usize) + 1;
        let mut buffer = vec![0; size];
        let ReadOutcome { count, end } = self.fill(&mut buffer, size).await;
        if let Some(end) = end {
            sink.write(&buffer[..count]).map_err(CopyError::Write)?;
            return end.map_err(CopyError::Read);
        }
        sink.write_with_checkpoint(&buffer[..count])
            .map_err(CopyError::Write)?;
        self.copy_buffered(sink, FILE_CHUNK_LEN, FILE_CHUNK_LEN)
            .await
    }

    /// Copies a body that is not small to a file with reserved space.
    async fn copy_long(&mut self, len: u64, sink: Arc<FileSink>) -> Result<(), CopyError> {
        let is_medium = len <= MAX_MEDIUM_LEN;
        let end = self.position + len;
        let reserved = if is_medium {
            sink.reserve(end)
        } else {
            let sink = Arc::clone(&sink);
            smol::unblock(move || sink.reserve(end)).await
        };
        reserved.map_err(CopyError::Write)?;
        // Longer moves use the blocking pool.
        let max_inline = if is_medium {
            PIPE_CAPACITY
        } else {
            MAX_SMALL_LEN
        };
        if sink.can_splice() {
            if self.write_slices(&sink).await? {
                return Ok(());
            }
            if let Ok(pipe) = Pipe::new()
                && self.splice(pipe, max_inline, &sink).await?
            {
                return Ok(());
            }
        }
        if is_medium {
            self.copy_inline(&sink).await
        } else {
            self.copy_buffered(sink, FILE_CHUNK_LEN, FILE_CHUNK_LEN)
                .await
        }
    }

    /// Writes the slices in which the body is received. Returns whether it has ended; without TLS,
    /// only what came together with the response head is received so.
    async fn write_slices(&mut self, sink: &FileSink) -> Result<bool, CopyError> {
        loop {
            let mut written = Ok(());
            let reader = &mut self.reader;
            let received = poll_fn(|cx| {
                let mut write = |bytes: &[u8]| {
                    if written.is_ok() {
                        written = sink.write_with_checkpoint(bytes);
                    }
                };
                reader.poll_read_direct(cx, ReadTarget::Slices(&mut write), MAX_SMALL_LEN)
            })
            .await;
            written.map_err(CopyError::Write)?;
            match received.map_err(CopyError::Read)? {
                None => return Ok(false),
                Some(0) => return Ok(true),
                Some(count) => self.record_received(count),
            }
        }
    }

    /// Moves the body through a pipe. Returns whether that is supported. Up to `max_inline` bytes
    /// are moved into the file on the executor thread, more on the blocking pool.
    async fn splice(
        &mut self,
        mut pipe: Pipe,
        max_inline: usize,
        sink: &Arc<FileSink>,
    ) -> Result<bool, CopyError> {
        let mut filled = self.fill_pipe(&pipe).await;
        while let Some(ReadOutcome { count, end }) = filled {
            let moved = if count <= max_inline {
                sink.splice_from(&pipe, count)
            } else {
                let sink = Arc::clone(sink);
                let (moved, empty) =
                    smol::unblock(move || (sink.splice_from(&pipe, count), pipe)).await;
                pipe = empty;
                moved
            };
            moved.map_err(CopyError::Write)?;
            if let Some(end) = end {
                return end.map(|()| true).map_err(CopyError::Read);
            }
            filled = self.fill_pipe(&pipe).await;
        }
        Ok(false)
    }

    /// Moves received bytes into an empty pipe. Waits only for the first ones. Returns `None` if
    /// the body does not support it.
    async fn fill_pipe(&mut self, pipe: &Pipe) -> Option<ReadOutcome> {
        let mut count = 0;
        let mut end = None;
        while count < PIPE_CAPACITY && end.is_none() {
            let reader = &mut self.reader;
            let more = poll_fn(|cx| {
                let target = ReadTarget::Pipe(pipe.writer());
                reader.poll_read_direct(cx, target, PIPE_CAPACITY - count)
            });
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
                    self.record_received(more);
                }
            }
        }
        Some(ReadOutcome { count, end })
    }
}

impl<R: AsyncRead + Unpin, P: FnMut(u64)> BodyCopy<R, P> {
    fn record_received(&mut self, count: usize) {
        self.position += count as u64;
        (self.on_progress)(self.position);
    }

    /// Creates a copy of a body whose first byte has this `position` in the file.
    pub(crate) fn new(reader: R, position: u64, on_progress: P) -> Self {
        Self {
            reader,
            position,
            on_progress,
        }
    }

    /// Copies the body to a writer, without waiting for complete chunks.
    pub(crate) async fn into_writer(mut self, sink: Arc<FileSink>) -> Result<(), CopyError> {
        self.copy_buffered(sink, WRITER_CHUNK_LEN, 1).await
    }

    /// Copies on the executor thread.
    async fn copy_inline(&mut self, sink: &FileSink) -> Result<(), CopyError> {
        let mut buffer = vec![0; MAX_SMALL_LEN];
        loop {
            let ReadOutcome { count, end } = self.fill(&mut buffer, MAX_SMALL_LEN).await;
            sink.write_with_checkpoint(&buffer[..count])
                .map_err(CopyError::Write)?;
            if let Some(end) = end {
                return end.map_err(CopyError::Read);
            }
        }
    }

    /// Copies with writes of at least `min_len` bytes on the blocking pool, with two buffers: one
    /// is filled while the other is written.
    async fn copy_buffered(
        &mut self,
        sink: Arc<FileSink>,
        buffer_len: usize,
        min_len: usize,
    ) -> Result<(), CopyError> {
        let mut full = vec![0; buffer_len];
        let mut spare = vec![0; buffer_len];
        let mut filled = self.fill(&mut full, min_len).await;
        loop {
            let sink = Arc::clone(&sink);
            let count = filled.count;
            let write = smol::unblock(move || {
                let result = sink.write_with_checkpoint(&full[..count]);
                (full, result)
            });
            let next = match filled.end {
                Some(_) => None,
                None => Some(self.fill(&mut spare, min_len).await),
            };
            let (empty, written) = write.await;
            written.map_err(CopyError::Write)?;
            match (filled.end, next) {
                (None, Some(next)) => filled = next,
                (end, _) => return end.unwrap_or(Ok(())).map_err(CopyError::Read),
            }
            full = spare;
            spare = empty;
        }
    }

    /// Reads at least `min_len` bytes into `buffer`; fewer at the end of the body and if the bytes
    /// would stay in the buffer for too long.
    pub(crate) async fn fill(&mut self, buffer: &mut [u8], min_len: usize) -> ReadOutcome {
        let start = Instant::now();
        let mut count = 0;
        while count < min_len && (count == 0 || start.elapsed() < MAX_BUFFERED_TIME) {
            let end = match self.reader.read(&mut buffer[count..]).await {
                Ok(0) => Ok(()),
                Ok(more) => {
                    count += more;
                    self.record_received(more);
                    continue;
                }
                Err(error) => Err(error),
            };
            return ReadOutcome {
                count,
                end: Some(end),
            };
        }
        ReadOutcome { count, end: None }
    }
}
