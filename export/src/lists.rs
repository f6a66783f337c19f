//! Lists of changes: the values of many cells over the ticks of a batch, each cell with its first
//! value and those ticks at which it differs from the tick before.
//!
//! Invariant: the ticks of a list ascend, begin after 0 and lie within the batch.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::limits::MAX_BATCH_CHANGES;

/// The values of one cell over the ticks of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changes<'a, T> {
    /// The value at the first tick.
    pub first: T,
    /// The ticks at which it changed, as indexes into the batch's ticks. They ascend.
    pub at: &'a [u32],
    /// The value at each of these ticks.
    pub values: &'a [T],
}

impl<'a, T: Copy> Changes<'a, T> {
    /// Returns whether the value is the same at all ticks.
    pub fn is_constant(&self) -> bool {
        self.at.is_empty()
    }

    /// Returns the value at a tick, which is an index into the batch's ticks.
    pub fn value_at(&self, tick: usize) -> T {
        match self.at.partition_point(|&at| at as usize <= tick) {
            0 => self.first,
            changes => self.values[changes - 1],
        }
    }

    /// Returns the ranges of ticks with one value each, for a batch of that many ticks.
    pub fn runs(self, ticks: usize) -> impl Iterator<Item = (Range<usize>, T)> + use<'a, T> {
        let starts = std::iter::once(0).chain(self.at.iter().map(|&at| at as usize));
        let ends = self.at.iter().map(|&at| at as usize).chain(std::iter::once(ticks));
        let values = std::iter::once(self.first).chain(self.values.iter().copied());
        starts.zip(ends).map(|(start, end)| start..end).zip(values)
    }

    /// Writes the value of each tick; `out` has one place for each tick of the batch.
    ///
    /// # Panics
    /// If `out` is shorter than the batch.
    pub fn fill(self, out: &mut [T]) {
        let ticks = out.len();
        for (range, value) in self.runs(ticks) {
            out[range].fill(value);
        }
    }
}

/// The lists of all cells of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Lists<T> {
    first: Vec<T>,
    spans: Vec<Range<u32>>,
    at: Vec<u32>,
    values: Vec<T>,
}

impl<T: Copy> Lists<T> {
    /// Returns the list of a cell.
    #[inline]
    pub(crate) fn of(&self, cell: usize) -> Changes<'_, T> {
        let span = &self.spans[cell];
        let span = span.start as usize..span.end as usize;
        Changes { first: self.first[cell], at: &self.at[span.clone()], values: &self.values[span] }
    }

    /// Returns the lists of some of the cells, at the places at which these stand. The changes of
    /// the others stay in memory.
    pub(crate) fn select(self, cells: &[usize]) -> Self {
        let first = cells.iter().map(|&cell| self.first[cell]).collect();
        let spans = cells.iter().map(|&cell| self.spans[cell].clone()).collect();
        Self { first, spans, ..self }
    }

    /// Returns the first values of all cells.
    pub(crate) fn first(&self) -> &[T] {
        &self.first
    }

    /// Returns the number of changes of all cells.
    pub(crate) fn changes(&self) -> usize {
        self.at.len()
    }
}

impl<T: Copy> Lists<T> {
    /// Returns the lists of a range of ticks.
    pub(crate) fn part(&self, ticks: Range<usize>) -> Self {
        let (start, end) = (ticks.start as u32, ticks.end as u32);
        let cells = self.first.len();
        let (mut first, mut spans) = (Vec::with_capacity(cells), Vec::with_capacity(cells));
        let (mut at, mut values) = (Vec::new(), Vec::new());
        for cell in 0..cells {
            let changes = self.of(cell);
            let from = changes.at.partition_point(|&tick| tick <= start);
            let to = changes.at.partition_point(|&tick| tick < end);
            first.push(from.checked_sub(1).map_or(changes.first, |last| changes.values[last]));
            let begin = at.len() as u32;
            at.extend(changes.at[from..to].iter().map(|tick| tick - start));
            values.extend_from_slice(&changes.values[from..to]);
            spans.push(begin..at.len() as u32);
        }
        Self { first, spans, at, values }
    }
}

impl<T: Copy + Default + PartialEq> Lists<T> {
    /// Makes the lists of cells that are 0 at all ticks.
    pub(crate) fn constant(cells: usize) -> Self {
        Self::of_constants(vec![T::default(); cells])
    }

    /// Makes the lists of cells that have these values at all ticks.
    pub(crate) fn of_constants(first: Vec<T>) -> Self {
        let spans = vec![0..0; first.len()];
        Self { first, spans, at: Vec::new(), values: Vec::new() }
    }

