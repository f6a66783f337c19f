//! The rates of statistics over time, read from the samples that are held and kept from frame to
//! frame.
//!
//! Invariant: a curve that is kept is of the same objects, statistics and stretches; else all of it
//! is read anew.

use std::sync::Arc;

use vmstrobe_core::Layout;

use super::compared::counts;
use super::objects::{ObjectId, Objects};
use crate::history::{Edges, History, Spot, Strip};

/// Stretches of a chart of narrow columns, and of any other, in ns.
const NARROW_NS: u64 = 1_000_000;
pub(super) const WIDE_NS: u64 = 10_000_000;
/// The columns from which on stretches are the wider ones, in ns.
const WIDE_COLUMN_NS: u64 = 2 * WIDE_NS;

/// A statistic of an object, and the number of the series to which it is added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CurveCell {
    pub(super) object: ObjectId,
    pub(super) stat: Arc<str>,
    pub(super) series: usize,
}

/// Some series over time.
#[derive(Debug)]
pub(super) struct Curves {
    cells: Vec<CurveCell>,
    strip: Strip,
}

/// The stretches of a chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    pub(super) ns: u64,
    /// True if a stretch is one step between samples, which covers several columns.
    pub(super) is_step: bool,
}

impl Width {
    /// Returns the stretches for columns of that width, sampled at that period.
    pub(super) fn of(column_ns: u64, period_ns: u64) -> Self {
        let period_ns = rounded(period_ns);
        if column_ns < period_ns / 2 {
            return Self { ns: period_ns, is_step: true };
        }
        let wanted_ns = if column_ns >= WIDE_COLUMN_NS { WIDE_NS } else { NARROW_NS };
        Self { ns: wanted_ns.max(period_ns), is_step: false }
    }

    /// Returns stretches of 10 ms, or of the period if that is longer.
    pub(super) fn wide(period_ns: u64) -> Self {
        Self { ns: WIDE_NS.max(rounded(period_ns)), is_step: false }
    }
}

/// Returns a period that was measured with two digits, so that it does not differ from one frame to
/// the next.
fn rounded(period_ns: u64) -> u64 {
    let digits = period_ns.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    (period_ns + unit / 2) / unit * unit
}

impl Curves {
    /// Makes the curves of these statistics, of which nothing is read yet.
    pub(super) fn new(cells: Vec<CurveCell>, width: Width) -> Self {
        let series = cells.iter().map(|cell| cell.series).collect();
        Self { strip: Strip::new(width.ns, series), cells }
    }

    /// Returns whether the stretches are of that width.
    pub(super) fn has_width(&self, width: Width) -> bool {
        self.strip.width_ns() == width.ns
    }

    /// Makes curves anew if those that are kept are of something else.
    pub(super) fn kept(kept: &mut Option<Self>, cells: Vec<CurveCell>, width: Width) -> &mut Self {
        let same = kept.take().filter(|kept| kept.has_width(width) && kept.cells == cells);
        kept.insert(same.unwrap_or_else(|| Self::new(cells, width)))
    }

    /// Reads what is missing of a range of time, but no more than about so many lists of changes.
    /// Returns true if all is there.
    pub(super) fn update(
        &mut self,
        history: &History,
        objects: &mut Objects,
        edges: Edges,
        lists: usize,
    ) -> bool {
        let cells = &self.cells;
        let find = |layout: &Arc<Layout>| spots(objects, layout, cells);
        self.strip.update(history, edges.begin_ns, edges.end_ns, lists, find)
    }

    /// Returns the stretches of a series that overlap a range of time: begin, end and rate.
    pub(super) fn series(
        &self,
        series: usize,
        edges: Edges,
    ) -> impl Iterator<Item = (u64, u64, f64)> {
        self.strip.series(series, edges.begin_ns, edges.end_ns)
    }

    /// Returns the stretches of several series added up, where any of them is known.
    pub(super) fn sum<'a>(
        &'a self,
        series: &'a [usize],
        edges: Edges,
    ) -> impl Iterator<Item = (u64, u64, f64)> + 'a {
        self.strip.between(edges.begin_ns, edges.end_ns).map(|it| {
            let known = series.iter().map(|&series| it.rates[series]).filter(|it| !it.is_nan());
            let sum = known.map(f64::from).fold(f64::NAN, |sum, rate| match sum.is_nan() {
                true => rate,
                false => sum + rate,
            });
            (it.begin_ns, it.end_ns, sum)
        })
    }

    /// Returns the highest rate of a series in a range of time; `None` if none is known.
    pub(super) fn highest(&self, series: usize, edges: Edges) -> Option<f64> {
        let rates = self.series(series, edges).map(|(.., rate)| rate);
        rates.filter(|rate| !rate.is_nan()).reduce(f64::max)
    }
}

/// Returns the place of each statistic in a layout.
fn spots(objects: &mut Objects, layout: &Arc<Layout>, cells: &[CurveCell]) -> Vec<Option<Spot>> {
    let map = objects.map(layout);
    let spot = |cell: &CurveCell| {
        let placed = map.find(cell.object)?;
        placed.parts.iter().find_map(|part| {
            let plan = &layout.groups()[part.group].plan;
            let column = plan.column(&cell.stat)?;
            Some(Spot {
                row: part.row,
                group: part.group,
                object: part.object,
                words: column.words.clone(),
                is_level: !counts(&plan.schema().descs()[column.desc]),
            })
        })
    };
    cells.iter().map(spot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_fit_the_columns_and_the_samples() {
        let ms = 1_000_000;
        for (column_ns, period_ns, ns, is_step) in [
            (71 * ms, ms, 10 * ms, false),
            (71 * ms, ms + 13, 10 * ms, false),
            (5 * ms, ms - 13, ms, false),
            (ms, ms, ms, false),
            (ms / 3, ms + 13, ms, true),
            (ms, ms / 5, ms, false),
            (71 * ms, 100 * ms + 7, 100 * ms, false),
            (30 * ms, 100 * ms - 7, 100 * ms, true),
            (ms / 11, ms / 5, ms / 5, true),
        ] {
            let width = Width::of(column_ns, period_ns);
            assert_eq!(width, Width { ns, is_step }, "{column_ns} {period_ns}");
        }
        assert_eq!([0, 7, 99, 105, 1_996_000].map(rounded), [0, 7, 99, 110, 2_000_000]);
    }
}
