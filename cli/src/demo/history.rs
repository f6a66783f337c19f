//! The samples that the demo keeps: one for each 100 ms of the last second, and the newest; and the
//! charts of rates, which have a point for each 100 ms.
//!
//! Invariant: a rate comes from two samples of one object; without them a dash is shown. At most
//! [`POINTS_PER_SECOND`] + 2 of the sampler's snapshots are held at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use vmstrobe::{Change, Interval, ObjectView, Snapshot, Target, change};

use crate::text::{sparkline, thousands};
use crate::width::{pad_right, width};

const POINT_NS: u64 = 100_000_000;
pub(super) const POINTS_PER_SECOND: usize = 10;
/// The largest number of points of a chart: enough for the widest terminal.
const POINTS_MAX: usize = 400;

/// The samples of the last second.
pub(super) struct Samples {
    /// One sample for each of the last points; the oldest is one second old.
    points: VecDeque<Arc<Snapshot>>,
    newest: Arc<Snapshot>,
}

/// An object, and the change of one of its statistics if that is known.
pub(super) type Changed<'a> = (ObjectView<'a>, Option<Change>);

impl Samples {
    pub(super) fn new(first: &Arc<Snapshot>) -> Self {
        Self { points: VecDeque::from([Arc::clone(first)]), newest: Arc::clone(first) }
    }

    /// Adds a sample. If it becomes a point, returns the point before.
    pub(super) fn add(&mut self, sample: &Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        self.newest = Arc::clone(sample);
        let begin_ns = |snapshot: &Snapshot| snapshot.window().begin_ns;
        let point = Arc::clone(self.points.back()?);
        if begin_ns(sample) < begin_ns(&point) + POINT_NS {
            return None;
        }
        self.points.push_back(Arc::clone(sample));
        if self.points.len() > POINTS_PER_SECOND + 1 {
            self.points.pop_front();
        }
        Some(point)
    }

    pub(super) fn newest(&self) -> &Snapshot {
        &self.newest
    }

    /// Returns the changes of these statistics of each object in the last second.
    pub(super) fn changes<const N: usize>(
        &self,
        target: &Target,
        names: [&str; N],
    ) -> [Vec<Changed<'_>>; N] {
        let base = self.points.front().unwrap_or(&self.newest);
        names.map(|name| changes(base, &self.newest, target, name))
    }
}

/// Returns the change of one statistic of each object of a target between two samples.
pub(super) fn changes<'a>(
    before: &Snapshot,
    after: &'a Snapshot,
    target: &Target,
    name: &str,
) -> Vec<Changed<'a>> {
    let interval = Interval::between(before.window(), after.window());
    let objects = after.objects().filter(|view| view.object().schema.target() == target);
    let changed = |view: &ObjectView<'_>| {
        let earlier = before.object(&view.object().path)?.get(name)?;
        Some(change(earlier, view.get(name)?, interval?))
    };
    objects.map(|view| (view, changed(&view))).collect()
}

/// Returns the rate per second; `None` for a counter that was reset, or for an instant value.
pub(super) fn rate(change: Option<&Change>) -> Option<f64> {
    match change? {
        Change::Delta { rate, .. } | Change::Buckets { rate, .. } => Some(rate.per_second),
        Change::Reset { .. } | Change::Level(_) => None,
    }
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
