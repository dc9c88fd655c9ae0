//! Concurrency limits: a permit is acquired before a task starts, and moves into it.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_lite::{Stream, StreamExt, future, pin};
use smol::Executor;
use smol::lock::{self, SemaphoreGuardArc};

use crate::limits::shutdown;

/// Semaphore that all clones share.
///
/// A thin layer over [`smol::lock::Semaphore`] with what that lacks: forgotten permits, which
/// connections release without storing them, and a check for idleness.
#[derive(Debug, Clone)]
pub struct Semaphore {
    semaphore: Arc<lock::Semaphore>,
    excess: Arc<AtomicUsize>,
}

/// Permit of a [`Semaphore`], released when dropped.
#[derive(Debug)]
pub struct Permit {
    guard: Option<SemaphoreGuardArc>,
    /// Number of permits that are to be removed instead of released.
    excess: Arc<AtomicUsize>,
}

impl Semaphore {
    /// Creates a semaphore with `count` permits.
    pub fn new(count: NonZeroUsize) -> Self {
        Self {
            semaphore: Arc::new(lock::Semaphore::new(count.get())),
            excess: Arc::default(),
        }
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the place in the queue is lost.
    pub async fn acquire(&self) -> Permit {
        self.permit(self.semaphore.acquire_arc().await)
    }

    /// Acquires a permit if one is available.
    pub fn try_acquire(&self) -> Option<Permit> {
        let guard = self.semaphore.try_acquire_arc()?;
        Some(self.permit(guard))
    }

    /// Adds permits.
    pub(crate) fn grow(&self, count: usize) {
        let mut added = count;
        while added > 0 && take_one(&self.excess) {
            added -= 1;
        }
        self.semaphore.add_permits(added);
    }

    /// Removes permits: those that are available now, others when they are released.
    pub(crate) fn shrink(&self, count: usize) {
        for _ in 0..count {
            match self.semaphore.try_acquire_arc() {
                Some(guard) => guard.forget(),
                None => {
                    self.excess.fetch_add(1, SeqCst);
                }
            }
        }
    }

    fn permit(&self, guard: SemaphoreGuardArc) -> Permit {
        Permit {
            guard: Some(guard),
            excess: Arc::clone(&self.excess),
        }
    }

    /// Releases a permit that was [forgotten](Permit::forget).
    pub(crate) fn release(&self) {
        self.semaphore.add_permits(1);
    }

    /// Whether no permit is held or waited for, apart from [forgotten](Permit::forget) ones.
    pub(crate) fn is_idle(&self) -> bool {
        Arc::strong_count(&self.semaphore) == 1
    }
}

impl Permit {
    /// Forgets the permit without releasing it; [`Semaphore::release`] does that later. For holders
    /// that must not spend memory on it.
    pub(crate) fn forget(mut self) {
        if let Some(guard) = self.guard.take() {
            guard.forget();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.take()
            && take_one(&self.excess)
        {
            guard.forget();
        }
    }
}

/// Decrements a counter that is not 0.
fn take_one(counter: &AtomicUsize) -> bool {
    let taken = counter.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1));
    taken.is_ok()
}

/// Slot of a running job, released when dropped.
#[derive(Debug)]
pub(crate) struct JobSlot {
    permits: Semaphore,
    held: Mutex<Option<Permit>>,
    _admission: Permit,
}

