//! Readiness of a server, and whether its workers make progress.

use std::future;

use smol::channel::{Receiver, Sender, bounded};

use crate::limits::shutdown::Shutdown;

/// State of a server, as seen by health checks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    started: Shutdown,
    stopping: Shutdown,
    workers: Vec<Sender<Probe>>,
}

/// A request to a worker to drop this sender.
type Probe = Sender<()>;

/// Answers the probes that [`Health`] sends to one worker.
#[derive(Debug, Clone)]
pub(super) struct ProbeResponder(Receiver<Probe>);

impl Health {
    /// Creates the health of a server with this number of workers, and the responders of these.
    pub(super) fn new(
        workers: usize,
        started: Shutdown,
        stopping: Shutdown,
    ) -> (Self, Vec<ProbeResponder>) {
        let (workers, responders) = (0..workers)
            .map(|_| bounded(1))
            .map(|(sender, receiver)| (sender, ProbeResponder(receiver)))
            .unzip();
        let health = Self {
            started,
            stopping,
            workers,
        };
        (health, responders)
    }

    /// Returns whether the server runs and has not been asked to shut down.
    pub fn is_ready(&self) -> bool {
        self.started.is_shutdown() && !self.stopping.is_shutdown()
    }

    /// Waits until each worker thread has run a task: for ever if one hangs or has panicked, or
    /// before the server runs. A worker that has completed its drain does not count.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for_progress(&self) {
        for worker in &self.workers {
            let (probe, answered) = bounded(1);
            // Both fail at the end of the worker, and the second one when the probe is dropped.
            if worker.send(probe).await.is_ok() {
                let _ = answered.recv().await;
            }
            if worker.is_closed() && !self.stopping.is_shutdown() {
                // The thread has panicked.
                future::pending::<()>().await;
            }
        }
    }
}

impl ProbeResponder {
    /// Answers probes. Never returns while there is a [`Health`].
    pub(super) async fn run(&self) {
        while let Ok(probe) = self.0.recv().await {
            drop(probe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, or, poll_once};

    use crate::limits::shutdown;

    #[test]
    fn hanging_worker_makes_no_progress() {
        let (_started, started) = shutdown::channel();
        let (stop, stopping) = shutdown::channel();
        let (health, responders) = Health::new(2, started, stopping);
        let [busy, hanging] = <[_; 2]>::try_from(responders).unwrap();
        block_on(async {
            let mut progress = Box::pin(or(health.wait_for_progress(), busy.run()));
            for _ in 0..10 {
                assert!(poll_once(&mut progress).await.is_none());
            }
            or(progress, hanging.run()).await;
            drop(hanging);
            let mut progress = Box::pin(or(health.wait_for_progress(), busy.run()));
            for _ in 0..10 {
                assert!(poll_once(&mut progress).await.is_none());
            }
            stop.trigger();
            or(health.wait_for_progress(), busy.run()).await;
        });
    }

    #[test]
    fn server_is_ready_between_start_and_shutdown() {
        let (start, started) = shutdown::channel();
        let (stop, stopping) = shutdown::channel();
        let (health, _) = Health::new(1, started, stopping);
        assert!(!health.is_ready());
        start.trigger();
        assert!(health.is_ready());
        stop.trigger();
        assert!(!health.is_ready());
    }
}
