//! Ping: one message after another over one connection, each timed.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::Timer;

use crate::echo::config::PingConfig;
use crate::echo::error::EchoError;
use crate::echo::flow::{Event, Flow, Rules, Scratch};
use crate::echo::open;
use crate::echo::pace::Pace;
use crate::echo::report::PingReport;
use crate::net::connect::Plain;

/// What a longer interval counts as: a moment in the future must have a place in time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends a message every so often over one connection and hands the round-trip time of each,
/// with its number, counted from 1, to `sink`; until all are sent or `stop` is done.
///
/// A message goes when the one before it has been answered or has failed, and not before its
/// time. After one that failed, the next opens the connection anew; connecting is not timed.
///
/// # Errors
///
/// The first error of `sink`, which ends the run. Messages that fail are handed to `sink`, and
/// the others go on.
///
/// # Cancel safety
///
/// When this is dropped halfway, the connection is closed and the report is lost. `stop` is the
/// way to end it early.
pub async fn ping<E>(
    config: &PingConfig,
    stop: impl Future<Output = ()>,
    mut sink: impl AsyncFnMut(u64, Result<Duration, EchoError>) -> Result<(), E>,
) -> Result<PingReport, E> {
    let mut report = PingReport::default();
    let start = Instant::now();
    let work = async {
        let PingConfig { server, payload, verify, .. } = config;
        let rules = Rules { server, payload, verify: *verify, in_flight: 1 };
        let scratch = RefCell::default();
        let (mut kept, mut due) = (None, Instant::now());
        for number in 1..=config.count.unwrap_or(u64::MAX) {
            Timer::at(due).await;
            let outcome = one(&mut kept, rules, &scratch).await;
            report.count(&outcome);
            sink(number, outcome).await?;
            due = (due + config.interval.min(LONGEST_INTERVAL)).max(Instant::now());
        }
        Ok(())
    };
    let stopped = async {
        stop.await;
        Ok(())
    };
    future::or(stopped, work).await?;
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Sends one message over the connection that was kept, or else a new one.
async fn one<'a>(
    kept: &mut Option<Flow<'a, Plain>>,
    rules: Rules<'a>,
    scratch: &RefCell<Scratch>,
) -> Result<Duration, EchoError> {
    let mut flow = match kept.take() {
        Some(flow) => flow,
        None => Flow::new(open(rules.server).await?, rules, 1),
    };
    let mut time = Duration::ZERO;
    let told = |event| {
        if let Event::Answered { sent, now } = event {
            time = now - sent.at;
        }
    };
    flow.run(&mut Pace::once(Instant::now()), 1, scratch, told).await?;
    *kept = Some(flow);
    Ok(time)
}
