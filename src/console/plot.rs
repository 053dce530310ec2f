//! Clicks of the last 90 days, as a drawing and as a table.

use askama::Template;

use crate::console::view::TimeView;
use crate::model::{DailyUsage, Day, grouped};

const DAYS: u32 = 90;
/// Units of the drawing, which grows with the page.
const BAR_WIDTH: u32 = 8;
const HEIGHT: u64 = 100;

/// A drawing of clicks, and of previews apart.
#[derive(Debug, Template)]
#[template(path = "plot.html")]
pub struct Plot {
    width: u32,
    height: u64,
    clicks: Series,
    previews: Series,
    first: TimeView,
    last: TimeView,
    days: Vec<DayView>,
}

#[derive(Debug)]
struct Series {
    total: String,
    most: String,
    bars: Vec<Bar>,
}

#[derive(Debug)]
struct Bar {
    x: u32,
    y: u64,
    height: u64,
    label: String,
}

#[derive(Debug)]
struct DayView {
    day: String,
    clicks: String,
    previews: String,
}

impl Plot {
    /// `used` has the days on which there was something, in order.
    pub fn new(used: &[DailyUsage], today: Day) -> Self {
        let first = today.minus(DAYS - 1);
        let day = |usage: &DailyUsage| DayView {
            day: name_of(usage.day),
            clicks: grouped(usage.clicks),
            previews: grouped(usage.previews),
        };
        Self {
            width: DAYS * BAR_WIDTH,
            height: HEIGHT,
            clicks: series(used, first, |usage| usage.clicks),
            previews: series(used, first, |usage| usage.previews),
            first: TimeView::day(first),
            last: TimeView::day(today),
            days: used.iter().rev().map(day).collect(),
        }
    }
}

fn series(used: &[DailyUsage], first: Day, count: impl Fn(&DailyUsage) -> u64) -> Series {
    let most = used.iter().map(&count).max().unwrap_or_default();
    let total = used.iter().map(&count).fold(0, u64::saturating_add);
    let bar = |usage: &DailyUsage| {
        let number = count(usage);
        // What is not zero shows.
        let height = u64::try_from(u128::from(number) * u128::from(HEIGHT) / u128::from(most.max(1))).unwrap_or(HEIGHT);
        let height = height.max(1);
        Bar {
            x: usage.day.0.saturating_sub(first.0) * BAR_WIDTH,
            y: HEIGHT - height,
            height,
            label: format!("{}: {}", name_of(usage.day), grouped(number)),
        }
    };
    Series {
        total: grouped(total),
        most: grouped(most),
        bars: used.iter().filter(|usage| count(usage) > 0).map(bar).collect(),
    }
}

fn name_of(day: Day) -> String {
    TimeView::day(day).words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_at_their_days_in_proportion() {
        let used = |day, clicks, previews| DailyUsage {
            day: Day(day),
            clicks,
            previews,
        };
        let plot = Plot::new(
            &[used(20_000, 1_000_000, 0), used(20_088, 1, 4), used(20_089, 500_000, 2)],
            Day(20_089),
        );
        let bars: Vec<_> = plot.clicks.bars.iter().map(|bar| (bar.x, bar.y, bar.height)).collect();
        assert_eq!(bars, [(0, 0, 100), (88 * 8, 99, 1), (89 * 8, 50, 50)]);
        assert_eq!((plot.clicks.total.as_str(), plot.previews.bars.len()), ("1,500,001", 2));
        let page = plot.render().unwrap();
        assert!(
            page.contains("4 Oct 2024: 1,000,000") || page.contains("1,000,000"),
            "{page}"
        );
        assert!(Plot::new(&[], Day(20_089)).render().is_ok());
    }
}
