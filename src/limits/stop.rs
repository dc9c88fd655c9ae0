//! Until when: a stop that one side calls and any number of others wait for.

use std::convert::Infallible;

use smol::channel::{Receiver, Sender, bounded};

/// The side that calls the stop: by [`Stopper::stop`], or by being dropped.
#[derive(Debug)]
pub struct Stopper {
    _open: Sender<Infallible>,
}

/// The side that waits for the stop; cloned for each that does.
#[derive(Debug, Clone)]
pub struct Stop {
    closed: Receiver<Infallible>,
}

/// Makes both sides of a stop.
pub fn stop() -> (Stopper, Stop) {
    let (open, closed) = bounded(1);
    (Stopper { _open: open }, Stop { closed })
}

impl Stopper {
    /// Wakes all that wait, and lets those who come later pass at once.
    pub fn stop(self) {}
}

impl Stop {
    /// Waits until the stop has been called.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when this is dropped halfway.
    pub async fn stopped(&self) {
        // Nothing can be sent over this channel: the only answer is that it has been closed.
        let _ = self.closed.recv().await;
    }

    /// Whether the stop has been called.
    pub fn is_stopped(&self) -> bool {
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
            let (stopper, stop) = stop();
            let other = stop.clone();
            assert!(poll_once(stop.stopped()).await.is_none());
            assert!(!stop.is_stopped());
            zip(zip(stop.stopped(), other.stopped()), async {
                stopper.stop()
            })
            .await;
            assert!(poll_once(stop.stopped()).await.is_some());
            assert!(stop.is_stopped());
        });
    }

    #[test]
    fn a_dropped_stopper_stops() {
        let (stopper, stop) = stop();
        drop(stopper);
        block_on(stop.stopped());
    }
}
