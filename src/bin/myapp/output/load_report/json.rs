//! Reports of ping and load as JSON.

use std::time::Duration;

use myapp::echo::{Phase, PingConfig, PingReport, Warning};
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
        object[name] = json!(latency.fields(percentiles));
    }
    object["merge"] = json!(MergeData::of(summary).with_times(&summary.report));
    format!("{object}\n")
}

/// Formats all that a report has in addition to its histograms of response and service times.
pub(crate) fn without_times(summary: &Summary) -> String {
    let mut object = statistics(summary);
    if let Some(fields) = object.as_object_mut() {
        for (name, _) in latencies(&summary.report) {
            fields.remove(name);
        }
    }
    object["merge"] = json!(MergeData::of(summary));
    object.to_string()
}

/// Returns the counters, rates and parameters of a load.
fn statistics(summary: &Summary) -> Value {
    let report = &summary.report;
    let errors = Phase::ALL.map(|phase| {
        let count = summary.errors.get(&phase).map_or(0, |errors| errors.count);
        (phase.name().to_owned(), Value::from(count))
    });
    let mut object = json!(report);
    object["kind"] = "load".into();
    object["address"] = json!(summary.address());
    object["connections"] = json!(summary.connections);
    object["in_flight"] = json!(summary.in_flight);
    object["size"] = json!(summary.size);
    object["start"] = json!(format_start(report.timeline.start()));
    object["rate_requested"] = json!(summary.rate_requested);
    object["bytes_rate"] = json!(summary.bytes_rate);
    // Those of a merged report are counted by its runs.
    object["errors"] = Value::Object(errors.into_iter().collect());
    object["timeline"] = samples(report).iter().map(sample_json).collect();
    object
}

/// Formats the report of a ping.
pub(crate) fn ping(
    config: &PingConfig,
    report: &PingReport,
    percentiles: &PercentileList,
) -> String {
    let mut object = json!(report);
    object["kind"] = "ping".into();
    object["address"] = config.target.address.to_string().into();
    object["interval"] = config.interval.as_secs_f64().into();
    object["size"] = json!(config.payload.size());
    object["round_trip"] = json!(report.times.fields(percentiles));
    format!("{object}\n")
}

/// Formats the start of a measurement, given since the Unix epoch (RFC 3339).
fn format_start(since_epoch: Duration) -> Option<String> {
    let nanos = i128::try_from(since_epoch.as_nanos()).ok()?;
    let date = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    let known = !since_epoch.is_zero();
    known.then(|| date.format(&Rfc3339).ok()).flatten()
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
