//! Worker thread.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use smol::channel::{Receiver, bounded};

use crate::runtime::driver::{Driver, Unparker};

/// Thread that runs one future and its sockets. Dropping it drops the future and joins the thread.
#[derive(Debug)]
pub(crate) struct WorkerThread<T> {
    result: Receiver<T>,
    unparker: Arc<Unparker>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> WorkerThread<T> {
    /// Starts a thread for the future that `make` creates there. It polls for `busy_poll` before it
    /// blocks.
    ///
    /// # Errors
    ///
    /// Fails if no thread or descriptor is available.
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
                // The receiver is gone if the result is not wanted.
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

    /// Waits for the end of the future. Returns `None` if it panicked.
    ///
    /// # Cancel safety
    ///
    /// If the future returned here is dropped, the future of the worker is dropped too.
    pub(crate) async fn finish(self) -> Option<T> {
        self.result.recv().await.ok()
    }
}

impl<T> Drop for WorkerThread<T> {
    fn drop(&mut self) {
        self.unparker.cancel();
        if let Some(thread) = self.thread.take() {
            // The panic hook has reported the panic.
            let _ = thread.join();
        }
    }
}
