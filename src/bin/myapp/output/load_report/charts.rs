//! Charts of a load, each with its legend.

use myapp::echo::LoadReport;
use myapp::measure::latency::LatencyHistogram;

use super::axis::{Axis, round_up};
use super::format::{escape, grouped, number, seconds};
use super::samples::Sample;
use super::svg::{self, FORMATS, Format, Ink};

/// Ratio of the longest to the shortest time above which the axis is logarithmic.
const MAX_LINEAR_RATIO: f64 = 20.0;

/// Marked percentiles, as the share above them.
const MARKS: [(f64, &str); 7] = [
    (0.5, "50%"),
    (0.1, "90%"),
    (0.01, "99%"),
    (0.001, "99.9%"),
    (1e-4, "99.99%"),
    (1e-5, "99.999%"),
    (1e-6, "99.9999%"),
];

const NO_REPLIES: &str = "<p class=\"faint\">No replies.</p>\n";

/// Draws the latency by percentile, on an axis of the powers of ten of the share above it.
pub(crate) fn latency_by_percentile(report: &LoadReport) -> anyhow::Result<String> {
    let LoadReport {
        response, service, ..
    } = report;
    let Some((low, high)) = time_range(service, response) else {
        return Ok(NO_REPLIES.into());
    };
    // Beyond the share of half a message there is only the maximum.
    let end = (2.0 * report.response.count() as f64)
        .log10()
        .clamp(1.0, 8.0);
    let place = |share: f64| (-(1.0 - share).max(1e-12).log10()).min(end);
    let marks: Vec<_> = MARKS
        .iter()
        .map(|(above, name)| (-above.log10(), *name))
        .filter(|(at, _)| *at <= end)
        .collect();
    let lines = [(Ink::B, service), (Ink::A, response)];
    let title = "Latency by percentile";
    let drawn = in_both_formats(|format| {
        let room = f64::from(format.width - 80) / end;
        let has_room = |at: f64| (at > 0.5 || room > 90.0) && (end - at) * room > 6.0;
        let named = marks.iter().filter(|(at, _)| has_room(*at));
        let named = named.map(|(at, name)| (*at, (*name).to_owned())).collect();
        let axes = (Axis::with_ticks(0.0, end, named), time_axis(low, high));
        svg::draw(format, title, axes, |chart| {
            for (ink, latency) in lines {
                let points = latency
                    .quantiles()
                    .map(|(share, time)| (place(share), time.as_secs_f64()));
                let first = latency
                    .percentiles()
                    .map(|percentiles| (0.0, percentiles.min.as_secs_f64()));
                chart.line(ink, first.into_iter().chain(points).map(Some))?;
                for (place, _) in &marks {
                    chart.point(ink, (*place, time_at(latency, *place)))?;
                }
            }
            for (index, (place, name)) in marks.iter().enumerate() {
                let middle = |index: usize| marks.get(index).map(|(next, _)| (place + next) / 2.0);
                let from = index.checked_sub(1).and_then(middle).unwrap_or(0.0);
                let to = middle(index + 1).unwrap_or(end);
                let [response, service] =
                    [response, service].map(|times| seconds(time_at(times, *place)));
                chart.strip(
                    from,
                    to,
                    &format!("{name}: response {response}, service {service}"),
                );
            }
            Ok(())
        })
    })?;
    let legend = [
        ("a", "response: from the due time"),
        ("b", "service: from the sending"),
    ];
    Ok(self::legend(&legend, &[]) + &drawn)
}

/// Draws the replies and failures per second.
pub(crate) fn throughput(
    rate_requested: Option<f64>,
    samples: &[Sample],
) -> anyhow::Result<String> {
    let most = |count: fn(&Sample) -> u64| {
        samples
            .iter()
            .map(|sample| sample.rate(count(sample)))
            .fold(0.0, f64::max)
    };
    let answered = most(|sample| sample.answered);
    let failed = most(|sample| sample.failed);
    let lost = most(|sample| sample.lost);
    let unsent = most(|sample| sample.unsent);
    // A requested rate far above the reached one would flatten the chart.
    let requested = rate_requested.filter(|requested| *requested <= 2.0 * answered);
    let high = [failed, lost, unsent, requested.unwrap_or(0.0)]
        .into_iter()
        .fold(answered, f64::max);
    if high == 0.0 {
        return Ok(NO_REPLIES.into());
    }
    let drawn = in_both_formats(|format| {
        let axes = (
            run_axis(samples, format),
            Axis::linear(high, lines(format), number),
        );
        svg::draw(format, "Throughput and errors", axes, |chart| {
            let columns = |count: fn(&Sample) -> u64| {
                samples
                    .iter()
                    .map(move |s| (s.from, s.to, s.rate(count(s))))
            };
            chart.columns(Ink::A, columns(|sample| sample.answered))?;
            chart.columns(Ink::C, columns(|sample| sample.unsent))?;
            chart.columns(Ink::B, columns(|sample| sample.lost))?;
            chart.columns(Ink::Bad, columns(|sample| sample.failed))?;
            samples
                .iter()
                .for_each(|sample| chart.strip(sample.from, sample.to, &sample_text(sample)));
            requested.map_or(Ok(()), |requested| chart.level(Ink::C, requested))
        })
    })?;
    let mut areas = vec![("a", "answered per second")];
    areas.extend((unsent > 0.0).then_some(("c", "unsent per second")));
    areas.extend((lost > 0.0).then_some(("b", "lost per second")));
    areas.extend((failed > 0.0).then_some(("bad", "failed per second")));
    let level = requested.map(|requested| format!("{} requested", number(requested)));
    let levels: Vec<_> = level.iter().map(|level| ("c", level.as_str())).collect();
    Ok(legend(&areas, &levels) + &drawn)
}

