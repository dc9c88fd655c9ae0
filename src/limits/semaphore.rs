//! How many at once: a permit is taken before a task starts, and moves into it.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_lite::{Stream, StreamExt, future, pin};
use smol::Executor;
use smol::lock::{self, SemaphoreGuardArc};

use crate::limits::shutdown;

/// A number of permits, shared by all clones.
#[derive(Debug, Clone)]
pub struct Semaphore {
    semaphore: Arc<lock::Semaphore>,
}

/// One permit; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    guard: SemaphoreGuardArc,
}

impl Semaphore {
    /// Makes `count` permits.
    pub fn new(count: NonZeroUsize) -> Self {
        Self {
            semaphore: Arc::new(lock::Semaphore::new(count.get())),
        }
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway no permit is lost, only the place in the queue.
    pub async fn acquire(&self) -> Permit {
        Permit {
            guard: self.semaphore.acquire_arc().await,
        }
    }

    /// Takes a permit if one is free.
    pub fn try_acquire(&self) -> Option<Permit> {
        self.semaphore
            .try_acquire_arc()
            .map(|guard| Permit { guard })
    }

    /// Gives back a permit that was [forgotten](Permit::forget).
    pub fn release(&self) {
        self.semaphore.add_permits(1);
    }

    /// Whether nobody has a permit or waits for one; those that were
    /// [forgotten](Permit::forget) do not count.
    pub fn is_idle(&self) -> bool {
        Arc::strong_count(&self.semaphore) == 1
    }
}

impl Permit {
    /// Keeps the permit taken after this is gone, until [`Semaphore::release`]: for a holder that
    /// has no room for it.
    pub fn forget(self) {
        self.guard.forget();
    }
}

/// The place of a job among those that run: it is free again when this is dropped.
#[derive(Debug)]
pub struct JobSlot {
    permits: Semaphore,
    held: Mutex<Option<Permit>>,
    _admission: Permit,
}

impl JobSlot {
    /// Waits, and lets another job run meanwhile; returns when there is a place again. So nobody
    /// who has a place ever waits for what another holds who waits for a place.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the place may be another's: the job is to end then.
    pub async fn release_while(&self, wait: impl Future<Output = ()>) {
        drop(self.lock().take());
        wait.await;
        let permit = self.permits.acquire().await;
        *self.lock() = Some(permit);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Permit>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `job` on each item, at most `at_once` at a time, and returns when all have ended.
///
/// There is a place for an item before it is asked for, so an endless list costs no memory; of a
/// list that is slow one item may come while the last place is taken.
///
/// # Cancel safety
///
/// When this is dropped halfway, all jobs that run are dropped with it.
pub async fn for_each_concurrent<I, F>(
    at_once: NonZeroUsize,
    items: impl Stream<Item = I>,
    mut job: impl FnMut(I) -> F,
) where
    F: Future<Output = ()> + Send,
{
    let job = |item, slot: JobSlot| {
        let work = job(item);
        async move {
            let _slot = slot;
            work.await;
        }
    };
    for_each_concurrent_with_slot(at_once, NonZeroUsize::MIN, items, job).await;
}

/// As [`for_each_concurrent`], with jobs that hold their [`JobSlot`] themselves; there are at most `aside` jobs
/// more than places, so that as many may have stepped aside while all places are taken.
///
/// # Cancel safety
///
/// When this is dropped halfway, all jobs are dropped with it.
pub async fn for_each_concurrent_with_slot<I, F>(
    at_once: NonZeroUsize,
    aside: NonZeroUsize,
    items: impl Stream<Item = I>,
    mut job: impl FnMut(I, JobSlot) -> F,
) where
    F: Future<Output = ()> + Send,
{
    let permits = Semaphore::new(at_once);
    let admissions = Semaphore::new(at_once.saturating_add(aside.get()));
    let executor = Executor::new();
    let (running, ended) = shutdown::channel();
    let running = Arc::new(running);
    let feed = async {
        pin!(items);
        loop {
            let _admission = admissions.acquire().await;
            let Some((item, permit)) = next_with_permit(&mut items, &permits).await else {
                break;
            };
            let held = Mutex::new(Some(permit));
            let slot = JobSlot {
                permits: permits.clone(),
                held,
                _admission,
            };
            let (work, running) = (job(item, slot), Arc::clone(&running));
            let task = async move {
                work.await;
                drop(running);
            };
            executor.spawn(task).detach();
        }
        // The last job to end drops the last clone.
        drop(running);
        ended.wait().await;
    };
    executor.run(feed).await;
}

/// The next item, and a place for it; `None` at the end of the list. While the list makes one
/// wait, the place is free for a job that comes back from aside.
async fn next_with_permit<I>(
    items: &mut (impl Stream<Item = I> + Unpin),
    permits: &Semaphore,
) -> Option<(I, Permit)> {
    let permit = permits.acquire().await;
    let mut next = items.next();
    match future::poll_once(&mut next).await {
        Some(item) => Some((item?, permit)),
        None => {
            drop(permit);
            Some((next.await?, permits.acquire().await))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{future, stream};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn never_more_run_than_are_permitted_and_all_have_their_turn() {
        let (running, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        future::block_on(for_each_concurrent(
            THREE,
            stream::iter(0..100),
            |_| async {
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                for _ in 0..5 {
                    future::yield_now().await;
                }
                running.fetch_sub(1, SeqCst);
                done.fetch_add(1, SeqCst);
            },
        ));
        assert_eq!((most.into_inner(), done.into_inner()), (3, 100));
    }

    #[test]
    fn an_endless_list_is_read_no_further_than_there_are_permits() {
        let asked = AtomicUsize::new(0);
        let endless = stream::repeat_with(|| asked.fetch_add(1, SeqCst));
        let all = for_each_concurrent(THREE, endless, |_| future::pending::<()>());
        future::block_on(future::or(all, async {
            for _ in 0..1000 {
                future::yield_now().await;
            }
        }));
        assert_eq!(asked.into_inner(), 3);
    }

    /// What is ready after so many turns of all tasks.
    async fn turns() {
        for _ in 0..1000 {
            future::yield_now().await;
        }
    }

    #[test]
    fn who_steps_aside_makes_room_for_others_but_not_for_an_endless_list() {
        let (asked, inside) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let endless = stream::repeat_with(|| asked.fetch_add(1, SeqCst));
        let all = for_each_concurrent_with_slot(THREE, THREE, endless, |number, slot| {
            let inside = &inside;
            async move {
                slot.release_while(future::pending()).await;
                inside.fetch_add(number, SeqCst);
            }
        });
        future::block_on(future::or(all, turns()));
        assert_eq!((asked.into_inner(), inside.into_inner()), (6, 0));
    }

    #[test]
    fn who_comes_back_from_aside_waits_for_a_place() {
        let (stopper, wait) = shutdown::channel();
        let (running, most, done) = (
            AtomicUsize::new(0),
            AtomicUsize::new(0),
            AtomicUsize::new(0),
        );
        let items = stream::iter(0..6).chain(stream::once_future(async {
            // All of them are aside or at work now, the last place is free for who comes back.
            turns().await;
            stopper.trigger();
            6
        }));
        let all = for_each_concurrent_with_slot(THREE, THREE, items, |number, slot| {
            let (running, most, done, wait) = (&running, &most, &done, wait.clone());
            async move {
                if number < 3 {
                    slot.release_while(wait.wait()).await;
                }
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                future::yield_now().await;
                running.fetch_sub(1, SeqCst);
                done.fetch_add(1, SeqCst);
            }
        });
        future::block_on(all);
        assert_eq!((most.into_inner(), done.into_inner()), (3, 7));
    }

    #[test]
    fn a_list_that_is_slow_keeps_no_place_from_who_comes_back() {
        let (stopper, ended) = shutdown::channel();
        let mut stopper = Some(stopper);
        // The second item comes only after the job of the first has come back and ended.
        let items = stream::once(()).chain(stream::once_future(ended.wait()));
        let all = for_each_concurrent_with_slot(NonZeroUsize::MIN, THREE, items, |(), slot| {
            let stopper = stopper.take();
            async move {
                slot.release_while(turns()).await;
                drop(stopper);
            }
        });
        future::block_on(all);
    }

    #[test]
    fn a_dropped_permit_is_free_again() {
        let permits = Semaphore::new(NonZeroUsize::MIN);
        let held = permits.try_acquire();
        assert!(held.is_some() && permits.try_acquire().is_none());
        drop(held);
        assert!(permits.try_acquire().is_some());
    }
}
