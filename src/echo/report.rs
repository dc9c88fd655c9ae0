//! Results of a ping and of a load.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

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

/// Serialized as in the JSON of the program, without the parameters of the run.
impl Serialize for PingReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let errors = by_phase(|phase| self.errors.get(&phase).copied());
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("elapsed", &self.elapsed.as_secs_f64())?;
        map.serialize_entry("sent", &self.sent)?;
        map.serialize_entry("answered", &self.times.count())?;
        map.serialize_entry("loss", &self.loss())?;
        map.serialize_entry("duplicates", &self.duplicates)?;
        map.serialize_entry("late_replies", &self.late_replies)?;
        map.serialize_entry("round_trip", &self.times)?;
        map.serialize_entry("errors", &errors)?;
        map.serialize_entry("mismatches", &by_kind(&self.mismatches))?;
        map.end()
    }
}

/// Serialized as in the JSON of the program, without the parameters of the run and the time series.
impl Serialize for LoadReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let errors = by_phase(|phase| self.errors.get(&phase).map(|errors| errors.count));
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("elapsed", &self.elapsed.as_secs_f64())?;
        map.serialize_entry("due", &self.due())?;
        map.serialize_entry("sent", &self.sent)?;
        map.serialize_entry("answered", &self.answered)?;
        map.serialize_entry("mismatched", &self.mismatched)?;
        map.serialize_entry("timeouts", &self.timeouts)?;
        map.serialize_entry("failed", &self.failed)?;
        map.serialize_entry("unsent", &self.unsent)?;
        map.serialize_entry("late_sends", &self.late_sends)?;
        map.serialize_entry("reconnects", &self.reconnects)?;
        map.serialize_entry("given_up", &self.given_up)?;
        map.serialize_entry("rate", &self.rate())?;
        map.serialize_entry("lost", &self.lost)?;
        map.serialize_entry("duplicates", &self.duplicates)?;
        map.serialize_entry("late_replies", &self.late_replies)?;
        map.serialize_entry("receive_drops", &self.receive_drops)?;
        map.serialize_entry("out_of_order", &self.out_of_order)?;
        map.serialize_entry("sender_cpu", &self.sender_cpu)?;
        map.serialize_entry("connect", &self.connect)?;
        map.serialize_entry("response", &self.response)?;
        map.serialize_entry("service", &self.service)?;
        map.serialize_entry("errors", &errors)?;
        map.serialize_entry("mismatches", &by_kind(&self.mismatches))?;
        map.end()
    }
}

/// Returns the count of each phase.
fn by_phase(count: impl Fn(Phase) -> Option<u64>) -> BTreeMap<&'static str, u64> {
    let phases = Phase::ALL.into_iter();
    phases
        .map(|phase| (phase.name(), count(phase).unwrap_or(0)))
        .collect()
}

/// Returns the count of each kind of mismatch.
fn by_kind(counted: &BTreeMap<Mismatch, u64>) -> BTreeMap<&'static str, u64> {
    let kinds = Mismatch::ALL.into_iter();
    kinds
        .map(|kind| (kind.name(), counted.get(&kind).copied().unwrap_or(0)))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn load_report_is_serialized_with_its_sums() {
        let mut report = LoadReport {
            elapsed: Duration::from_millis(500),
            sent: 3,
            unsent: 1,
            answered: 2,
            ..LoadReport::default()
        };
        report.response.record(Duration::from_millis(1));
        report.mismatches.insert(Mismatch::Changed, 1);
        let object = json!(report);
        assert_eq!(object["due"], 4);
        assert_eq!(object["rate"], 4.0);
        let p99_9 = report.response.quantile(0.999).unwrap();
        assert_eq!(object["response"]["p99_9"], p99_9.as_secs_f64());
        assert_eq!(object["service"], json!(null));
        assert_eq!(object["errors"]["unexpected_eof"], 0);
        assert_eq!(
            object["mismatches"],
            json!({ "changed": 1, "added": 0, "dropped": 0 })
        );
    }

    #[test]
    fn ping_report_is_serialized_with_its_loss() {
        let mut report = PingReport::default();
        report.count(&Ok(Some(Duration::from_millis(2))));
        report.count(&Ok(None));
        let object = json!(report);
        assert_eq!(object["loss"], 0.5);
        assert_eq!(object["answered"], 1);
        let min = report.times.percentiles().unwrap().min;
        assert_eq!(object["round_trip"]["min"], min.as_secs_f64());
    }
}
