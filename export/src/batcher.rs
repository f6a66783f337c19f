//! The recorder's side of a batch: compares each snapshot with the last one and keeps the changes.
//!
//! A snapshot can be handed back as soon as it was pushed. That, and never holding all values of a
//! batch at once, makes recording about as cheap as writing raw words.
//!
//! Invariant: a batch holds no more than its limits, and no snapshot is left out.

use std::sync::Arc;

use vmstrobe_core::{Layout, RowState, Snapshot, Window};

use crate::batch::{Batch, cell};
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::limits::{MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_TICK_WORDS};
use crate::lists::Log;

/// The number of words that are compared together.
const STRIDE: usize = 8;

/// The limits at which a batch is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most ticks. Half a second of them costs a writer least; much more gains nothing.
    pub ticks: usize,
    /// The most changes of words, each of which takes 12 bytes.
    pub changes: usize,
}

impl Default for BatchLimits {
    /// Returns limits for 1,000 ticks a second, of 12 MiB.
    fn default() -> Self {
        Self { ticks: 500, changes: 1 << 20 }
    }
}

/// Makes batches of snapshots.
///
/// ```
/// # use vmstrobe_core::Snapshot;
/// # use vmstrobe_export::{Batch, BatchLimits, Batcher, Result};
/// # fn record(samples: impl Iterator<Item = Snapshot>, write: fn(Batch)) -> Result<()> {
/// let mut batcher = Batcher::new(BatchLimits::default());
/// for sample in samples {
///     // The last batch, if this sample has another layout.
///     batcher.push(&sample)?.map(write);
///     if batcher.is_full() {
///         batcher.take().map(write);
///     }
/// }
/// batcher.take().map(write);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Batcher {
    limits: BatchLimits,
    current: Option<Current>,
}

/// The batch that is being made, and the last snapshot.
#[derive(Debug)]
struct Current {
    layout: Arc<Layout>,
    /// The cell of each word of a snapshot.
    cells: Box<[u32]>,
    /// The first word of each row.
    row_starts: Box<[usize]>,
    ticks_max: usize,
    changes_max: usize,
    last_words: Vec<u64>,
    last_states: Vec<RowState>,
    first_words: Vec<u64>,
    first_states: Vec<RowState>,
    ticks: Vec<u64>,
    windows: Vec<Window>,
    words: Log<u64>,
    states: Log<RowState>,
}

impl Batcher {
    /// Makes a batcher without a snapshot.
    pub fn new(limits: BatchLimits) -> Self {
        Self { limits, current: None }
    }

    /// Adds a snapshot. Returns the batch before it, if that is full or of another layout.
    ///
    /// # Errors
    /// `TooLarge` if a snapshot of this layout is beyond the limits of recordings. Then it was not
    /// added, and the batch before it can still be taken.
    pub fn push(&mut self, snapshot: &Snapshot) -> Result<Option<Batch>> {
        let same = |current: &Current| Arc::ptr_eq(&current.layout, snapshot.layout());
        if let Some(current) = self.current.as_mut().filter(|current| same(current)) {
            let done = if current.is_full() { current.take() } else { None };
            current.push(snapshot);
            return Ok(done);
        }
        let mut next = Current::new(snapshot.layout(), self.limits)?;
        next.push(snapshot);
        Ok(self.current.replace(next).and_then(|mut last| last.take()))
    }

    /// Returns whether the batch has reached a limit and should be taken.
    pub fn is_full(&self) -> bool {
        self.current.as_ref().is_some_and(Current::is_full)
    }

    /// Returns the number of ticks in the batch so far.
    pub fn ticks(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.ticks.len())
    }

    /// Returns the batch so far, if it has any ticks.
    pub fn take(&mut self) -> Option<Batch> {
        self.current.as_mut()?.take()
    }
}

