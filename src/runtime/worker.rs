//! A thread that runs one future.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use smol::channel::{Receiver, bounded};

use crate::runtime::driver::{Driver, Unparker};

/// A thread that runs one future, and the sockets that it opens. When dropped, the future is
/// dropped at once, and the thread has ended.
#[derive(Debug)]
pub(crate) struct WorkerThread<T> {
    result: Receiver<T>,
    unparker: Arc<Unparker>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Starts a thread for the future that `make` makes there. For `busy_poll` after each event it
    /// keeps asking for the next one before it sleeps.
    ///
    /// # Errors
    ///
    /// When the system has no thread or no descriptor left.
    pub(crate) fn start<F: Future<Output = T>>(
        name: &str,
        busy_poll: Duration,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> io::Result<Self> {
        let driver = Driver::new()?.busy_poll(busy_poll);
        let unparker = driver.unparker();
        let (sender, result) = bounded(1);
        let work = move || {
            if let Some(output) = driver.run(make) {
                // Nobody waits for it any more when the other side is gone.
                let _ = sender.try_send(output);
            }
        };
        let thread = Builder::new().name(name.into()).spawn(work)?;
        Ok(Self {
            result,
            unparker,
            thread: Some(thread),
        })
    }

    /// Waits for the end of the future; `None` if it panicked.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, so is the future.
    pub(crate) async fn finish(self) -> Option<T> {
        self.result.recv().await.ok()
    }
}

impl<T> Drop for WorkerThread<T> {
    fn drop(&mut self) {
        self.unparker.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic has been told by the panic hook already.
            let _ = thread.join();
        }
    }
}
