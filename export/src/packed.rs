//! A batch whose lists of changes are packed into few bits, to hold minutes of samples in memory.
//!
//! Each list can be read alone, in about as many ns as it has changes. A message of an Arrow stream
//! is not much smaller, but of it one object's values cannot be had without those of all others.
//!
//! Invariant: unpacking gives the batch that was packed.

use std::sync::Arc;

use vmstrobe_core::{Layout, RowState, Snapshot, Window};

use crate::batch::{Batch, cell, place};
use crate::heads::{state, state_number};
use crate::lists::Lists;
use lists::PackedLists;

mod bits;
mod lists;

/// A batch whose lists of changes are packed.
///
/// ```
/// # use vmstrobe_export::{Batch, PackedBatch};
/// # fn hold(batches: &[Batch]) -> Vec<PackedBatch> {
/// let mut held: Vec<PackedBatch> = Vec::new();
/// for batch in batches {
///     // Neighbours share what does not move.
///     held.push(PackedBatch::new(batch, held.last()));
/// }
/// # held
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PackedBatch {
    layout: Arc<Layout>,
    ticks: Box<[u64]>,
    windows: Box<[Window]>,
    states: PackedLists,
    words: PackedLists,
}

impl PackedBatch {
    /// Packs a batch. It shares memory with the one before it, if both have one layout.
    pub fn new(batch: &Batch, before: Option<&Self>) -> Self {
        let before = before.filter(|before| Arc::ptr_eq(&before.layout, batch.layout()));
        let (states, words) = batch.lists();
        let ticks = batch.ticks().len();
        let states_before = before.map(|before| &before.states);
        let words_before = before.map(|before| &before.words);
        Self {
            layout: Arc::clone(batch.layout()),
            ticks: batch.ticks().into(),
            windows: batch.windows().into(),
            states: PackedLists::new(states, state_word, ticks, states_before),
            words: PackedLists::new(words, |word| word, ticks, words_before),
        }
    }

    /// Returns the layout, whose groups and objects give the order of the rows.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Returns the numbers of the ticks. A gap means that ticks were not taken or lost.
    pub fn ticks(&self) -> &[u64] {
        &self.ticks
    }

    /// Returns the time of the reading of each tick.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// Returns the memory that the batch takes, in bytes. Memory that it shares with the batch
    /// before is not counted.
    pub fn bytes(&self) -> usize {
        let each_tick = size_of::<u64>() + size_of::<Window>();
        self.ticks.len() * each_tick + self.states.bytes() + self.words.bytes()
    }

    /// Returns the state of an object's row, if it is the same at all ticks.
    ///
    /// # Panics
    /// If the layout has no such row.
    pub fn constant_state(&self, row: usize) -> Option<RowState> {
        self.states.constant(row).map(word_state)
    }

    /// Writes the state of an object's row at each tick.
    ///
    /// # Panics
    /// If the layout has no such row.
    pub fn fill_states(&self, row: usize, out: &mut Vec<RowState>) {
        out.clear();
        out.resize(self.ticks.len(), RowState::Missing);
        self.states.runs(row, |range, word| out[range].fill(word_state(word)));
    }

    /// Returns one word of an object, if it is the same at all ticks. Where the object's row has no
    /// values, it is the last one that was read, or 0.
    ///
    /// # Panics
    /// If the layout has no such group, object or word.
    pub fn constant(&self, group: usize, object: usize, word: usize) -> Option<u64> {
        self.words.constant(self.cell(group, object, word))
    }

    /// Writes one word of an object at each tick, as [`PackedBatch::constant`] says.
    ///
    /// # Panics
    /// If the layout has no such group, object or word.
    pub fn fill(&self, group: usize, object: usize, word: usize, out: &mut Vec<u64>) {
        out.clear();
        out.resize(self.ticks.len(), 0);
        self.words.runs(self.cell(group, object, word), |range, value| out[range].fill(value));
    }

    /// Returns one word of an object at a tick, given by its index; `None` if its row has no values
    /// then.
    ///
    /// # Panics
    /// If the layout has no such group, object or word.
    pub fn value(&self, group: usize, object: usize, word: usize, tick: usize) -> Option<u64> {
        let row = self.layout.groups()[group].first_row + object;
        let has_values = word_state(self.states.at(row, tick)).has_values();
        has_values.then(|| self.words.at(self.cell(group, object, word), tick))
    }

    /// Returns the snapshot of a tick, given by its index, as it was but for words of rows without
    /// values.
    ///
    /// # Panics
    /// If the batch has no such tick.
    pub fn snapshot(&self, tick: usize) -> Snapshot {
        let mut snapshot = Snapshot::new(&self.layout);
        let (words, states) = snapshot.begin(self.ticks[tick]);
        self.states.all_at(tick, |row, word| states[row] = word_state(word));
        for (number, group) in self.layout.groups().iter().enumerate() {
            let row_words = group.plan.row_words();
            for word in 0..row_words {
                let first = cell(&self.layout, number, 0, word);
                let values = self.words.base().get(first..first + group.objects.len());
                for (object, &value) in values.into_iter().flatten().enumerate() {
                    words[group.first_word + object * row_words + word] = value;
                }
            }
        }
        self.words.moved_at(tick, |cell, value| words[place(&self.layout, cell)] = value);
        snapshot.stamp(self.windows[tick]);
        snapshot
    }

    /// Returns the batch that was packed.
    pub fn unpack(&self) -> Batch {
        let layout = Arc::clone(&self.layout);
        let states: Lists<RowState> = self.states.unpack(word_state);
        let words: Lists<u64> = self.words.unpack(|word| word);
        Batch::new(layout, self.ticks.clone(), self.windows.clone(), states, words)
    }

    fn cell(&self, group: usize, object: usize, word: usize) -> usize {
        let of = &self.layout.groups()[group];
        assert!(object < of.objects.len(), "the group has the object");
        assert!(word < of.plan.row_words(), "the row has the word");
        cell(&self.layout, group, object, word)
    }
}

/// Returns a state as a number. Ages that grow with time are numbers that grow evenly.
fn state_word(state: RowState) -> u64 {
    let detail = match state {
        RowState::Aged(age_ms) => age_ms,
        RowState::Io(errno) => errno as u32,
        _ => 0,
    };
    u64::from(detail) << 8 | u64::from(state_number(state))
}

/// Returns the state of a number of [`state_word`].
fn word_state(word: u64) -> RowState {
    let detail = (word >> 8) as u32;
    state(word as u8, detail, detail as i32).unwrap_or_default()
}

#[cfg(test)]
mod tests;
