//! Results of a ping and of a load.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use crate::echo::error::{Error, Mismatch, Phase};
use crate::echo::load::schedule::{DueMessages, Unsent};
use crate::measure::latency::LatencyHistogram;
use crate::measure::timeline::Timeline;

/// Result of a ping.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// Number of messages that were answered or failed.
    pub sent: u64,
    /// Round-trip times of the answered messages.
    pub times: LatencyHistogram,
    /// Number of errors by phase.
    pub errors: BTreeMap<Phase, u64>,
    /// Number of mismatches by kind.
    pub mismatches: BTreeMap<Mismatch, u64>,
    /// Number of duplicate replies over UDP.
    pub duplicates: u64,
    /// Number of replies over UDP that arrived after their time limit.
    pub late_replies: u64,
    /// Duration of the run.
    pub elapsed: Duration,
}

impl PingReport {
    pub(crate) fn count(&mut self, outcome: &Result<Option<Duration>, Error>) {
        self.sent += 1;
        match outcome {
            Ok(Some(time)) => self.times.record(*time),
            // A lost datagram is no error.
            Ok(None) => {}
            Err(error) => {
                *self.errors.entry(error.phase()).or_default() += 1;
                count_mismatch(&mut self.mismatches, error);
            }
        }
    }

    /// Returns the share of the messages without a reply, from 0 to 1.
    pub fn loss(&self) -> f64 {
        match self.sent {
            0 => 0.0,
            sent => (sent - self.times.count()) as f64 / sent as f64,
        }
    }
}

/// Result of a load. Of the warm-up only errors are counted.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Duration of the measurement.
    pub elapsed: Duration,
    /// Number of messages sent: `answered`, `mismatched`, `timeouts`, `lost` or `failed`.
    pub sent: u64,
    /// Number of messages with a complete reply.
    pub answered: u64,
    /// Number of messages whose reply differs from them.
    pub mismatched: u64,
    /// Number of messages over a stream whose reply did not arrive in time.
    pub timeouts: u64,
    /// Number of messages over UDP whose reply did not arrive in time.
    pub lost: u64,
    /// Number of messages in flight when their connection ended, or whose own connection could not
    /// be opened.
    pub failed: u64,
    /// Number of messages that were due and were not sent, because the run ended or their
    /// connection was given up.
    pub unsent: u64,
    /// Number of messages sent more than a millisecond later than possible.
    pub late_sends: u64,
    /// Connection setup times.
    pub connect: LatencyHistogram,
    /// Times from the due time of each message to the end of its reply; without a reply, to its
    /// timeout, the end of its connection or the end of the run.
    pub response: LatencyHistogram,
    /// Times from the sending of each message to the end of its reply.
    pub service: LatencyHistogram,
    /// Replies and failures over time.
    pub timeline: Timeline,
    /// Number of connections that replaced another one.
    pub reconnects: u64,
    /// Number of connections that failed and were not replaced.
    pub given_up: u64,
    /// Number of duplicate replies over UDP.
    pub duplicates: u64,
    /// Number of replies over UDP that arrived after their message counted as lost.
    pub late_replies: u64,
    /// Number of datagrams that the kernel dropped because the receive buffer of the client was full.
    /// Drops after the last received datagram are unknown.
    pub receive_drops: u64,
    /// Number of replies over UDP that arrived after that of a later message.
    pub out_of_order: u64,
    /// Errors by phase.
    pub errors: BTreeMap<Phase, Failures>,
    /// Number of mismatches by kind.
    pub mismatches: BTreeMap<Mismatch, u64>,
    /// Share of their time in which the sending threads were busy, from 0 to 1.
    pub sender_cpu: f64,
    /// Whether the sending threads slept while they waited.
    pub sender_slept: bool,
    pub(crate) last_reply: Option<Instant>,
    /// Messages not sent when their connection was done.
    pub(crate) leftovers: Vec<Unsent>,
    /// Since when connections that were not replaced are down.
    pub(crate) down_since: Vec<Instant>,
    /// Time at which the last connection became inactive.
    pub(crate) ended: Option<Instant>,
}

