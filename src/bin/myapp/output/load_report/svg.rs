//! Charts as SVG, drawn by plotters.
//!
//! The style sheet of the page replaces each color, so that one drawing serves the light and the
//! dark theme. Tooltips are SVG titles and need no script.

use std::fmt::Write as _;

use plotters::coord::cartesian::Cartesian2d;
use plotters::prelude::{
    AreaSeries, ChartBuilder, ChartContext, Circle, Color, DashedLineSeries, IntoDrawingArea,
    LineSeries, RGBColor, SVGBackend, ShapeStyle, TRANSPARENT,
};
use plotters::style::IntoFont;

use super::axis::Axis;
use super::format::escape;

/// A color, with its value in the light theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// First series.
    A,
    B,
    C,
    /// Failures.
    Bad,
    Text,
    Rule,
}

impl Ink {
    fn color(self) -> RGBColor {
        match self {
            Self::A => RGBColor(0x17, 0x69, 0xC4),
            Self::B => RGBColor(0xB3, 0x5A, 0x00),
            Self::C => RGBColor(0x8A, 0x8F, 0x96),
            Self::Bad => RGBColor(0xC8, 0x25, 0x2C),
            Self::Text => RGBColor(0x60, 0x66, 0x6D),
            Self::Rule => RGBColor(0xE3, 0xE5, 0xE8),
        }
    }

    fn line(self, width: u32) -> ShapeStyle {
        self.color().stroke_width(width * FINE)
    }
}

/// Size of a chart in pixels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Format {
    /// Class in the style sheet.
    pub(crate) class: &'static str,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// Formats for a window and for a phone, with text of the same size. A page contains both and
/// displays one.
pub(crate) const FORMATS: [Format; 2] = [
    Format {
        class: "wide",
        width: 880,
        height: 280,
    },
    Format {
        class: "narrow",
        width: 360,
        height: 230,
    },
];

/// Drawing units per pixel: plotters rounds to integers, which would make curves uneven.
const FINE: u32 = 4;

/// Margins around the plot, for the axis labels.
const LEFT: u32 = 62;
const RIGHT: u32 = 16;
const TOP: u32 = 10;
const BOTTOM: u32 = 26;

/// A chart with axes, to which series are added.
pub(crate) struct Chart<'a, 'b> {
    context: ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>,
    strips: String,
}

/// Draws a chart with the series added by `series`. `title` is its accessible name.
pub(crate) fn draw(
    format: Format,
    title: &str,
    axes: (Axis, Axis),
    series: impl FnOnce(&mut Chart<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let width = format.width * FINE;
    let height = format.height * FINE;
    let mut svg = String::new();
    let strips = draw_on(
        SVGBackend::with_string(&mut svg, (width, height)),
        axes,
        series,
    )?;
    // The size attributes of plotters are dropped; the style sheet has the width.
    let drawn = svg.split_once('>').map_or("", |(_, drawn)| drawn);
    let drawn = drawn.trim_end().trim_end_matches("</svg>");
    let class = format.class;
    let title = escape(title);
    Ok(format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{title}\">{drawn}{strips}</svg>\n"
    ))
}

/// Draws a chart and returns its tooltips.
fn draw_on(
    paper: SVGBackend<'_>,
    (x, y): (Axis, Axis),
    series: impl FnOnce(&mut Chart<'_, '_>) -> anyhow::Result<()>,
) -> anyhow::Result<String> {
    let area = paper.into_drawing_area();
    let context = ChartBuilder::on(&area)
        .margin_top(TOP * FINE)
        .margin_right(RIGHT * FINE)
        .x_label_area_size(BOTTOM * FINE)
        .y_label_area_size(LEFT * FINE)
        .build_cartesian_2d(x, y)?;
    let mut chart = Chart {
        context,
        strips: String::new(),
    };
    chart.draw_axes()?;
    series(&mut chart)?;
    area.present()?;
    Ok(chart.strips)
}

impl Chart<'_, '_> {
    fn draw_axes(&mut self) -> anyhow::Result<()> {
        let text = ("sans-serif", 15 * FINE)
            .into_font()
            .color(&Ink::Text.color());
        let mut mesh = self.context.configure_mesh();
        mesh.bold_line_style(Ink::Rule.line(1))
            .light_line_style(TRANSPARENT)
            .axis_style(TRANSPARENT);
        mesh.set_all_tick_mark_size(4 * FINE).label_style(text);
        Ok(mesh.draw()?)
    }

