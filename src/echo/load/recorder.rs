//! Recorder of the statistics of one load thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::debug;

use super::driver::{Event, Sent, Unanswered};
use super::schedule::{RunTimes, Unsent};
use crate::echo::error::Error;
use crate::echo::report::LoadReport;
use crate::error_chain::ErrorChain;
use crate::measure::intervals::IntervalRecorder;
use crate::measure::latency::LatencyHistogram;
use crate::measure::live::LiveStats;
use crate::measure::timeline::Bucket;

/// Minimum time between updates of the live statistics.
const LIVE_UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// Statistics of one thread, recorded without a lock per message.
#[derive(Debug)]
pub(crate) struct Recorder {
    measured_from: Instant,
    /// Whether the schedule has started.
    started: bool,
    /// Whether connections opened before `measured_from` count.
    counts_early_connects: bool,
    /// Whether messages are sent when they are due, so that response and service times are equal.
    sends_when_due: bool,
    /// Its response times are those of the replies.
    report: LoadReport,
    /// Response times of messages without a valid reply.
    unanswered: LatencyHistogram,
    /// Whether any thread of the run has received a reply, with a delay.
    has_replies: Arc<AtomicBool>,
    live: LiveStats,
    /// Times of each second, if requested.
    intervals: Option<IntervalRecorder>,
    /// Counts not yet added to `live`.
    pending: Bucket,
    last_update: Instant,
}

impl Recorder {
    /// Creates a recorder.
    pub(crate) fn new(
        counts_early_connects: bool,
        sends_when_due: bool,
        has_replies: Arc<AtomicBool>,
        live: LiveStats,
    ) -> Self {
        Self {
            measured_from: Instant::now(),
            started: false,
            counts_early_connects,
            sends_when_due,
            report: LoadReport::default(),
            unanswered: LatencyHistogram::default(),
            has_replies,
            intervals: live.interval_recorder(),
            live,
            pending: Bucket::default(),
            last_update: Instant::now(),
        }
    }

    /// Sets the time from which messages are recorded.
    pub(crate) fn start(&mut self, times: &RunTimes) {
        self.started = true;
        self.measured_from = times.measured_from;
        let start = self.live.clock().since_epoch(times.measured_from);
        self.report.timeline.set_start(start);
        if let Some(intervals) = &self.intervals {
            intervals.start(times.measured_from);
        }
    }

    /// Records the progress of a message.
    pub(crate) fn record(&mut self, event: Event) {
        let report = &mut self.report;
        match event {
            Event::Sent { due, late } if due >= self.measured_from => {
                report.sent += 1;
                report.late_sends += u64::from(late);
            }
            Event::Answered { sent, now } if sent.due >= self.measured_from => {
                let response = now - sent.due;
                let service = now - sent.at;
                report.response.record(response);
                if !self.sends_when_due {
                    report.service.record(service);
                }
                if let Some(intervals) = &self.intervals {
                    let service = if self.sends_when_due {
                        response
                    } else {
                        service
                    };
                    intervals.record(now, response, Some(service));
                }
                report
                    .timeline
                    .at(now - self.measured_from)
                    .answered(response);
                report.last_reply = Some(now);
                self.pending.answered(response);
                self.update_live(now);
            }
            Event::Lost { sent, now } => self.record_unanswered(sent, Unanswered::Lost, now),
            Event::OutOfOrder { sent } if sent.due >= self.measured_from => {
                report.out_of_order += 1;
            }
            Event::Duplicate => report.duplicates += 1,
            Event::Late => report.late_replies += 1,
            Event::Dropped(count) => report.receive_drops += u64::from(count),
            _ => {}
        }
    }

    /// Records a message without a valid reply, with the time that has passed.
    pub(crate) fn record_unanswered(&mut self, sent: Sent, reason: Unanswered, now: Instant) {
        if sent.due < self.measured_from {
            return;
        }
        let report = &mut self.report;
        let bucket = report.timeline.at(now - self.measured_from);
        let response = now - sent.due;
        self.unanswered.record(response);
        bucket.unanswered(response);
        if let Some(intervals) = &self.intervals {
            intervals.record(now, response, None);
        }
        match reason {
            Unanswered::Mismatched => report.mismatched += 1,
            Unanswered::TimedOut => report.timeouts += 1,
            Unanswered::Failed => report.failed += 1,
            Unanswered::Lost => {
                report.lost += 1;
                bucket.lost += 1;
            }
        }
    }

    /// Records a message that failed before it was sent, because its own connection could not be
    /// opened.
    pub(crate) fn record_skipped(&mut self, sent: Sent, now: Instant) {
        self.report.sent += u64::from(sent.due >= self.measured_from);
        self.record_unanswered(sent, Unanswered::Failed, now);
    }

    /// Records the messages not sent when their connection was done.
    pub(crate) fn record_leftover(&mut self, unsent: Unsent) {
        if unsent.count > 0 {
            self.report.leftovers.push(unsent);
        }
    }

    /// Records a connection that failed and is not replaced.
    pub(crate) fn record_given_up(&mut self) {
        self.report.given_up += 1;
    }

    /// Records that a connection is down since `since`, and was replaced `until` then if it was.
    pub(crate) fn record_down(&mut self, since: Instant, until: Option<Instant>) {
        match until {
            Some(until) => self.report.record_down(self.measured_from, since, until),
            None => self.report.down_since.push(since),
        }
    }

