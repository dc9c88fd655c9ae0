//! 6.6.1 A blocking call stops all futures of its thread; its asynchronous counterpart does not.
//!
//! `cargo run --example 6-6-1-blocking-calls`

use std::thread;
use std::time::Duration;

use futures_lite::{StreamExt, future};
use smol::Timer;

const PAUSE: Duration = Duration::from_millis(300);

/// Counts the ticks of a clock on the same thread while `work` runs.
async fn ticks_during(work: impl Future<Output = ()>) -> u32 {
    let mut ticks = 0;
    let clock = async {
        let mut interval = Timer::interval(PAUSE / 10);
        while interval.next().await.is_some() {
            ticks += 1;
        }
    };
    future::or(work, clock).await;
    ticks
}

fn main() {
    smol::block_on(async {
        let ticks = ticks_during(async { thread::sleep(PAUSE) }).await;
        println!("thread::sleep: {ticks} tics");

        let timer = async {
            Timer::after(PAUSE).await;
        };
        println!("smol::Timer: {} tics", ticks_during(timer).await);

        // For a call without counterpart: a thread of the blocking pool executes it.
        let unblock = smol::unblock(|| thread::sleep(PAUSE));
        println!("smol::unblock: {} tics", ticks_during(unblock).await);
    });
}