    /// Draws a line through points, with a gap at each missing one.
    pub(crate) fn line(
        &mut self,
        ink: Ink,
        points: impl Iterator<Item = Option<(f64, f64)>>,
    ) -> anyhow::Result<()> {
        let points: Vec<_> = points.collect();
        for run in points.split(Option::is_none).filter(|run| !run.is_empty()) {
            // A single point becomes a line of length zero, drawn as a dot by its round ends.
            let points = run.iter().chain(run.last()).flatten().copied();
            self.context
                .draw_series(LineSeries::new(points, ink.line(2)))?;
        }
        Ok(())
    }

    /// Draws adjacent columns, each from one x value to another with a height.
    pub(crate) fn columns(
        &mut self,
        ink: Ink,
        columns: impl Iterator<Item = (f64, f64, f64)>,
    ) -> anyhow::Result<()> {
        let columns: Vec<_> = columns.collect();
        for run in columns
            .split(|(.., value)| *value <= 0.0)
            .filter(|run| !run.is_empty())
        {
            let tops = run
                .iter()
                .flat_map(|(from, to, value)| [(*from, *value), (*to, *value)]);
            let area = AreaSeries::new(tops, 0.0, ink.color().mix(0.22));
            self.context.draw_series(area.border_style(ink.line(2)))?;
        }
        Ok(())
    }

    /// Draws a dashed horizontal line.
    pub(crate) fn level(&mut self, ink: Ink, value: f64) -> anyhow::Result<()> {
        let across = self.context.x_range();
        let ends = [(across.start, value), (across.end, value)];
        let dashes = DashedLineSeries::new(ends, 6 * FINE, 5 * FINE, ink.line(1));
        self.context.draw_series(dashes)?;
        Ok(())
    }

    /// Draws a dot.
    pub(crate) fn point(&mut self, ink: Ink, at: (f64, f64)) -> anyhow::Result<()> {
        self.context
            .draw_series([Circle::new(at, 7 * FINE / 2, ink.color().filled())])?;
        Ok(())
    }

    /// Adds a tooltip to a vertical strip.
    pub(crate) fn strip(&mut self, from: f64, to: f64, text: &str) {
        let std::ops::Range {
            start: low,
            end: high,
        } = self.context.y_range();
        let (left, bottom) = self.context.backend_coord(&(from, low));
        let (right, top) = self.context.backend_coord(&(to, high));
        let width = right - left;
        let height = bottom - top;
        let text = escape(text);
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.strips,
            "<rect class=\"strip\" x=\"{left}\" y=\"{top}\" width=\"{width}\" \
             height=\"{height}\"><title>{text}</title></rect>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis() -> Axis {
        Axis::linear(10.0, 5.0, |value| format!("<{value}"))
    }

    #[test]
    fn line_has_a_gap_at_a_missing_point() {
        let points = [Some((0.0, 0.0)), Some((10.0, 10.0)), None, Some((5.0, 5.0))];
        let line = |chart: &mut Chart<'_, '_>| {
            chart.strip(0.0, 10.0, "a & b");
            chart.line(Ink::A, points.into_iter())
        };
        let svg = draw(FORMATS[0], "a < b", (axis(), axis()), line).unwrap();
        let of_a = |line: &&str| line.contains("polyline") && line.contains("stroke=\"#1769C4\"");
        let lines: Vec<_> = svg.lines().filter(of_a).collect();
        assert_eq!(lines.len(), 2, "{svg}");
        for part in [
            "aria-label=\"a &lt; b\"",
            "&lt;4\n",
            "<title>a &amp; b</title>",
        ] {
            assert!(svg.contains(part), "no {part} in {svg}");
        }
        assert_eq!(
            (svg.matches("<svg").count(), svg.matches("</svg>").count()),
            (1, 1)
        );
    }

    #[test]
    fn style_sheet_has_a_rule_for_each_color() {
        for ink in [Ink::A, Ink::B, Ink::C, Ink::Bad, Ink::Text, Ink::Rule] {
            let RGBColor(red, green, blue) = ink.color();
            for property in ["fill", "stroke"] {
                let rule = format!("[{property}=\"#{red:02X}{green:02X}{blue:02X}\"]");
                let used = !matches!((ink, property), (Ink::Text, "stroke") | (Ink::Rule, "fill"));
                assert!(
                    !used || include_str!("html.css").contains(&rule),
                    "no {rule}"
                );
            }
        }
    }
}
