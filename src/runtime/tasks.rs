//! Running the tasks of an executor that only one thread uses.

use futures_lite::future;
use smol::LocalExecutor;

/// Tasks to run in a row before polling the reactor.
const MAX_TICKS_PER_POLL: usize = 200;

/// Runs tasks until `is_done`. `LocalExecutor::run` would move each task through a second queue,
/// for other threads to steal, and there are none.
pub(crate) async fn run_tasks(executor: &LocalExecutor<'_>, is_done: impl Fn() -> bool) {
    while !is_done() {
        for _ in 0..MAX_TICKS_PER_POLL {
            if is_done() {
                return;
            }
            // `tick` is slower than `try_tick`, even when it does not wait.
            if !executor.try_tick() {
                executor.tick().await;
            }
        }
        future::yield_now().await;
    }
}
