//! Pictures of measurements as SVG: lines over a number, and bars.
//!
//! Invariant: the same data give the same bytes. Text and lines are dark on a light ground of the picture's own, so that it
//! can be read on a dark page too.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

const WIDTH: u32 = 860;
const GROUND: RGBColor = RGBColor(250, 250, 248);
const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(222, 222, 218);
const MARK: RGBColor = RGBColor(190, 40, 40);
/// Told apart by those who see few colours too (Okabe and Ito); after the last the first comes again.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(150, 120, 0),
    RGBColor(90, 90, 90),
];
/// From this ratio of the largest to the smallest value an axis is logarithmic.
const LOGARITHMIC: f64 = 30.0;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One value of something that is measured at one place only.
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// Lowest and highest.
    pub(super) span: Option<(f64, f64)>,
    /// What it should reach.
    pub(super) mark: Option<f64>,
}

/// A line, with a point for each measurement.
pub(super) struct Line {
    pub(super) label: String,
    /// In the order of the axis.
    pub(super) points: Vec<Point>,
}

pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) span: Option<(f64, f64)>,
}

/// Values that have one unit.
pub(super) enum Panel {
    Lines { x: String, y: String, lines: Vec<Line> },
    Bars { y: String, bars: Vec<Bar> },
}

impl Panel {
    fn height(&self) -> u32 {
        match self {
            Self::Lines { lines, .. } => 330 + 18 * lines.len() as u32,
            Self::Bars { bars, .. } => 70 + 26 * bars.len() as u32,
        }
    }
}

/// Panels below each other, under one title.
pub(super) fn svg(title: &str, panels: &[Panel]) -> Result<String> {
    let height = 40 + panels.iter().map(Panel::height).sum::<u32>();
    let mut text = String::new();
    draw(&mut text, height, title, panels).map_err(|error| anyhow!("cannot draw {title}: {error}"))?;
    Ok(text)
}

fn draw(text: &mut String, height: u32, title: &str, panels: &[Panel]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(text, (WIDTH, height)).into_drawing_area();
    root.fill(&GROUND)?;
    let mut rest = root.titled(title, ("sans-serif", 20).into_font().color(&INK))?;
    for panel in panels {
        let (area, below) = rest.split_vertically(panel.height());
        match panel {
            Panel::Lines { x, y, lines } => draw_lines(&area, x, y, lines)?,
            Panel::Bars { y, bars } => draw_bars(&area, y, bars)?,
        }
        rest = below;
    }
    root.present()?;
    Ok(())
}

fn draw_lines(area: &Area, x: &str, y: &str, lines: &[Line]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let xs = Extent::of(points().map(|point| point.x));
    let ys = Extent::of(points().flat_map(|point| [point.y, point.span.map_or(point.y, |(_, high)| high)]));
    // Legends stand below, where they cover no point.
    let (chart, legend) = area.split_vertically(320);
    for (index, line) in lines.iter().enumerate() {
        let (colour, at) = (COLOURS[index % COLOURS.len()], 18 * index as i32 + 10);
        legend.draw(&PathElement::new([(80, at), (104, at)], colour.stroke_width(3)))?;
        legend.draw(&Text::new(line.label.clone(), (112, at - 7), ink(14)))?;
    }
    match (xs.is_wide(), ys.is_wide()) {
        (false, false) => draw_over(&chart, (x, xs.zero_based()), (y, ys.zero_based()), lines),
        (false, true) => draw_over(&chart, (x, xs.zero_based()), (y, ys.decades().log_scale()), lines),
        (true, false) => draw_over(&chart, (x, xs.decades().log_scale()), (y, ys.zero_based()), lines),
        (true, true) => draw_over(&chart, (x, xs.decades().log_scale()), (y, ys.decades().log_scale()), lines),
    }
}

fn draw_over<X, Y>(
    area: &Area,
    (x_name, x): (&str, X),
    (y_name, y): (&str, Y),
    lines: &[Line],
) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .margin_left(14)
        .margin_top(6)
        .x_label_area_size(44)
        .y_label_area_size(80)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc(x_name)
        .y_desc(y_name)
        .axis_desc_style(ink(15))
        .label_style(ink(13))
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = line.points.iter().map(|point| (point.x, point.y));
        chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
        chart.draw_series(points.map(|point| Circle::new(point, 3, colour.filled())))?;
        let spans = line.points.iter().filter_map(|point| point.span.map(|span| (point.x, span)));
        chart.draw_series(spans.map(|(x, (low, high))| PathElement::new([(x, low), (x, high)], colour)))?;
    }
    Ok(())
}

