//! Warnings: reasons why the statistics of a load may be misleading.

use std::fmt;
use std::time::Duration;

use crate::echo::report::LoadReport;
use crate::measure::percentile::{Percentile, PercentileList};

/// Median service time below which a wake-up of the sending thread, which takes up to some ten
/// microseconds, is a considerable part of the measurement.
const WAKEUP_SENSITIVE: Duration = Duration::from_micros(300);

/// Share of its time above which a sending thread counts as the bottleneck.
const MAX_SENDER_CPU: f64 = 0.9;

/// Share of late messages that is tolerated.
const MAX_LATE_SHARE: f64 = 0.01;

/// Share of the requested rate that counts as reached.
const MIN_RATE_SHARE: f64 = 0.99;

/// A reason why statistics may be misleading. [`Display`](fmt::Display) is the message.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The reached rate is more than 1 % below the requested one.
    RateNotReached {
        /// Messages per second.
        requested: f64,
        /// Messages per second.
        reached: f64,
        /// The probable cause.
        cause: RateLimit,
    },
    /// Number of messages that were due and were not sent.
    Unsent(u64),
    /// Number of messages over a stream whose reply did not arrive in time.
    Timeouts(u64),
    /// Number of connections that failed and were not replaced.
    GivenUp(u64),
    /// Number of datagrams dropped because the receive buffer of the client was full.
    ReceiveDrops(u64),
    /// This share of the messages, more than 1 %, was sent late by the client.
    LateSends(f64),
    /// The sending threads were busy for this share of their time, more than 90 %.
    SenderBusy(f64),
    /// Half of the replies arrived so fast that the wake-up time of the sending threads is a
    /// considerable part of the measured times.
    WakeupLatency,
    /// Fewer than ten replies lie above the percentile.
    TooFewReplies {
        /// The lowest such percentile of the report.
        percentile: Percentile,
        /// Number of replies.
        replies: u64,
        /// Sufficient number of replies.
        required: u64,
    },
}

/// Probable cause of a rate that was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimit {
    /// Connections failed or were given up.
    Connections,
    /// The sending threads sent late or had no time left.
    Sender,
    /// All connections waited for replies.
    Replies,
}

impl Warning {
    /// Returns the stable identifier of the kind of warning, in snake case.
    pub fn code(&self) -> &'static str {
        match self {
            Self::RateNotReached { .. } => "rate_not_reached",
            Self::Unsent(_) => "unsent",
            Self::Timeouts(_) => "timeouts",
            Self::GivenUp(_) => "connections_given_up",
            Self::ReceiveDrops(_) => "receive_drops",
            Self::LateSends(_) => "late_sends",
            Self::SenderBusy(_) => "sender_busy",
            Self::WakeupLatency => "wakeup_latency",
            Self::TooFewReplies { .. } => "too_few_replies",
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RateNotReached {
                requested, reached, ..
            } => {
                let missing = 100.0 * (1.0 - reached / requested);
                write!(f, "rate not reached: {reached:.1} of {requested} ")?;
                write!(f, "messages per second, {missing:.1}% below")
            }
            Self::Unsent(count) => {
                write!(f, "{count} messages were due and were not sent; ")?;
                f.write_str("their response times count until the end of the run")
            }
            Self::Timeouts(count) => {
                write!(f, "{count} messages timed out; ")?;
                f.write_str("their response times are at least the time limit")
            }
            Self::GivenUp(count) => {
                write!(f, "{count} connections failed and were not replaced")
            }
            Self::ReceiveDrops(count) => {
                write!(f, "{count} datagrams were dropped because the receive ")?;
                f.write_str("buffer of the client was full")
            }
            Self::LateSends(share) => {
                let percent = 100.0 * share;
                write!(f, "{percent:.1}% of the messages were sent over 1 ms late")
            }
            Self::SenderBusy(share) => {
                let percent = 100.0 * share;
                write!(
                    f,
                    "the sending threads were busy {percent:.0}% of the time "
                )?;
                f.write_str("and may be the bottleneck")
            }
            Self::WakeupLatency => {
                f.write_str("the times include the wake-up latency of the sending threads")
            }
            Self::TooFewReplies {
                percentile,
                replies,
                required,
            } => {
                write!(f, "{replies} replies are too few for {percentile} ")?;
                write!(f, "and above, which needs {required}")
            }
        }
    }
}

