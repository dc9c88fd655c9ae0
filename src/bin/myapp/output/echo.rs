//! What `myapp echo` says on stdout: replies, ping lines, reports.

use std::time::Duration;

use myapp::echo::{Length, LoadConfig, LoadReport, Phase, PingConfig, PingReport, without_end};
use myapp::escape::Escaped;
use myapp::measure::latency::{Figures, Latency};
use myapp::net::address::Address;
use myapp::units::{Elapsed, Size};
use serde_json::{Value, json};

/// What a reply looks like on stdout: as it is, or on a terminal so that it cannot harm it; in
/// both cases one line, also of a reply that broke off in the middle.
pub(crate) fn reply(mut reply: Vec<u8>, on_terminal: bool) -> Vec<u8> {
    if reply.is_empty() {
        return reply;
    }
    if on_terminal {
        reply = Escaped(without_end(&reply)).to_string().into_bytes();
    }
    if !reply.ends_with(b"\n") {
        reply.push(b'\n');
    }
    reply
}

/// The line for a message that was answered.
pub(crate) fn ping_line(config: &PingConfig, number: u64, time: Duration) -> String {
    let (size, address) = (config.payload.size(), &config.server.address);
    format!("{size} bytes from {address}: seq={number} time={}\n", Elapsed(time))
}

/// The lines at the end of a ping.
pub(crate) fn ping_summary(config: &PingConfig, report: &PingReport) -> String {
    let PingReport { sent, times, duplicates, elapsed } = report;
    let (address, answered, elapsed) = (&config.server.address, times.count(), Elapsed(*elapsed));
    let lost = report.loss() * 100.0;
    let mut text =
        format!("--- {address}: {sent} sent, {answered} answered, {lost:.2}% lost, in {elapsed}\n");
    if *duplicates > 0 {
        text += &format!("duplicates: {duplicates}\n");
    }
    if let Some(times) = times.figures() {
        let times = [times.min, times.mean, times.p99, times.max].map(|t| Elapsed(t).to_string());
        text += &format!("round trip min/avg/p99/max = {}\n", times.join(" / "));
    }
    text
}

/// The report of a load, for people.
pub(crate) fn load_report(config: &LoadConfig, report: &LoadReport) -> String {
    let size = config.payload.size();
    let bytes = Size((report.rate() * size as f64) as u64);
    let mut text = format!("{}\n", load_title(config));
    text += &format!(
        "{} sent, {} answered in {}: {:.1} messages a second{}, {bytes}/s each way\n",
        report.sent,
        report.answered(),
        Elapsed(report.elapsed),
        report.rate(),
        config.rate.map(|asked| format!(" of {asked} asked")).unwrap_or_default(),
    );
    text += &datagrams_line(config, report);
    for (phase, failures) in &report.errors {
        text += &format!("{} × {} failed\n", failures.count, phase.name().replace('_', " "));
    }
    text += &latency_table(report);
    for doubt in report.doubts(config.rate) {
        text += &format!("doubt: {doubt}\n");
    }
    text
}

/// What became of datagrams.
fn datagrams_line(config: &LoadConfig, report: &LoadReport) -> String {
    let LoadReport { sent, lost, duplicates, reordered, .. } = report;
    let percent = 100.0 * *lost as f64 / (*sent).max(1) as f64;
    match config.server.address {
        Address::Udp(_) => format!(
            "{lost} lost ({percent:.2}%), {duplicates} duplicates, {reordered} out of order\n"
        ),
        _ => String::new(),
    }
}

/// What was done to whom.
fn load_title(config: &LoadConfig) -> String {
    let LoadConfig { server, payload, connections, in_flight, .. } = config;
    let length = match config.length {
        Length::Time(time) => format!("for {}", Elapsed(time)),
        Length::Count(count) => format!("{count} times"),
    };
    let way = match config.new_connections {
        true => "a new one for each message".to_owned(),
        false => format!("{in_flight} in flight on each"),
    };
    let (size, address) = (Size(payload.size()), &server.address);
    format!("--- {address}: {size} {length}, connections: {connections}, {way}")
}

fn latency_table(report: &LoadReport) -> String {
    let heads = ["", "min", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let mut rows = vec![heads.map(str::to_owned)];
    for (name, latency) in latencies(report) {
        let Some(Figures { min, mean, p50, p90, p99, p99_9, max }) = latency.figures() else {
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

fn latencies(report: &LoadReport) -> [(&'static str, &Latency); 3] {
    let LoadReport { connect, response, service, .. } = report;
    [("connect", connect), ("response", response), ("service", service)]
}

/// The report of a load, for programs: times in seconds, sizes in bytes, rates a second.
/// `schemas/echo.json` describes it.
pub(crate) fn load_json(config: &LoadConfig, report: &LoadReport) -> String {
    let errors = Phase::ALL.map(|phase| {
        let count = report.errors.get(&phase).map_or(0, |failures| failures.count);
        (phase.name().to_owned(), Value::from(count))
    });
    let doubts = report.doubts(config.rate);
    let mut object = json!({
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
        "errors": Value::Object(errors.into_iter().collect()),
        "lost": report.lost,
        "duplicates": report.duplicates,
        "reordered": report.reordered,
        "cpu": report.cpu,
        "doubts": doubts.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    for (name, latency) in latencies(report) {
        object[name] = latency.figures().map_or(Value::Null, figures_json);
    }
    format!("{object}\n")
}

fn figures_json(figures: Figures) -> Value {
    let Figures { min, mean, p50, p90, p99, p99_9, max } = figures;
    let [min, mean, p50, p90, p99, p99_9, max] =
        [min, mean, p50, p90, p99, p99_9, max].map(|time| time.as_secs_f64());
    json!({ "min": min, "mean": mean, "p50": p50, "p90": p90, "p99": p99, "p99_9": p99_9, "max": max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(reply: &[u8], raw: &[u8], on_terminal: &str) {
        assert_eq!(super::reply(reply.to_vec(), false), raw);
        assert_eq!(String::from_utf8(super::reply(reply.to_vec(), true)).unwrap(), on_terminal);
    }

    #[test]
    fn a_reply_is_one_line_and_harmless_on_a_terminal() {
        shows(b"hola\n", b"hola\n", "hola\n");
        shows(b"ho", b"ho\n", "ho\n");
        shows(b"\n", b"\n", "\n");
        shows(b"", b"", "");
        shows(b"\x1b[2J\xff\r\n", b"\x1b[2J\xff\r\n", "\\x1b[2J\\xff\\r\n");
    }

    #[test]
    fn a_summary_without_an_answer_has_no_times() {
        let config = PingConfig::default();
        for (sent, lost) in [(0, "0.00%"), (3, "100.00%")] {
            let text = ping_summary(&config, &PingReport { sent, ..PingReport::default() });
            let wanted = format!("{sent} sent, 0 answered, {lost} lost, in 0.00 ns\n");
            assert_eq!(text, format!("--- 127.0.0.1:8888: {wanted}"));
        }
    }
}
