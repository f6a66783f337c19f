//! The rates of statistics over stretches of time, from packed batches one after the other.
//!
//! A rate is over at least its stretch, whatever the ticks: see [`Stretches`]. A row whose source
//! is slower than the ticks has new values in some stretches only. Its change is spread over all
//! stretches since the values before, and these are given out only then.
//!
//! Invariant: stretches are given in the order of time, each once; the changes of all stretches add
//! up to the change of the statistic, but for gaps. A counter that was reset, and a row that was
//! not read, have no rate there.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Layout, RowState};
use vmstrobe_export::PackedBatch;

use crate::stretch::{Stretch, StretchKind, Stretches};

/// The longest time for which a slow source is waited for.
const MAX_AGE_NS: u64 = 2_000_000_000;
/// The number of stretches for which a row may be unread without losing what happened in them.
const UNREAD_STRETCHES: u64 = 3;

/// The place of a statistic of one object in the batches of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The row of the object.
    pub(crate) row: usize,
    /// Its group, and its number there.
    pub(crate) group: usize,
    /// See `group`.
    pub(crate) object: usize,
    /// The words of the statistic, which are added up.
    pub(crate) words: Range<usize>,
    /// True if the value itself counts, and not its change.
    pub(crate) is_level: bool,
}

/// Follows statistics of objects through batches.
#[derive(Debug)]
pub(super) struct Follower {
    stretches: Stretches,
    cells: Vec<Followed>,
    series: usize,
    layout: Option<Arc<Layout>>,
    spots: Vec<Option<Spot>>,
    /// Stretches that have ended and for which a slow source is waited.
    waiting: VecDeque<Rates>,
    /// The number of the first of them.
    first_waiting: u64,
    next_tick: Option<u64>,
    scratch: Scratch,
}

/// A statistic of one object.
#[derive(Debug)]
struct Followed {
    /// The series to which it is added.
    series: usize,
    /// The last reading: its time and value.
    last: Option<(u64, u64)>,
    /// The number of the first stretch that has nothing of it yet.
    since: u64,
    /// True if there was a reading since the end of the last stretch.
    is_read: bool,
}

/// The rates of all series in one stretch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rates {
    /// The sample that ended the stretch before, in ns of `CLOCK_MONOTONIC`.
    pub(crate) begin_ns: u64,
    /// The sample that ended the stretch.
    pub(crate) end_ns: u64,
    /// The rates, per second; NaN where a rate is not known.
    pub(crate) rates: Box<[f32]>,
}

/// Memory that is used again.
#[derive(Debug, Default)]
struct Scratch {
    word: Vec<u64>,
    values: Vec<u64>,
    states: Vec<RowState>,
}

/// The states and values of a statistic in a batch.
struct Readings<'a> {
    /// The state of all ticks, or that of each.
    state: Result<RowState, &'a [RowState]>,
    /// The value of all ticks, or that of each.
    value: Result<u64, &'a [u64]>,
}

/// A stretch that ended in this batch, and the range of the batch's ticks that belong to it.
type Ended = (Range<usize>, Stretch);

impl Follower {
    /// Makes one for stretches of a width, and statistics each of which is added to a series.
    pub(super) fn new(width_ns: u64, series_of_cells: &[usize]) -> Self {
        let cell = |&series: &usize| Followed { series, last: None, since: 0, is_read: false };
        Self {
            stretches: Stretches::new(width_ns),
            cells: series_of_cells.iter().map(cell).collect(),
            series: series_of_cells.iter().map(|series| series + 1).max().unwrap_or(0),
            layout: None,
            spots: Vec::new(),
            waiting: VecDeque::new(),
            first_waiting: 0,
            next_tick: None,
            scratch: Scratch::default(),
        }
    }

    /// Follows the ticks of a batch that are new. `find` gives the places of all statistics in a
    /// layout. Gives the begin and the end of each stretch, and the rates of all series in units
    /// per second, which are NaN where they are not known.
    pub(super) fn follow(
        &mut self,
        batch: &PackedBatch,
        find: impl FnOnce(&Arc<Layout>) -> Vec<Option<Spot>>,
        mut give: impl FnMut(Rates),
    ) {
        let begin = batch.ticks().partition_point(|&tick| self.next_tick > Some(tick));
        let windows = &batch.windows()[begin..];
        if windows.is_empty() {
            return;
        }
        if !self.layout.as_ref().is_some_and(|layout| Arc::ptr_eq(layout, batch.layout())) {
            self.spots = find(batch.layout());
            self.layout = Some(Arc::clone(batch.layout()));
        }
        let opening = self.next_tick.is_none().then_some(begin);
        self.next_tick = batch.ticks().last().map(|tick| tick.saturating_add(1));
        let mut rest = begin;
        let mut ended: Vec<Ended> = Vec::new();
        for (range, stretch) in self.stretches.split(windows) {
            let Some(stretch) = stretch else { break };
            rest = begin + range.end;
            ended.push((begin + range.start..rest, stretch));
            let rates = vec![f32::NAN; self.series].into();
            let (begin_ns, end_ns) = (stretch.begin_ns, stretch.end_ns);
            self.waiting.push_back(Rates { begin_ns, end_ns, rates });
        }
        self.read(batch, opening, &ended, rest..batch.ticks().len());
        let settled = self.cells.iter().map(|cell| cell.since).min().unwrap_or(u64::MAX);
        while self.first_waiting < settled
            && let Some(waiting) = self.waiting.pop_front()
        {
            self.first_waiting += 1;
            give(waiting);
        }
    }