impl LoadReport {
    /// Returns the reasons why the statistics may be misleading, given the requested rate and the
    /// percentiles to be reported.
    pub fn warnings(&self, requested: Option<f64>, percentiles: &PercentileList) -> Vec<Warning> {
        let mut warnings = Vec::new();
        warnings.extend(requested.and_then(|rate| self.rate_warning(rate, self.rate())));
        let counts = [
            Warning::Unsent(self.unsent),
            Warning::Timeouts(self.timeouts),
            Warning::GivenUp(self.given_up),
            Warning::ReceiveDrops(self.receive_drops),
        ];
        let is_some = |warning: &Warning| {
            !matches!(
                warning,
                Warning::Unsent(0)
                    | Warning::Timeouts(0)
                    | Warning::GivenUp(0)
                    | Warning::ReceiveDrops(0)
            )
        };
        warnings.extend(counts.into_iter().filter(is_some));
        let late = self.late_share();
        if late > MAX_LATE_SHARE {
            warnings.push(Warning::LateSends(late));
        }
        if self.sender_cpu > MAX_SENDER_CPU && self.answered > 0 {
            warnings.push(Warning::SenderBusy(self.sender_cpu));
        }
        if self.has_wakeup_latency() {
            warnings.push(Warning::WakeupLatency);
        }
        warnings.extend(self.too_few_replies(percentiles));
        warnings
    }

    /// Returns a warning if the reached rate is too far below the requested one.
    #[doc(hidden)]
    pub fn rate_warning(&self, requested: f64, reached: f64) -> Option<Warning> {
        (reached < MIN_RATE_SHARE * requested).then(|| Warning::RateNotReached {
            requested,
            reached,
            cause: self.rate_limit(),
        })
    }

    /// Returns the share of the messages that were sent late.
    fn late_share(&self) -> f64 {
        self.late_sends as f64 / self.sent.max(1) as f64
    }

    /// Returns the probable cause of a rate that was not reached.
    fn rate_limit(&self) -> RateLimit {
        if self.given_up > 0 || self.failed > 0 || self.reconnects > 0 {
            RateLimit::Connections
        } else if self.late_share() > MAX_LATE_SHARE || self.sender_cpu > MAX_SENDER_CPU {
            RateLimit::Sender
        } else {
            RateLimit::Replies
        }
    }

    /// Returns whether wake-ups are a considerable part of the times. A busy thread is already
    /// awake.
    fn has_wakeup_latency(&self) -> bool {
        let median = self
            .service
            .percentiles()
            .map(|percentiles| percentiles.p50);
        self.sender_slept
            && self.sender_cpu <= MAX_SENDER_CPU
            && median.is_some_and(|median| median < WAKEUP_SENSITIVE)
    }

