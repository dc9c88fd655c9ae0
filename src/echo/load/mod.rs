//! Load generator: the same message repeatedly over many connections.

mod driver;
mod in_flight;
pub(crate) mod ping;
mod recorder;
mod schedule;
mod stream;
mod transport;
mod udp;
pub(crate) mod udp_in_flight;
mod verify;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::time::{ClockId, Timespec, clock_gettime};
use smol::LocalExecutor;

use crate::echo::config::{LoadConfig, RunLimit};
use crate::echo::connector::Connector;
use crate::echo::error::Error;
use crate::echo::report::LoadReport;
use crate::limits::backoff::Backoff;
use crate::limits::shutdown::{self, Shutdown};
use crate::measure::live::LiveStats;
use crate::runtime::{Timer, WorkerThread, busy_poll_time};
use driver::{Buffers, LoadOptions};
use recorder::Recorder;
use schedule::{Next, Schedule, ScheduleConfig};
use transport::Transport;

/// Upper bound of the delay after the first of several consecutive failed connections.
const INITIAL_RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Upper bound of the delay after later ones.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Number of consecutive failed connections after which none replaces them.
const MAX_CONSECUTIVE_FAILURES: u32 = 10;

/// Maximum duration; an [`Instant`] cannot represent any time in the future.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends the same message repeatedly over many connections, until the limit is reached or `stop`
/// completes, and returns the report. Meanwhile `live` has the latest statistics, without the
/// warm-up.
///
/// With a rate, each connection has its own schedule, and a delayed reply does not shift later
/// messages: their response times count from when they were due. At the end no more messages are
/// sent, and the replies in flight are awaited. A connection that fails is closed and replaced; it
/// is not replaced if it cannot be opened at all or fails ten times in a row.
///
/// Over UDP a connection is a socket. Each message then starts with its sequence number and needs
/// at least [`MIN_DATAGRAM_LEN`](crate::echo::MIN_DATAGRAM_LEN) bytes; loss, duplicates and
/// reordering are counted and are no errors. A reply is lost after the timeout of the target; until
/// then its message counts as in flight.
///
/// The connections are distributed over separate threads, which end with this future.
///
/// # Errors
///
/// [`Error::SpawnThread`]. Failures of messages are part of the report.
///
/// # Cancel safety
///
/// Dropping the future closes all connections and discards the report; use `stop` to end early.
pub async fn load(
    config: &LoadConfig,
    stop: impl Future<Output = ()>,
    live: &LiveStats,
) -> Result<LoadReport, Error> {
    let plan = Arc::new(RunPlan::new(config));
    let (trigger, shutdown) = shutdown::channel();
    let start = |index| {
        let plan = Arc::clone(&plan);
        let live = live.clone();
        let shutdown = shutdown.clone();
        let work = move || async move { LoadThread::new(&plan, index, live).run(shutdown).await };
        WorkerThread::start("load", config.busy_poll, work)
    };
    let workers = (0..plan.threads).map(start).collect::<Result<Vec<_>, _>>();
    let workers = workers.map_err(|source| Error::SpawnThread { source })?;
    let stopping = async {
        stop.await;
        trigger.trigger();
        pending().await
    };
    let mut report = future::or(stopping, collect(workers)).await;
    report.elapsed = plan.elapsed(&report);
    report.sender_slept = config.busy_poll.is_zero();
    Ok(report)
}

/// Waits for all threads and merges their reports.
async fn collect(workers: Vec<WorkerThread<LoadReport>>) -> LoadReport {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let share = 1.0 / workers.len().min(cores) as f64;
    let mut report = LoadReport::default();
    for worker in workers {
        let thread_report = worker.finish().await.unwrap_or_default();
        report.sender_cpu += share * thread_report.sender_cpu;
        report.merge(thread_report);
    }
    report
}

/// Returns the processor time used by this thread.
fn thread_cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), tv_nsec.try_into().unwrap_or(0))
}

/// State shared by all threads.
#[derive(Debug)]
struct RunPlan {
    config: LoadConfig,
    connector: Connector,
    threads: usize,
    start: Instant,
    measured_from: Instant,
    end: Option<Instant>,
}

impl RunPlan {
    fn new(config: &LoadConfig) -> Self {
        let start = Instant::now();
        let measured_from = start + config.warmup.min(MAX_DURATION);
        let end = match config.limit {
            RunLimit::Duration(duration) => Some(measured_from + duration.min(MAX_DURATION)),
            RunLimit::Messages(_) => None,
        };
        let connections = usize::try_from(config.connections.get()).unwrap_or(usize::MAX);
        Self {
            config: config.clone(),
            connector: Connector::new(&config.target),
            threads: config.threads.get().min(connections),
            start,
            measured_from,
            end,
        }
    }

