//! What the connections of one thread count while a load runs.

use std::time::{Duration, Instant};

use tracing::debug;

use crate::echo::error::EchoError;
use crate::echo::load::stream::Event;
use crate::echo::report::LoadReport;
use crate::error_chain::ErrorChain;
use crate::measure::live::LiveStats;
use crate::measure::timeline::Bucket;

/// The time after which what was counted is shown to whoever watches.
const SHOWN_AFTER: Duration = Duration::from_millis(100);

/// The figures of one thread, which take no lock for each message.
#[derive(Debug)]
pub(crate) struct Meter {
    measured_from: Instant,
    /// Whether each message goes when it is due, so that response and service times are the same.
    at_once: bool,
    report: LoadReport,
    live: LiveStats,
    /// What is not yet shown to `live`, and since when.
    recent: Bucket,
    shown: Instant,
}

impl Meter {
    /// Counts what is due from a moment on; `at_once` says that each message goes when it is due.
    pub(crate) fn new(measured_from: Instant, at_once: bool, live: LiveStats) -> Self {
        let (report, recent) = Default::default();
        Self {
            measured_from,
            at_once,
            report,
            live,
            recent,
            shown: Instant::now(),
        }
    }

    /// Counts what happened to a message.
    pub(crate) fn count(&mut self, event: Event) {
        let report = &mut self.report;
        match event {
            Event::Sent { due, late } if due >= self.measured_from => {
                report.sent += 1;
                report.late += u64::from(late);
            }
            Event::Answered { sent, now } if sent.due >= self.measured_from => {
                let response = now - sent.due;
                report.response.record(response);
                if !self.at_once {
                    report.service.record(now - sent.at);
                }
                report
                    .timeline
                    .at(now - self.measured_from)
                    .answered(response);
                report.last_answer = Some(now);
                self.recent.answered(response);
                self.show(now);
            }
            Event::Lost { sent, now } if sent.due >= self.measured_from => {
                report.lost += 1;
                report.timeline.at(now - self.measured_from).lost += 1;
            }
            Event::Overtaken { sent } if sent.due >= self.measured_from => report.reordered += 1,
            Event::Again => report.duplicates += 1,
            _ => {}
        }
    }

    /// Counts a connection that was begun then and is now open.
    pub(crate) fn connected(&mut self, begun: Instant) {
        if begun >= self.measured_from {
            self.report.connect.record(begun.elapsed());
        }
    }

    /// Counts what went wrong.
    pub(crate) fn fail(&mut self, error: EchoError) {
        debug!(target: "myapp::traffic", error = %ErrorChain(&error), "failed");
        let now = Instant::now();
        if let Some(moment) = now.checked_duration_since(self.measured_from) {
            self.report.timeline.at(moment).failed += 1;
        }
        self.report.fail(error);
        self.recent.failed += 1;
        self.show(now);
    }

    fn show(&mut self, now: Instant) {
        if now.saturating_duration_since(self.shown) >= SHOWN_AFTER {
            self.live.add(&self.recent);
            self.recent.clear();
            self.shown = now;
        }
    }

    /// Notes that there was something to do until this moment.
    pub(crate) fn ended(&mut self, at: Instant) {
        self.report.ended = self.report.ended.max(Some(at));
    }

    /// The report, but for how long all took.
    pub(crate) fn into_report(mut self) -> LoadReport {
        if self.at_once {
            self.report.service = self.report.response.clone();
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::load::in_flight::Sent;
    use crate::net::address::Address;

    #[test]
    fn what_is_due_before_the_start_counts_for_nothing() {
        let start = Instant::now();
        let mut meter = Meter::new(start + Duration::from_secs(1), false, LiveStats::default());
        for (due, answered) in [(0, 0), (900, 1200), (1000, 1500), (2000, 4000)] {
            let after = |millis| start + Duration::from_millis(millis);
            meter.count(Event::Sent {
                due: after(due),
                late: true,
            });
            let sent = Sent {
                due: after(due),
                at: after(due),
            };
            meter.count(Event::Answered {
                sent,
                now: after(answered),
            });
        }
        let report = meter.into_report();
        assert_eq!((report.sent, report.late, report.answered()), (2, 2, 2));
        let slices = (0..).zip(report.timeline.buckets());
        let busy = slices.filter(|(_, slice)| slice.count() > 0);
        let moments: Vec<_> = busy.map(|(n, _)| n * report.timeline.width()).collect();
        assert_eq!(
            moments,
            [Duration::from_millis(480), Duration::from_millis(3000)]
        );
    }

    #[test]
    fn who_watches_sees_what_is_answered_and_what_fails() {
        let (start, live) = (Instant::now() - SHOWN_AFTER, LiveStats::default());
        let mut meter = Meter::new(start, true, live.clone());
        meter.shown = start;
        let sent = Sent {
            due: start,
            at: start,
        };
        meter.count(Event::Answered {
            sent,
            now: start + SHOWN_AFTER / 2,
        });
        assert_eq!(live.drain().count(), 0, "it is too soon to be told");
        let address = Address::loopback(1);
        meter.fail(EchoError::ClosedEarly { address });
        let seen = live.drain();
        assert_eq!((seen.count(), seen.failed), (1, 1));
        assert_eq!(live.drain().count(), 0);
    }
}
