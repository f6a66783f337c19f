//! Batches of one layout that wait until they fill a row group.
//!
//! Only their changes are held. A column is written out one at a time, as runs or as values.
//!
//! Invariant: the group is within the limits of a batch, so that a reader can take it as one.

use std::sync::Arc;

use vmstrobe_core::{Layout, RowState, Window};

use super::dictionary::Run;
use crate::batch::Batch;
use crate::limits::{MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_BATCH_VALUES};

/// The most bytes of batches that wait. Five seconds of 64 busy vCPUs at 1 kHz take 31 MB.
const BYTES_MAX: usize = 48 << 20;

/// The place of a word: its group, the object in it, and the word of the object.
pub(super) type Place = (usize, usize, usize);

/// Batches of one layout, one after the other.
#[derive(Debug, Default)]
pub(super) struct Pending {
    batches: Vec<Batch>,
    ticks: usize,
    changes: usize,
    bytes: usize,
}

impl Pending {
    /// Returns the layout of the batches.
    pub(super) fn layout(&self) -> Option<&Arc<Layout>> {
        self.batches.first().map(Batch::layout)
    }

    /// Returns the number of ticks.
    pub(super) fn ticks(&self) -> usize {
        self.ticks
    }

    /// Returns the number of rows: objects times ticks.
    pub(super) fn rows(&self) -> usize {
        self.layout().map_or(0, |layout| layout.rows()) * self.ticks
    }

    /// Returns whether a batch of the same layout can be added, for a file of that many columns.
    pub(super) fn has_room(&self, batch: &Batch, columns: usize) -> bool {
        let rows = self.rows() + batch.rows();
        // The first value of each batch may differ from the last one of the batch before.
        let changes = self.changes + changes(batch) + batch.layout().words();
        self.batches.is_empty()
            || rows <= MAX_BATCH_ROWS
                && rows.saturating_mul(columns) <= MAX_BATCH_VALUES
                && changes <= MAX_BATCH_CHANGES
                && self.bytes + bytes(batch) <= BYTES_MAX
    }

    /// Adds a batch of the same layout, or the first one.
    pub(super) fn push(&mut self, batch: Batch) {
        self.ticks += batch.ticks().len();
        self.changes += changes(&batch) + batch.layout().words();
        self.bytes += bytes(&batch);
        self.batches.push(batch);
    }

    /// Forgets all batches.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the numbers of the ticks and their windows.
    pub(super) fn times(&self) -> impl Iterator<Item = (u64, Window)> {
        let pairs = |batch: &'_ Batch| -> Vec<(u64, Window)> {
            batch.ticks().iter().copied().zip(batch.windows().iter().copied()).collect()
        };
        self.batches.iter().flat_map(pairs)
    }

    /// Returns whether all rows have values.
    pub(super) fn is_good(&self) -> bool {
        self.batches.iter().all(|batch| {
            (0..batch.layout().rows()).all(|row| {
                let states = batch.states(row);
                states.first.has_values() && states.values.iter().all(|state| state.has_values())
            })
        })
    }

    /// Appends the states of a row, each as a value.
    pub(super) fn states(
        &self,
        row: usize,
        of: impl Fn(RowState) -> Option<u64>,
        into: &mut Vec<Run>,
    ) {
        for batch in &self.batches {
            let runs = batch.states(row).runs(batch.ticks().len());
            into.extend(runs.map(|(range, state)| (range.len(), of(state))));
        }
    }

    /// Returns the number of changes of a word of an object.
    pub(super) fn changes(&self, (group, object, word): Place) -> usize {
        let changes = |batch: &Batch| batch.word(group, object, word).at.len() + 1;
        self.batches.iter().map(changes).sum()
    }

    /// Appends a word of an object as runs; null where its row has no values.
    pub(super) fn runs(&self, (group, object, word): Place, into: &mut Vec<Run>) {
        for batch in &self.batches {
            let ticks = batch.ticks().len();
            let row = batch.layout().groups()[group].first_row + object;
            let states = batch.states(row);
            let mut words = batch.word(group, object, word).runs(ticks).peekable();
            for (range, state) in states.runs(ticks) {
                let mut at = range.start;
                while at < range.end
                    && let Some((word, value)) = words.peek().cloned()
                {
                    let end = word.end.min(range.end);
                    push_run(into, end - at, state.has_values().then_some(value));
                    at = end;
                    if word.end <= range.end {
                        words.next();
                    }
                }
            }
        }
    }

    /// Writes a word of an object at each tick, and whether its row has values.
    pub(super) fn fill(
        &self,
        (group, object, word): Place,
        values: &mut [u64],
        mut valid: Option<&mut [i16]>,
    ) {
        let mut start = 0;
        for batch in &self.batches {
            let ticks = batch.ticks().len();
            batch.word(group, object, word).fill(&mut values[start..start + ticks]);
            if let Some(valid) = &mut valid {
                let row = batch.layout().groups()[group].first_row + object;
                for (range, state) in batch.states(row).runs(ticks) {
                    let range = start + range.start..start + range.end;
                    valid[range].fill(state.has_values().into());
                }
            }
            start += ticks;
        }
    }
}

/// Appends a run, to the last one if that has the same value.
pub(super) fn push_run(into: &mut Vec<Run>, length: usize, value: Option<u64>) {
    match into.last_mut() {
        Some((last, same)) if *same == value => *last += length,
        _ if length == 0 => {}
        _ => into.push((length, value)),
    }
}

/// Returns the number of changes in a batch.
fn changes(batch: &Batch) -> usize {
    let (states, words) = batch.lists();
    states.changes() + words.changes()
}

/// Returns about the bytes that a batch takes.
fn bytes(batch: &Batch) -> usize {
    let layout = batch.layout();
    let cells = layout.words() + layout.rows();
    16 * cells + 12 * changes(batch) + 32 * batch.ticks().len()
}
