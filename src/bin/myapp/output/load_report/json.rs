//! Reports of ping and load as JSON.

use std::collections::BTreeMap;

use myapp::echo::{LoadConfig, LoadReport, Mismatch, Phase, PingConfig, PingReport, Warning};
use myapp::measure::latency::Percentiles;
use serde_json::{Value, json};

use super::format::latencies;
use super::samples::{Sample, samples};

/// Formats the report of a load. Times are in seconds, sizes in bytes, rates per second; see
/// `schemas/echo.json`.
pub(crate) fn load(config: &LoadConfig, report: &LoadReport) -> String {
    let warnings = report.warnings(config.rate);
    let warnings: Vec<_> = warnings.iter().map(warning_json).collect();
    let mut object = json!({
        "kind": "load",
        "address": config.target.address.to_string(),
        "connections": config.connections,
        "in_flight": config.in_flight,
        "size": config.payload.size(),
        "elapsed": report.elapsed.as_secs_f64(),
        "due": report.due(),
        "sent": report.sent,
        "answered": report.answered,
        "mismatched": report.mismatched,
        "timeouts": report.timeouts,
        "failed": report.failed,
        "unsent": report.unsent,
        "reconnects": report.reconnects,
        "given_up": report.given_up,
        "rate_requested": config.rate,
        "rate": report.rate(),
        "bytes_rate": report.rate() * config.payload.size() as f64,
        "errors": errors(|phase| report.errors.get(&phase).map_or(0, |failures| failures.count)),
        "mismatches": mismatches(&report.mismatches),
        "lost": report.lost,
        "duplicates": report.duplicates,
        "late_replies": report.late_replies,
        "receive_drops": report.receive_drops,
        "out_of_order": report.out_of_order,
        "sender_cpu": report.sender_cpu,
        "warnings": warnings,
        "timeline": samples(report).iter().map(sample_json).collect::<Value>(),
    });
    for (name, latency) in latencies(report) {
        object[name] = latency.percentiles().map_or(Value::Null, percentiles_json);
    }
    format!("{object}\n")
}

/// Formats the report of a ping.
pub(crate) fn ping(config: &PingConfig, report: &PingReport) -> String {
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
        "round_trip": report.times.percentiles().map_or(Value::Null, percentiles_json),
        "errors": errors(|phase| report.errors.get(&phase).copied().unwrap_or(0)),
        "mismatches": mismatches(&report.mismatches),
    });
    format!("{object}\n")
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

fn percentiles_json(percentiles: Percentiles) -> Value {
    let Percentiles {
        min,
        mean,
        p50,
        p90,
        p99,
        p99_9,
        max,
    } = percentiles;
    let [min, mean, p50, p90, p99, p99_9, max] =
        [min, mean, p50, p90, p99, p99_9, max].map(|time| time.as_secs_f64());
    json!({ "min": min, "mean": mean, "p50": p50, "p90": p90, "p99": p99, "p99_9": p99_9, "max": max })
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
