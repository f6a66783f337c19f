//! The charts of the subject: the lowest, mean and highest rate in each column.
//!
//! Invariant: the scale of a chart grows at once, and shrinks only to the highest rate of the last
//! [`CALM_NS`]. It begins anew with another subject or another time.

use std::collections::HashMap;
use std::sync::Arc;

use super::columns::chart_title;
use super::compared::{Compared, Words, factor, is_time};
use super::curves::{CurveCell, Curves, Width};
use super::frame::{Chart, ChartColumn, EventMark, ShownStat};
use super::objects::{ObjectId, Objects};
use super::show::mark;
use crate::history::{Edges, Envelope, Extent, History};

/// The most charts.
pub(super) const MAX_CHARTS: usize = 3;
/// The time of calm after which a scale shrinks, in ns.
const CALM_NS: u64 = 5_000_000_000;
/// The room above the highest rate.
const HEADROOM: f64 = 1.06;

/// The charts of a subject, kept from frame to frame.
#[derive(Debug, Default)]
pub(super) struct Charts {
    /// The subject's objects, and the time that is shown.
    of: (Vec<ObjectId>, u64),
    curves: HashMap<String, Option<Curves>>,
    scales: HashMap<String, Scale>,
}

/// The scale of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Scale {
    top: f64,
    /// The highest rate since `since_ns`.
    recent: f64,
    since_ns: u64,
}

/// The part of a view that charts are drawn of.
pub(super) struct Drawn<'a> {
    pub(super) history: &'a History,
    pub(super) of: &'a Compared,
    pub(super) ids: &'a [ObjectId],
    pub(super) edges: Edges,
    pub(super) span_ns: u64,
    /// The moment of the view, if it is in the past.
    pub(super) cursor_ns: Option<u64>,
}

impl Charts {
    /// Returns the charts of these statistics.
    pub(super) fn draw(
        &mut self,
        objects: &mut Objects,
        drawn: &Drawn<'_>,
        stats: &[String],
    ) -> Vec<Chart> {
        let of = (drawn.ids.to_vec(), drawn.span_ns);
        if self.of != of {
            self.of = of;
            self.scales.clear();
        }
        self.curves.retain(|stat, _| stats.contains(stat));
        self.scales.retain(|stat, _| stats.contains(stat));
        stats.iter().map(|stat| self.chart(objects, drawn, stat)).collect()
    }

    fn chart(&mut self, objects: &mut Objects, drawn: &Drawn<'_>, stat: &str) -> Chart {
        let Drawn { history, of, ids, edges, span_ns, cursor_ns } = *drawn;
        let desc = ids.iter().find_map(|&id| match of.now.words_of(id, stat) {
            Words::Read(desc, _) => Some(desc),
            _ => None,
        });
        let width = Width::of(edges.width_ns(), history.period_ns().unwrap_or(0));
        let name: Arc<str> = stat.into();
        let cells = ids.iter();
        let cells = cells.map(|&object| CurveCell { object, stat: Arc::clone(&name), series: 0 });
        let kept = self.curves.entry(stat.to_owned()).or_default();
        let curves = Curves::kept(kept, cells.collect(), width);
        curves.update(history, objects, edges, usize::MAX);
        let factor = desc.map_or(1.0, factor);
        let stretches = curves
            .series(0, edges)
            .map(|(begin_ns, end_ns, rate)| (begin_ns, end_ns, rate * factor));
        let envelope = Envelope::new(stretches, edges);
        let all = envelope.all;
        let max = all.map_or(0.0, |all| all.max);
        let scale = self.scales.entry(stat.to_owned()).or_default();
        scale.note(max, of.now.at_ns());
        let column =
            |extent: Extent| ChartColumn { min: extent.min, mean: extent.mean(), max: extent.max };
        Chart {
            shown: ShownStat { title: chart_title(stat, desc), span_ns },
            begin_ns: edges.begin_ns,
            end_ns: edges.end_ns,
            stretch_ns: (!width.is_step).then_some(width.ns),
            columns: envelope.columns.into_iter().map(|it| it.map(column)).collect(),
            min: all.map_or(0.0, |all| all.min),
            mean: all.map_or(0.0, Extent::mean),
            max,
            scale_max: if scale.top > 0.0 { scale.top * HEADROOM } else { 1.0 },
            is_time: desc.is_some_and(is_time),
            events: events_between(history, edges),
            cursor_ns,
        }
    }
}

impl Scale {
    /// Notes the highest rate that is shown at a time.
    fn note(&mut self, max: f64, at_ns: u64) {
        // The view may go back in time.
        self.since_ns = self.since_ns.min(at_ns);
        self.recent = self.recent.max(max);
        if max >= self.top {
            *self = Self { top: max, recent: 0.0, since_ns: at_ns };
        } else if at_ns - self.since_ns >= CALM_NS {
            *self = Self { top: self.recent, recent: max, since_ns: at_ns };
        }
    }
}

/// Returns the edges of the columns of a chart: up to the newest sample, or around a moment of the
/// past, as far as there are samples behind it.
pub(super) fn edges(
    at_ns: u64,
    newest_ns: u64,
    span_ns: u64,
    columns: usize,
    is_back: bool,
) -> Edges {
    let end_ns = if is_back { at_ns.saturating_add(span_ns / 2).min(newest_ns) } else { at_ns };
    Edges::until(end_ns, span_ns, columns)
}

/// Returns the events between the edges of a chart.
fn events_between(history: &History, edges: Edges) -> Vec<EventMark> {
    let range = edges.begin_ns..edges.end_ns;
    history.events().filter(|event| range.contains(&event.monotonic_ns)).map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_grows_at_once_and_shrinks_after_calm() {
        let second = 1_000_000_000;
        let mut scale = Scale::default();
        let tops =
            [(0, 5.0), (1, 9.0), (2, 4.0), (4, 6.0), (5, 2.0), (6, 2.0), (8, 1.0), (11, 1.0)];
        let tops = tops.map(|(at, max)| {
            scale.note(max, at * second);
            scale.top
        });
        assert_eq!(tops, [5.0, 9.0, 9.0, 9.0, 9.0, 6.0, 6.0, 2.0]);
        // Back in time, and on.
        scale.note(1.0, 0);
        assert_eq!(scale.top, 2.0);
        scale.note(1.0, 5 * second);
        assert_eq!(scale.top, 1.0);
    }

    #[test]
    fn a_moment_of_the_past_is_in_the_middle_if_there_are_samples_behind_it() {
        let at = |at_ns| edges(at_ns, 1000, 100, 10, true).end_ns;
        assert_eq!([at(500), at(990)], [560, 1010]);
        assert_eq!(edges(500, 1000, 100, 10, false).end_ns, 510);
    }
}