fn draw_bars(area: &Area, y: &str, bars: &[Bar]) -> Result<(), Box<dyn std::error::Error>> {
    let ends = bars.iter().flat_map(|bar| [bar.value, bar.span.map_or(0.0, |(_, high)| high), bar.mark.unwrap_or(0.0)]);
    let mut chart = ChartBuilder::on(area)
        .margin_right(60)
        .x_label_area_size(44)
        .y_label_area_size(330)
        .build_cartesian_2d(Extent::of(ends).zero_based(), 0.0..bars.len() as f64)?;
    chart
        .configure_mesh()
        .x_desc(y)
        .axis_desc_style(ink(15))
        .label_style(ink(13))
        .axis_style(INK)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .disable_y_mesh()
        .y_labels(0)
        .x_label_formatter(&|value| short(*value))
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        // The first one on top.
        let middle = (bars.len() - index) as f64 - 0.5;
        let colour = COLOURS[0].mix(0.75);
        chart.draw_series([Rectangle::new([(0.0, middle - 0.32), (bar.value, middle + 0.32)], colour.filled())])?;
        if let Some((low, high)) = bar.span {
            chart.draw_series([PathElement::new([(low, middle), (high, middle)], INK.stroke_width(2))])?;
        }
        if let Some(mark) = bar.mark {
            let line = [(mark, middle - 0.45), (mark, middle + 0.45)];
            chart.draw_series([PathElement::new(line, MARK.stroke_width(3))])?;
        }
        let name = ink(14).pos(Pos::new(HPos::Right, VPos::Center));
        chart.draw_series([EmptyElement::at((0.0, middle)) + Text::new(bar.label.clone(), (-8, 0), name)])?;
        let end = bar.span.map_or(bar.value, |(_, high)| high).max(bar.mark.unwrap_or(0.0));
        let value = ink(13).pos(Pos::new(HPos::Left, VPos::Center));
        chart.draw_series([EmptyElement::at((end, middle)) + Text::new(short(bar.value), (8, 0), value)])?;
    }
    Ok(())
}

fn ink(size: i32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}

/// Smallest and largest of some values.
struct Extent {
    low: f64,
    high: f64,
}

impl Extent {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let start = Self { low: f64::INFINITY, high: 0.0 };
        values.fold(start, |Self { low, high }, value| Self { low: low.min(value), high: high.max(value) })
    }

    fn is_wide(&self) -> bool {
        self.low > 0.0 && self.high / self.low >= LOGARITHMIC
    }

    fn zero_based(&self) -> std::ops::Range<f64> {
        0.0..if self.high > 0.0 { self.high * 1.05 } else { 1.0 }
    }

    fn decades(&self) -> std::ops::Range<f64> {
        self.low * 0.8..self.high * 1.25
    }
}

/// A number for an axis, in three digits and the letters that people know.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 999_500.0 => (value / 1e6, "M"),
        size if size >= 9_995.0 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 99.95 => 0,
        size if size >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(points: &[(f64, f64)]) -> Panel {
        let points = points.iter().map(|(x, y)| Point { x: *x, y: *y, span: None }).collect();
        Panel::Lines {
            x: "slots".into(),
            y: "jobs/s".into(),
            lines: vec![Line { label: "with <result>".into(), points }],
        }
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.85, 1.0, 9.5, 12.0, 250.0, 9_000.0, 10_000.0, 123_456.0, 1_000_000.0, 2_500_000.0];
        assert_eq!(numbers.map(short), ["0", "0.85", "1", "9.5", "12", "250", "9000", "10k", "123k", "1M", "2.5M"]);
    }

    #[test]
    fn the_same_data_give_the_same_bytes_and_text_is_escaped() {
        let panels = || [line(&[(1.0, 5.0), (10.0, 7.0)])];
        let first = svg("Run", &panels()).unwrap();
        assert_eq!(first, svg("Run", &panels()).unwrap());
        assert!(first.contains("with &lt;result&gt;") && !first.contains("<result>"), "{first}");
    }

    /// A point in the middle of a decade lies in the middle only on a linear axis.
    #[test]
    fn an_axis_over_decades_is_logarithmic_and_another_is_not() {
        let middle = |points: &[(f64, f64)]| {
            let text = svg("Run", &[line(points)]).unwrap();
            let at = |circle: &str| circle.split('"').next().unwrap().parse::<f64>().unwrap();
            let x: Vec<_> = text.split("<circle cx=\"").skip(1).map(at).collect();
            assert_eq!(x.len(), 3, "{text}");
            (x[1] - x[0]) / (x[2] - x[0])
        };
        let linear = middle(&[(1.0, 1.0), (3.0, 1.0), (5.0, 1.0)]);
        let logarithmic = middle(&[(1.0, 1.0), (10.0, 1.0), (100.0, 1.0)]);
        assert!((linear - 0.5).abs() < 0.01 && (logarithmic - 0.5).abs() < 0.01, "{linear} {logarithmic}");
    }

    #[test]
    fn what_cannot_be_drawn_on_an_axis_does_not_stop_it() {
        for values in [vec![], vec![(0.0, 0.0)], vec![(1.0, 1.0)]] {
            let bars = values.iter().map(|(value, _)| Bar { label: "b".into(), value: *value, span: None, mark: None });
            let text = svg("Empty", &[line(&values), Panel::Bars { y: "MiB".into(), bars: bars.collect() }]).unwrap();
            assert!(text.contains("Empty") && text.contains("MiB"), "{text}");
        }
    }
}