impl JobSlot {
    /// Releases the slot while `wait` runs and acquires it again, which rules out deadlock between
    /// job slots and other permits.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the slot may belong to another job: the job must end then.
    pub(crate) async fn release_while(&self, wait: impl Future<Output = ()>) {
        drop(self.lock().take());
        wait.await;
        let permit = self.permits.acquire().await;
        *self.lock() = Some(permit);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Permit>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs `job` on each item, at most `at_once` concurrently, and returns when all have ended.
///
/// A slot is acquired before an item is requested, so that an endless stream costs no memory. A
/// stream that is not ready keeps no slot, so that one item may arrive while all slots are taken.
///
/// # Cancel safety
///
/// If the future is dropped, all running jobs are dropped.
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
    let max_jobs = at_once.saturating_add(1);
    for_each_concurrent_with_slot(Semaphore::new(at_once), max_jobs, items, job).await;
}

/// Runs `job` on each item like [`for_each_concurrent`], with the slots of `permits`, whose number
/// may change meanwhile. Jobs hold their [`JobSlot`] themselves and may release it while they wait;
/// at most `max_jobs` jobs exist.
///
/// # Cancel safety
///
/// If the future is dropped, all jobs are dropped.
pub(crate) async fn for_each_concurrent_with_slot<I, F>(
    permits: Semaphore,
    max_jobs: NonZeroUsize,
    items: impl Stream<Item = I>,
    mut job: impl FnMut(I, JobSlot) -> F,
) where
    F: Future<Output = ()> + Send,
{
    let admissions = Semaphore::new(max_jobs);
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
            let work = job(item, slot);
            let running = Arc::clone(&running);
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

/// Returns the next item and a permit for it, or `None` at the end. While the stream is not ready,
/// the permit is available to a job that acquires its slot again.
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

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();
    const SIX: NonZeroUsize = NonZeroUsize::new(6).unwrap();

    #[test]
    fn number_of_permits_changes_in_use() {
        let semaphore = Semaphore::new(THREE);
        let mut held: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire()).collect();
        assert_eq!(held.len(), 3);
        // Two of the held ones are removed when they are released.
        semaphore.shrink(2);
        held.truncate(1);
        assert!(semaphore.try_acquire().is_none());
        held.clear();
        assert_eq!(
            std::iter::from_fn(|| semaphore.try_acquire())
                .take(9)
                .count(),
            9
        );
        let held = semaphore.try_acquire();
        assert!(held.is_some() && semaphore.try_acquire().is_none());
        // One that is to be removed is kept instead.
        semaphore.shrink(1);
        semaphore.grow(2);
        let more = semaphore.try_acquire();
        assert!(more.is_some() && semaphore.try_acquire().is_none());
        drop((held, more));
        let all: Vec<_> = std::iter::from_fn(|| semaphore.try_acquire()).collect();
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn concurrency_is_limited_and_all_jobs_run() {
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
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
    fn endless_streams_are_read_up_to_the_limit() {
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

    /// Yields often enough for all tasks to make progress.
    async fn turns() {
        for _ in 0..1000 {
            future::yield_now().await;
        }
    }

    #[test]
    fn waiting_jobs_are_bounded() {
        let requested = AtomicUsize::new(0);
        let resumed = AtomicUsize::new(0);
        let endless = stream::repeat_with(|| requested.fetch_add(1, SeqCst));
        let all =
            for_each_concurrent_with_slot(Semaphore::new(THREE), SIX, endless, |number, slot| {
                let resumed = &resumed;
                async move {
                    slot.release_while(future::pending()).await;
                    resumed.fetch_add(number, SeqCst);
                }
            });
        future::block_on(future::or(all, turns()));
        assert_eq!((requested.into_inner(), resumed.into_inner()), (6, 0));
    }

    #[test]
    fn resumed_jobs_wait_for_a_slot() {
        let (trigger, wait) = shutdown::channel();
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let done = AtomicUsize::new(0);
        let items = stream::iter(0..6).chain(stream::once_future(async {
            // All jobs have released their slots or run; the last slot is free for a waiting job.
            turns().await;
            trigger.trigger();
            6
        }));
        let all =
            for_each_concurrent_with_slot(Semaphore::new(THREE), SIX, items, |number, slot| {
                let running = &running;
                let most = &most;
                let done = &done;
                let wait = wait.clone();
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
    fn slow_streams_keep_no_slot() {
        let (trigger, ended) = shutdown::channel();
        let mut trigger = Some(trigger);
        // The second item is ready only after the first job has ended.
        let items = stream::once(()).chain(stream::once_future(ended.wait()));
        let all = for_each_concurrent_with_slot(
            Semaphore::new(NonZeroUsize::MIN),
            SIX,
            items,
            |(), slot| {
                let trigger = trigger.take();
                async move {
                    slot.release_while(turns()).await;
                    drop(trigger);
                }
            },
        );
        future::block_on(all);
    }

    #[test]
    fn dropped_permits_are_released() {
        let permits = Semaphore::new(NonZeroUsize::MIN);
        let held = permits.try_acquire();
        assert!(held.is_some() && permits.try_acquire().is_none());
        drop(held);
        assert!(permits.try_acquire().is_some());
    }
}
