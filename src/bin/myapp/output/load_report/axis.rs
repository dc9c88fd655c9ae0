//! Axis of a chart: range, grid lines and labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// An axis with its range and grid lines.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Grid lines with their labels.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// Creates an axis from 0 to at least `high`, with about `lines` grid lines.
    pub(crate) fn linear(high: f64, lines: f64, name: impl Fn(f64) -> String) -> Self {
        let step = round_up(high / lines);
        let count = (high / step).ceil();
        let ticks = (0..=count as u32).map(|n| f64::from(n) * step);
        let ticks = ticks.map(|value| (value, name(value))).collect();
        Self {
            low: 0.0,
            high: count * step,
            logarithmic: false,
            ticks,
        }
    }

    /// Creates a logarithmic axis between the round numbers around `low` and `high`.
    pub(crate) fn logarithmic(low: f64, high: f64, name: impl Fn(f64) -> String) -> Self {
        // Rounding down is rounding up the inverse: 1, 1/2, 1/5, 1/10.
        let low = 1.0 / round_up(1.0 / low);
        let high = round_up(high);
        let values = std::iter::successors(Some(low), |last| Some(round_up(last * 1.1)));
        let values = values.take_while(|value| *value < high * 1.01);
        // A wide range only has grid lines at powers of ten.
        let is_wide = (high / low).log10() > 3.2;
        let is_power = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-6;
        let ticks = values.filter(|value| !is_wide || is_power(value));
        let ticks = ticks.map(|value| (value, name(value))).collect();
        Self {
            low,
            high,
            logarithmic: true,
            ticks,
        }
    }

    /// Creates an axis from `low` to `high` with these grid lines.
    pub(crate) fn with_ticks(low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self {
            low,
            high,
            logarithmic: false,
            ticks,
        }
    }

    /// Returns the position of a value, from 0 to 1.
    fn position(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        share.clamp(0.0, 1.0)
    }
}

// The logarithmic axis of plotters has grid lines only at powers of ten, of which there may be none
// between the fastest and the slowest reply.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (self.position(*value) * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() {
            return Vec::new();
        }
        self.ticks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let tick = self.ticks.iter().find(|(tick, _)| tick == value);
        tick.map_or_else(String::new, |(_, name)| name.clone())
    }
}

/// Rounds up to the next of 1, 2, 5, 10, 20, 50 and so on.
pub(crate) fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    // Tolerates rounding errors.
    steps
        .into_iter()
        .find(|step| value <= step * (1.0 + 1e-9))
        .unwrap_or(10.0 * decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn lines(axis: &Axis, wanted: &[f64]) {
        let found: Vec<_> = axis.ticks.iter().map(|(value, _)| *value).collect();
        let near = |(a, b): (&f64, &f64)| (a / b - 1.0).abs() < 1e-6 || a == b;
        let same = found.len() == wanted.len() && found.iter().zip(wanted).all(near);
        assert!(same, "{found:?}, wanted {wanted:?}");
    }

    #[test]
    fn axes_have_round_grid_lines_and_cover_the_range() {
        let name = |value: f64| value.to_string();
        lines(
            &Axis::linear(98_000.0, 5.0, name),
            &[0.0, 2e4, 4e4, 6e4, 8e4, 1e5],
        );
        lines(&Axis::linear(0.3, 4.0, name), &[0.0, 0.1, 0.2, 0.3]);
        lines(
            &Axis::logarithmic(3e-5, 8e-4, name),
            &[2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3],
        );
        lines(
            &Axis::logarithmic(1e-5, 0.6, name),
            &[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0],
        );
        lines(&Axis::logarithmic(1e-3, 2e-3, name), &[1e-3, 2e-3]);
    }

    #[test]
    fn values_outside_the_axis_are_clamped() {
        let axis = Axis::logarithmic(1.0, 100.0, |value| value.to_string());
        let places = [0.0, 1.0, 10.0, 100.0, 1e9].map(|value| axis.map(&value, (200, 0)));
        assert_eq!(places, [200, 200, 100, 0, 0]);
        assert_eq!([1.0, 3.0].map(|value| axis.format_ext(&value)), ["1", ""]);
    }
}