impl Current {
    fn new(layout: &Arc<Layout>, limits: BatchLimits) -> Result<Self> {
        let (rows, words) = (layout.rows(), layout.words());
        Error::check("the number of objects", rows, MAX_BATCH_ROWS)?;
        Error::check("the number of words of a tick", words, MAX_TICK_WORDS)?;
        let values = rows.saturating_mul(Columns::of(layout)?.len());
        Error::check("the number of values of a tick", values, MAX_BATCH_VALUES)?;
        let ticks_max = limits.ticks.min(MAX_BATCH_ROWS / rows.max(1));
        // A quarter of the limit: a recording may have more columns than this layout.
        let ticks_max = ticks_max.min(MAX_BATCH_VALUES / 4 / values.max(1));
        Ok(Self {
            layout: Arc::clone(layout),
            cells: cells(layout),
            row_starts: row_starts(layout),
            ticks_max: ticks_max.max(1),
            changes_max: limits.changes.min(MAX_BATCH_CHANGES),
            last_words: vec![0; words],
            last_states: vec![RowState::Missing; rows],
            first_words: vec![0; words],
            first_states: vec![RowState::Missing; rows],
            ticks: Vec::new(),
            windows: Vec::new(),
            words: Log::default(),
            states: Log::default(),
        })
    }

    fn is_full(&self) -> bool {
        // The next tick may change every word.
        let changes = self.words.len() + self.layout.words();
        self.ticks.len() >= self.ticks_max || !self.ticks.is_empty() && changes > self.changes_max
    }

    fn push(&mut self, snapshot: &Snapshot) {
        let is_first = self.ticks.is_empty();
        self.ticks.push(snapshot.tick());
        self.windows.push(snapshot.window());
        for (row, view) in snapshot.objects().enumerate() {
            let state = view.state();
            if self.last_states[row] != state {
                self.last_states[row] = state;
                if !is_first {
                    self.states.note(row as u32, state);
                }
            }
            // Of a row without values there are no words, and the last ones stay.
            let words = view.words();
            let start = self.row_starts[row];
            let place = start..start + words.len();
            let last = &mut self.last_words[place.clone()];
            if is_first {
                last.copy_from_slice(words);
            } else if words != last {
                note_changes(&mut self.words, &self.cells[place], last, words);
            }
        }
        if is_first {
            self.first_words.copy_from_slice(&self.last_words);
            self.first_states.copy_from_slice(&self.last_states);
        }
        self.words.end_tick();
        self.states.end_tick();
    }

    fn take(&mut self) -> Option<Batch> {
        if self.ticks.is_empty() {
            return None;
        }
        let mut first = vec![0; self.layout.words()];
        for (&cell, &word) in self.cells.iter().zip(&self.first_words) {
            first[cell as usize] = word;
        }
        let words = self.words.take(first);
        let states = self.states.take(self.first_states.clone());
        let ticks = std::mem::take(&mut self.ticks).into();
        let windows = std::mem::take(&mut self.windows).into();
        Some(Batch::new(Arc::clone(&self.layout), ticks, windows, states, words))
    }
}

/// Notes the words of a row that differ from the last ones, which become these.
fn note_changes(log: &mut Log<u64>, cells: &[u32], last: &mut [u64], words: &[u64]) {
    let strides = cells.chunks(STRIDE).zip(last.chunks_mut(STRIDE)).zip(words.chunks(STRIDE));
    for ((cells, last), words) in strides {
        if last == words {
            continue;
        }
        for ((&cell, last), &word) in cells.iter().zip(last).zip(words) {
            if *last != word {
                *last = word;
                log.note(cell, word);
            }
        }
    }
}

/// Returns the cell of each word of a snapshot.
pub(crate) fn cells(layout: &Layout) -> Box<[u32]> {
    let groups = layout.groups().iter().enumerate();
    let cells = groups.flat_map(|(number, group)| {
        (0..group.objects.len()).flat_map(move |object| {
            (0..group.plan.row_words()).map(move |word| cell(layout, number, object, word) as u32)
        })
    });
    cells.collect()
}

/// Returns the first word of each row of a snapshot.
fn row_starts(layout: &Layout) -> Box<[usize]> {
    let groups = layout.groups().iter();
    let starts = groups.flat_map(|group| {
        let row_words = group.plan.row_words();
        (0..group.objects.len()).map(move |object| group.first_word + object * row_words)
    });
    starts.collect()
}

#[cfg(test)]
mod tests;
