//! Load: the same message again and again over many connections.

pub(crate) mod in_flight;
pub(crate) mod ping;
pub(crate) mod recorder;
pub(crate) mod schedule;
pub(crate) mod stream;
pub(crate) mod transport;
pub(crate) mod udp;
pub(crate) mod udp_in_flight;
pub(crate) mod verify;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_lite::future;
use rustix::time::{ClockId, Timespec, clock_gettime};
use smol::LocalExecutor;

use crate::echo::config::{Length, LoadConfig};
use crate::echo::connector::Opener;
use crate::echo::error::EchoError;
use crate::echo::load::recorder::Meter;
use crate::echo::load::schedule::{Pace, Tempo, Turn};
use crate::echo::load::stream::{Rules, Scratch};
use crate::echo::load::transport::Route;
use crate::echo::report::LoadReport;
use crate::limits::backoff::Backoff;
use crate::limits::shutdown::{self, Shutdown};
use crate::measure::live::LiveStats;
use crate::runtime::{Timer, WorkerThread, busy_poll_time};

/// The longest wait after the first connection in a row that came to nothing, and after later
/// ones.
const FAILED_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// After so many in a row that came to nothing no other takes their place.
const GIVE_UP: u32 = 10;

/// What a longer time counts as: a moment in the future must have a place in time.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Sends the same message again and again over many connections, until all are sent, the time is
/// over, or `stop` is done; then tells how it went. `live` has the latest figures meanwhile, the
/// warm-up not counted.
///
/// Each connection has a schedule of its own when a rate is asked, and a message that the server
/// holds up does not move those behind it: its response time counts from when it was due. At the
/// end of the time nothing more is sent, and the replies on the way are waited for. A connection
/// on which something fails is closed, and another takes its place; one that cannot be opened at
/// all, or fails ten times in a row, is given up.
///
/// Over UDP a connection is a socket. Each message then begins with its number, for which it needs
/// [`SMALLEST_DATAGRAM`](crate::echo::SMALLEST_DATAGRAM) bytes; what gets lost, comes twice or in
/// another order is counted, and no error. A reply is lost when it has not come after the time limit
/// of the server, and its message counts as on the way until then.
///
/// The connections are spread over threads of their own, and end with this future.
///
/// # Errors
///
/// [`EchoError::Thread`]. What goes wrong with messages is told in the report.
///
/// # Cancel safety
///
/// When this is dropped halfway, all connections are closed and the report is lost. `stop` is the
/// way to end it early.
pub async fn load(
    config: &LoadConfig,
    stop: impl Future<Output = ()>,
    live: &LiveStats,
) -> Result<LoadReport, EchoError> {
    let plan = Arc::new(Plan::new(config));
    let (stopper, stopped) = shutdown::channel();
    let start = |part| {
        let (plan, live, stop) = (Arc::clone(&plan), live.clone(), stopped.clone());
        let work = move || async move { Load::new(&plan, part, live).run(stop).await };
        WorkerThread::start("load", config.busy_poll, work)
    };
    let workers = (0..plan.threads).map(start).collect::<Result<Vec<_>, _>>();
    let workers = workers.map_err(|source| EchoError::Thread { source })?;
    let stopping = async {
        stop.await;
        stopper.trigger();
        pending().await
    };
    let mut report = future::or(stopping, collect(workers)).await;
    report.elapsed = plan.elapsed(&report);
    report.slept = config.busy_poll.is_zero();
    Ok(report)
}

/// Waits for all threads, and puts together what they have counted.
async fn collect(workers: Vec<WorkerThread<LoadReport>>) -> LoadReport {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let share = 1.0 / workers.len().min(cores) as f64;
    let mut report = LoadReport::default();
    for worker in workers {
        let part = worker.finish().await.unwrap_or_default();
        report.cpu += share * part.cpu;
        report.merge(part);
    }
    report
}

/// The processor time that this thread has used.
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.unsigned_abs(), tv_nsec.try_into().unwrap_or(0))
}

/// What all threads share.
#[derive(Debug)]
struct Plan {
    config: LoadConfig,
    opener: Opener,
    threads: usize,
    start: Instant,
    measured_from: Instant,
    end: Option<Instant>,
}

