//! One connection of a load and its replacements.

use std::future::Future;
use std::time::{Duration, Instant};

use super::LoadThread;
use super::driver::Sent;
use super::schedule::{Next, RunTimes, Schedule};
use super::transport::Transport;
use crate::echo::config::RunLimit;
use crate::echo::error::Error;
use crate::limits::backoff::Backoff;
use crate::runtime::Timer;

/// Upper bound of the delay after the first of several consecutive failed connections.
const INITIAL_RECONNECT_DELAY: Duration = Duration::from_millis(100);

/// Upper bound of the delay after later ones.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// Number of consecutive failed connections after which none replaces them, unless the run has a
/// duration and received a reply.
const MAX_CONSECUTIVE_FAILURES: u32 = 10;

/// A connection of a run. Its messages are accounted for when it is dropped.
struct Connection<'a> {
    thread: &'a LoadThread<'a>,
    index: u32,
    /// `None` until the schedule starts.
    schedule: Option<Schedule<'a>>,
    transport: Option<Box<Transport<'a>>>,
    was_connected: bool,
    /// Since when there is no connection, after a failure.
    down_since: Option<Instant>,
    /// Consecutive failures.
    failures: u32,
}

/// Next step after a failure.
#[derive(PartialEq, Eq)]
enum AfterFailure {
    Reconnect,
    GiveUp,
}

/// Drives one connection and its replacements.
///
/// Rare futures are boxed: each message brings the state of its connection into the processor's
/// cache, which does not hold that of thousands of connections.
pub(super) fn drive<'a>(thread: &'a LoadThread<'_>, index: u32) -> impl Future<Output = ()> + 'a {
    // Created now, because a future that is never polled is accounted for too.
    let mut connection = Connection::new(thread, index);
    async move {
        if !Box::pin(connection.start()).await {
            return;
        }
        loop {
            if connection.transport.is_none() && !Box::pin(connection.reconnect()).await {
                return;
            }
            let result = connection.exchange().await;
            if !Box::pin(connection.close(result)).await {
                return;
            }
        }
    }
}

impl<'a> Connection<'a> {
    fn new(thread: &'a LoadThread<'a>, index: u32) -> Self {
        Self {
            thread,
            index,
            schedule: None,
            transport: None,
            was_connected: false,
            down_since: None,
            failures: 0,
        }
    }

    /// Waits until the schedule starts. Unless setup is spread or measured, the connection is
    /// opened before. Returns false if it is given up.
    async fn start(&mut self) -> bool {
        let thread = self.thread;
        let plan = thread.plan;
        Timer::at(plan.connect_at(self.index)).await;
        if !plan.waits_for_connections() {
            self.begin(plan.start());
            return true;
        }
        let connected = connect(thread, self.index, false).await;
        plan.settle(connected.is_ok()).await;
        self.begin(plan.start());
        match connected {
            Ok(transport) => {
                self.set_transport(transport);
                true
            }
            Err(()) => self.fail().await == AfterFailure::Reconnect,
        }
    }

    fn begin(&mut self, times: &RunTimes) {
        let thread = self.thread;
        thread.recorder.borrow_mut().start(times);
        let shared = thread.schedule_config(times);
        let config = &thread.plan.config;
        let schedule = Schedule::new(shared, config, self.index, Instant::now());
        self.schedule = Some(schedule);
    }

    fn set_transport(&mut self, transport: Box<Transport<'a>>) {
        self.transport = Some(transport);
        self.was_connected = true;
        if let Some(since) = self.down_since.take() {
            let mut recorder = self.thread.recorder.borrow_mut();
            recorder.record_down(since, Some(Instant::now()));
        }
    }

    /// Opens the connection for the next message. Returns false if there is none, or if the
    /// connection is given up.
    async fn reconnect(&mut self) -> bool {
        loop {
            let Some(schedule) = &mut self.schedule else {
                return false;
            };
            match schedule.next(Instant::now()) {
                Next::Done => {
                    self.mark_done();
                    return false;
                }
                Next::WaitUntil(due) if self.was_connected || self.thread.is_per_message() => {
                    _ = Timer::at(due).await;
                }
                _ => {}
            }
            let start = Instant::now();
            if self.thread.is_per_message() && self.thread.plan.config.rate.is_none() {
                // The message is due when connecting starts: its response time includes it.
                schedule.next_due = start;
            }
            let due = schedule.next_due;
            match connect(self.thread, self.index, self.was_connected).await {
                Ok(transport) => {
                    self.set_transport(transport);
                    return true;
                }
                Err(()) => {
                    if self.thread.is_per_message() {
                        self.skip_message(due, start);
                    }
                    if self.fail().await == AfterFailure::GiveUp {
                        return false;
                    }
                }
            }
        }
    }

