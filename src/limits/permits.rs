//! How many at once: a permit is taken before a task starts, and moves into it.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures_lite::{Stream, StreamExt, pin};
use smol::Executor;
use smol::lock::{Semaphore, SemaphoreGuardArc};

/// A number of permits, shared by all clones.
#[derive(Debug, Clone)]
pub struct Permits {
    all: NonZeroUsize,
    semaphore: Arc<Semaphore>,
}

/// One permit; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _guard: SemaphoreGuardArc,
}

impl Permits {
    /// Makes `count` permits.
    pub fn new(count: NonZeroUsize) -> Self {
        Self { all: count, semaphore: Arc::new(Semaphore::new(count.get())) }
    }

    /// Waits for a permit.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway no permit is lost, only the place in the queue.
    pub async fn take(&self) -> Permit {
        Permit { _guard: self.semaphore.acquire_arc().await }
    }

    /// Takes a permit if one is free.
    pub fn try_take(&self) -> Option<Permit> {
        self.semaphore.try_acquire_arc().map(|guard| Permit { _guard: guard })
    }

    /// Waits until every permit has come back, then keeps them all: who took one has ended.
    ///
    /// # Cancel safety
    ///
    /// When this is dropped halfway, the permits that it had collected are free again.
    pub async fn all_back(&self) -> Vec<Permit> {
        let mut permits = Vec::with_capacity(self.all.get());
        for _ in 0..self.all.get() {
            permits.push(self.take().await);
        }
        permits
    }
}

/// Runs `job` on each item, at most `at_once` at a time, and returns when all have ended.
///
/// The permit is taken before the item is asked for, so an endless or slow list of items costs
/// no memory: there are never more than `at_once` items and tasks.
///
/// # Cancel safety
///
/// When this is dropped halfway, all jobs that run are dropped with it.
pub async fn for_each<I, F>(
    at_once: NonZeroUsize,
    items: impl Stream<Item = I>,
    mut job: impl FnMut(I) -> F,
) where
    F: Future<Output = ()> + Send,
{
    let permits = Permits::new(at_once);
    let executor = Executor::new();
    let feed = async {
        pin!(items);
        loop {
            let permit = permits.take().await;
            let Some(item) = items.next().await else { break };
            let work = job(item);
            let task = async move {
                let _permit = permit;
                work.await;
            };
            executor.spawn(task).detach();
        }
        permits.all_back().await;
    };
    executor.run(feed).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::{future, stream};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();

    #[test]
    fn never_more_run_than_are_permitted_and_all_have_their_turn() {
        let (running, most, done) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        future::block_on(for_each(THREE, stream::iter(0..100), |_| async {
            most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
            for _ in 0..5 {
                future::yield_now().await;
            }
            running.fetch_sub(1, SeqCst);
            done.fetch_add(1, SeqCst);
        }));
        assert_eq!((most.into_inner(), done.into_inner()), (3, 100));
    }

    #[test]
    fn an_endless_list_is_read_no_further_than_there_are_permits() {
        let asked = AtomicUsize::new(0);
        let endless = stream::repeat_with(|| asked.fetch_add(1, SeqCst));
        let all = for_each(THREE, endless, |_| future::pending::<()>());
        future::block_on(future::or(all, async {
            for _ in 0..1000 {
                future::yield_now().await;
            }
        }));
        assert_eq!(asked.into_inner(), 3);
    }

    #[test]
    fn a_dropped_permit_is_free_again() {
        let permits = Permits::new(NonZeroUsize::MIN);
        let held = permits.try_take();
        assert!(held.is_some() && permits.try_take().is_none());
        drop(held);
        assert!(permits.try_take().is_some());
        assert_eq!(future::block_on(permits.all_back()).len(), 1);
    }
}
