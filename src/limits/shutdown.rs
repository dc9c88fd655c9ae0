//! Shutdown signal: one side triggers it, any number of tasks wait for it.

use std::convert::Infallible;

use smol::channel::{Receiver, Sender, bounded};

/// Triggers the shutdown: by [`Trigger::trigger`], or when dropped.
#[derive(Debug)]
pub struct Trigger {
    _open: Sender<Infallible>,
}

/// Waits for the shutdown. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shutdown {
    closed: Receiver<Infallible>,
}

/// Creates a shutdown signal.
pub fn channel() -> (Trigger, Shutdown) {
    let (open, closed) = bounded(1);
    (Trigger { _open: open }, Shutdown { closed })
}

impl Trigger {
    /// Wakes all waiting tasks; later waits return at once.
    pub fn trigger(self) {}
}

impl Shutdown {
    /// Waits until the shutdown is triggered.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&self) {
        // Nothing can be sent over this channel: an error means that it is closed.
        let _ = self.closed.recv().await;
    }

    /// Whether the shutdown was triggered.
    pub fn is_shutdown(&self) -> bool {
        self.closed.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn waiting_tasks_are_woken() {
        block_on(async {
            let (trigger, stop) = channel();
            let other = stop.clone();
            assert!(poll_once(stop.wait()).await.is_none());
            assert!(!stop.is_shutdown());
            zip(zip(stop.wait(), other.wait()), async { trigger.trigger() }).await;
            assert!(poll_once(stop.wait()).await.is_some());
            assert!(stop.is_shutdown());
        });
    }

    #[test]
    fn dropped_trigger_shuts_down() {
        let (trigger, stop) = channel();
        drop(trigger);
        block_on(stop.wait());
    }
}
