//! Charts as SVG that takes its colors and fonts from the style sheet around it, so that one
//! drawing serves light and dark. What the mouse rests on tells its figures without a script.

use std::fmt::Write as _;

use crate::output::echo::page::html;

/// The size of a chart in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Its class in the style sheet.
    pub(crate) class: &'static str,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// For a window and for a phone: text keeps its size. A page holds both and shows one.
pub(crate) const FORMATS: [Format; 2] = [
    Format { class: "wide", width: 880.0, height: 280.0 },
    Format { class: "narrow", width: 360.0, height: 230.0 },
];

/// The room around the plot for what stands at the axes.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// One direction of a chart.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Where its lines are, and what stands there.
    ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to at least `high`, with about `lines` lines.
    pub(crate) fn linear(high: f64, lines: f64, name: impl Fn(f64) -> String) -> Self {
        let step = round_up(high / lines);
        let count = (high / step).ceil();
        let ticks = (0..=count as u32).map(|n| f64::from(n) * step);
        let ticks = ticks.map(|value| (value, name(value))).collect();
        Self { low: 0.0, high: count * step, logarithmic: false, ticks }
    }

    /// From round figures around `low` to round figures around `high`, which is higher.
    pub(crate) fn logarithmic(low: f64, high: f64, name: impl Fn(f64) -> String) -> Self {
        // Downwards is the inverse of upwards: 1, 1/2, 1/5, 1/10.
        let (low, high) = (1.0 / round_up(1.0 / low), round_up(high));
        let figures = std::iter::successors(Some(low), |last| Some(round_up(last * 1.1)));
        let figures = figures.take_while(|value| *value < high * 1.01);
        // Where there are many, the powers of ten are enough.
        let crowded = (high / low).log10() > 3.2;
        let is_power = |value: &f64| (value.log10() - value.log10().round()).abs() < 1e-6;
        let ticks = figures.filter(|value| !crowded || is_power(value));
        let ticks = ticks.map(|value| (value, name(value))).collect();
        Self { low, high, logarithmic: true, ticks }
    }

    /// From `low` to `high`, with these lines.
    pub(crate) fn with_ticks(low: f64, high: f64, ticks: Vec<(f64, String)>) -> Self {
        Self { low, high, logarithmic: false, ticks }
    }

    /// Where a value stands, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }
}

/// The next of 1, 2, 5, 10, 20, 50 … that is not smaller.
pub(crate) fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    // What is the same but for rounding is not smaller.
    steps.into_iter().find(|step| value <= step * (1.0 + 1e-9)).unwrap_or(10.0 * decade)
}

/// A chart that is being drawn.
#[derive(Debug)]
pub(crate) struct Chart {
    format: Format,
    x: Axis,
    y: Axis,
    svg: String,
}

