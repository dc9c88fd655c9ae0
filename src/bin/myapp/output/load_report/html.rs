//! The report of a load as one HTML file that needs nothing else: no network, no script.

use std::time::Duration;

use myapp::echo::{LoadConfig, LoadReport};
use myapp::error_chain::ErrorChain;
use myapp::measure::latency::Percentiles;
use myapp::net::address::Address;
use myapp::units::{Elapsed, Size};

use crate::output::load_report::charts::{latency_by_percentile, latency_over_time, throughput};
use crate::output::load_report::run_info::Origin;
use crate::output::load_report::samples::samples;
use crate::output::load_report::{latencies, number, round, text};

const STYLE: &str = include_str!("html.css");

/// The whole file.
pub(crate) fn page(
    config: &LoadConfig,
    report: &LoadReport,
    origin: &Origin,
) -> anyhow::Result<String> {
    let address = html(&config.server.address.to_string());
    let samples = samples(report);
    let parts = [
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
             <title>myapp echo: {address}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>Load on {address}</h1>\n<p class=\"faint\">{}</p>\n</header>\n",
            html(&text::what(config)),
        ),
        tiles(config, report),
        doubts(config, report),
        section("Latency by percentile", &latency_by_percentile(report)?),
        section("Throughput and errors", &throughput(config, &samples)?),
        section("Response time", &latency_over_time(&samples)?),
        section("Figures", &figures(report)),
        failures(report),
        section("Made by", &made_by(origin)),
        "</body>\n</html>\n".into(),
    ];
    Ok(parts.concat())
}

