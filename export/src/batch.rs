//! A batch: a bounded run of snapshots of one layout, object-major: all ticks of the first object,
//! then all ticks of the second. Recorders, bindings and pages exchange batches.
//!
//! Only changes are kept, so that a batch of counters that rarely move is small. The values of a
//! column are written out one column at a time, into a buffer of the caller.
//!
//! Invariant: all lists have a cell for each row or word of the layout, and the ticks and windows
//! are as many as each other, at least one.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::{Layout, RowState, Window};

use crate::lists::{Changes, Lists};

mod rows;

pub(crate) use self::rows::place;
pub use self::rows::{BatchRows, TickRows};

/// A bounded run of snapshots of one layout.
///
/// ```
/// use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Snapshot, Target};
/// use vmstrobe_export::{BatchLimits, Batcher};
///
/// let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
/// let plan = ReadPlan::new(&schema, &Mask::all(&schema));
/// let vcpu = |index: u32| Object {
///     path: format!("/vm/web/vcpu[{index}]").into(),
///     index: Some(index),
///     schema: schema.clone(),
///     key: index.into(),
/// };
/// let layout = Layout::new(0, vec![(plan, vec![vcpu(0), vcpu(1)])]);
///
/// // A subscriber gives such snapshots.
/// let mut batcher = Batcher::new(BatchLimits::default());
/// let mut snapshot = Snapshot::new(&layout);
/// for tick in 1..=3 {
///     let (words, states) = snapshot.begin(tick);
///     words.copy_from_slice(&[10 * tick, 7]);
///     states.fill(RowState::Good);
///     batcher.push(&snapshot)?;
/// }
///
/// let batch = batcher.take().expect("three snapshots were pushed");
/// assert_eq!(batch.ticks(), [1, 2, 3]);
/// // The first word, `exits`, of all objects of the first group: of each object all ticks.
/// let mut exits = vec![0; 2 * 3];
/// batch.fill(0, 0, &mut exits);
/// assert_eq!(exits, [10, 20, 30, 7, 7, 7]);
/// // Its changes for the second object: none.
/// assert!(batch.word(0, 1, 0).is_constant());
/// assert!(batch.states(1).first.has_values());
/// # Ok::<(), vmstrobe_export::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batch {
    layout: Arc<Layout>,
    ticks: Box<[u64]>,
    windows: Box<[Window]>,
    states: Lists<RowState>,
    words: Lists<u64>,
}

/// The cells of words are numbered column by column within a group, so that a column's lists lie
/// together: group after group, word after word, object after object.
pub(crate) fn cell(layout: &Layout, group: usize, object: usize, word: usize) -> usize {
    let group = &layout.groups()[group];
    group.first_word + word * group.objects.len() + object
}

impl Batch {
    /// Makes a batch of lists that are as long as the layout says.
    pub(crate) fn new(
        layout: Arc<Layout>,
        ticks: Box<[u64]>,
        windows: Box<[Window]>,
        states: Lists<RowState>,
        words: Lists<u64>,
    ) -> Self {
        debug_assert_eq!(states.first().len(), layout.rows());
        debug_assert_eq!(words.first().len(), layout.words());
        debug_assert!(!ticks.is_empty() && ticks.len() == windows.len());
        Self { layout, ticks, windows, states, words }
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

    /// Returns the number of rows, which are objects times ticks.
    pub fn rows(&self) -> usize {
        self.layout.rows() * self.ticks.len()
    }

    /// Returns the number of changes of all words, which says how much memory the batch takes.
    pub fn changes(&self) -> usize {
        self.words.changes()
    }

    /// Returns the states of an object's rows. The objects are numbered as the layout's rows are.
    ///
    /// # Panics
    /// If the layout has no such row.
    pub fn states(&self, row: usize) -> Changes<'_, RowState> {
        self.states.of(row)
    }

    /// Returns the values of one word of an object. Where the object's row has no values, the list
    /// goes on with the last one that was read, or 0.
    ///
    /// # Panics
    /// If the layout has no such group, object or word.
    pub fn word(&self, group: usize, object: usize, word: usize) -> Changes<'_, u64> {
        assert!(object < self.layout.groups()[group].objects.len(), "the group has the object");
        self.words.of(cell(&self.layout, group, object, word))
    }

    /// Writes one word of all objects of a group: all ticks of the first object, then of the
    /// second. A place whose row has no values gets the last one that was read, or 0; see
    /// [`Batch::fill_valid`].
    ///
    /// # Panics
    /// If the layout has no such group or word, or if `out` has not exactly as many places as the
    /// group has objects times ticks.
    pub fn fill(&self, group: usize, word: usize, out: &mut [u64]) {
        let objects = self.layout.groups()[group].objects.len();
        assert_eq!(out.len(), objects * self.ticks.len(), "a place for each object and tick");
        for (object, out) in out.chunks_exact_mut(self.ticks.len()).enumerate() {
            self.word(group, object, word).fill(out);
        }
    }

    /// Writes for each place of [`Batch::fill`] whether its row has values.
    ///
    /// # Panics
    /// As [`Batch::fill`] does.
    pub fn fill_valid(&self, group: usize, out: &mut [bool]) {
        let group = &self.layout.groups()[group];
        assert_eq!(out.len(), group.objects.len() * self.ticks.len(), "a place for each row");
        for (object, out) in out.chunks_exact_mut(self.ticks.len()).enumerate() {
            for (range, state) in self.states(group.first_row + object).runs(out.len()) {
                out[range].fill(state.has_values());
            }
        }
    }

    /// Returns the batch with only some of its rows and words, in a layout of these. `rows` has the
    /// present row of each row of that layout, and `words` the present place of each of its words,
    /// both as a snapshot has them.
    ///
    /// # Panics
    /// If there are not as many rows or words as the layout has, or one of them is not here.
    #[must_use]
    pub fn select(self, layout: &Arc<Layout>, rows: &[usize], words: &[usize]) -> Self {
        assert_eq!((rows.len(), words.len()), (layout.rows(), layout.words()), "a place for each");
        let cells = crate::batcher::cells(&self.layout);
        let mut of_cells = vec![0; words.len()];
        for (&cell, &word) in crate::batcher::cells(layout).iter().zip(words) {
            of_cells[cell as usize] = cells[word] as usize;
        }
        let (states, words) = (self.states.select(rows), self.words.select(&of_cells));
        Self { layout: Arc::clone(layout), states, words, ..self }
    }

    /// Returns the batch of a range of ticks, by their indexes.
    ///
    /// # Panics
    /// If the batch has not all of them, or the range is empty.
    #[must_use]
    pub fn part(&self, ticks: Range<usize>) -> Self {
        Self {
            layout: Arc::clone(&self.layout),
            ticks: self.ticks[ticks.clone()].into(),
            windows: self.windows[ticks.clone()].into(),
            states: self.states.part(ticks.clone()),
            words: self.words.part(ticks),
        }
    }

    /// Returns an iteration over the snapshots of the batch, tick by tick.
    pub fn by_tick(&self) -> BatchRows<'_> {
        BatchRows::new(self)
    }

    /// Returns the lists of the row states and of the words.
    pub(crate) fn lists(&self) -> (&Lists<RowState>, &Lists<u64>) {
        (&self.states, &self.words)
    }
}
