//! Runs a future to its end on smol.
//!
//! Each tool is one future that keeps its tasks on an executor of its own inside, so a program
//! may run it wherever it runs other futures; dropping it ends all of its tasks.

use std::future::Future;
use std::num::NonZeroUsize;

/// The most threads that wait for files at once.
///
/// The pool never ends a thread that it has started, so its usual limit (500) would keep as many
/// for the rest of a run that once had many files to open.
const BLOCKING_THREADS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Runs `future` on this thread until it is done.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    blocking::set_max_blocking_threads(BLOCKING_THREADS);
    smol::block_on(future)
}