impl Chart {
    /// Draws the axes; `title` says what it shows to who does not see it.
    pub(crate) fn new(format: Format, title: &str, x: Axis, y: Axis) -> Self {
        let Format { class, width, height } = format;
        let svg = format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"{}\">\n",
            html(title)
        );
        let mut chart = Self { format, x, y, svg };
        chart.draw_axes();
        chart
    }

    fn draw_axes(&mut self) {
        let (right, bottom) = (self.format.width - RIGHT, self.format.height - BOTTOM);
        let (x, y) = (self.x.ticks.clone(), self.y.ticks.clone());
        for (value, name) in y {
            let (at, name) = (self.down(value), html(&name));
            self.add(format_args!("<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>"));
            let (x, y) = (LEFT - 8.0, at + 4.0);
            self.add(format_args!("<text class=\"y\" x=\"{x}\" y=\"{y:.1}\">{name}</text>"));
        }
        for (value, name) in x {
            let (at, name) = (self.across(value), html(&name));
            self.add(format_args!("<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>"));
            let y = bottom + 18.0;
            self.add(format_args!("<text class=\"x\" x=\"{at:.1}\" y=\"{y}\">{name}</text>"));
        }
    }

    /// Draws a line through points; where there is none, it has a gap.
    pub(crate) fn line(&mut self, class: &str, points: impl Iterator<Item = Option<(f64, f64)>>) {
        // What has no neighbors is a line of no length, which its round ends make a dot.
        let (mut path, mut begun) = (String::new(), false);
        for point in points {
            if let Some((x, y)) = point {
                let (x, y) = (self.across(x), self.down(y));
                // Writing to a string does not fail.
                let _ = match begun {
                    true => write!(path, "L{x:.1} {y:.1}"),
                    false => write!(path, "M{x:.1} {y:.1}h0"),
                };
            }
            begun = point.is_some();
        }
        self.add(format_args!("<path class=\"line {class}\" d=\"{path}\"/>"));
    }

    /// Draws columns side by side, from one place on the x axis to another, so high.
    pub(crate) fn columns(&mut self, class: &str, columns: impl Iterator<Item = (f64, f64, f64)>) {
        let bottom = self.format.height - BOTTOM;
        let (mut area, mut top, mut last) = (String::new(), String::new(), f64::NAN);
        for (from, to, value) in columns.filter(|(.., value)| *value > 0.0) {
            let (left, right, down) = (self.across(from), self.across(to), self.down(value));
            // The tops of columns side by side are one line. Writing to a string does not fail.
            let _ = write!(area, "M{left:.1} {bottom}V{down:.1}H{right:.1}V{bottom}Z");
            let _ = match from == last {
                true => write!(top, "V{down:.1}H{right:.1}"),
                false => write!(top, "M{left:.1} {down:.1}H{right:.1}"),
            };
            last = to;
        }
        self.add(format_args!("<path class=\"area {class}\" d=\"{area}\"/>"));
        self.add(format_args!("<path class=\"line {class}\" d=\"{top}\"/>"));
    }

    /// Draws a level over the whole width.
    pub(crate) fn level(&mut self, class: &str, value: f64) {
        let (y, right) = (self.down(value), self.format.width - RIGHT);
        self.add(format_args!("<path class=\"level {class}\" d=\"M{LEFT} {y:.1}H{right}\"/>"));
    }

    /// Marks a point, which tells `text` where the mouse rests on it.
    pub(crate) fn point(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let (x, y, text) = (self.across(x), self.down(y), html(text));
        self.add(format_args!(
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\">\
             <title>{text}</title></circle>"
        ));
    }

    /// Has a strip over the whole height tell `text` where the mouse rests on it.
    pub(crate) fn strip(&mut self, from: f64, to: f64, text: &str) {
        let (from, to, text) = (self.across(from), self.across(to), html(text));
        let (width, height) = (to - from, self.format.height - TOP - BOTTOM);
        self.add(format_args!(
            "<rect class=\"strip\" x=\"{from:.1}\" y=\"{TOP}\" width=\"{width:.1}\" \
             height=\"{height}\"><title>{text}</title></rect>"
        ));
    }

    /// The whole element.
    pub(crate) fn finish(mut self) -> String {
        self.svg += "</svg>\n";
        self.svg
    }

    fn across(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (self.format.width - LEFT - RIGHT)
    }

    fn down(&self, y: f64) -> f64 {
        let bottom = self.format.height - BOTTOM;
        bottom - self.y.place(y) * (bottom - TOP)
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.svg, "{element}");
    }
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
    fn axes_have_lines_at_round_figures_and_hold_what_was_asked() {
        let name = |value: f64| value.to_string();
        lines(&Axis::linear(98_000.0, 5.0, name), &[0.0, 2e4, 4e4, 6e4, 8e4, 1e5]);
        lines(&Axis::linear(0.3, 4.0, name), &[0.0, 0.1, 0.2, 0.3]);
        lines(&Axis::logarithmic(3e-5, 8e-4, name), &[2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3]);
        lines(&Axis::logarithmic(1e-5, 0.6, name), &[1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0]);
        lines(&Axis::logarithmic(1e-3, 2e-3, name), &[1e-3, 2e-3]);
    }

    #[test]
    fn what_is_beyond_an_axis_stands_at_its_end() {
        let axis = Axis::logarithmic(1.0, 100.0, |value| value.to_string());
        let places = [0.0, 1.0, 10.0, 100.0, 1e9].map(|value| axis.place(value));
        assert_eq!(places, [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn a_line_has_a_gap_where_there_is_no_point() {
        let axis = || Axis::linear(10.0, 5.0, |value| value.to_string());
        let mut chart = Chart::new(FORMATS[0], "a < b", axis(), axis());
        chart.line("a", [Some((0.0, 0.0)), Some((10.0, 10.0)), None, Some((5.0, 5.0))].into_iter());
        let svg = chart.finish();
        assert!(svg.contains("d=\"M62.0 254.0h0L864.0 10.0M463.0 132.0h0\""), "{svg}");
        assert!(svg.contains("aria-label=\"a &lt; b\""), "{svg}");
    }
}