    /// Sets the value of a cell that is the same at all ticks, and was not set before.
    pub(crate) fn set_constant(&mut self, cell: usize, value: T) {
        self.first[cell] = value;
    }

    /// Sets the list of a cell, once, to the values of all ticks. Where a tick is not known, its
    /// value counts as that of the tick before.
    ///
    /// # Errors
    /// `TooLarge` if there are too many changes.
    pub(crate) fn set(&mut self, cell: usize, values: &[T], is_known: &[bool]) -> Result<()> {
        let Some(first) = is_known.iter().position(|&is_known| is_known) else { return Ok(()) };
        let mut last = values[first];
        self.first[cell] = last;
        // Most do not change, and comparing them with their neighbours takes no loop over them.
        if values[1..] == values[..values.len() - 1] {
            return Ok(());
        }
        let start = self.at.len() as u32;
        for (tick, (&value, &is_known)) in values.iter().zip(is_known).enumerate().skip(first) {
            if is_known && value != last {
                self.at.push(tick as u32);
                self.values.push(value);
                last = value;
            }
        }
        self.spans[cell] = start..self.at.len() as u32;
        Error::check("the number of changes in a batch", self.at.len(), MAX_BATCH_CHANGES)
    }
}

/// Changes in the order of the ticks, as a recorder notes them.
#[derive(Debug)]
pub(crate) struct Log<T> {
    cells: Vec<u32>,
    values: Vec<T>,
    /// The number of changes up to the end of each tick.
    ends: Vec<usize>,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { cells: Vec::new(), values: Vec::new(), ends: Vec::new() }
    }
}

impl<T: Copy + Default> Log<T> {
    /// Notes that a cell has another value than in the tick before.
    #[inline]
    pub(crate) fn note(&mut self, cell: u32, value: T) {
        self.cells.push(cell);
        self.values.push(value);
    }

    /// Ends a tick.
    pub(crate) fn end_tick(&mut self) {
        self.ends.push(self.cells.len());
    }

    /// Returns the number of changes.
    pub(crate) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Returns the lists of all cells with these first values, and empties the log. Its memory is
    /// kept for the next batch.
    pub(crate) fn take(&mut self, first: Vec<T>) -> Lists<T> {
        let mut spans = vec![0..0_u32; first.len()];
        for &cell in &self.cells {
            spans[cell as usize].end += 1;
        }
        let mut total = 0;
        for span in &mut spans {
            // Begins empty at its place, and grows as its changes are put there.
            let count = span.end;
            *span = total..total;
            total += count;
        }
        let mut at = vec![0; self.cells.len()];
        let mut values = vec![T::default(); self.cells.len()];
        let mut start = 0;
        for (tick, &end) in self.ends.iter().enumerate() {
            for (&cell, &value) in self.cells[start..end].iter().zip(&self.values[start..end]) {
                let span = &mut spans[cell as usize];
                at[span.end as usize] = tick as u32;
                values[span.end as usize] = value;
                span.end += 1;
            }
            start = end;
        }
        self.cells.clear();
        self.values.clear();
        self.ends.clear();
        Lists { first, spans, at, values }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_becomes_lists_by_cell() {
        let mut log = Log::default();
        log.end_tick();
        for (cell, value) in [(2, 5_u64), (0, 6)] {
            log.note(cell, value);
        }
        log.end_tick();
        log.end_tick();
        log.note(2, 7);
        log.end_tick();
        let lists = log.take(vec![1, 2, 3]);
        assert_eq!(lists.of(0), Changes { first: 1, at: &[1], values: &[6] });
        assert!(lists.of(1).is_constant());
        let mut filled = [0; 4];
        lists.of(2).fill(&mut filled);
        assert_eq!(filled, [3, 5, 5, 7]);
        assert_eq!([0, 1, 2, 3].map(|tick| lists.of(2).value_at(tick)), filled);
        assert_eq!(lists.of(2).runs(4).collect::<Vec<_>>(), [(0..1, 3), (1..3, 5), (3..4, 7)]);
        assert_eq!((log.len(), lists.changes()), (0, 3));
    }

    #[test]
    fn unknown_values_are_no_changes() {
        let mut lists = Lists::constant(3);
        lists.set(1, &[9, 4, 9, 4, 5], &[false, true, false, true, true]).expect("few changes");
        assert_eq!(lists.of(1), Changes { first: 4, at: &[4], values: &[5] });
        lists.set(2, &[9, 9, 9, 9, 9], &[false; 5]).expect("no changes");
        assert_eq!(lists.of(2), Changes { first: 0, at: &[], values: &[] });
        assert_eq!(lists.first(), [0, 4, 0]);
    }
}
