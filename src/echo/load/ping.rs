//! Ping: one message after another over one connection, each timed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::channel::{Sender, bounded};

use crate::echo::config::PingConfig;
use crate::echo::connector::Opener;
use crate::echo::error::EchoError;
use crate::echo::load::schedule::Pace;
use crate::echo::load::stream::{Event, Rules, Scratch};
use crate::echo::load::transport::Route;
use crate::echo::report::PingReport;
use crate::runtime::{Timer, WorkerThread};

/// What a longer interval counts as: a moment in the future must have a place in time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends a message every so often over one connection and hands the round-trip time of each,
/// with its number, counted from 1, to `sink`; until all are sent or `stop` is done.
///
/// A message goes when the one before it has been answered or has failed, and not before its
/// time. After one that failed, the next opens the connection anew; connecting is not timed.
///
/// Over UDP each message begins with its number, for which it needs
/// [`SMALLEST_DATAGRAM`](crate::echo::SMALLEST_DATAGRAM) bytes. One whose reply does not come in time
/// is lost; that is counted, and `sink` is not told.
///
/// The messages go out on a thread of their own, which ends with this future.
///
/// # Errors
///
/// The first error of `sink`, which ends the run, or [`EchoError::Thread`]. Messages that fail are
/// handed to `sink`, and the others go on.
///
/// # Cancel safety
///
/// When this is dropped halfway, the connection is closed and the report is lost. `stop` is the
/// way to end it early.
pub async fn ping<E: From<EchoError>>(
    config: &PingConfig,
    stop: impl Future<Output = ()>,
    mut sink: impl AsyncFnMut(u64, Result<Duration, EchoError>) -> Result<(), E>,
) -> Result<PingReport, E> {
    let mut report = PingReport::default();
    let start = Instant::now();
    let (outcomes, told) = bounded(1);
    let (config, busy_poll) = (config.clone(), config.busy_poll);
    let send = move || async move {
        let PingConfig {
            server,
            payload,
            verify,
            ..
        } = &config;
        let rules = Rules {
            server,
            payload,
            verify: *verify,
            in_flight: 1,
        };
        Pinger::new(&config, &rules).run(outcomes).await;
    };
    let worker = WorkerThread::start("ping", busy_poll, send);
    let worker = worker.map_err(|source| EchoError::Thread { source })?;
    let work = async {
        let mut number = 0;
        while let Ok(Outcome { time, again }) = told.recv().await {
            number += 1;
            report.count(&time);
            report.duplicates += again;
            if let Some(time) = time.transpose() {
                sink(number, time).await?;
            }
        }
        Ok(())
    };
    let stopped = async {
        stop.await;
        Ok::<_, E>(())
    };
    future::or(stopped, work).await?;
    drop(worker);
    report.elapsed = start.elapsed();
    Ok(report)
}

/// What became of a message.
struct Outcome {
    /// How long its reply took; nothing if it was lost.
    time: Result<Option<Duration>, EchoError>,
    /// How many replies came meanwhile that had come before.
    again: u64,
}

/// What sends the messages, and the connection that it keeps from one to the next.
struct Pinger<'a> {
    config: &'a PingConfig,
    rules: &'a Rules<'a>,
    opener: Opener,
    kept: Option<Route<'a>>,
    scratch: RefCell<Scratch>,
}

impl<'a> Pinger<'a> {
    fn new(config: &'a PingConfig, rules: &'a Rules<'a>) -> Self {
        let opener = Opener::new(&config.server);
        Self {
            config,
            rules,
            opener,
            kept: None,
            scratch: RefCell::default(),
        }
    }

    async fn run(mut self, outcomes: Sender<Outcome>) {
        let mut due = Instant::now();
        let count = self.config.count.unwrap_or(u64::MAX);
        for number in 1..=count {
            Timer::at(due).await;
            let mut outcome = self.one().await;
            if number == count && self.config.verify {
                outcome.time = self.finish().await.and(outcome.time);
            }
            if outcomes.send(outcome).await.is_err() {
                return;
            }
            due = (due + self.config.interval.min(LONGEST_INTERVAL)).max(Instant::now());
        }
    }

    /// Sends one message over the connection that was kept, or else a new one.
    async fn one(&mut self) -> Outcome {
        let (mut answered, mut again) = (None, 0);
        let told = |event| match event {
            Event::Answered { sent, now } => answered = Some(now - sent.at),
            Event::Again => again += 1,
            _ => {}
        };
        let time = self.exchange(told).await.map(|()| answered);
        Outcome { time, again }
    }

    async fn exchange(&mut self, told: impl FnMut(Event)) -> Result<(), EchoError> {
        let mut route = match self.kept.take() {
            Some(route) => route,
            None => Route::new(self.opener.open().await?, self.rules, 1),
        };
        route
            .run(&mut Pace::once(Instant::now()), 1, &self.scratch, told)
            .await?;
        self.kept = Some(route);
        Ok(())
    }

    /// Looks whether something comes behind the last reply.
    async fn finish(&mut self) -> Result<(), EchoError> {
        match &mut self.kept {
            Some(flow) => flow.finish(&self.scratch, &Cell::default()).await,
            None => Ok(()),
        }
    }
}
