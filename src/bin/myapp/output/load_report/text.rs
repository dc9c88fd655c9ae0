//! Report of a load as text for 80 columns.

use myapp::echo::{LoadConfig, LoadReport, Phase, RunLimit};
use myapp::measure::latency::Percentiles;
use myapp::net::address::Address;
use myapp::units::{Elapsed, Size};

use super::format::latencies;
use super::hints::hint;
use super::histogram::histogram;

/// Formats the report of a load.
pub(crate) fn load(config: &LoadConfig, report: &LoadReport) -> String {
    let size = config.payload.size();
    let bytes = Size((report.rate() * size as f64) as u64);
    let mut text = format!("{}\n", title(config));
    text += &format!(
        "{} sent, {} answered in {}\n{:.1} messages per second{}, {bytes}/s each direction\n",
        report.sent,
        report.answered,
        Elapsed(report.elapsed),
        report.rate(),
        config
            .rate
            .map(|rate| format!(" of {rate} requested"))
            .unwrap_or_default(),
    );
    text += &missing_line(report);
    text += &datagrams_line(config, report);
    for (phase, failures) in &report.errors {
        text += &format!(
            "{} × {} failed\n",
            failures.count,
            phase_name(*phase, report)
        );
    }
    text += &latency_table(report);
    let rows = histogram(&report.response);
    if !rows.is_empty() {
        text += &format!("response times up to each bound:\n{rows}");
    }
    for warning in report.warnings(config.rate) {
        text += &format!("warning: {warning}; {}\n", hint(&warning));
    }
    text
}

/// Formats the numbers of messages without a valid reply over a stream, and of failed connections,
/// if there are any.
fn missing_line(report: &LoadReport) -> String {
    let counts = [
        (report.unsent, "unsent"),
        (report.timeouts, "timed out"),
        (report.mismatched, "mismatched"),
        (report.failed, "failed with their connection"),
        (report.reconnects, "reconnects"),
        (report.given_up, "connections given up"),
    ];
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let texts: Vec<_> = some
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    if texts.is_empty() {
        return String::new();
    }
    texts.join(", ") + "\n"
}

/// Formats the counters of UDP.
fn datagrams_line(config: &LoadConfig, report: &LoadReport) -> String {
    let LoadReport {
        sent,
        lost,
        duplicates,
        late_replies,
        out_of_order,
        ..
    } = report;
    let percent = 100.0 * *lost as f64 / (*sent).max(1) as f64;
    match config.target.address {
        Address::Udp(_) => format!(
            "{lost} lost ({percent:.2}%), {duplicates} duplicates, {out_of_order} out of order, {late_replies} late\n"
        ),
        _ => String::new(),
    }
}

/// Formats a phase, with the kinds of mismatches.
pub(crate) fn phase_name(phase: Phase, report: &LoadReport) -> String {
    let name = phase.name().replace('_', " ");
    let kinds = report
        .mismatches
        .iter()
        .map(|(kind, count)| format!("{count} {}", kind.name()));
    match phase {
        Phase::Mismatch => format!("{name} ({})", kinds.collect::<Vec<_>>().join(", ")),
        _ => name,
    }
}

/// Formats the address and the parameters.
fn title(config: &LoadConfig) -> String {
    format!("--- {}: {}", config.target.address, parameters(config))
}

/// Formats the parameters of a load.
pub(crate) fn parameters(config: &LoadConfig) -> String {
    let LoadConfig {
        payload,
        connections,
        in_flight,
        ..
    } = config;
    let limit = match config.limit {
        RunLimit::Duration(time) => format!("for {}", Elapsed(time)),
        RunLimit::Messages(count) => format!("{count} times"),
    };
    let mode = if config.new_connections {
        "a new one per message".to_owned()
    } else {
        format!("{in_flight} in flight on each")
    };
    format!(
        "{} {limit}, connections: {connections}, {mode}",
        Size(payload.size())
    )
}

fn latency_table(report: &LoadReport) -> String {
    let header = ["", "min", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![header.map(str::to_owned)];
    for (name, latency) in latencies(report) {
        let Some(Percentiles {
            min,
            mean,
            p50,
            p90,
            p99,
            p99_9,
            max,
        }) = latency.percentiles()
        else {
            continue;
        };
        let [a, b, c, d, e, f, g] =
            [min, mean, p50, p90, p99, p99_9, max].map(|time| Elapsed(time).to_string());
        rows.push([name.to_owned(), a, b, c, d, e, f, g]);
    }
    if rows.len() == 1 {
        return "no replies\n".into();
    }
    let line = |[name, times @ ..]: [String; 8]| {
        let times = times.map(|time| format!("{time:>9}"));
        format!("{name:<8}{}\n", times.concat())
    };
    let table: String = rows.into_iter().map(line).collect();
    table
        + "response: from the due time of each message, with or without a reply;\nservice: from the sending of each answered message\n"
}