    /// Reads all statistics of a batch.
    fn read(
        &mut self,
        batch: &PackedBatch,
        opening: Option<usize>,
        ended: &[Ended],
        rest: Range<usize>,
    ) {
        let next = self.first_waiting + self.waiting.len() as u64;
        let first_ended = next - ended.len() as u64;
        for (cell, spot) in self.cells.iter_mut().zip(&self.spots) {
            let Some(spot) = spot else {
                (cell.last, cell.since, cell.is_read) = (None, next, false);
                continue;
            };
            let readings = self.scratch.read(batch, spot);
            if let Some(tick) = opening.filter(|&tick| readings.state(tick).has_values()) {
                cell.last = Some((batch.windows()[tick].middle_ns(), readings.value(tick)));
            }
            for (number, (range, stretch)) in (first_ended..).zip(ended) {
                let rate = if spot.is_level {
                    cell.level(range, number, &readings)
                } else {
                    cell.counter(range, stretch, number, &readings, self.stretches.width_ns())
                };
                let Some((since, rate)) = rate else { continue };
                let first = (since - self.first_waiting) as usize;
                let last = (number - self.first_waiting) as usize;
                for waiting in self.waiting.range_mut(first..=last) {
                    let sum = &mut waiting.rates[cell.series];
                    *sum = if sum.is_nan() { rate } else { *sum + rate };
                }
            }
            cell.is_read |= readings.is_read(rest.clone());
        }
    }
}

impl Followed {
    /// Ends a stretch of a counter. Returns the first stretch to which a rate applies, and the
    /// rate.
    fn counter(
        &mut self,
        range: &Range<usize>,
        stretch: &Stretch,
        number: u64,
        readings: &Readings<'_>,
        width_ns: u64,
    ) -> Option<(u64, f32)> {
        let tick = range.end - 1;
        self.is_read |= readings.is_read(range.clone());
        let has_values = readings.state(tick).has_values();
        // What was read before a row had no more values is of another time than the stretch.
        if !self.is_read || !has_values {
            let limit_ns = if has_values { MAX_AGE_NS } else { UNREAD_STRETCHES * width_ns };
            let is_known = |(last_ns, _)| stretch.end_ns.saturating_sub(last_ns) < limit_ns;
            self.last = self.last.filter(|&last| is_known(last));
            if self.last.is_none() {
                (self.since, self.is_read) = (number + 1, false);
            }
            return None;
        }
        self.is_read = false;
        let value = readings.value(tick);
        let before = self.last.replace((stretch.end_ns, value));
        let since = std::mem::replace(&mut self.since, number + 1);
        let (last_ns, last) = before.filter(|_| stretch.kind != StretchKind::Gap)?;
        let grown = value.checked_sub(last)?;
        let seconds = stretch.end_ns.saturating_sub(last_ns) as f64 * 1e-9;
        Some((since, (grown as f64 / seconds) as f32))
    }

    /// Ends a stretch of a level, which has a value wherever its row has.
    fn level(
        &mut self,
        range: &Range<usize>,
        number: u64,
        readings: &Readings<'_>,
    ) -> Option<(u64, f32)> {
        let tick = range.end - 1;
        self.since = number + 1;
        readings.state(tick).has_values().then(|| (number, readings.value(tick) as f32))
    }
}

impl Scratch {
    /// Reads a statistic of a batch.
    fn read(&mut self, batch: &PackedBatch, spot: &Spot) -> Readings<'_> {
        let state = match batch.constant_state(spot.row) {
            Some(state) => Ok(state),
            None => {
                batch.fill_states(spot.row, &mut self.states);
                Err(&*self.states)
            }
        };
        if state.is_ok_and(|state| !state.has_values()) {
            return Readings { state, value: Ok(0) };
        }
        let constant = |word| batch.constant(spot.group, spot.object, word);
        let constants: Option<u64> = spot.words.clone().map(constant).sum();
        if let Some(value) = constants {
            return Readings { state, value: Ok(value) };
        }
        self.values.clear();
        self.values.resize(batch.ticks().len(), 0);
        for word in spot.words.clone() {
            batch.fill(spot.group, spot.object, word, &mut self.word);
            let sums = self.values.iter_mut().zip(&self.word);
            sums.for_each(|(sum, value)| *sum = sum.wrapping_add(*value));
        }
        Readings { state, value: Err(&self.values) }
    }
}

impl Readings<'_> {
    fn state(&self, tick: usize) -> RowState {
        self.state.unwrap_or_else(|states| states[tick])
    }

    fn value(&self, tick: usize) -> u64 {
        self.value.unwrap_or_else(|values| values[tick])
    }

    /// Returns whether the row was read at one of these ticks.
    fn is_read(&self, ticks: Range<usize>) -> bool {
        match self.state {
            Ok(state) => state == RowState::Good && !ticks.is_empty(),
            Err(states) => states[ticks].contains(&RowState::Good),
        }
    }
}

#[cfg(test)]
mod tests;
