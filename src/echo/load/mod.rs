//! Load generator: the same message repeatedly over many connections.

mod connection;
mod driver;
mod in_flight;
pub(crate) mod ping;
mod plan;
mod recorder;
pub(crate) mod schedule;
mod stream;
mod transport;
mod udp;
pub(crate) mod udp_in_flight;
mod verify;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::time::{ClockId, Timespec, clock_gettime};
use smol::LocalExecutor;

use crate::echo::config::LoadConfig;
use crate::echo::error::Error;
use crate::echo::report::LoadReport;
use crate::limits::shutdown::{self, Shutdown};
use crate::measure::live::LiveStats;
use crate::runtime::{WorkerThread, busy_poll_time, run_tasks};
use driver::{Buffers, LoadOptions};
use plan::RunPlan;
use recorder::Recorder;
use schedule::{RunTimes, ScheduleConfig};
use transport::Transport;

/// Sends the same message repeatedly over many connections, until the limit is reached or `stop`
/// completes, and returns the report. Meanwhile `live` has the latest statistics, without the
/// warm-up.
///
/// With a rate there is one schedule, which starts when all connections are open or have failed, at
/// most after the timeout of the target, or immediately with a ramp-up. Message `i` is sent over
/// connection `i mod C`. A delayed reply does not shift later messages: their response times count
/// from when they were due. After the end, messages that were due are sent for at most the timeout;
/// the others are [`unsent`](LoadReport::unsent). After `stop` nothing more is sent. The replies in
/// flight at the end are awaited.
///
/// A connection that fails is closed and replaced. In a run of some duration that has received a
/// reply, this continues with increasing delays until the end; otherwise a connection that cannot
/// be opened at all, or fails ten times in a row, is given up.
///
/// Over UDP a connection is a socket. Each message then starts with its sequence number and needs
/// at least [`MIN_DATAGRAM_LEN`](crate::echo::MIN_DATAGRAM_LEN) bytes; loss, duplicates and
/// reordering are counted and are no errors. A reply is lost after the timeout of the target; until
/// then its message counts as in flight.
///
/// The connections are distributed over separate threads, which end with this future.
///
/// ```no_run
/// use std::time::Duration;
///
/// use futures_lite::future;
/// use myapp::echo::{self, LoadConfig, RunLimit};
/// use myapp::measure::live::LiveStats;
///
/// # async fn example() -> Result<(), echo::Error> {
/// // 1000 messages per second to 127.0.0.1:8888.
/// let config = LoadConfig {
///     rate: Some(1000.0),
///     limit: RunLimit::Duration(Duration::from_secs(5)),
///     ..LoadConfig::default()
/// };
/// let report = echo::load(&config, future::pending(), &LiveStats::default()).await?;
/// println!("p99: {:?}", report.response.quantile(0.99));
/// # Ok(())
/// # }
/// ```
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
    let interrupted = shutdown.clone();
    let stopping = async {
        stop.await;
        trigger.trigger();
        pending().await
    };
    let mut report = future::or(stopping, collect(workers)).await;
    plan.complete(&mut report, interrupted.is_shutdown(), live);
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

/// One thread with its share of the connections.
#[derive(Debug)]
struct LoadThread<'a> {
    plan: &'a RunPlan,
    index: usize,
    options: LoadOptions<'a>,
    schedule_config: OnceCell<ScheduleConfig>,
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
        let has_replies = Arc::clone(&plan.has_replies);
        let counts_early = config.warmup.is_zero();
        let recorder = Recorder::new(counts_early, sends_when_due, has_replies, live);
        Self {
            plan,
            index,
            options,
            schedule_config: OnceCell::new(),
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
            .map(|index| executor.spawn(connection::drive(self, index)))
            .collect();
        let work = async {
            for task in tasks {
                task.await;
            }
        };
        let ended = executor.spawn(future::or(shutdown.wait(), work));
        run_tasks(&executor, || ended.is_finished()).await;
    }

    /// Returns the part of the schedule that all connections share.
    fn schedule_config(&self, times: &RunTimes) -> &ScheduleConfig {
        self.schedule_config
            .get_or_init(|| ScheduleConfig::new(&self.plan.config, times))
    }

    /// Records the messages in flight on a connection that has ended.
    fn record_unanswered(&self, transport: &mut Transport<'_>, error: Option<&Error>) {
        let now = Instant::now();
        let mut recorder = self.recorder.borrow_mut();
        transport.take_unanswered(error, now, |sent, reason| {
            recorder.record_unanswered(sent, reason, now);
        });
    }

    fn is_per_message(&self) -> bool {
        self.plan.config.new_connections
    }

    /// Records that a connection was active until `at`.
    fn mark_active(&self, at: Instant) {
        self.recorder.borrow_mut().mark_active(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connection_needs_little_memory() {
        let plan = RunPlan::new(&LoadConfig::default());
        let thread = LoadThread::new(&plan, 0, LiveStats::default());
        let size = size_of_val(&connection::drive(&thread, 0)) + size_of::<Transport<'_>>();
        assert!(size <= 512, "{size} bytes per connection");
    }
}