/// Errors of one phase.
#[derive(Debug)]
pub struct Failures {
    /// Number of errors.
    pub count: u64,
    /// The first error.
    pub first: Error,
}

fn count_mismatch(mismatches: &mut BTreeMap<Mismatch, u64>, error: &Error) {
    if let Some(mismatch) = error.mismatch() {
        *mismatches.entry(mismatch).or_default() += 1;
    }
}

impl LoadReport {
    pub(crate) fn record_failure(&mut self, error: Error) {
        count_mismatch(&mut self.mismatches, &error);
        let entry = self.errors.entry(error.phase());
        entry
            .or_insert(Failures {
                count: 0,
                first: error,
            })
            .count += 1;
    }

    /// Adds the counts of another thread of the same run. `elapsed` and `sender_cpu` concern all
    /// threads and are set by the caller.
    pub(crate) fn merge(&mut self, other: Self) {
        self.sent += other.sent;
        self.late_sends += other.late_sends;
        self.answered += other.answered;
        self.mismatched += other.mismatched;
        self.timeouts += other.timeouts;
        self.lost += other.lost;
        self.failed += other.failed;
        self.unsent += other.unsent;
        self.reconnects += other.reconnects;
        self.given_up += other.given_up;
        self.leftovers.extend(other.leftovers);
        self.down_since.extend(other.down_since);
        self.duplicates += other.duplicates;
        self.late_replies += other.late_replies;
        self.receive_drops += other.receive_drops;
        self.out_of_order += other.out_of_order;
        self.connect.merge(&other.connect);
        self.response.merge(&other.response);
        self.service.merge(&other.service);
        self.timeline.merge(other.timeline);
        for (phase, failures) in other.errors {
            match self.errors.entry(phase) {
                Entry::Vacant(entry) => _ = entry.insert(failures),
                Entry::Occupied(mut entry) => entry.get_mut().count += failures.count,
            }
        }
        for (kind, count) in other.mismatches {
            *self.mismatches.entry(kind).or_default() += count;
        }
        self.last_reply = self.last_reply.max(other.last_reply);
        self.ended = self.ended.max(other.ended);
    }

    /// Adds the report of another run, such as that of another machine. The time of the
    /// measurement is then from the first start to the last end, and `sender_cpu` is that of the
    /// busiest run.
    pub fn merge_run(&mut self, other: Self) {
        let ends = [&*self, &other].map(|report| report.timeline.start() + report.elapsed);
        let sender_cpu = self.sender_cpu.max(other.sender_cpu);
        self.sender_slept |= other.sender_slept;
        self.merge(other);
        self.elapsed = ends[0].max(ends[1]).saturating_sub(self.timeline.start());
        self.sender_cpu = sender_cpu;
    }

    /// Records messages that were due until the run ended at `stop`, and were not sent. Adds their
    /// response times to `times`.
    pub(crate) fn record_unsent(
        &mut self,
        measured_from: Instant,
        due: DueMessages,
        stop: Instant,
        times: &mut LatencyHistogram,
    ) {
        let DueMessages {
            first,
            interval,
            count,
        } = due;
        self.unsent += count;
        let others = Duration::from_secs_f64((count - 1) as f64 * interval / 1e9);
        let shortest = stop.saturating_duration_since(first).saturating_sub(others);
        times.record_evenly(shortest, interval, count);
        let moment = first.saturating_duration_since(measured_from);
        self.timeline.unsent_evenly(moment, interval, count);
    }

    /// Records that a connection was down.
    pub(crate) fn record_down(&mut self, measured_from: Instant, since: Instant, until: Instant) {
        let moment = |at: Instant| at.saturating_duration_since(measured_from);
        self.timeline.down(moment(since), moment(until));
    }

    /// Returns the number of messages that were due.
    pub fn due(&self) -> u64 {
        self.sent + self.unsent
    }

    /// Returns the number of answered messages per second.
    pub fn rate(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 {
            self.answered as f64 / seconds
        } else {
            0.0
        }
    }
}