    fn too_few_replies(&self, percentiles: &PercentileList) -> Option<Warning> {
        let replies = self.answered;
        percentiles
            .iter()
            .map(|percentile| (percentile, percentile.required_count()))
            .find(|(_, required)| (1..*required).contains(&replies))
            .map(|(percentile, required)| Warning::TooFewReplies {
                percentile,
                replies,
                required,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(report: &LoadReport, requested: Option<f64>) -> Vec<Warning> {
        report.warnings(requested, &PercentileList::default())
    }

    fn report(answered: u64, seconds: u64) -> LoadReport {
        let elapsed = Duration::from_secs(seconds);
        let mut report = LoadReport {
            sent: answered,
            answered,
            elapsed,
            ..LoadReport::default()
        };
        (0..answered).for_each(|_| report.response.record(Duration::from_millis(1)));
        report
    }

    #[test]
    fn sound_run_has_no_warnings() {
        let sound = LoadReport {
            sender_cpu: 0.9,
            late_sends: 100,
            ..report(10_000, 10)
        };
        assert_eq!(warnings(&sound, Some(1005.0)), []);
        assert_eq!(warnings(&sound, None), []);
    }

    #[test]
    fn each_warning_has_its_condition() {
        let requested = 2000.0;
        let slow = warnings(&report(10_000, 10), Some(requested));
        let reached = 1000.0;
        let not_reached = |cause| Warning::RateNotReached {
            requested,
            reached,
            cause,
        };
        assert_eq!(slow, [not_reached(RateLimit::Replies)]);
        let down = LoadReport {
            unsent: 3,
            timeouts: 2,
            given_up: 1,
            receive_drops: 4,
            ..report(10_000, 10)
        };
        let counts = [
            Warning::Unsent(3),
            Warning::Timeouts(2),
            Warning::GivenUp(1),
            Warning::ReceiveDrops(4),
        ];
        assert_eq!(warnings(&down, None), counts);
        let first = warnings(&down, Some(requested))[0];
        assert_eq!(first, not_reached(RateLimit::Connections));
        let behind = LoadReport {
            sender_cpu: 0.95,
            ..report(10_000, 10)
        };
        let first = warnings(&behind, Some(requested))[0];
        assert_eq!(first, not_reached(RateLimit::Sender));
        let late = LoadReport {
            late_sends: 101,
            ..report(10_000, 10)
        };
        assert_eq!(warnings(&late, None), [Warning::LateSends(0.0101)]);
        let mut fast = LoadReport {
            sender_slept: true,
            sender_cpu: 0.9,
            ..report(10_000, 10)
        };
        assert_eq!(warnings(&fast, None), [], "no service times are known");
        fast.service.record(Duration::from_micros(299));
        assert_eq!(warnings(&fast, None), [Warning::WakeupLatency]);
        fast.sender_slept = false;
        assert_eq!(warnings(&fast, None), []);
        let busy = LoadReport {
            sender_cpu: 0.91,
            ..report(10_000, 10)
        };
        assert_eq!(warnings(&busy, None), [Warning::SenderBusy(0.91)]);
    }

    #[test]
    fn messages_name_no_command_line_flag() {
        let rate = Warning::RateNotReached {
            requested: 2000.0,
            reached: 1000.0,
            cause: RateLimit::Replies,
        };
        assert_eq!(
            rate.to_string(),
            "rate not reached: 1000.0 of 2000 messages per second, 50.0% below"
        );
        let few = Warning::TooFewReplies {
            percentile: "99".parse().unwrap(),
            replies: 100,
            required: 1000,
        };
        for warning in [
            rate,
            Warning::Unsent(1),
            Warning::Timeouts(1),
            Warning::GivenUp(1),
            Warning::ReceiveDrops(1),
            Warning::LateSends(0.5),
            Warning::SenderBusy(0.95),
            Warning::WakeupLatency,
            few,
        ] {
            let message = warning.to_string();
            assert!(!message.contains("--"), "{message}");
            let code = warning.code();
            assert!(code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        }
    }

    #[test]
    fn percentile_needs_ten_replies_above_it() {
        for (replies, few) in [
            (0, None),
            (9, Some(("50", 20))),
            (99, Some(("90", 100))),
            (100, Some(("95", 200))),
            (200, Some(("99", 1000))),
            (9_999, Some(("99.9", 10_000))),
            (10_000, None),
        ] {
            let warnings = warnings(&report(replies, 1), None);
            let few = few.map(|(percentile, required)| Warning::TooFewReplies {
                percentile: percentile.parse().unwrap(),
                replies,
                required,
            });
            assert_eq!(warnings, Vec::from_iter(few));
        }
    }
}
