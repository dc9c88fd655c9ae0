//! Recorder of the statistics of one load thread.

use std::time::{Duration, Instant};

use tracing::debug;

use super::driver::Event;
use crate::echo::error::Error;
use crate::echo::report::LoadReport;
use crate::error_chain::ErrorChain;
use crate::measure::live::LiveStats;
use crate::measure::timeline::Bucket;

/// Minimum time between updates of the live statistics.
const LIVE_UPDATE_INTERVAL: Duration = Duration::from_millis(100);

/// Statistics of one thread, recorded without a lock per message.
#[derive(Debug)]
pub(crate) struct Recorder {
    measured_from: Instant,
    /// Whether messages are sent when they are due, so that response and service times are equal.
    sends_when_due: bool,
    report: LoadReport,
    live: LiveStats,
    /// Counts not yet added to `live`.
    pending: Bucket,
    last_update: Instant,
}

impl Recorder {
    /// Creates a recorder of messages due from `measured_from` on.
    pub(crate) fn new(measured_from: Instant, sends_when_due: bool, live: LiveStats) -> Self {
        Self {
            measured_from,
            sends_when_due,
            report: LoadReport::default(),
            live,
            pending: Bucket::default(),
            last_update: Instant::now(),
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
                report.response.record(response);
                if !self.sends_when_due {
                    report.service.record(now - sent.at);
                }
                report
                    .timeline
                    .at(now - self.measured_from)
                    .answered(response);
                report.last_reply = Some(now);
                self.pending.answered(response);
                self.update_live(now);
            }
            Event::Lost { sent, now } if sent.due >= self.measured_from => {
                report.lost += 1;
                report.timeline.at(now - self.measured_from).lost += 1;
            }
            Event::OutOfOrder { sent } if sent.due >= self.measured_from => {
                report.out_of_order += 1;
            }
            Event::Duplicate => report.duplicates += 1,
            _ => {}
        }
    }

    /// Records a connection that was opened from `start` until now.
    pub(crate) fn record_connect(&mut self, start: Instant) {
        if start >= self.measured_from {
            self.report.connect.record(start.elapsed());
        }
    }

    /// Records a failed exchange.
    pub(crate) fn record_failure(&mut self, error: Error) {
        debug!(target: "myapp::traffic", error = %ErrorChain(&error), "failed");
        let now = Instant::now();
        if let Some(moment) = now.checked_duration_since(self.measured_from) {
            self.report.timeline.at(moment).failed += 1;
        }
        self.report.record_failure(error);
        self.pending.failed += 1;
        self.update_live(now);
    }

    fn update_live(&mut self, now: Instant) {
        if now.saturating_duration_since(self.last_update) >= LIVE_UPDATE_INTERVAL {
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
        if self.sends_when_due {
            self.report.service = self.report.response.clone();
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Sent;
    use super::*;
    use crate::net::address::Address;

    #[test]
    fn messages_due_during_warmup_are_not_recorded() {
        let start = Instant::now();
        let measured_from = start + Duration::from_secs(1);
        let mut recorder = Recorder::new(measured_from, false, LiveStats::default());
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
        let counts = (report.sent, report.late_sends, report.answered());
        assert_eq!(counts, (2, 2, 2));
        let buckets = (0..).zip(report.timeline.buckets());
        let busy = buckets.filter(|(_, bucket)| bucket.count() > 0);
        let moments: Vec<_> = busy.map(|(n, _)| n * report.timeline.width()).collect();
        assert_eq!(moments, [480, 3000].map(Duration::from_millis));
    }

    #[test]
    fn live_statistics_are_updated_after_the_interval() {
        let start = Instant::now() - LIVE_UPDATE_INTERVAL;
        let live = LiveStats::default();
        let mut recorder = Recorder::new(start, true, live.clone());
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
