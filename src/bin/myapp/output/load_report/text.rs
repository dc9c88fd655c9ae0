//! The report of a load as text for 80 columns.

use myapp::echo::{Length, LoadConfig, LoadReport, Phase};
use myapp::measure::latency::Percentiles;
use myapp::net::address::Address;
use myapp::units::{Elapsed, Size};

use crate::output::load_report::histogram::histogram;
use crate::output::load_report::latencies;

/// The report of a load, for people.
pub(crate) fn load(config: &LoadConfig, report: &LoadReport) -> String {
    let size = config.payload.size();
    let bytes = Size((report.rate() * size as f64) as u64);
    let mut text = format!("{}\n", title(config));
    text += &format!(
        "{} sent, {} answered in {}\n{:.1} messages a second{}, {bytes}/s each way\n",
        report.sent,
        report.answered(),
        Elapsed(report.elapsed),
        report.rate(),
        config
            .rate
            .map(|asked| format!(" of {asked} asked"))
            .unwrap_or_default(),
    );
    text += &datagrams_line(config, report);
    for (phase, failures) in &report.errors {
        text += &format!(
            "{} × {} failed\n",
            failures.count,
            what_failed(*phase, report)
        );
    }
    text += &latency_table(report);
    let rows = histogram(&report.response);
    if !rows.is_empty() {
        text += &format!("response times, in each row those up to so long:\n{rows}");
    }
    for doubt in report.doubts(config.rate) {
        text += &format!("doubt: {doubt}\n");
    }
    text
}

/// What became of datagrams.
fn datagrams_line(config: &LoadConfig, report: &LoadReport) -> String {
    let LoadReport {
        sent,
        lost,
        duplicates,
        reordered,
        ..
    } = report;
    let percent = 100.0 * *lost as f64 / (*sent).max(1) as f64;
    match config.server.address {
        Address::Udp(_) => format!(
            "{lost} lost ({percent:.2}%), {duplicates} duplicates, {reordered} out of order\n"
        ),
        _ => String::new(),
    }
}

/// A phase, and of replies that differ how.
pub(crate) fn what_failed(phase: Phase, report: &LoadReport) -> String {
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

/// What was done to whom.
fn title(config: &LoadConfig) -> String {
    format!("--- {}: {}", config.server.address, what(config))
}

/// What was done.
pub(crate) fn what(config: &LoadConfig) -> String {
    let LoadConfig {
        payload,
        connections,
        in_flight,
        ..
    } = config;
    let length = match config.length {
        Length::Time(time) => format!("for {}", Elapsed(time)),
        Length::Count(count) => format!("{count} times"),
    };
    let way = match config.new_connections {
        true => "a new one for each message".to_owned(),
        false => format!("{in_flight} in flight on each"),
    };
    format!(
        "{} {length}, connections: {connections}, {way}",
        Size(payload.size())
    )
}

fn latency_table(report: &LoadReport) -> String {
    let heads = ["", "min", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned)];
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
        return "no reply, no times\n".into();
    }
    let line = |[name, times @ ..]: [String; 8]| {
        let times = times.map(|time| format!("{time:>9}"));
        format!("{name:<8}{}\n", times.concat())
    };
    let table: String = rows.into_iter().map(line).collect();
    table + "response: from when each message was due; service: from when it was sent\n"
}
