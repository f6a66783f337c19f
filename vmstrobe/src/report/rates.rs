//! The growth of every counter in every bin, of all its objects together.
//!
//! Invariant: the growths in the bins of a statistic add up to all that it grew, whatever the bins.
//! Memory is bounded by [`MAX_BINS`] and [`MAX_CELLS`], whatever a recording claims: beyond them
//! bins are joined, so that each is twice as long.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Desc, Layout, StatType, Window};
use vmstrobe_export::Batch;

use super::axis::{Axis, Span, Spans};
use crate::stretch::StretchKind;
use crate::tally::{BatchRow, Statistic, Tally};

/// The most bins: 43 minutes of 10 ms.
pub(super) const MAX_BINS: usize = 1 << 18;
/// The most numbers of all bins: 64 MiB. 80 statistics have so many in 17 minutes of 10 ms.
pub(super) const MAX_CELLS: usize = 1 << 23;
/// The share of a span by which a value at its ends may be older than these: an eighth. The threads
/// of vCPUs that are read from /proc ten times a second have rates of a second then, and none of
/// 10 ms.
const AGE_SHARE: u64 = 8;

/// The growth of all counters, by bin.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) axis: Axis,
    series: Vec<Series>,
    known: HashMap<Statistic, usize>,
    /// The newest layout, and the series of its words.
    placed: Option<(Arc<Layout>, Vec<Vec<Placed>>)>,
}

/// The words of a group that are one series.
#[derive(Debug)]
struct Placed {
    words: Range<usize>,
    series: usize,
}

/// The growth of one counter, by bin.
#[derive(Debug, Default)]
pub(super) struct Series {
    /// The growth in each bin. Behind the last of them nothing grew.
    grown: Vec<u64>,
    /// At the end of each bin, how old the value of one of its objects is, in µs. Behind the last
    /// of them all are new.
    ages_us: Vec<u32>,
}

/// Returns whether a statistic has rates: whether it counts.
pub(super) fn counts(desc: &Desc) -> bool {
    let is_counter = desc.stat_type == StatType::Cumulative || desc.stat_type.is_histogram();
    is_counter && !desc.is_boolean()
}

impl Rates {
    /// Begins with the first sample, in bins of this width.
    pub(super) fn new(width_ns: u64, first: Window) -> Self {
        let axis = Axis::new(width_ns, first);
        Self { axis, series: Vec::new(), known: HashMap::new(), placed: None }
    }

    /// Returns the growth of a statistic, if any of its objects was seen.
    pub(super) fn series(&self, of: &Statistic) -> Option<&Series> {
        self.known.get(of).map(|&at| &self.series[at])
    }

    /// Adds the samples of a batch. `earlier` has what was read before it.
    pub(super) fn add(&mut self, batch: &Batch, earlier: &Tally) {
        self.place(batch.layout());
        let mut bins = self.axis.add(batch.windows());
        let is_full = |axis: &Axis, series: usize| {
            axis.len() > MAX_BINS || axis.len().saturating_mul(series) > MAX_CELLS
        };
        while is_full(&self.axis, self.series.len()) && self.axis.len() > 1 {
            self.axis.halve();
            self.series.iter_mut().for_each(Series::halve);
            bins.iter_mut().for_each(|bin| *bin /= 2);
        }
        let Some((_, placed)) = &self.placed else { return };
        for row in BatchRow::all(batch) {
            let good = row.good_runs();
            let earlier = earlier.last_reading(row.row);
            for Placed { words, series } in &placed[row.group] {
                let series = &mut self.series[*series];
                for word in words.clone() {
                    series.add(word, &row, &good, &bins, earlier.map(|(words, _)| words[word]));
                }
            }
            let spans = unread_spans(&row, &good, earlier.map(|(_, window)| window));
            for span in spans {
                let ends = self.axis.ending_between(span.clone());
                for Placed { series, .. } in &placed[row.group] {
                    let series = &mut self.series[*series];
                    let age = |bin| self.axis.end_ns(bin).saturating_sub(span.start) / 1000;
                    ends.clone().for_each(|bin| series.age(bin, age(bin)));
                }
            }
        }
    }