impl Plan {
    fn new(config: &LoadConfig) -> Self {
        let start = Instant::now();
        let measured_from = start + config.warmup.min(LONGEST);
        let end = match config.length {
            Length::Time(time) => Some(measured_from + time.min(LONGEST)),
            Length::Count(_) => None,
        };
        let connections = usize::try_from(config.connections.get()).unwrap_or(usize::MAX);
        let threads = config.threads.get().min(connections);
        let (config, opener) = (config.clone(), Opener::new(&config.server));
        Self {
            config,
            opener,
            threads,
            start,
            measured_from,
            end,
        }
    }

    /// When a connection is to be opened.
    fn opening(&self, index: u32) -> Instant {
        let LoadConfig {
            connections,
            ramp_up,
            ..
        } = self.config;
        let share = f64::from(index) / f64::from(connections.get());
        let opening = self.start + ramp_up.min(LONGEST).mul_f64(share);
        self.end.map_or(opening, |end| end.min(opening))
    }

    /// What the schedules of all connections have in common.
    fn tempo(&self) -> Tempo {
        let LoadConfig {
            connections,
            new_connections,
            ..
        } = self.config;
        let at_once = new_connections.then_some(Duration::ZERO);
        Tempo {
            every: self.time(connections.get()).or(at_once),
            end: self.end,
        }
    }

    /// The schedule of a connection.
    fn pace<'t>(&self, tempo: &'t Tempo, index: u32, now: Instant) -> Pace<'t> {
        let connections = u64::from(self.config.connections.get());
        let left = match self.config.length {
            Length::Time(_) => u64::MAX,
            Length::Count(count) => {
                count / connections + u64::from(u64::from(index) < count % connections)
            }
        };
        Pace {
            tempo,
            start: now + self.time(index).unwrap_or_default(),
            left,
        }
    }

    /// The time that so many messages take at the rate that is asked.
    fn time(&self, messages: u32) -> Option<Duration> {
        let seconds = f64::from(messages) / self.config.rate?;
        Some(
            Duration::try_from_secs_f64(seconds)
                .unwrap_or(LONGEST)
                .min(LONGEST),
        )
    }

    /// How long was measured: until the time was over or nothing was left to do, and at least
    /// until the last answer.
    fn elapsed(&self, report: &LoadReport) -> Duration {
        let ended = report.ended.unwrap_or(self.start);
        let until = self.end.map_or(ended, |end| end.min(ended));
        let until = report.last_answer.map_or(until, |last| last.max(until));
        until.saturating_duration_since(self.measured_from)
    }
}

