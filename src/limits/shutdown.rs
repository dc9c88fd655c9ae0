//! Until when: a stop that one side calls and any number of others wait for.

use std::convert::Infallible;

use smol::channel::{Receiver, Sender, bounded};

/// The side that calls the stop: by [`Trigger::trigger`], or by being dropped.
#[derive(Debug)]
pub struct Trigger {
    _open: Sender<Infallible>,
}

/// The side that waits for the stop; cloned for each that does.
#[derive(Debug, Clone)]
pub struct Shutdown {
    closed: Receiver<Infallible>,
}

/// Makes both sides of a stop.
pub fn channel() -> (Trigger, Shutdown) {
    let (open, closed) = bounded(1);
    (Trigger { _open: open }, Shutdown { closed })
}

impl Trigger {
    /// Wakes all that wait, and lets those who come later pass at once.
    pub fn trigger(self) {}
}

impl Shutdown {
    /// Waits until the stop has been called.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped halfway.
    pub async fn wait(&self) {
        // Nothing can be sent over this channel: the only answer is that it has been closed.
        let _ = self.closed.recv().await;
    }

    /// Whether the stop has been called.
    pub fn is_shutdown(&self) -> bool {
        self.closed.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    #[test]
    fn all_that_wait_are_woken_and_late_ones_pass() {
        block_on(async {
            let (stopper, stop) = channel();
            let other = stop.clone();
            assert!(poll_once(stop.wait()).await.is_none());
            assert!(!stop.is_shutdown());
            zip(zip(stop.wait(), other.wait()), async { stopper.trigger() }).await;
            assert!(poll_once(stop.wait()).await.is_some());
            assert!(stop.is_shutdown());
        });
    }

    #[test]
    fn a_dropped_stopper_stops() {
        let (stopper, stop) = channel();
        drop(stopper);
        block_on(stop.wait());
    }
}
