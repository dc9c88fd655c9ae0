//! Reports as JSON.

use std::collections::BTreeMap;

use myapp::echo::{LoadConfig, LoadReport, Mismatch, Phase, PingConfig, PingReport};
use myapp::measure::latency::Percentiles;
use serde_json::{Value, json};

use crate::output::load_report::latencies;

/// The report of a load, for programs: times in seconds, sizes in bytes, rates a second.
/// `schemas/echo.json` describes it.
pub(crate) fn load(config: &LoadConfig, report: &LoadReport) -> String {
    let doubts = report.doubts(config.rate);
    let mut object = json!({
        "kind": "load",
        "address": config.server.address.to_string(),
        "connections": config.connections,
        "in_flight": config.in_flight,
        "size": config.payload.size(),
        "elapsed": report.elapsed.as_secs_f64(),
        "sent": report.sent,
        "answered": report.answered(),
        "rate_asked": config.rate,
        "rate": report.rate(),
        "bytes_rate": report.rate() * config.payload.size() as f64,
        "errors": errors(|phase| report.errors.get(&phase).map_or(0, |failures| failures.count)),
        "mismatches": mismatches(&report.mismatches),
        "lost": report.lost,
        "duplicates": report.duplicates,
        "reordered": report.reordered,
        "cpu": report.cpu,
        "doubts": doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    for (name, latency) in latencies(report) {
        object[name] = latency.percentiles().map_or(Value::Null, figures_json);
    }
    format!("{object}\n")
}

/// The summary of a ping, for programs.
pub(crate) fn ping(config: &PingConfig, report: &PingReport) -> String {
    let object = json!({
        "kind": "ping",
        "address": config.server.address.to_string(),
        "interval": config.interval.as_secs_f64(),
        "size": config.payload.size(),
        "elapsed": report.elapsed.as_secs_f64(),
        "sent": report.sent,
        "answered": report.times.count(),
        "loss": report.loss(),
        "duplicates": report.duplicates,
        "round_trip": report.times.percentiles().map_or(Value::Null, figures_json),
        "errors": errors(|phase| report.errors.get(&phase).copied().unwrap_or(0)),
        "mismatches": mismatches(&report.mismatches),
    });
    format!("{object}\n")
}

/// How often something went wrong, by phase.
fn errors(count: impl Fn(Phase) -> u64) -> Value {
    let phases = Phase::ALL.map(|phase| (phase.name().to_owned(), Value::from(count(phase))));
    Value::Object(phases.into_iter().collect())
}

/// How often what was done to a byte.
fn mismatches(counted: &BTreeMap<Mismatch, u64>) -> Value {
    let count = |kind: Mismatch| counted.get(&kind).copied().unwrap_or(0);
    let kinds = Mismatch::ALL.map(|kind| (kind.name().to_owned(), Value::from(count(kind))));
    Value::Object(kinds.into_iter().collect())
}

fn figures_json(figures: Percentiles) -> Value {
    let Percentiles {
        min,
        mean,
        p50,
        p90,
        p99,
        p99_9,
        max,
    } = figures;
    let [min, mean, p50, p90, p99, p99_9, max] =
        [min, mean, p50, p90, p99, p99_9, max].map(|time| time.as_secs_f64());
    json!({ "min": min, "mean": mean, "p50": p50, "p90": p90, "p99": p99, "p99_9": p99_9, "max": max })
}
