//! Reports of ping and load as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use myapp::echo::{Mismatch, Phase, PingConfig, PingReport, Warning};
use myapp::measure::latency::LatencyHistogram;
use myapp::measure::percentile::PercentileList;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::format::latencies;
use super::merge_data::MergeData;
use super::samples::{Sample, samples};
use super::summary::Summary;

/// Formats the report of a load. Times are in seconds, sizes in bytes, rates per second; see
/// `schemas/echo.json`.
pub(crate) fn load(summary: &Summary, percentiles: &PercentileList) -> String {
    let mut object = statistics(summary);
    let warnings = summary.warnings(percentiles);
    object["warnings"] = warnings.iter().map(warning_json).collect();
    for (name, latency) in latencies(&summary.report) {
        object[name] = times(latency, percentiles);
    }
    object["merge"] = json!(MergeData::of(summary).with_times(&summary.report));
    format!("{object}\n")
}

/// Formats all that a report has in addition to its histograms of response and service times.
pub(crate) fn without_times(summary: &Summary) -> String {
    let mut object = statistics(summary);
    object["merge"] = json!(MergeData::of(summary));
    object.to_string()
}

/// Returns the counters, rates and parameters of a load.
fn statistics(summary: &Summary) -> Value {
    let report = &summary.report;
    json!({
        "kind": "load",
        "address": summary.address(),
        "connections": summary.connections,
        "in_flight": summary.in_flight,
        "size": summary.size,
        "start": format_start(report.timeline.start()),
        "elapsed": report.elapsed.as_secs_f64(),
        "due": report.due(),
        "sent": report.sent,
        "answered": report.answered,
        "mismatched": report.mismatched,
        "timeouts": report.timeouts,
        "failed": report.failed,
        "unsent": report.unsent,
        "late_sends": report.late_sends,
        "reconnects": report.reconnects,
        "given_up": report.given_up,
        "rate_requested": summary.rate_requested,
        "rate": report.rate(),
        "bytes_rate": summary.bytes_rate,
        "errors": errors(|phase| summary.errors.get(&phase).map_or(0, |errors| errors.count)),
        "mismatches": mismatches(&report.mismatches),
        "lost": report.lost,
        "duplicates": report.duplicates,
        "late_replies": report.late_replies,
        "receive_drops": report.receive_drops,
        "out_of_order": report.out_of_order,
        "sender_cpu": report.sender_cpu,
        "timeline": samples(report).iter().map(sample_json).collect::<Value>(),
    })
}

/// Formats the report of a ping.
pub(crate) fn ping(
    config: &PingConfig,
    report: &PingReport,
    percentiles: &PercentileList,
) -> String {
    let object = json!({
        "kind": "ping",
        "address": config.target.address.to_string(),
        "interval": config.interval.as_secs_f64(),
        "size": config.payload.size(),
        "elapsed": report.elapsed.as_secs_f64(),
        "sent": report.sent,
        "answered": report.times.count(),
        "loss": report.loss(),
        "duplicates": report.duplicates,
        "late_replies": report.late_replies,
        "round_trip": times(&report.times, percentiles),
        "errors": errors(|phase| report.errors.get(&phase).copied().unwrap_or(0)),
        "mismatches": mismatches(&report.mismatches),
    });
    format!("{object}\n")
}

/// Formats the start of a measurement, given since the Unix epoch (RFC 3339).
fn format_start(since_epoch: Duration) -> Option<String> {
    let nanos = i128::try_from(since_epoch.as_nanos()).ok()?;
    let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let known = !since_epoch.is_zero();
    known.then(|| date.format(&Rfc3339).ok()).flatten()
}

/// Returns the number of errors by phase.
fn errors(count: impl Fn(Phase) -> u64) -> Value {
    let phases = Phase::ALL.map(|phase| (phase.name().to_owned(), Value::from(count(phase))));
    Value::Object(phases.into_iter().collect())
}

/// Returns the number of mismatches by kind.
fn mismatches(counted: &BTreeMap<Mismatch, u64>) -> Value {
    let count = |kind: Mismatch| counted.get(&kind).copied().unwrap_or(0);
    let kinds = Mismatch::ALL.map(|kind| (kind.name().to_owned(), Value::from(count(kind))));
    Value::Object(kinds.into_iter().collect())
}

/// Returns minimum, mean, percentiles and maximum, or null without any times.
fn times(latency: &LatencyHistogram, percentiles: &PercentileList) -> Value {
    let Some(times) = super::format::times(latency, percentiles) else {
        return Value::Null;
    };
    // 99.9 is a field name only with quotes in most languages.
    let field = |(name, time): (String, Duration)| {
        (name.replace('.', "_"), Value::from(time.as_secs_f64()))
    };
    Value::Object(times.into_iter().map(field).collect())
}

fn sample_json(sample: &Sample) -> Value {
    let [p50, p99, max] = match sample.times {
        Some(times) => times.map(Some),
        None => [None; 3],
    };
    json!({
        "from": sample.from,
        "to": sample.to,
        "answered": sample.answered,
        "failed": sample.failed,
        "lost": sample.lost,
        "unsent": sample.unsent,
        "reconnects": sample.reconnects,
        "connections_down": sample.connections_down,
        "p50": p50,
        "p99": p99,
        "max": max,
    })
}

fn warning_json(warning: &Warning) -> Value {
    json!({ "code": warning.code(), "message": warning.to_string() })
}