    /// Returns the time at which a connection is opened.
    fn connect_at(&self, index: u32) -> Instant {
        let LoadConfig {
            connections,
            ramp_up,
            ..
        } = self.config;
        let share = f64::from(index) / f64::from(connections.get());
        let at = self.start + ramp_up.min(MAX_DURATION).mul_f64(share);
        self.end.map_or(at, |end| end.min(at))
    }

    /// Returns the part of the schedule that all connections share.
    fn schedule_config(&self) -> ScheduleConfig {
        let LoadConfig {
            connections,
            new_connections,
            ..
        } = self.config;
        let immediate = new_connections.then_some(Duration::ZERO);
        ScheduleConfig {
            interval: self.time_for(connections.get()).or(immediate),
            end: self.end,
        }
    }

    /// Returns the schedule of a connection.
    fn schedule<'s>(&self, config: &'s ScheduleConfig, index: u32, now: Instant) -> Schedule<'s> {
        let connections = u64::from(self.config.connections.get());
        let remaining = match self.config.limit {
            RunLimit::Duration(_) => u64::MAX,
            RunLimit::Messages(count) => {
                count / connections + u64::from(u64::from(index) < count % connections)
            }
        };
        Schedule {
            config,
            next_due: now + self.time_for(index).unwrap_or_default(),
            remaining,
        }
    }

    /// Returns the time for a number of messages at the requested rate.
    fn time_for(&self, messages: u32) -> Option<Duration> {
        let seconds = f64::from(messages) / self.config.rate?;
        Some(
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(MAX_DURATION)
                .min(MAX_DURATION),
        )
    }

    /// Returns the duration of the measurement: until the end or until all connections were
    /// inactive, and at least until the last reply.
    fn elapsed(&self, report: &LoadReport) -> Duration {
        let ended = report.ended.unwrap_or(self.start);
        let until = self.end.map_or(ended, |end| end.min(ended));
        let until = report.last_reply.map_or(until, |last| last.max(until));
        until.saturating_duration_since(self.measured_from)
    }
}

/// One thread with its share of the connections.
#[derive(Debug)]
struct LoadThread<'a> {
    plan: &'a RunPlan,
    index: usize,
    options: LoadOptions<'a>,
    schedule_config: ScheduleConfig,
    recorder: RefCell<Recorder>,
    buffers: RefCell<Buffers>,
    /// Whether the server ignores the end of its input; then its end of stream is not awaited.
    ignores_half_close: Cell<bool>,
}

impl<'a> LoadThread<'a> {
    fn new(plan: &'a RunPlan, index: usize, live: LiveStats) -> Self {
        let config = &plan.config;
        let options = LoadOptions {
            target: &config.target,
            payload: &config.payload,
            verify: config.verify,
            in_flight: if config.new_connections {
                1
            } else {
                config.in_flight.get()
            },
        };
        let sends_when_due = config.rate.is_none() && !config.new_connections;
        let recorder = Recorder::new(plan.measured_from, sends_when_due, live);
        Self {
            plan,
            index,
            options,
            schedule_config: plan.schedule_config(),
            recorder: RefCell::new(recorder),
            buffers: RefCell::default(),
            ignores_half_close: Cell::new(false),
        }
    }

    async fn run(self, shutdown: Shutdown) -> LoadReport {
        let start = Instant::now();
        let cpu_start = thread_cpu_time();
        self.drive_all(&shutdown).await;
        if shutdown.is_shutdown() {
            self.mark_active(Instant::now());
        }
        let mut report = self.recorder.into_inner().into_report();
        let busy = thread_cpu_time()
            .saturating_sub(cpu_start)
            .saturating_sub(busy_poll_time());
        report.sender_cpu = busy.as_secs_f64() / start.elapsed().as_secs_f64();
        report
    }

    /// Drives all connections of this thread until they are done or the shutdown.
    async fn drive_all(&self, shutdown: &Shutdown) {
        let executor = LocalExecutor::new();
        let indices = (0..self.plan.config.connections.get()).skip(self.index);
        let indices = indices.step_by(self.plan.threads);
        let tasks: Vec<_> = indices
            .map(|index| executor.spawn(self.drive(index)))
            .collect();
        let work = async {
            for task in tasks {
                task.await;
            }
        };
        // A separate task, because the future passed to `run` is polled at every wake-up.
        let ended = executor.spawn(future::or(shutdown.wait(), work));
        executor.run(ended).await;
    }