    /// Returns whether the run has received a reply. Those of other threads count with a delay.
    pub(crate) fn has_replies(&self) -> bool {
        self.report.response.count() > 0 || self.has_replies.load(Ordering::Relaxed)
    }

    /// Records a connection that was opened from `start` until now.
    pub(crate) fn record_connect(&mut self, start: Instant, is_replacement: bool) {
        let now = Instant::now();
        if is_replacement {
            self.report.reconnects += 1;
            if let Some(moment) = self.moment(now) {
                self.report.timeline.at(moment).reconnects += 1;
            }
        }
        if self.counts_early_connects || (self.started && start >= self.measured_from) {
            self.report.connect.record(now - start);
        }
    }

    /// Records a failed exchange.
    pub(crate) fn record_failure(&mut self, error: Error) {
        debug!(target: "myapp::traffic", error = %ErrorChain(&error), "failed");
        let now = Instant::now();
        if let Some(moment) = self.moment(now) {
            self.report.timeline.at(moment).failed += 1;
        }
        self.report.record_failure(error);
        self.pending.failed += 1;
        self.update_live(now);
    }

    /// Returns the time since the start of the measurement; `None` during the warm-up.
    fn moment(&self, now: Instant) -> Option<Duration> {
        if self.started {
            now.checked_duration_since(self.measured_from)
        } else {
            Some(Duration::ZERO)
        }
    }

    fn update_live(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_update) >= LIVE_UPDATE_INTERVAL {
            if self.pending.count() > 0 {
                self.has_replies.store(true, Ordering::Relaxed);
            }
            self.live.add(&self.pending);
            self.pending.clear();
            self.last_update = now;
        }
    }

    /// Records that a connection was active until `at`.
    pub(crate) fn mark_active(&mut self, at: Instant) {
        self.report.ended = self.report.ended.max(Some(at));
    }

    /// Returns the report, without its `elapsed` time.
    pub(crate) fn into_report(mut self) -> LoadReport {
        self.report.answered = self.report.response.count();
        if self.sends_when_due {
            self.report.service = self.report.response.clone();
        }
        self.report.response.merge(&self.unanswered);
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::Address;

    fn recorder(start: Instant, sends_when_due: bool, live: LiveStats) -> Recorder {
        let mut recorder = Recorder::new(true, sends_when_due, Arc::default(), live);
        recorder.started = true;
        recorder.measured_from = start;
        recorder
    }

    #[test]
    fn messages_due_during_warmup_are_not_recorded() {
        let start = Instant::now();
        let measured_from = start + Duration::from_secs(1);
        let mut recorder = recorder(measured_from, false, LiveStats::default());
        for (due, answered) in [(0, 0), (900, 1200), (1000, 1500), (2000, 4000)] {
            let after = |millis| start + Duration::from_millis(millis);
            recorder.record(Event::Sent {
                due: after(due),
                late: true,
            });
            let sent = Sent {
                due: after(due),
                at: after(due),
            };
            recorder.record(Event::Answered {
                sent,
                now: after(answered),
            });
        }
        let report = recorder.into_report();
        let counts = (report.sent, report.late_sends, report.answered);
        assert_eq!(counts, (2, 2, 2));
        let buckets = (0..).zip(report.timeline.buckets());
        let busy = buckets.filter(|(_, bucket)| bucket.count() > 0);
        let moments: Vec<_> = busy.map(|(n, _)| n * report.timeline.width()).collect();
        assert_eq!(moments, [500, 3000].map(Duration::from_millis));
    }

    #[test]
    fn every_message_counts_once_in_the_response_times() {
        let start = Instant::now();
        let mut recorder = recorder(start, true, LiveStats::default());
        let sent = Sent {
            due: start,
            at: start,
        };
        let now = start + Duration::from_millis(500);
        recorder.record(Event::Answered { sent, now });
        recorder.record(Event::Lost { sent, now });
        for reason in [
            Unanswered::Mismatched,
            Unanswered::TimedOut,
            Unanswered::Failed,
        ] {
            recorder.record_unanswered(sent, reason, now);
        }
        let report = recorder.into_report();
        let counts = [
            report.answered,
            report.lost,
            report.mismatched,
            report.timeouts,
            report.failed,
        ];
        assert_eq!(counts, [1; 5]);
        assert_eq!((report.response.count(), report.service.count()), (5, 1));
        let times = report.response.percentiles().unwrap();
        assert!(times.min >= Duration::from_millis(499), "{times:?}");
        let replies: u64 = report.timeline.buckets().iter().map(Bucket::count).sum();
        assert_eq!(replies, 1);
    }

    #[test]
    fn live_statistics_are_updated_after_the_interval() {
        let start = Instant::now() - LIVE_UPDATE_INTERVAL;
        let live = LiveStats::default();
        let mut recorder = recorder(start, true, live.clone());
        recorder.last_update = start;
        let sent = Sent {
            due: start,
            at: start,
        };
        recorder.record(Event::Answered {
            sent,
            now: start + LIVE_UPDATE_INTERVAL / 2,
        });
        assert_eq!(live.drain().count(), 0, "within the interval");
        let address = Address::loopback(1);
        recorder.record_failure(Error::ClosedBeforeEof { address });
        let drained = live.drain();
        assert_eq!((drained.count(), drained.failed), (1, 1));
        assert_eq!(live.drain().count(), 0);
    }
}