/// One thread and its share of the connections.
#[derive(Debug)]
struct Load<'a> {
    plan: &'a Plan,
    part: usize,
    rules: Rules<'a>,
    tempo: Tempo,
    meter: RefCell<Meter>,
    scratch: RefCell<Scratch>,
    /// Whether the server takes no notice of the end of input: then it is waited for no more.
    deaf: Cell<bool>,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan, part: usize, live: LiveStats) -> Self {
        let LoadConfig {
            server,
            payload,
            verify,
            in_flight,
            new_connections,
            rate,
            ..
        } = &plan.config;
        let in_flight = if *new_connections { 1 } else { in_flight.get() };
        let rules = Rules {
            server,
            payload,
            verify: *verify,
            in_flight,
        };
        let at_once = rate.is_none() && !*new_connections;
        let meter = RefCell::new(Meter::new(plan.measured_from, at_once, live));
        Self {
            plan,
            part,
            rules,
            tempo: plan.tempo(),
            meter,
            scratch: RefCell::default(),
            deaf: Cell::new(false),
        }
    }

    async fn run(self, stop: Shutdown) -> LoadReport {
        let (start, cpu) = (Instant::now(), cpu_time());
        self.drive_all(&stop).await;
        if stop.is_shutdown() {
            self.note_end(Instant::now());
        }
        let mut report = self.meter.into_inner().into_report();
        let busy = cpu_time()
            .saturating_sub(cpu)
            .saturating_sub(busy_poll_time());
        report.cpu = busy.as_secs_f64() / start.elapsed().as_secs_f64();
        report
    }

    /// Keeps all connections of this thread busy until there is nothing left to do, or the stop.
    async fn drive_all(&self, stop: &Shutdown) {
        let executor = LocalExecutor::new();
        let indices = (0..self.plan.config.connections.get()).skip(self.part);
        let mine = indices.step_by(self.plan.threads);
        let all: Vec<_> = mine
            .map(|index| executor.spawn(self.drive(index)))
            .collect();
        let work = async {
            for connection in all {
                connection.await;
            }
        };
        // A task of its own: what is run by the executor itself is asked at every wake.
        let ended = executor.spawn(future::or(stop.wait(), work));
        executor.run(ended).await;
    }

    /// Keeps one connection busy, whichever take its place.
    ///
    /// What is rare is in boxes: for each message all that a connection takes is brought into the
    /// processor's cache, and of thousands little is there still.
    async fn drive(&self, index: u32) {
        Timer::at(self.plan.opening(index)).await;
        let mut pace = self.plan.pace(&self.tempo, index, Instant::now());
        let (mut opened, mut failures) = (false, 0);
        loop {
            match pace.turn(Instant::now()) {
                Turn::Over => return self.tempo.end.iter().for_each(|end| self.note_end(*end)),
                Turn::At(due) if opened || self.connects_anew() => _ = Timer::at(due).await,
                _ => {}
            }
            let of_use = match Box::pin(self.open(index, &mut pace, opened)).await {
                Some(mut route) => {
                    opened = true;
                    let most = if self.connects_anew() { 1 } else { u64::MAX };
                    let told = |event| self.meter.borrow_mut().count(event);
                    let result = route.run(&mut pace, most, &self.scratch, told).await;
                    Box::pin(self.close(route, result)).await
                }
                None => false,
            };
            if of_use {
                failures = 0;
                continue;
            }
            failures += 1;
            if !opened || failures == GIVE_UP {
                return;
            }
            Timer::at(Instant::now() + delay(failures)).await;
        }
    }

    /// Opens a connection; `again`, if it takes the place of another.
    async fn open(&self, index: u32, pace: &mut Pace<'a>, again: bool) -> Option<Box<Route<'_>>> {
        let start = Instant::now();
        if self.connects_anew() && self.plan.config.rate.is_none() {
            // The next message is due when its connection is begun: that belongs to its response.
            pace.start = start;
        }
        match self.plan.opener.open().await {
            Ok(opened) => {
                self.meter.borrow_mut().connected(start);
                // A schedule starts when its connection is there, unless connecting is what is
                // timed.
                if !again && !self.connects_anew() {
                    *pace = self.plan.pace(pace.tempo, index, Instant::now());
                }
                Some(Box::new(Route::new(
                    opened,
                    &self.rules,
                    u64::from(index) + 1,
                )))
            }
            Err(error) => {
                pace.take();
                self.meter.borrow_mut().fail(error);
                self.note_end(Instant::now());
                None
            }
        }
    }

    /// Closes a connection with which nothing is left to do, or that is of no more use; tells
    /// whether it was of use: all went well, or something was answered.
    async fn close(&self, mut route: Box<Route<'_>>, mut result: Result<(), EchoError>) -> bool {
        self.note_end(Instant::now());
        if result.is_ok() && self.rules.verify {
            result = route.finish(&self.scratch, &self.deaf).await;
        }
        match result {
            Ok(()) => true,
            Err(error) => {
                self.meter.borrow_mut().fail(error);
                route.was_answered()
            }
        }
    }

    /// Whether each message has a connection of its own.
    fn connects_anew(&self) -> bool {
        self.plan.config.new_connections
    }

    /// Notes that there was something to do until this moment.
    fn note_end(&self, at: Instant) {
        self.meter.borrow_mut().ended(at);
    }
}

/// How long to wait after so many connections in a row that came to nothing.
fn delay(failures: u32) -> Duration {
    let (first, longest) = FAILED_DELAY;
    Backoff::new(first.saturating_mul(1 << (failures - 1)), longest).next_delay()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_waits_takes_little_memory() {
        let plan = Plan::new(&LoadConfig::default());
        let load = Load::new(&plan, 0, LiveStats::default());
        let size = size_of_val(&load.drive(0)) + size_of::<Route<'_>>();
        assert!(size <= 512, "{size} bytes for each connection");
    }
}
