//! Ping: one message after another over one connection, each timed.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, Instant};

use futures_lite::future;
use smol::channel::{Sender, bounded};

use super::driver::{Buffers, Event, LoadOptions};
use super::schedule::Schedule;
use super::transport::Transport;
use crate::echo::config::PingConfig;
use crate::echo::connector::Connector;
use crate::echo::error::Error;
use crate::echo::report::PingReport;
use crate::runtime::{Timer, WorkerThread};

/// Maximum interval; an [`Instant`] cannot represent any time in the future.
const MAX_INTERVAL: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends a message at an interval over one connection and passes the round-trip time of each, with
/// its number counted from 1, to `sink`, until all are sent or `stop` completes.
///
/// A message is sent after the previous one was answered or has failed, and not before its time.
/// After a failure the next message reconnects; connecting is not timed.
///
/// Over UDP each message starts with its sequence number and needs at least
/// [`MIN_DATAGRAM_LEN`](crate::echo::MIN_DATAGRAM_LEN) bytes. A message without a reply in time is
/// lost: it is counted, and `sink` is not called.
///
/// The messages are sent on a separate thread, which ends with this future.
///
/// ```no_run
/// use futures_lite::future;
/// use myapp::echo::{self, PingConfig};
///
/// # async fn example() -> Result<(), echo::Error> {
/// // Three messages to 127.0.0.1:8888.
/// let config = PingConfig {
///     count: Some(3),
///     ..PingConfig::default()
/// };
/// let report = echo::ping(&config, future::pending(), async |number, time| {
///     println!("{number}: {time:?}");
///     Ok::<_, echo::Error>(())
/// })
/// .await?;
/// println!("{} lost", report.loss());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// The first error of `sink`, which ends the run, or [`Error::SpawnThread`]. The failure of a
/// message is passed to `sink` and does not affect the others.
///
/// # Cancel safety
///
/// Dropping the future closes the connection and discards the report; use `stop` to end early.
pub async fn ping<E: From<Error>>(
    config: &PingConfig,
    stop: impl Future<Output = ()>,
    mut sink: impl AsyncFnMut(u64, Result<Duration, Error>) -> Result<(), E>,
) -> Result<PingReport, E> {
    let mut report = PingReport::default();
    let start = Instant::now();
    let (sender, outcomes) = bounded(1);
    let busy_poll = config.busy_poll;
    let config = config.clone();
    let send = move || async move {
        let options = LoadOptions {
            target: &config.target,
            payload: &config.payload,
            verify: config.verify,
            in_flight: 1,
        };
        Pinger::new(&config, &options).run(sender).await;
    };
    let worker = WorkerThread::start("ping", busy_poll, send);
    let worker = worker.map_err(|source| Error::SpawnThread { source })?;
    let work = async {
        let mut number = 0;
        while let Ok(outcome) = outcomes.recv().await {
            let Outcome {
                time,
                duplicates,
                late,
            } = outcome;
            number += 1;
            report.count(&time);
            report.duplicates += duplicates;
            report.late_replies += late;
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

/// Result of one message.
struct Outcome {
    /// Round-trip time; none if the message was lost.
    time: Result<Option<Duration>, Error>,
    /// Number of duplicate replies received meanwhile.
    duplicates: u64,
    /// Number of replies received meanwhile whose message was lost.
    late: u64,
}

/// Sender of the messages, with the connection reused from one to the next.
struct Pinger<'a> {
    config: &'a PingConfig,
    options: &'a LoadOptions<'a>,
    connector: Connector,
    transport: Option<Transport<'a>>,
    buffers: RefCell<Buffers>,
}

impl<'a> Pinger<'a> {
    fn new(config: &'a PingConfig, options: &'a LoadOptions<'a>) -> Self {
        Self {
            config,
            options,
            connector: Connector::new(&config.target),
            transport: None,
            buffers: RefCell::default(),
        }
    }

    async fn run(mut self, outcomes: Sender<Outcome>) {
        let mut due = Instant::now();
        let count = self.config.count.unwrap_or(u64::MAX);
        for number in 1..=count {
            Timer::at(due).await;
            let mut outcome = self.ping_once().await;
            if number == count && self.config.verify {
                outcome.time = self.finish().await.and(outcome.time);
            }
            if outcomes.send(outcome).await.is_err() {
                return;
            }
            due = (due + self.config.interval.min(MAX_INTERVAL)).max(Instant::now());
        }
    }

    async fn ping_once(&mut self) -> Outcome {
        let mut answered = None;
        let mut duplicates = 0;
        let mut late = 0;
        let on_event = |event| match event {
            Event::Answered { sent, now } => answered = Some(now - sent.at),
            Event::Duplicate => duplicates += 1,
            Event::Late => late += 1,
            _ => {}
        };
        let time = self.exchange(on_event).await.map(|()| answered);
        Outcome {
            time,
            duplicates,
            late,
        }
    }

    /// Sends one message over the existing connection or a new one.
    async fn exchange(&mut self, on_event: impl FnMut(Event)) -> Result<(), Error> {
        let mut transport = match self.transport.take() {
            Some(transport) => transport,
            None => Transport::new(self.connector.connect().await?, self.options, 1),
        };
        let mut schedule = Schedule::once(Instant::now());
        transport
            .run(&mut schedule, 1, &self.buffers, on_event)
            .await?;
        self.transport = Some(transport);
        Ok(())
    }

    /// Checks that nothing follows the last reply.
    async fn finish(&mut self) -> Result<(), Error> {
        match &mut self.transport {
            Some(transport) => transport.finish(&self.buffers, &Cell::default()).await,
            None => Ok(()),
        }
    }
}
