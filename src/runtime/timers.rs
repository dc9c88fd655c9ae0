//! Timers of one worker thread.
//!
//! They are in one queue per thread, and the driver blocks no longer than until the first deadline:
//! setting a timer needs neither a lock nor a system call, and wakes no other thread.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::marker::PhantomData;
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// The deadline, and an id that distinguishes timers of the same deadline.
type Key = (Instant, u64);

thread_local! {
    static QUEUE: RefCell<BTreeMap<Key, Waker>> = const { RefCell::new(BTreeMap::new()) };
    static NEXT_ID: Cell<u64> = const { Cell::new(0) };
}

/// Returns the first deadline of this thread.
pub(super) fn first() -> Option<Instant> {
    QUEUE.with_borrow(|queue| queue.first_key_value().map(|((at, _), _)| *at))
}

/// Wakes all tasks of this thread whose deadline has passed.
pub(super) fn fire() {
    let Some(first) = first() else { return };
    let now = Instant::now();
    if now < first {
        return;
    }
    let end = (now, u64::MAX);
    // Woken while nothing is borrowed.
    let due = QUEUE.with_borrow_mut(|queue| {
        let later = queue.split_off(&end);
        mem::replace(queue, later)
    });
    due.into_values().for_each(Waker::wake);
}

/// Timer on a thread of a driver. On other threads it never expires.
#[derive(Debug)]
pub(crate) struct Timer {
    id: u64,
    at: Option<Instant>,
    /// Whether it is in the queue, under `at` and `id`.
    queued: bool,
    /// Not `Send`: its entry is in the queue of this thread.
    _of_this_thread: PhantomData<Rc<()>>,
}

impl Timer {
    /// Creates a timer that expires at a time.
    pub(crate) fn at(at: Instant) -> Self {
        Self {
            at: Some(at),
            ..Self::never()
        }
    }

    /// Creates a timer that expires after a duration.
    pub(crate) fn after(duration: Duration) -> Self {
        Instant::now()
            .checked_add(duration)
            .map_or_else(Self::never, Self::at)
    }

    /// Creates a timer that never expires unless it is set.
    pub(crate) fn never() -> Self {
        let id = NEXT_ID.replace(NEXT_ID.get() + 1);
        Self {
            id,
            at: None,
            queued: false,
            _of_this_thread: PhantomData,
        }
    }

    /// Returns the deadline.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.at
    }

    /// Changes the deadline.
    pub(crate) fn set_at(&mut self, at: Instant) {
        self.leave();
        self.at = Some(at);
    }

    fn leave(&mut self) {
        if mem::take(&mut self.queued)
            && let Some(at) = self.at
        {
            let waker = QUEUE.with_borrow_mut(|queue| queue.remove(&(at, self.id)));
            drop(waker);
        }
    }
}

impl Future for Timer {
    type Output = Instant;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Instant> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        if at <= Instant::now() {
            self.leave();
            self.at = None;
            return Poll::Ready(at);
        }
        let key = (at, self.id);
        let old = QUEUE.with_borrow_mut(|queue| match queue.get(&key) {
            Some(known) if known.will_wake(cx.waker()) => None,
            _ => queue.insert(key, cx.waker().clone()),
        });
        drop(old);
        self.queued = true;
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_lite::future::{or, poll_once};
    use smol::LocalExecutor;

    use crate::runtime::Driver;

    const MILLI: Duration = Duration::from_millis(1);

    /// The order in which timers of a driver are done that are set in this order.
    fn order(busy_poll: Duration, millis: &[u32]) -> Vec<u32> {
        let driver = Driver::new().unwrap().busy_poll(busy_poll);
        let work = || async {
            let start = Instant::now();
            let done = RefCell::default();
            let executor = LocalExecutor::new();
            let wait = async |millis: u32| {
                let at = Timer::at(start + MILLI * millis).await;
                assert!(at <= Instant::now());
                RefCell::<Vec<_>>::borrow_mut(&done).push(millis);
            };
            let all: Vec<_> = millis
                .iter()
                .map(|millis| executor.spawn(wait(*millis)))
                .collect();
            let all = async {
                for one in all {
                    one.await;
                }
            };
            executor.run(all).await;
            done.take()
        };
        driver.run(work).unwrap()
    }

    #[test]
    fn timers_fire_in_the_order_of_their_deadlines() {
        for busy_poll in [Duration::ZERO, MILLI, Duration::from_secs(3600)] {
            assert_eq!(order(busy_poll, &[30, 10, 0, 20]), [0, 10, 20, 30]);
        }
    }

    #[test]
    fn dropped_and_reset_timers_do_not_fire() {
        Driver::new().unwrap().run(|| async {
            let soon = Instant::now() + MILLI;
            let mut set_anew = Timer::at(soon);
            let mut dropped = Timer::at(soon);
            assert!(poll_once(&mut set_anew).await.is_none());
            assert!(poll_once(&mut dropped).await.is_none());
            drop(dropped);
            let hour = soon + Duration::from_secs(3600);
            set_anew.set_at(hour);
            assert_eq!(first(), None);
            let later = soon + 10 * MILLI;
            assert_eq!(or(&mut set_anew, Timer::at(later)).await, later);
            assert_eq!(first(), Some(hour));
            drop(set_anew);
            assert_eq!(first(), None);
            assert!(poll_once(Timer::never()).await.is_none());
        });
    }
}