    /// Finds the series of a layout's words, and makes those that are new.
    fn place(&mut self, layout: &Arc<Layout>) {
        if self.placed.as_ref().is_some_and(|(known, _)| Arc::ptr_eq(known, layout)) {
            return;
        }
        let mut placed = Vec::new();
        for group in layout.groups() {
            let schema = group.plan.schema();
            let columns = group.plan.columns().iter();
            let counting = columns.filter(|column| counts(&schema.descs()[column.desc]));
            let place = |column: &vmstrobe_core::Column| {
                let of = Statistic { schema: Arc::clone(schema), desc: column.desc };
                let fresh = self.series.len();
                let series = *self.known.entry(of).or_insert(fresh);
                if series == fresh {
                    self.series.push(Series::default());
                }
                Placed { words: column.words.clone(), series }
            };
            placed.push(counting.map(place).collect());
        }
        self.placed = Some((Arc::clone(layout), placed));
    }
}

/// Returns the times from a reading of an object to the next one, unless these are of samples that
/// follow each other in the batch.
fn unread_spans<'a>(
    row: &'a BatchRow<'_>,
    good: &'a [Range<usize>],
    earlier: Option<Window>,
) -> impl Iterator<Item = Range<u64>> + 'a {
    let windows = row.batch.windows();
    let mut last_ns = earlier.map(|window| window.middle_ns());
    good.iter().filter_map(move |run| {
        let before_ns = last_ns.replace(windows[run.end - 1].middle_ns())?;
        Some(before_ns..windows[run.start].middle_ns())
    })
}

impl Series {
    /// Adds how much a word of an object grew in a batch, from its value before it, if it was read.
    fn add(
        &mut self,
        word: usize,
        row: &BatchRow<'_>,
        good: &[Range<usize>],
        bins: &[u32],
        earlier: Option<u64>,
    ) {
        let mut last = earlier;
        row.each_good(word, good, |ticks, value| {
            let before = last.replace(value).unwrap_or(value);
            if value != before {
                // Of a counter that was reset, what it counted since is known.
                let grown = value.checked_sub(before).unwrap_or(value);
                self.grow(bins[ticks.start] as usize, grown);
            }
        });
    }

    fn grow(&mut self, bin: usize, grown: u64) {
        if bin >= self.grown.len() {
            self.grown.resize(bin + 1, 0);
        }
        self.grown[bin] = self.grown[bin].saturating_add(grown);
    }

    fn age(&mut self, bin: usize, age_us: u64) {
        if bin >= self.ages_us.len() {
            self.ages_us.resize(bin + 1, 0);
        }
        let age_us = u32::try_from(age_us).unwrap_or(u32::MAX);
        self.ages_us[bin] = self.ages_us[bin].max(age_us);
    }

    fn halve(&mut self) {
        let pair = |pair: &[u64]| pair.iter().fold(0, |sum: u64, &grown| sum.saturating_add(grown));
        self.grown = self.grown.chunks(2).map(pair).collect();
        // A bin that has no second one yet has not ended.
        self.ages_us =
            self.ages_us.chunks(2).map(|pair| pair.get(1).copied().unwrap_or(0)).collect();
    }

    /// Returns how much it grew in the bins of a span.
    pub(super) fn grown_in(&self, span: &Span) -> u64 {
        let end = span.bins.end.min(self.grown.len());
        let grown = self.grown.get(span.bins.start..end).unwrap_or_default();
        grown.iter().fold(0, |sum, &grown| sum.saturating_add(grown))
    }

    /// Returns whether a span has a rate: whether it is as long as it should be, and all objects
    /// were read at both its ends.
    pub(super) fn has_rate(&self, span: &Span, width_ns: u64) -> bool {
        let age_us = |bin: Option<usize>| {
            bin.and_then(|bin| self.ages_us.get(bin)).map_or(0, |&age| u64::from(age))
        };
        let ends = [span.bins.start.checked_sub(1), span.bins.end.checked_sub(1)];
        let is_new = |bin| age_us(bin) * 1000 <= width_ns / AGE_SHARE;
        span.kind == StretchKind::Whole && ends.into_iter().all(is_new)
    }

    /// Returns the rate in each span that has one, per second, with the span.
    pub(super) fn rates<'a>(
        &'a self,
        spans: &'a Spans,
    ) -> impl Iterator<Item = (f64, &'a Span)> + 'a {
        let with_rate = spans.spans.iter().filter(|span| self.has_rate(span, spans.width_ns));
        with_rate.map(|span| {
            let length_ns = span.time_ns.end - span.time_ns.start;
            (self.grown_in(span) as f64 / (length_ns as f64 * 1e-9), span)
        })
    }
}

#[cfg(test)]
mod tests;
