//! Histogram of durations as text.

use std::time::Duration;

use myapp::measure::latency::LatencyHistogram;
use myapp::units::Elapsed;

use super::format::round;

/// Maximum number of rows.
const MAX_ROWS: usize = 14;

/// Length of the longest bar in columns.
const MAX_BAR_LEN: f64 = 44.0;

/// Roughly logarithmic series of numbers between 1 and 10, from fine to coarse.
const SERIES: [&[f64]; 4] = [
    &[
        1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0, 2.2, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0,
    ],
    &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
    &[1.0, 2.0, 5.0],
    &[1.0],
];

/// Formats one row per bound with the durations up to it and above the previous one; empty if one
/// row would contain all.
pub(crate) fn histogram(latency: &LatencyHistogram) -> String {
    let Some(percentiles) = latency.percentiles() else {
        return String::new();
    };
    let mut counted = 0;
    let rows = bounds(percentiles.min, percentiles.max)
        .into_iter()
        .map(|bound| {
            let before = counted;
            counted = latency.count_up_to(bound);
            (bound, counted - before)
        });
    let mut rows: Vec<_> = rows.collect();
    if let Some((_, count)) = rows.last_mut() {
        // A maximum of 4.003 ms still belongs to the row of 4 ms.
        *count += latency.count() - counted;
    }
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0);
    if rows.len() < 2 || most == 0 {
        return String::new();
    }
    let row = |(bound, count): &(Duration, u64)| {
        let bar = bar(*count as f64 / most as f64 * MAX_BAR_LEN);
        let percent = 100.0 * *count as f64 / latency.count() as f64;
        let line = format!("{:>9} {percent:>5.1}% {bar}", round(Elapsed(*bound)));
        format!("{}\n", line.trim_end())
    };
    rows.iter().map(row).collect()
}

/// Returns round bounds, the first at least `min` and the last at least `max`, up to the precision
/// of three digits.
fn bounds(min: Duration, max: Duration) -> Vec<Duration> {
    let [min, max] = [min, max].map(|bound| bound.as_nanos().max(1) as f64);
    let all = |series: &[f64]| {
        let values = (0..).flat_map(|power| series.iter().map(move |n| n * 10_f64.powi(power)));
        let values = values.skip_while(|bound| *bound < min);
        let mut bounds = Vec::new();
        for bound in values.take(MAX_ROWS + 1) {
            bounds.push(Duration::from_nanos(bound.round() as u64));
            if bound >= 0.999 * max {
                break;
            }
        }
        bounds
    };
    let found = SERIES
        .iter()
        .map(|series| all(series))
        .find(|bounds| bounds.len() <= MAX_ROWS);
    found.unwrap_or_default()
}

/// Formats a bar with a resolution of an eighth of a column.
fn bar(columns: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (columns * 8.0).ceil() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> String {
        let mut latency = LatencyHistogram::default();
        micros
            .into_iter()
            .for_each(|n| latency.record(Duration::from_micros(n)));
        histogram(&latency)
    }

    #[test]
    fn each_row_has_the_share_up_to_its_bound() {
        let text = of((0..98).map(|n| 101 + n / 49 * 30).chain([900, 20_000]));
        assert_eq!(
            text,
            "   150 µs  98.0% ████████████████████████████████████████████\n   \
             200 µs   0.0%\n   300 µs   0.0%\n   500 µs   0.0%\n   700 µs   0.0%\n     \
             1 ms   1.0% ▌\n   1.5 ms   0.0%\n     2 ms   0.0%\n     3 ms   0.0%\n     \
             5 ms   0.0%\n     7 ms   0.0%\n    10 ms   0.0%\n    15 ms   0.0%\n    \
             20 ms   1.0% ▌\n"
        );
    }

    #[test]
    fn any_durations_make_few_rows_and_all_count() {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            let top = 1 << random.u32(0..31);
            let count = random.usize(1..1000);
            let text = of((0..count).map(|_| random.u64(..top)));
            let rows = text.lines().count();
            assert!(rows <= MAX_ROWS && rows != 1, "seed {seed}: {text}");
            let shares = text.lines().map(|row| row.split_once('%').unwrap().0);
            let shares = shares.map(|row| row.split(' ').next_back().unwrap());
            let sum: f64 = shares.map(|share| share.parse::<f64>().unwrap()).sum();
            assert!(
                rows == 0 || (99.0..101.0).contains(&sum),
                "seed {seed}: {text}"
            );
            let widest = text
                .lines()
                .map(|row| row.chars().count())
                .max()
                .unwrap_or(0);
            assert!(widest < 80, "seed {seed}: {text}");
        }
        let rounded = of([1_000, 2_000, 4_003]);
        assert!(
            rounded
                .lines()
                .last()
                .unwrap()
                .starts_with("     4 ms  33.3%"),
            "{rounded}"
        );
        assert_eq!(
            (of([]), of([5]), of([5, 5])),
            (String::new(), String::new(), String::new())
        );
    }
}