    /// Records a message whose own connection could not be opened.
    fn skip_message(&mut self, due: Instant, start: Instant) {
        let Some(schedule) = &mut self.schedule else {
            return;
        };
        schedule.advance();
        let sent = Sent {
            due,
            at: start.max(due),
        };
        let mut recorder = self.thread.recorder.borrow_mut();
        recorder.record_skipped(sent, Instant::now());
    }

    /// Sends messages until all are sent or the connection fails.
    async fn exchange(&mut self) -> Result<(), Error> {
        let thread = self.thread;
        let max_messages = if thread.is_per_message() { 1 } else { u64::MAX };
        let on_event = |event| thread.recorder.borrow_mut().record(event);
        match (&mut self.transport, &mut self.schedule) {
            (Some(transport), Some(schedule)) => {
                transport
                    .run(schedule, max_messages, &thread.buffers, on_event)
                    .await
            }
            _ => Ok(()),
        }
    }

    /// Closes a connection that is done or has failed. Returns whether the next message needs
    /// another one; false if the connection is given up.
    async fn close(&mut self, mut result: Result<(), Error>) -> bool {
        let Some(mut transport) = self.transport.take() else {
            return true;
        };
        let thread = self.thread;
        thread.mark_active(Instant::now());
        thread.record_unanswered(&mut transport, result.as_ref().err());
        if result.is_ok() && thread.options.verify {
            let end = transport.finish(&thread.buffers, &thread.ignores_half_close);
            result = end.await;
        }
        let useful = result.is_ok() || transport.has_received_reply();
        if let Err(error) = result {
            thread.recorder.borrow_mut().record_failure(error);
            if !thread.is_per_message() {
                self.down_since = Some(Instant::now());
            }
        }
        drop(transport);
        if useful {
            self.failures = 0;
            return true;
        }
        self.fail().await == AfterFailure::Reconnect
    }

    /// Counts a failure, and waits before the next attempt.
    async fn fail(&mut self) -> AfterFailure {
        self.failures = self.failures.saturating_add(1);
        let thread = self.thread;
        if !thread.is_per_message() {
            self.down_since.get_or_insert_with(Instant::now);
        }
        let plan = thread.plan;
        let has_duration = matches!(plan.config.limit, RunLimit::Duration(_));
        let persists = has_duration && thread.recorder.borrow().has_replies();
        let may_connect = self.was_connected || (has_duration && plan.has_connected());
        if !persists && (!may_connect || self.failures >= MAX_CONSECUTIVE_FAILURES) {
            let mut recorder = thread.recorder.borrow_mut();
            recorder.mark_active(Instant::now());
            recorder.record_given_up();
            return AfterFailure::GiveUp;
        }
        let next = Instant::now() + reconnect_delay(self.failures);
        let until = plan.times().and_then(|times| times.send_until);
        Timer::at(until.map_or(next, |until| until.min(next))).await;
        AfterFailure::Reconnect
    }

    /// Records that the connection was active until the end of the run.
    fn mark_done(&self) {
        if let Some(end) = self.thread.plan.times().and_then(|times| times.end) {
            self.thread.mark_active(end.max(Instant::now()));
        }
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        if let Some(transport) = &mut self.transport {
            self.thread.record_unanswered(transport, None);
        }
        if let (None, Some(times)) = (&self.schedule, self.thread.plan.times()) {
            // Interrupted before this connection was open.
            self.begin(times);
        }
        if let Some(schedule) = self.schedule.take() {
            let mut recorder = self.thread.recorder.borrow_mut();
            recorder.record_leftover(schedule.into_unsent());
        }
        if let Some(since) = self.down_since {
            self.thread.recorder.borrow_mut().record_down(since, None);
        }
    }
}

/// Opens a connection; `is_replacement` if it replaces another one.
async fn connect<'a>(
    thread: &'a LoadThread<'a>,
    index: u32,
    is_replacement: bool,
) -> Result<Box<Transport<'a>>, ()> {
    let start = Instant::now();
    match thread.plan.connector.connect().await {
        Ok(connected) => {
            let is_replacement = is_replacement && !thread.is_per_message();
            let mut recorder = thread.recorder.borrow_mut();
            recorder.record_connect(start, is_replacement);
            let number = u64::from(index) + 1;
            let transport = Transport::new(connected, &thread.options, number);
            Ok(Box::new(transport))
        }
        Err(error) => {
            let mut recorder = thread.recorder.borrow_mut();
            recorder.record_failure(error);
            recorder.mark_active(Instant::now());
            Err(())
        }
    }
}

/// Returns the delay after a number of consecutive failed connections.
fn reconnect_delay(failures: u32) -> Duration {
    let doublings = (failures - 1).min(10);
    let first = INITIAL_RECONNECT_DELAY.saturating_mul(1 << doublings);
    Backoff::new(first, MAX_RECONNECT_DELAY).next_delay()
}
