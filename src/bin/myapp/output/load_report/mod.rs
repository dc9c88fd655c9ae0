//! What `myapp echo` shows: replies, ping lines, reports.

mod axis;
mod charts;
mod histogram;
pub(crate) mod html;
pub(crate) mod json;
pub(crate) mod live;
pub(crate) mod run_info;
mod samples;
mod svg;
pub(crate) mod text;

use std::time::Duration;

use myapp::echo::{LoadReport, PingConfig, PingReport, without_end};
use myapp::escape::Escaped;
use myapp::measure::latency::LatencyHistogram;
use myapp::units::Elapsed;

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
    format!(
        "{size} bytes from {address}: seq={number} time={}\n",
        Elapsed(time)
    )
}

/// The lines at the end of a ping.
pub(crate) fn ping_summary(config: &PingConfig, report: &PingReport) -> String {
    let PingReport {
        sent,
        times,
        duplicates,
        elapsed,
        ..
    } = report;
    let (address, answered, elapsed) = (&config.server.address, times.count(), Elapsed(*elapsed));
    let lost = report.loss() * 100.0;
    let mut text =
        format!("--- {address}: {sent} sent, {answered} answered, {lost:.2}% lost, in {elapsed}\n");
    if *duplicates > 0 {
        text += &format!("duplicates: {duplicates}\n");
    }
    if let Some(times) = times.percentiles() {
        let times = [times.min, times.mean, times.p99, times.max].map(|t| Elapsed(t).to_string());
        text += &format!("round trip min/avg/p99/max = {}\n", times.join(" / "));
    }
    text
}

fn latencies(report: &LoadReport) -> [(&'static str, &LatencyHistogram); 3] {
    let LoadReport {
        connect,
        response,
        service,
        ..
    } = report;
    [
        ("connect", connect),
        ("response", response),
        ("service", service),
    ]
}

/// A time without zeros behind its point: `1.5 ms`, `2 s`.
fn round(time: Elapsed) -> String {
    let text = time.to_string();
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            format!(
                "{} {unit}",
                number.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => text,
    }
}

/// A number with three digits: `0.25`, `12.3`, `98.2k`, `1.5M`.
fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999.5e6 => (value / 1e9, "G"),
        value if value >= 999.5e3 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let decimals = match value {
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.')),
        false => text + unit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn shows(reply: &[u8], raw: &[u8], on_terminal: &str) {
        assert_eq!(super::reply(reply.to_vec(), false), raw);
        assert_eq!(
            String::from_utf8(super::reply(reply.to_vec(), true)).unwrap(),
            on_terminal
        );
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
    fn numbers_have_three_digits_and_no_zeros_at_their_end() {
        for (value, text) in [
            (0.0, "0"),
            (0.254, "0.25"),
            (12.34, "12.3"),
            (100.0, "100"),
            (999.4, "999"),
            (999.6, "1k"),
            (98_234.0, "98.2k"),
            (1.5e6, "1.5M"),
            (10e6, "10M"),
            (2e9, "2G"),
        ] {
            assert_eq!(number(value), text);
        }
        for (micros, text) in [
            (0, "0 ns"),
            (100, "100 µs"),
            (1500, "1.5 ms"),
            (10_000, "10 ms"),
        ] {
            assert_eq!(round(Elapsed(Duration::from_micros(micros))), text);
        }
    }

    #[test]
    fn a_summary_without_an_answer_has_no_times() {
        let config = PingConfig::default();
        for (sent, lost) in [(0, "0.00%"), (3, "100.00%")] {
            let text = ping_summary(
                &config,
                &PingReport {
                    sent,
                    ..PingReport::default()
                },
            );
            let wanted = format!("{sent} sent, 0 answered, {lost} lost, in 0.00 ns\n");
            assert_eq!(text, format!("--- 127.0.0.1:8888: {wanted}"));
        }
    }
}
