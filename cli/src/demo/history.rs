//! The samples that the demo remembers: one for each 100 ms of the last second, and the newest; and
//! a little chart of each rate, which has a point for each 100 ms.
//!
//! Invariant: a figure comes from two samples of the same object; where there are none, there is a
//! dash. At most [`POINTS_PER_SECOND`] + 2 of the sampler's snapshots are held at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use vmstrobe::{Change, Interval, ObjectView, Snapshot, Target, change};

use crate::text::{sparkline, thousands};
use crate::width::{pad_right, width};

const POINT_NS: u64 = 100_000_000;
pub(super) const POINTS_PER_SECOND: usize = 10;
/// The most points of a chart: as many as the widest terminal can show.
const POINTS_MAX: usize = 400;

/// The samples of the last second.
pub(super) struct Samples {
    /// One for each of the last points, the oldest a second old.
    points: VecDeque<Arc<Snapshot>>,
    newest: Arc<Snapshot>,
}

/// How one statistic of an object has changed, if it is known.
pub(super) type Changed<'a> = (ObjectView<'a>, Option<Change>);

impl Samples {
    pub(super) fn new(first: &Arc<Snapshot>) -> Self {
        Self { points: VecDeque::from([Arc::clone(first)]), newest: Arc::clone(first) }
    }

    /// Takes a sample. If it is a point, gives the one before.
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

    /// How these statistics of each object have changed in the last second.
    pub(super) fn changes<const N: usize>(
        &self,
        target: &Target,
        names: [&str; N],
    ) -> [Vec<Changed<'_>>; N] {
        let base = self.points.front().unwrap_or(&self.newest);
        names.map(|name| changes(base, &self.newest, target, name))
    }
}

/// How one statistic of each object of a target changed between two samples.
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

/// Returns the rate per second; `None` for a reset or a level.
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

/// A rate's last points.
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

    /// So many of the last points, the highest of them as high as can be.
    pub(super) fn text(&self, points: usize) -> String {
        let shown = self.points.iter().skip(self.points.len().saturating_sub(points)).copied();
        sparkline(shown.clone(), shown.fold(0.0, f64::max))
    }
}

/// Puts the charts of `what` behind the lines of a table, from that column on, as far as there is
/// room.
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
    fn a_chart_is_as_high_as_its_highest_point() {
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
    fn charts_stand_behind_their_lines() {
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
