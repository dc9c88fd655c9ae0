//! State of a run that all threads share.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use super::schedule::{MAX_DURATION, RunTimes};
use crate::echo::config::{LoadConfig, RunLimit};
use crate::echo::connector::Connector;
use crate::echo::report::LoadReport;
use crate::limits::shutdown::{self, Shutdown, Trigger};
use crate::limits::timeout::race;
use crate::measure::latency::LatencyHistogram;
use crate::measure::live::LiveStats;
use crate::runtime::Timer;

/// State shared by all threads.
#[derive(Debug)]
pub(crate) struct RunPlan {
    pub(crate) config: LoadConfig,
    pub(crate) connector: Connector,
    pub(crate) threads: usize,
    /// Whether a connection has received a reply, with a delay.
    pub(crate) has_replies: Arc<AtomicBool>,
    /// Whether a connection was opened.
    has_connected: AtomicBool,
    created: Instant,
    times: OnceLock<RunTimes>,
    /// Number of connections that are neither open nor have failed.
    opening: AtomicU32,
    /// Triggered when there are none.
    all_settled: Shutdown,
    trigger: Mutex<Option<Trigger>>,
}

impl RunPlan {
    pub(crate) fn new(config: &LoadConfig) -> Self {
        let connections = usize::try_from(config.connections.get()).unwrap_or(usize::MAX);
        let (trigger, all_settled) = shutdown::channel();
        let plan = Self {
            config: config.clone(),
            connector: Connector::new(&config.target),
            threads: config.threads.get().min(connections),
            has_replies: Arc::default(),
            has_connected: AtomicBool::new(false),
            created: Instant::now(),
            times: OnceLock::new(),
            opening: AtomicU32::new(config.connections.get()),
            all_settled,
            trigger: Mutex::new(Some(trigger)),
        };
        if !plan.waits_for_connections() {
            plan.start();
        }
        plan
    }

    /// Returns whether the schedule starts when the connections are open.
    pub(crate) fn waits_for_connections(&self) -> bool {
        self.config.ramp_up.is_zero() && !self.config.new_connections
    }

    /// Starts the schedule, unless it has started.
    pub(crate) fn start(&self) -> &RunTimes {
        self.times
            .get_or_init(|| RunTimes::new(&self.config, Instant::now()))
    }

    /// Returns the times of the run, if the schedule has started.
    pub(crate) fn times(&self) -> Option<&RunTimes> {
        self.times.get()
    }

    /// Counts a connection as open or failed for the first time, and waits until all are, at most
    /// for the timeout of the target.
    pub(crate) async fn settle(&self, is_open: bool) {
        if is_open {
            self.has_connected.store(true, Ordering::Relaxed);
        }
        if self.opening.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.start();
            let trigger = self.trigger.lock();
            *trigger.unwrap_or_else(PoisonError::into_inner) = None;
        } else {
            let latest = self.created + self.config.target.timeout.min(MAX_DURATION);
            let _ = race(Timer::at(latest), self.all_settled.wait()).await;
        }
    }

    /// Returns whether a connection was opened before the schedule started.
    pub(crate) fn has_connected(&self) -> bool {
        self.has_connected.load(Ordering::Relaxed)
    }

    /// Returns the time at which a connection is opened.
    pub(crate) fn connect_at(&self, index: u32) -> Instant {
        let LoadConfig {
            connections,
            ramp_up,
            ..
        } = self.config;
        let share = f64::from(index) / f64::from(connections.get());
        let at = self.created + ramp_up.min(MAX_DURATION).mul_f64(share);
        let end = self.times().and_then(|times| times.end);
        end.map_or(at, |end| end.min(at))
    }

    /// Completes the merged report of all threads, and the intervals.
    pub(crate) fn complete(&self, report: &mut LoadReport, interrupted: bool, live: &LiveStats) {
        let Some(times) = self.times() else { return };
        let ended = report.ended.unwrap_or(times.start);
        // Until the end or until all connections were inactive, and at least until the last reply.
        let until = times.end.map_or(ended, |end| end.min(ended));
        let until = report.last_reply.map_or(until, |last| last.max(until));
        report.elapsed = until.saturating_duration_since(times.measured_from);

        for since in std::mem::take(&mut report.down_since) {
            report.record_down(times.measured_from, since, until);
        }
        let stop = times.send_until.map_or(ended, |until| until.min(ended));
        let due_until = times.end.map_or(stop, |end| end.min(stop));
        // Of a fixed number, those not due yet are missing too.
        let all_count = !interrupted && matches!(self.config.limit, RunLimit::Messages(_));
        let mut unsent_times = LatencyHistogram::default();
        for unsent in std::mem::take(&mut report.leftovers) {
            let due = unsent.due_within(times.measured_from, due_until);
            let counted = due.map_or(0, |due| due.count);
            if let Some(due) = due {
                report.record_unsent(times.measured_from, due, stop, &mut unsent_times);
            }
            if all_count {
                report.unsent += unsent.count - counted;
            }
        }
        report.response.merge(&unsent_times);
        if let Some(intervals) = live.interval_recorder() {
            intervals.merge_unsent(stop, &unsent_times);
        }
    }
}
