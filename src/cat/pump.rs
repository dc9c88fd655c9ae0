//! Threads between a pipe and a reader or writer of the caller. The copy engine moves bytes between
//! descriptors, and a poll of such a stream may take any time.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, future};
use smol::Async;
use smol::channel::{Receiver, Sender, bounded};

use crate::limits::shutdown::{self, Trigger};

/// Maximum number of bytes that are copied at once, and the default capacity of a pipe.
const CHUNK_LEN: usize = 64 << 10;

type BoxedReader = Box<dyn AsyncRead + Send + Unpin>;
type BoxedWriter = Box<dyn AsyncWrite + Send + Unpin>;

/// Asynchronous reader as an input. Clones share the reader, which can be read once.
#[derive(Clone)]
pub struct ReaderSource {
    pub(super) name: Arc<str>,
    reader: Arc<Mutex<Option<BoxedReader>>>,
}

/// Asynchronous writer as the output.
pub struct WriterSink(BoxedWriter);

/// A thread that copies. Dropping it ends the copy.
#[derive(Debug)]
pub(super) struct Pump {
    _cancel: Trigger,
    finish: Sender<()>,
    result: Receiver<io::Result<()>>,
}

impl ReaderSource {
    pub(super) fn new(name: &str, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self {
            name: name.into(),
            reader: Arc::new(Mutex::new(Some(Box::new(reader)))),
        }
    }

    /// Starts a thread that copies the reader to the returned pipe.
    pub(super) fn open(&self) -> io::Result<(PipeReader, Pump)> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = reader.take();
        let reader = reader.ok_or_else(|| io::Error::other("it was read before"))?;
        let (pipe, to) = io::pipe()?;
        let to = Async::new(File::from(OwnedFd::from(to)))?;
        Ok((pipe, Pump::spawn(|_| copy(reader, to))?))
    }
}

impl PartialEq for ReaderSource {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reader, &other.reader)
    }
}

impl Eq for ReaderSource {}

impl fmt::Debug for ReaderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReaderSource").field(&self.name).finish()
    }
}

impl WriterSink {
    pub(super) fn new(writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self(Box::new(writer))
    }

    /// Starts a thread that copies the returned pipe to the writer, and closes the writer.
    pub(super) fn open(self) -> io::Result<(PipeWriter, Pump)> {
        let (from, pipe) = io::pipe()?;
        let from = Async::new(File::from(OwnedFd::from(from)))?;
        let mut writer = self.0;
        let pump = Pump::spawn(async move |is_finished| {
            copy(from, &mut writer).await?;
            // A run that fails or is dropped closes the pipe as well.
            if is_finished.recv().await.is_ok() {
                writer.close().await?;
            }
            Ok(())
        });
        Ok((pipe, pump?))
    }
}

impl fmt::Debug for WriterSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriterSink")
    }
}

impl Pump {
    fn spawn<F>(copy: impl FnOnce(Receiver<()>) -> F + Send + 'static) -> io::Result<Self>
    where
        F: Future<Output = io::Result<()>>,
    {
        let (cancel, cancelled) = shutdown::channel();
        let (sender, result) = bounded(1);
        let (finish, is_finished) = bounded(1);
        let run = move || {
            let copied = async {
                let copied = copy(is_finished).await;
                // Fails if the pump was dropped.
                let _ = sender.try_send(copied);
            };
            smol::block_on(future::or(copied, cancelled.wait()));
        };
        thread::Builder::new().name("cat".to_owned()).spawn(run)?;
        Ok(Self {
            _cancel: cancel,
            finish,
            result,
        })
    }

    /// Waits for the end of the copy, and of closing the writer.
    pub(super) async fn finish(self) -> io::Result<()> {
        // Fails if the copy has failed.
        let _ = self.finish.try_send(());
        let result = self.result.recv().await;
        result.unwrap_or_else(|_| Err(io::Error::other("the stream panicked")))
    }
}

/// Copies until the end of `from`. Bytes are not held back.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_LEN];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
    }
}
