//! Report of a load as a self-contained HTML file, without scripts or network access.

use myapp::echo::{LoadReport, Warning};
use myapp::measure::latency::Percentiles;
use myapp::measure::percentile::PercentileList;
use myapp::units::{Elapsed, Size};

use super::charts::{latency_by_percentile, latency_over_time, throughput};
use super::format::{escape, grouped, latencies, number, round};
use super::hints::hint;
use super::run_info::RunInfo;
use super::samples::samples;
use super::summary::Summary;
use super::text;

const STYLE: &str = include_str!("html.css");

/// Renders the page.
pub(crate) fn page(
    summary: &Summary,
    percentiles: &PercentileList,
    run_info: &RunInfo,
) -> anyhow::Result<String> {
    let report = &summary.report;
    let address = escape(&summary.address());
    let samples = samples(report);
    let parts = [
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>myapp echo: {address}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>Load on {address}</h1>\n<p class=\"faint\">{}</p>\n</header>\n",
            escape(&summary.parameters),
        ),
        tiles(summary),
        warnings(summary, percentiles),
        section("Latency by percentile", &latency_by_percentile(report)?),
        section(
            "Throughput and errors",
            &throughput(summary.rate_requested, &samples)?,
        ),
        section("Response time", &latency_over_time(&samples)?),
        section("Statistics", &statistics(report, percentiles)),
        failures(summary),
        section("Command", &run_details(run_info)),
        "</body>\n</html>\n".into(),
    ];
    Ok(parts.concat())
}

/// Renders the most important statistics.
fn tiles(summary: &Summary) -> String {
    let report = &summary.report;
    let failed: u64 = summary.errors.values().map(|errors| errors.count).sum();
    let rate = report.rate();
    let requested = summary
        .rate_requested
        .map(|requested| format!(" of {} requested", rate_of(requested)));
    let bytes = Size(summary.bytes_rate as u64);
    let mut tiles = vec![
        tile(
            "",
            &rate_of(rate),
            &format!("messages per second{}", requested.unwrap_or_default()),
        ),
        tile(
            "",
            &grouped(report.answered),
            &format!("answered in {}", Elapsed(report.elapsed)),
        ),
    ];
    if let Some(Percentiles {
        p50, p99, p99_9, ..
    }) = report.response.percentiles()
    {
        let times = [("p50", p50), ("p99", p99), ("p99.9", p99_9)];
        tiles.extend(
            times.map(|(name, time)| {
                tile("", &round(Elapsed(time)), &format!("response time {name}"))
            }),
        );
    }
    let class = if failed > 0 { "bad" } else { "" };
    tiles.push(tile(class, &grouped(failed), "errors"));
    for (count, name) in [
        (report.unsent, "unsent"),
        (report.timeouts, "timed out"),
        (report.reconnects, "reconnects"),
        (report.given_up, "connections given up"),
    ] {
        if count > 0 {
            tiles.push(tile("bad", &grouped(count), name));
        }
    }
    if summary.rate_requested.is_some() {
        let share = 100.0 * report.late_sends as f64 / report.sent.max(1) as f64;
        tiles.push(tile("", &format!("{share:.1}%"), "sent over 1 ms late"));
    }
    if summary.is_over_udp() {
        let class = if report.lost > 0 { "bad" } else { "" };
        tiles.push(tile(class, &grouped(report.lost), "lost"));
        tiles.push(tile("", &grouped(report.duplicates), "duplicates"));
        tiles.push(tile("", &grouped(report.out_of_order), "out of order"));
    }
    tiles.push(tile("", &format!("{bytes}/s"), "each direction"));
    tiles.push(tile(
        "",
        &format!("{:.0}%", 100.0 * report.sender_cpu),
        "CPU of the sending threads",
    ));
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.concat())
}

fn tile(class: &str, value: &str, name: &str) -> String {
    format!(
        "<div class=\"{class}\"><b>{}</b><span>{}</span></div>\n",
        escape(value),
        escape(name)
    )
}