    /// Drives one connection and its replacements.
    ///
    /// Rare futures are boxed: each message brings the state of its connection into the processor's
    /// cache, which does not hold that of thousands of connections.
    async fn drive(&self, index: u32) {
        Timer::at(self.plan.connect_at(index)).await;
        let now = Instant::now();
        let mut schedule = self.plan.schedule(&self.schedule_config, index, now);
        let mut was_connected = false;
        let mut failures = 0;
        loop {
            match schedule.next(Instant::now()) {
                Next::Done => {
                    return self
                        .schedule_config
                        .end
                        .iter()
                        .for_each(|end| self.mark_active(*end));
                }
                Next::WaitUntil(due) if was_connected || self.reconnects_per_message() => {
                    _ = Timer::at(due).await;
                }
                _ => {}
            }
            let connected = Box::pin(self.connect(index, &mut schedule, was_connected)).await;
            let useful = match connected {
                Some(mut transport) => {
                    was_connected = true;
                    let max_messages = if self.reconnects_per_message() {
                        1
                    } else {
                        u64::MAX
                    };
                    let on_event = |event| self.recorder.borrow_mut().record(event);
                    let result = transport
                        .run(&mut schedule, max_messages, &self.buffers, on_event)
                        .await;
                    Box::pin(self.close(transport, result)).await
                }
                None => false,
            };
            if useful {
                failures = 0;
                continue;
            }
            failures += 1;
            if !was_connected || failures == MAX_CONSECUTIVE_FAILURES {
                return;
            }
            Timer::at(Instant::now() + reconnect_delay(failures)).await;
        }
    }

    /// Opens a connection; `is_replacement` if it replaces another one.
    async fn connect(
        &self,
        index: u32,
        schedule: &mut Schedule<'a>,
        is_replacement: bool,
    ) -> Option<Box<Transport<'_>>> {
        let start = Instant::now();
        if self.reconnects_per_message() && self.plan.config.rate.is_none() {
            // The message is due when connecting starts, so that its response time includes it.
            schedule.next_due = start;
        }
        match self.plan.connector.connect().await {
            Ok(connected) => {
                self.recorder.borrow_mut().record_connect(start);
                // A schedule starts with its connection, unless connecting is measured too.
                if !is_replacement && !self.reconnects_per_message() {
                    let now = Instant::now();
                    *schedule = self.plan.schedule(schedule.config, index, now);
                }
                let number = u64::from(index) + 1;
                let transport = Transport::new(connected, &self.options, number);
                Some(Box::new(transport))
            }
            Err(error) => {
                schedule.advance();
                self.recorder.borrow_mut().record_failure(error);
                self.mark_active(Instant::now());
                None
            }
        }
    }

    /// Closes a connection that is done or has failed. Returns whether it was useful: all messages
    /// succeeded, or it received a reply.
    async fn close(
        &self,
        mut transport: Box<Transport<'_>>,
        mut result: Result<(), Error>,
    ) -> bool {
        self.mark_active(Instant::now());
        if result.is_ok() && self.options.verify {
            result = transport
                .finish(&self.buffers, &self.ignores_half_close)
                .await;
        }
        match result {
            Ok(()) => true,
            Err(error) => {
                self.recorder.borrow_mut().record_failure(error);
                transport.has_received_reply()
            }
        }
    }

    fn reconnects_per_message(&self) -> bool {
        self.plan.config.new_connections
    }

    /// Records that a connection was active until `at`.
    fn mark_active(&self, at: Instant) {
        self.recorder.borrow_mut().mark_active(at);
    }
}

/// Returns the delay after a number of consecutive failed connections.
fn reconnect_delay(failures: u32) -> Duration {
    let first = INITIAL_RECONNECT_DELAY.saturating_mul(1 << (failures - 1));
    Backoff::new(first, MAX_RECONNECT_DELAY).next_delay()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connection_needs_little_memory() {
        let plan = RunPlan::new(&LoadConfig::default());
        let thread = LoadThread::new(&plan, 0, LiveStats::default());
        let size = size_of_val(&thread.drive(0)) + size_of::<Transport<'_>>();
        assert!(size <= 512, "{size} bytes per connection");
    }
}