/// Formats the tooltip of a sample.
fn sample_text(sample: &Sample) -> String {
    let rate = number(sample.rate(sample.answered));
    let mut text = format!("{}: {rate} answered per second", span(sample));
    let counts = [
        (sample.unsent, "unsent"),
        (sample.lost, "lost"),
        (sample.failed, "failed"),
    ];
    for (count, what) in counts {
        if count > 0 {
            text += &format!(", {} {what}", grouped(count));
        }
    }
    text
}

/// Draws the response times over the run.
pub(crate) fn latency_over_time(samples: &[Sample]) -> anyhow::Result<String> {
    let all = samples.iter().filter_map(|sample| sample.times);
    let low = all
        .clone()
        .map(|[p50, ..]| p50)
        .fold(f64::INFINITY, f64::min);
    let high = all.map(|[.., max]| max).fold(0.0, f64::max);
    if high == 0.0 {
        return Ok(NO_REPLIES.into());
    }
    let drawn = in_both_formats(|format| {
        let axes = (run_axis(samples, format), time_axis(low, high));
        svg::draw(format, "Response time", axes, |chart| {
            for (index, ink) in [(2, Ink::C), (1, Ink::B), (0, Ink::A)] {
                let middle = |sample: &Sample| (sample.from + sample.to) / 2.0;
                let points = samples
                    .iter()
                    .map(|s| s.times.map(|times| (middle(s), times[index])));
                chart.line(ink, points)?;
            }
            for sample in samples {
                let text = match sample.times.map(|times| times.map(seconds)) {
                    Some([p50, p99, max]) => format!("median {p50}, 99% {p99}, longest {max}"),
                    None => "no reply".into(),
                };
                chart.strip(sample.from, sample.to, &format!("{}: {text}", span(sample)));
            }
            Ok(())
        })
    })?;
    let lines = [("a", "median"), ("b", "99th percentile"), ("c", "longest")];
    Ok(legend(&lines, &[]) + &drawn)
}

/// Draws a chart in both formats.
fn in_both_formats(draw: impl Fn(Format) -> anyhow::Result<String>) -> anyhow::Result<String> {
    let [wide, narrow] = FORMATS.map(draw);
    Ok(wide? + &narrow?)
}

/// Returns the shortest and the longest time of two histograms.
fn time_range(one: &LatencyHistogram, other: &LatencyHistogram) -> Option<(f64, f64)> {
    let one = one.percentiles()?;
    let other = other.percentiles()?;
    Some((
        one.min.min(other.min).as_secs_f64(),
        one.max.max(other.max).as_secs_f64(),
    ))
}

/// Returns the time in seconds at the percentile with a share of `10^-place` above it.
fn time_at(latency: &LatencyHistogram, place: f64) -> f64 {
    let share = 1.0 - 10_f64.powf(-place) - 1e-12;
    let mut points = latency.quantiles().skip_while(|(found, _)| *found < share);
    points.next().map_or(0.0, |(_, time)| time.as_secs_f64())
}

/// Returns an axis of times, given in seconds.
fn time_axis(low: f64, high: f64) -> Axis {
    // Zero has no position on a logarithmic axis.
    let low = low.max(1e-9);
    if high > MAX_LINEAR_RATIO * low {
        Axis::logarithmic(low, high, seconds)
    } else {
        Axis::linear(high, 5.0, seconds)
    }
}

/// Returns an axis from the start to the end of a run.
fn run_axis(samples: &[Sample], format: Format) -> Axis {
    const STEPS: [f64; 12] = [
        60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 43200.0, 86400.0,
        604_800.0,
    ];
    let end = samples.last().map_or(1.0, |sample| sample.to);
    let least = end / (f64::from(format.width) / 90.0);
    let step = match least {
        least if least > 30.0 => STEPS.into_iter().find(|step| *step >= least).unwrap_or(end),
        least if least > 20.0 => 30.0,
        least => round_up(least),
    };
    let count = (end / step + 1e-9).floor();
    let ticks = (0..=count as u32).map(|n| f64::from(n) * step);
    Axis::with_ticks(
        0.0,
        end,
        ticks.map(|moment| (moment, seconds(moment))).collect(),
    )
}

fn lines(format: Format) -> f64 {
    f64::from(format.height) / 55.0
}

fn span(sample: &Sample) -> String {
    format!("{} to {}", seconds(sample.from), seconds(sample.to))
}

/// Renders the legend of the series and levels of a chart.
fn legend(lines: &[(&str, &str)], levels: &[(&str, &str)]) -> String {
    let item = |kind: &str, (class, name): &(&str, &str)| {
        format!(
            "<span><i class=\"{kind}{class}\"></i>{}</span>\n",
            escape(name)
        )
    };
    let lines = lines.iter().map(|line| item("", line));
    let items: String = lines
        .chain(levels.iter().map(|level| item("level ", level)))
        .collect();
    format!("<p class=\"legend\">\n{items}</p>\n")
}
