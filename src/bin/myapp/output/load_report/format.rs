//! Formatting shared by the text, HTML and chart output.

use std::time::Duration;

use myapp::echo::LoadReport;
use myapp::measure::latency::LatencyHistogram;
use myapp::units::Elapsed;

/// Returns the histograms of a report with their names.
pub(super) fn latencies(report: &LoadReport) -> [(&'static str, &LatencyHistogram); 3] {
    [
        ("connect", &report.connect),
        ("response", &report.response),
        ("service", &report.service),
    ]
}

/// Formats a time without trailing zeros: `1.5 ms`, `2 s`.
pub(super) fn round(time: Elapsed) -> String {
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

/// Formats a number with three digits: `0.25`, `12.3`, `98.2k`, `1.5M`.
pub(super) fn number(value: f64) -> String {
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
    let mut text = format!("{value:.decimals$}");
    if text.contains('.') {
        text = text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text + unit
}

/// Formats an integer with thousands separators.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// Formats a time, given in seconds, for the axis of a chart.
pub(super) fn seconds(time: f64) -> String {
    if time == 0.0 {
        return "0".into();
    }
    Duration::try_from_secs_f64(time).map_or_else(|_| String::new(), |time| round(Elapsed(time)))
}

/// Escapes a text for HTML, in an element or a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_without_trailing_zeros() {
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
    fn thousands_are_separated() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
