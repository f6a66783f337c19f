//! Charts of rates, which have a point for each 100 ms; and rates as text.
//!
//! Invariant: without a rate a dash is shown, and the chart has a 0.

use std::collections::VecDeque;

use vmstrobe::{Change, POINTS_PER_SECOND};

use crate::text::{sparkline, thousands};
use crate::width::{pad_right, width};

/// The largest number of points of a chart: enough for the widest terminal.
const POINTS_MAX: usize = 400;

/// Returns the rate per second; `None` for a counter that was reset, or for an instant value.
pub(super) fn rate(change: Option<&Change>) -> Option<f64> {
    change.and_then(Change::rate).map(|rate| rate.per_second)
}

/// Returns the rate per second as text, rounded to a whole number; a dash if there is none.
pub(super) fn rate_text(change: Option<&Change>) -> String {
    rate(change).map_or_else(dash, |rate| thousands(rate.round() as u64))
}

pub(super) fn dash() -> String {
    "-".to_owned()
}

/// The last points of a rate.
#[derive(Clone, Debug, Default)]
pub(super) struct Chart {
    points: VecDeque<f64>,
}

impl Chart {
    pub(super) fn push(&mut self, change: Option<&Change>) {
        self.points.push_back(rate(change).unwrap_or(0.0));
        if self.points.len() > POINTS_MAX {
            self.points.pop_front();
        }
    }

    /// Returns this number of the last points as a text, scaled to the highest of them.
    pub(super) fn text(&self, points: usize) -> String {
        let shown = self.points.iter().skip(self.points.len().saturating_sub(points)).copied();
        sparkline(shown.clone(), shown.fold(0.0, f64::max))
    }
}

/// Appends charts to the lines of a table, within these columns. `what` is the header of the
/// charts.
pub(super) fn with_charts(
    lines: Vec<String>,
    charts: &[Chart],
    what: &str,
    columns: std::ops::Range<usize>,
) -> Vec<String> {
    let room = columns.len().min(POINTS_MAX);
    let header = [format!("{what} of the last {} s", room / POINTS_PER_SECOND)];
    let header = header.into_iter().filter(|header| width(header) <= room);
    let mut behind = vec![header.collect::<String>()];
    behind.extend(charts.iter().map(|chart| chart.text(room)));
    behind.resize(lines.len(), String::new());
    let begin = columns.start;
    let join = |(line, chart): (String, String)| pad_right(&line, begin) + &chart;
    lines.into_iter().zip(behind).map(join).map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use vmstrobe::Interval;

    use super::*;

    #[test]
    fn a_chart_is_scaled_to_its_highest_point() {
        let mut chart = Chart::default();
        assert_eq!(chart.text(5), "");
        let interval = Interval { seconds: 1.0, seconds_min: 1.0, seconds_max: 1.0 };
        let rate = |count| vmstrobe::Rate::of(count, interval);
        for count in [80, 10, 5, 0] {
            chart.push(Some(&Change::Delta { delta: count, rate: rate(count) }));
        }
        chart.push(None);
        assert_eq!((chart.text(5), chart.text(4)), ("█▂▁▁▁".to_owned(), "█▅▁▁".to_owned()));
        (0..2 * POINTS_MAX).for_each(|_| chart.push(None));
        assert_eq!(chart.text(usize::MAX).chars().count(), POINTS_MAX);
    }

    #[test]
    fn charts_are_appended_to_their_lines() {
        let mut chart = Chart::default();
        (0..100).for_each(|_| chart.push(None));
        let lines = ["head", "1", "2", "and more"].map(str::to_owned).to_vec();
        let charts = [chart.clone(), chart];
        let want = [
            "head  n/s of the last 2 s",
            "1     ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
            "2     ▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁",
            "and more",
        ];
        assert_eq!(with_charts(lines.clone(), &charts, "n/s", 6..26), want);
        let narrow = std::ops::Range { start: 6, end: 4 };
        assert_eq!(with_charts(lines.clone(), &charts, "n/s", narrow), lines);
    }
}
