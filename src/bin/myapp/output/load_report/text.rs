//! Report of a load as text for 80 columns.

use myapp::echo::{LoadReport, Phase};
use myapp::measure::percentile::PercentileList;
use myapp::units::{Elapsed, Size};

use super::format::latencies;
use super::hints::hint;
use super::histogram::histogram;
use super::summary::Summary;

/// Formats the report of a load.
pub(crate) fn load(summary: &Summary, percentiles: &PercentileList) -> String {
    let report = &summary.report;
    let bytes = Size(summary.bytes_rate as u64);
    let mut text = format!("--- {}: {}\n", summary.address(), summary.parameters);
    text += &format!(
        "{} sent, {} answered in {}\n{:.1} messages per second{}, {bytes}/s each direction\n",
        report.sent,
        report.answered,
        Elapsed(report.elapsed),
        report.rate(),
        summary
            .rate_requested
            .map(|rate| format!(" of {rate} requested"))
            .unwrap_or_default(),
    );
    text += &missing_line(report);
    text += &datagrams_line(summary);
    for (phase, errors) in &summary.errors {
        text += &format!("{} × {} failed\n", errors.count, phase_name(*phase, report));
    }
    text += &latency_table(report, percentiles);
    let rows = histogram(&report.response);
    if !rows.is_empty() {
        text += &format!("response times up to each bound:\n{rows}");
    }
    for warning in summary.warnings(percentiles) {
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
fn datagrams_line(summary: &Summary) -> String {
    let LoadReport {
        sent,
        lost,
        duplicates,
        late_replies,
        out_of_order,
        ..
    } = &summary.report;
    if !summary.is_over_udp() {
        return String::new();
    }
    let percent = 100.0 * *lost as f64 / (*sent).max(1) as f64;
    format!(
        "{lost} lost ({percent:.2}%), {duplicates} duplicates, {out_of_order} out of order, \
         {late_replies} late\n"
    )
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

/// Formats a table with one column per histogram, because there may be many percentiles.
fn latency_table(report: &LoadReport, percentiles: &PercentileList) -> String {
    let columns: Vec<_> = latencies(report)
        .into_iter()
        .filter_map(|(name, latency)| Some((name, latency.rows(percentiles)?)))
        .collect();
    let Some((_, first)) = columns.first() else {
        return "no replies\n".into();
    };
    let heads = columns.iter().map(|(name, _)| format!("{name:>12}"));
    let mut table = format!("{:12}{}\n", "", heads.collect::<String>());
    for (row, (name, _)) in first.iter().enumerate() {
        let cells = columns
            .iter()
            .map(|(_, times)| format!("{:>12}", Elapsed(times[row].1).to_string()));
        table += &format!("{name:12}{}\n", cells.collect::<String>());
    }
    table
        + "response: from the due time of each message, with or without a reply;\nservice: from the sending of each answered message\n"
}