fn warnings(summary: &Summary, percentiles: &PercentileList) -> String {
    let warnings = summary.warnings(percentiles);
    if warnings.is_empty() {
        return String::new();
    }
    // Marked as code, so that a flag does not wrap after its dashes.
    let word = |word: &str| {
        if word.starts_with("--") {
            let flag = word.trim_end_matches([',', ';', ':']);
            let rest = &word[flag.len()..];
            format!("<code>{}</code>{}", escape(flag), escape(rest))
        } else {
            escape(word)
        }
    };
    let item = |warning: &Warning| {
        let text = format!("{warning}; {}", hint(warning));
        let words: Vec<_> = text.split(' ').map(word).collect();
        format!("<li>{}</li>\n", words.join(" "))
    };
    let items: String = warnings.iter().map(item).collect();
    format!("<section class=\"warnings\">\n<h2>Warnings</h2>\n<ul>\n{items}</ul>\n</section>\n")
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// Renders a table with one column per histogram, so that it fits on a phone.
fn statistics(report: &LoadReport, percentiles: &PercentileList) -> String {
    let columns: Vec<_> = latencies(report)
        .into_iter()
        .filter_map(|(name, latency)| Some((name, latency.count(), latency.rows(percentiles)?)))
        .collect();
    let Some((.., first)) = columns.first() else {
        return "<p class=\"faint\">No replies.</p>\n".into();
    };
    let line = |cell: &str, name: &str, texts: Vec<String>| {
        row(cell, [name.to_owned()].into_iter().chain(texts))
    };
    let names = columns.iter().map(|(name, ..)| (*name).to_owned());
    let counts = columns.iter().map(|(_, count, _)| grouped(*count));
    let rows = first.iter().enumerate().map(|(index, (name, _))| {
        let times = columns.iter().map(|(.., times)| times[index].1);
        line(
            "td",
            name,
            times.map(|time| Elapsed(time).to_string()).collect(),
        )
    });
    format!(
        "<table>\n{}{}{}</table>\n<p class=\"note\">connect: connection setup; response: from the \
         due time of each message, with or without a reply; service: from the sending of each \
         answered message. Times have three significant \
         digits.</p>\n",
        line("th", "", names.collect()),
        rows.collect::<String>(),
        line("td", "count", counts.collect()),
    )
}

fn row(cell: &str, texts: impl Iterator<Item = String>) -> String {
    let cells = texts.map(|text| format!("<{cell}>{}</{cell}>", escape(&text)));
    format!("<tr>{}</tr>\n", cells.collect::<String>())
}

fn failures(summary: &Summary) -> String {
    if summary.errors.is_empty() {
        return String::new();
    }
    let mut rows = row(
        "th",
        ["phase", "count", "first error"]
            .map(str::to_owned)
            .into_iter(),
    );
    for (phase, errors) in &summary.errors {
        rows += &format!(
            "<tr><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n",
            text::phase_name(*phase, &summary.report),
            grouped(errors.count),
            escape(&errors.first)
        );
    }
    section(
        "Errors",
        &format!("<div class=\"scroll\"><table>\n{rows}</table></div>\n"),
    )
}

fn run_details(run_info: &RunInfo) -> String {
    let RunInfo {
        command,
        machine,
        date,
    } = run_info;
    format!(
        "<pre>{}</pre>\n<p class=\"note\">myapp {}, on {}, {}</p>\n",
        escape(command),
        env!("CARGO_PKG_VERSION"),
        escape(machine),
        escape(date)
    )
}

/// Formats a rate in messages per second, without a fraction if it is high.
fn rate_of(rate: f64) -> String {
    if rate >= 100.0 {
        grouped(rate.round() as u64)
    } else {
        number(rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use myapp::echo::{LoadConfig, RunLimit};

    const MILLI: Duration = Duration::from_millis(1);

    fn run_info() -> RunInfo {
        let [command, machine, date] =
            ["myapp echo '</pre><script>'", "a & b", "today"].map(str::to_owned);
        RunInfo {
            command,
            machine,
            date,
        }
    }

    fn report(answered: u32) -> LoadReport {
        let elapsed = answered * MILLI;
        let mut report = LoadReport::default();
        report.sent = answered.into();
        report.answered = answered.into();
        report.timeline.at(elapsed).unsent = 3;
        report.unsent = 3;
        report.elapsed = elapsed;
        for number in 0..answered {
            let time = MILLI + number * MILLI / 100;
            report.response.record(time);
            report.service.record(time);
            report.timeline.at(number * MILLI).answered(time);
        }
        report
    }

    fn rendered(config: &LoadConfig, report: LoadReport) -> String {
        let summary = Summary::of_run(config, report);
        page(&summary, &PercentileList::default(), &run_info()).unwrap()
    }

    #[test]
    fn page_is_self_contained_and_complete() {
        let config = LoadConfig {
            rate: Some(1e4),
            ..LoadConfig::default()
        };
        let page = rendered(&config, report(1000));
        for part in [
            "<title>myapp echo: 127.0.0.1:8888</title>",
            "myapp echo &#39;&lt;/pre&gt;&lt;script&gt;&#39;",
            "a &amp; b",
            "rate not reached: ",
            "<code>--in-flight</code>, or lower <code>--rate</code></li>",
            "<b>3</b><span>unsent</span>",
            "unsent per second",
            "sent over 1 ms late",
            "<th>response</th><th>service</th>",
            "<title>99%: response ",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        for part in [
            "<script", "http:", "https:", "src=", "href=", "url(", "NaN", "inf",
        ] {
            assert!(!page.contains(part), "{part} in {page}");
        }
        assert_eq!(page.matches("<svg").count(), 6);
    }

    #[test]
    fn page_is_rendered_for_any_run() {
        for answered in [0, 1, 2, 100] {
            for limit in [
                RunLimit::Messages(answered.into()),
                RunLimit::Duration(MILLI),
            ] {
                let config = LoadConfig {
                    limit,
                    ..LoadConfig::default()
                };
                let page = rendered(&config, report(answered));
                assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
                assert!(page.ends_with("</html>\n") && page.len() < 300_000);
            }
        }
    }
}
