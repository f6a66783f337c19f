//! The snapshots of a batch again, tick by tick: for formats that write one tick after another, and
//! for a recording that is replayed.
//!
//! Invariant: the words and states of a tick are those of the snapshot that was recorded, at the
//! same places, but for words of rows without values.

use vmstrobe_core::{RowState, Window};

use super::{Batch, cell};
use crate::lists::Lists;

/// An iteration over the snapshots of a batch; see [`Batch::by_tick`].
///
/// ```
/// # fn print(batch: &vmstrobe_export::Batch) {
/// let mut rows = batch.by_tick();
/// while let Some(tick) = rows.next() {
///     println!("{} {:?} {:?}", tick.tick, tick.states, tick.words);
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct BatchRows<'a> {
    batch: &'a Batch,
    next: usize,
    states: Vec<RowState>,
    words: Vec<u64>,
    state_changes: ByTick,
    word_changes: ByTick,
}

/// One snapshot of a batch.
#[derive(Clone, Copy, Debug)]
pub struct TickRows<'a> {
    /// The number of the tick.
    pub tick: u64,
    /// The time of the reading.
    pub window: Window,
    /// The state of each row of the layout.
    pub states: &'a [RowState],
    /// The words of all rows, at the places that the layout gives.
    pub words: &'a [u64],
}

/// The changes of lists in the order of their ticks: which cell takes its next value.
#[derive(Debug)]
struct ByTick {
    cells: Vec<u32>,
    /// The end of each tick's cells.
    ends: Vec<usize>,
    /// The number of changes that each cell has taken.
    taken: Vec<u32>,
}

impl ByTick {
    fn new<T: Copy>(lists: &Lists<T>, ticks: usize) -> Self {
        let mut ends = vec![0; ticks];
        let cells = lists.first().len();
        for cell in 0..cells {
            lists.of(cell).at.iter().for_each(|&at| ends[at as usize] += 1);
        }
        let mut total = 0;
        for end in &mut ends {
            // Begins as the start, and becomes the end as the cells are put there.
            let count = *end;
            *end = total;
            total += count;
        }
        let mut order = vec![0; total];
        for cell in 0..cells {
            for &at in lists.of(cell).at {
                let end = &mut ends[at as usize];
                order[*end] = cell as u32;
                *end += 1;
            }
        }
        Self { cells: order, ends, taken: vec![0; cells] }
    }

    /// Gives each cell that changes at this tick, and its value.
    fn apply<T: Copy>(&mut self, lists: &Lists<T>, tick: usize, mut set: impl FnMut(usize, T)) {
        let start = tick.checked_sub(1).map_or(0, |before| self.ends[before]);
        for &cell in &self.cells[start..self.ends[tick]] {
            let cell = cell as usize;
            set(cell, lists.of(cell).values[self.taken[cell] as usize]);
            self.taken[cell] += 1;
        }
    }
}

impl<'a> BatchRows<'a> {
    pub(super) fn new(batch: &'a Batch) -> Self {
        let (states, words) = batch.lists();
        let ticks = batch.ticks().len();
        Self {
            batch,
            next: 0,
            states: states.first().to_vec(),
            words: first_words(batch),
            state_changes: ByTick::new(states, ticks),
            word_changes: ByTick::new(words, ticks),
        }
    }

    /// Returns the next snapshot.
    #[expect(clippy::should_implement_trait, reason = "its items borrow from it")]
    pub fn next(&mut self) -> Option<TickRows<'_>> {
        let at = self.next;
        let (&tick, &window) = self.batch.ticks().get(at).zip(self.batch.windows().get(at))?;
        self.next += 1;
        let (states, words) = self.batch.lists();
        let (to, layout) = (&mut self.states, self.batch.layout());
        self.state_changes.apply(states, at, |row, state| to[row] = state);
        let to = &mut self.words;
        self.word_changes.apply(words, at, |cell, value| to[place(layout, cell)] = value);
        Some(TickRows { tick, window, states: &self.states, words: &self.words })
    }
}

/// Returns the first words of all rows, at the places that the layout gives.
fn first_words(batch: &Batch) -> Vec<u64> {
    let (layout, (_, lists)) = (batch.layout(), batch.lists());
    let mut words = vec![0; layout.words()];
    for (number, group) in layout.groups().iter().enumerate() {
        let rows = words[group.first_word..].chunks_exact_mut(group.plan.row_words().max(1));
        for (object, row) in rows.take(group.objects.len()).enumerate() {
            for (word, value) in row.iter_mut().enumerate() {
                *value = lists.first()[cell(layout, number, object, word)];
            }
        }
    }
    words
}

/// Returns the place of a cell among the words of a snapshot.
pub(crate) fn place(layout: &vmstrobe_core::Layout, cell: usize) -> usize {
    let groups = layout.groups();
    let group = &groups[groups.partition_point(|group| group.first_word <= cell) - 1];
    let at = cell - group.first_word;
    let (word, object) = (at / group.objects.len(), at % group.objects.len());
    group.first_word + object * group.plan.row_words() + word
}
