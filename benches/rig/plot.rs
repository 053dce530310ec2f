//! Plots as SVG: bars for works and servers, lines over a scale.

use std::path::PathBuf;

use anyhow::{Result, anyhow};
use plotters::prelude::{
    BLACK, ChartBuilder, Circle, Color as _, IntoDrawingArea as _, IntoFont as _, IntoLogRange as _, PathElement,
    RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, Text, WHITE,
};
use plotters::series::LineSeries;

use crate::rig::machine;
use crate::rig::report::say;

const SIZE: (u32, u32) = (1100, 560);
const FONT: &str = "sans-serif";
/// The first six are told apart with any kind of colour vision (Okabe and Ito).
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(102, 102, 102),
    RGBColor(136, 34, 85),
    RGBColor(68, 170, 153),
    RGBColor(153, 153, 51),
    RGBColor(51, 34, 136),
    RGBColor(221, 204, 119),
];
/// How much of a group's width its bars take.
const GROUP_WIDTH: f64 = 0.8;

/// How many times the highest value the upper end of a logarithmic axis is, so that the key hides no line.
const KEY_ROOM: f64 = 4.0;

/// A bar in two parts, one on the other.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

/// Bars that belong together.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

fn file(name: &str) -> Result<PathBuf> {
    Ok(machine::output()?.join(format!("{name}.svg")))
}

fn colour(position: usize) -> RGBColor {
    COLOURS.iter().cycle().nth(position).copied().unwrap_or(BLACK)
}

/// Draws bars; those of the same name have the same colour, and the lower part is the darker one.
pub(crate) fn bars(name: &str, title: &str, unit: &str, groups: &[Group]) -> Result<()> {
    let path = file(name)?;
    draw_bars(&path, title, unit, groups).map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
    say(&format!("written: {}", path.display()));
    Ok(())
}

fn draw_bars(
    path: &PathBuf,
    title: &str,
    unit: &str,
    groups: &[Group],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut names: Vec<&str> = Vec::new();
    for bar in groups.iter().flat_map(|group| &group.bars) {
        if !names.contains(&bar.name.as_str()) {
            names.push(&bar.name);
        }
    }
    let heights = groups
        .iter()
        .flat_map(|group| &group.bars)
        .map(|bar| bar.lower + bar.upper);
    let top = heights.fold(0.0, f64::max) * 1.12;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..groups.len() as f64, 0.0..top.max(f64::MIN_POSITIVE))?;
    let group_name = |x: &f64| {
        let name = groups.get(x.floor().max(0.0) as usize).map(|group| group.name.clone());
        name.filter(|_| (x.fract() - 0.5).abs() < 1e-6).unwrap_or_default()
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .max_light_lines(1)
        .x_labels(groups.len() * 2 + 1)
        .x_label_formatter(&group_name)
        .y_desc(unit)
        .label_style((FONT, 13))
        .draw()?;
    for (position, &name) in names.iter().enumerate() {
        let mut boxes = Vec::new();
        let mut labels = Vec::new();
        for (group_position, group) in groups.iter().enumerate() {
            let width = GROUP_WIDTH / group.bars.len().max(1) as f64;
            for (place, bar) in group.bars.iter().enumerate().filter(|(_, bar)| bar.name == name) {
                let left = group_position as f64 + (1.0 - GROUP_WIDTH) / 2.0 + place as f64 * width;
                let right = left + width * 0.94;
                let height = bar.lower + bar.upper;
                boxes.push(Rectangle::new(
                    [(left, bar.lower), (right, height)],
                    colour(position).mix(0.55).filled(),
                ));
                boxes.push(Rectangle::new(
                    [(left, 0.0), (right, bar.lower)],
                    colour(position).filled(),
                ));
                let style = (FONT, 11).into_font().color(&BLACK);
                labels.push(Text::new(format!("{height:.1}"), (left, height + top * 0.03), style));
            }
        }
        let key = move |(x, y)| Rectangle::new([(x, y - 5), (x + 12, y + 5)], colour(position).filled());
        chart.draw_series(boxes)?.label(name).legend(key);
        chart.draw_series(labels)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Draws lines through points; both axes are logarithmic.
pub(crate) fn lines(name: &str, title: &str, x_unit: &str, y_unit: &str, lines: &[Line]) -> Result<()> {
    let path = file(name)?;
    draw_lines(&path, title, x_unit, y_unit, lines).map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
    say(&format!("written: {}", path.display()));
    Ok(())
}

fn draw_lines(
    path: &PathBuf,
    title: &str,
    x_unit: &str,
    y_unit: &str,
    lines: &[Line],
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let points = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
    };
    if points().next().is_none() {
        return Ok(());
    }
    let range = |of: fn(&(f64, f64)) -> f64, room: f64| {
        let low = points().map(of).fold(f64::INFINITY, f64::min);
        let high = points().map(of).fold(0.0, f64::max);
        (low / 1.5..high * room).log_scale()
    };
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(range(|point| point.0, 1.5), range(|point| point.1, KEY_ROOM))?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_desc(x_unit)
        .y_desc(y_unit)
        .x_label_formatter(&|x| plain(*x))
        .y_label_formatter(&|y| plain(*y))
        .label_style((FONT, 13))
        .draw()?;
    for (position, line) in lines.iter().enumerate() {
        let style = colour(position).stroke_width(2);
        let shown: Vec<_> = line
            .points
            .iter()
            .copied()
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
            .collect();
        chart
            .draw_series(LineSeries::new(shown.iter().copied(), style))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], style));
        chart.draw_series(
            shown
                .iter()
                .map(|&point| Circle::new(point, 4, colour(position).filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .label_font((FONT, 13))
        .draw()?;
    area.present()?;
    Ok(())
}

/// A number without more digits than it needs.
fn plain(number: f64) -> String {
    if number >= 1e6 {
        format!("{} M", number / 1e6)
    } else if number >= 1e4 {
        format!("{} k", number / 1e3)
    } else {
        format!("{number}")
    }
}