/// The figures that are asked for first.
fn tiles(config: &LoadConfig, report: &LoadReport) -> String {
    let failed: u64 = report.errors.values().map(|failures| failures.count).sum();
    let rate = report.rate();
    let asked = config
        .rate
        .map(|asked| format!(" of {} asked", rate_of(asked)));
    let bytes = Size((rate * config.payload.size() as f64) as u64);
    let mut tiles = vec![
        tile(
            "",
            &rate_of(rate),
            &format!("messages a second{}", asked.unwrap_or_default()),
        ),
        tile(
            "",
            &grouped(report.answered()),
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
    tiles.push(tile(class, &grouped(failed), "failed"));
    if let Address::Udp(_) = config.server.address {
        let class = if report.lost > 0 { "bad" } else { "" };
        tiles.push(tile(class, &grouped(report.lost), "lost"));
        tiles.push(tile("", &grouped(report.duplicates), "duplicates"));
        tiles.push(tile("", &grouped(report.reordered), "out of order"));
    }
    tiles.push(tile("", &format!("{bytes}/s"), "each way"));
    tiles.push(tile(
        "",
        &format!("{:.0}%", 100.0 * report.cpu),
        "of its time the sender was busy",
    ));
    format!("<div class=\"tiles\">\n{}</div>\n", tiles.concat())
}

fn tile(class: &str, figure: &str, name: &str) -> String {
    format!(
        "<div class=\"{class}\"><b>{}</b><span>{}</span></div>\n",
        html(figure),
        html(name)
    )
}

fn doubts(config: &LoadConfig, report: &LoadReport) -> String {
    let doubts = report.doubts(config.rate);
    // A flag is not to be broken behind its dashes.
    let word = |word: &str| match word.starts_with("--") {
        true => format!("<code>{}</code>", html(word)),
        false => html(word),
    };
    let text = |doubt: String| doubt.split(' ').map(word).collect::<Vec<_>>().join(" ");
    let items = doubts
        .iter()
        .map(|doubt| format!("<li>{}</li>\n", text(doubt.to_string())));
    let items: String = items.collect();
    match items.is_empty() {
        true => items,
        false => {
            format!("<section class=\"doubts\">\n<h2>Doubts</h2>\n<ul>\n{items}</ul>\n</section>\n")
        }
    }
}

fn section(title: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n{content}</section>\n")
}

/// A column for each kind of time, so that the table fits on a phone.
fn figures(report: &LoadReport) -> String {
    let columns: Vec<_> = latencies(report)
        .into_iter()
        .filter_map(|(name, latency)| Some((name, latency.count(), latency.percentiles()?)))
        .collect();
    if columns.is_empty() {
        return "<p class=\"faint\">Nothing was answered.</p>\n".into();
    }
    let line = |cell: &str, name: &str, text: &dyn Fn(&(&str, u64, Percentiles)) -> String| {
        row(
            cell,
            [name.to_owned()]
                .into_iter()
                .chain(columns.iter().map(text)),
        )
    };
    let time = |name, of: fn(&Percentiles) -> Duration| {
        line("td", name, &|(.., figures)| {
            Elapsed(of(figures)).to_string()
        })
    };
    let rows = [
        line("th", "", &|(name, ..)| (*name).to_owned()),
        time("min", |figures| figures.min),
        time("mean", |figures| figures.mean),
        time("p50", |figures| figures.p50),
        time("p90", |figures| figures.p90),
        time("p99", |figures| figures.p99),
        time("p99.9", |figures| figures.p99_9),
        time("max", |figures| figures.max),
        line("td", "count", &|(_, count, _)| grouped(*count)),
    ];
    format!(
        "<table>\n{}</table>\n<p class=\"note\">connect: how long it took to connect; response: \
         from when each message was due; service: from when it was sent. Three digits are kept of \
         each time.</p>\n",
        rows.concat()
    )
}

fn row(cell: &str, texts: impl Iterator<Item = String>) -> String {
    let cells = texts.map(|text| format!("<{cell}>{}</{cell}>", html(&text)));
    format!("<tr>{}</tr>\n", cells.collect::<String>())
}

fn failures(report: &LoadReport) -> String {
    if report.errors.is_empty() {
        return String::new();
    }
    let mut rows = row(
        "th",
        ["phase", "count", "the first"]
            .map(str::to_owned)
            .into_iter(),
    );
    for (phase, failures) in &report.errors {
        let first = ErrorChain(&failures.first).to_string();
        rows += &format!(
            "<tr><td>{}</td><td>{}</td><td class=\"text\">{}</td></tr>\n",
            text::what_failed(*phase, report),
            grouped(failures.count),
            html(&first)
        );
    }
    section(
        "Failed",
        &format!("<div class=\"scroll\"><table>\n{rows}</table></div>\n"),
    )
}

fn made_by(origin: &Origin) -> String {
    let Origin {
        command,
        machine,
        date,
    } = origin;
    format!(
        "<pre>{}</pre>\n<p class=\"note\">myapp {}, on {}, {}</p>\n",
        html(command),
        env!("CARGO_PKG_VERSION"),
        html(machine),
        html(date)
    )
}

/// Messages a second: whole ones where there are many.
fn rate_of(rate: f64) -> String {
    if rate >= 100.0 {
        grouped(rate.round() as u64)
    } else {
        number(rate)
    }
}

/// A whole number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

/// A time on the axis of a chart, given in seconds.
pub(crate) fn seconds(time: f64) -> String {
    if time == 0.0 {
        return "0".into();
    }
    Duration::try_from_secs_f64(time).map_or_else(|_| String::new(), |time| round(Elapsed(time)))
}

/// A text as it stands in HTML, in an element or between quotes.
pub(crate) fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use myapp::echo::Length;

    const MILLI: Duration = Duration::from_millis(1);

    fn origin() -> Origin {
        let [command, machine, date] =
            ["myapp echo '</pre><script>'", "a & b", "today"].map(str::to_owned);
        Origin {
            command,
            machine,
            date,
        }
    }

    fn report(answered: u32) -> LoadReport {
        let elapsed = answered * MILLI;
        let mut report = LoadReport::default();
        (report.sent, report.elapsed) = (answered.into(), elapsed);
        for number in 0..answered {
            let time = MILLI + number * MILLI / 100;
            report.response.record(time);
            report.service.record(time);
            report.timeline.at(number * MILLI).answered(time);
        }
        report
    }

    #[test]
    fn a_page_needs_nothing_else_and_tells_all() {
        let config = LoadConfig {
            rate: Some(1e4),
            ..LoadConfig::default()
        };
        let page = page(&config, &report(1000), &origin()).unwrap();
        for part in [
            "<title>myapp echo: 127.0.0.1:8888</title>",
            "myapp echo &#39;&lt;/pre&gt;&lt;script&gt;&#39;",
            "a &amp; b",
            "the rate was not reached",
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
    fn there_is_a_page_of_any_run() {
        for answered in [0, 1, 2, 100] {
            for length in [Length::Count(answered.into()), Length::Time(MILLI)] {
                let config = LoadConfig {
                    length,
                    ..LoadConfig::default()
                };
                let page = page(&config, &report(answered), &origin()).unwrap();
                assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
                assert!(page.ends_with("</html>\n") && page.len() < 300_000);
            }
        }
    }

    #[test]
    fn thousands_stand_apart() {
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
