//! Notification of tasks about changes of a shared value.

use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Counter of the changes of a value, with the tasks that wait for the next one.
#[derive(Debug, Default)]
pub(crate) struct Changes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    count: u64,
    wakers: Vec<Waker>,
}

impl Changes {
    /// Returns the number of changes up to now.
    pub(crate) fn count(&self) -> u64 {
        self.lock().count
    }

    /// Records a change and wakes all waiting tasks.
    pub(crate) fn notify(&self) {
        let mut state = self.lock();
        state.count += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until there were more than `seen` changes.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn wait_after(&self, seen: u64) {
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.count != seen {
                return Poll::Ready(());
            }
            if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};
    use futures_lite::pin;

    #[test]
    fn change_wakes_all_waiting_tasks() {
        let changes = Changes::default();
        let seen = changes.count();
        block_on(async {
            let waiting = zip(changes.wait_after(seen), changes.wait_after(seen));
            pin!(waiting);
            assert!(poll_once(&mut waiting).await.is_none());
            changes.notify();
            waiting.await;
            changes.wait_after(seen).await;
        });
    }
}
