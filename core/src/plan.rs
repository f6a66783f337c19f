//! A read plan: the bytes to fetch for a mask, the words of them to keep, and the place of each
//! statistic in a row.
//!
//! A row keeps the words in the order of the data. So neighbouring words are copied together, and a
//! plan that keeps everything needs one copy or none.
//!
//! Invariant: every run lies inside the span and every column inside the row.

use std::ops::Range;
use std::sync::Arc;

use crate::mask::Mask;
use crate::schema::{Schema, WORD_BYTES};
use crate::sync::{AtomicU64, Ordering};

/// The number of words that a byte can address; see [`ReadPlan::load_near`].
#[doc(hidden)] // For the providers, as the methods that use it.
pub const NEAR_WORDS: usize = 256;

/// Words copied together, from the span to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    span_word: usize,
    row_word: usize,
    words: usize,
}

/// The place of a kept statistic in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The index of its descriptor in the schema.
    pub desc: usize,
    /// The range of its words in the row.
    pub words: Range<usize>,
}

/// Instructions for reading one kind of object: built once from a schema and a mask.
///
/// ```
/// use vmstrobe_core::{Desc, Mask, ReadPlan, Schema, Target};
/// let descs = (0..8).map(|i| Desc::counter(&format!("n{i}"), 8 * i)).collect();
/// let schema = Schema::new("xyz", Target::Vcpu, descs);
/// let mut mask = Mask::none(8);
/// mask.set(2);
/// mask.set(5);
/// let plan = ReadPlan::new(&schema, &mask);
/// assert_eq!(plan.span_bytes(), 16..48);
/// let mut row = [0; 2];
/// plan.keep(&[20, 30, 40, 50], &mut row);
/// assert_eq!(row, [20, 50]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadPlan {
    schema: Arc<Schema>,
    columns: Box<[Column]>,
    runs: Box<[Run]>,
    /// The place in the span of each word of a row, if most runs are one word long. Copying by
    /// these places is faster then. Else empty.
    scattered: Box<[u32]>,
    /// The places of `scattered` as bytes; empty if one of them does not fit into a byte.
    near: Box<[u8]>,
    span_words: Range<usize>,
    row_words: usize,
}

impl ReadPlan {
    /// Makes the plan that keeps the statistics of a mask.
    pub fn new(schema: &Arc<Schema>, mask: &Mask) -> Arc<Self> {
        let wanted: Vec<usize> = mask.iter().filter(|&i| i < schema.descs().len()).collect();
        let pieces = merge(wanted.iter().map(|&i| schema.descs()[i].words()).collect());
        let first = pieces.first().map_or(0, |piece| piece.start);
        let end = pieces.last().map_or(0, |piece| piece.end);
        let mut row_words = 0;
        let mut runs = Vec::with_capacity(pieces.len());
        for piece in &pieces {
            let run =
                Run { span_word: piece.start - first, row_word: row_words, words: piece.len() };
            row_words += run.words;
            runs.push(run);
        }
        let columns = wanted.into_iter().map(|desc| {
            let words = schema.descs()[desc].words();
            // Pieces are sorted and disjoint, and each statistic lies in exactly one of them.
            let at = pieces.partition_point(|piece| piece.end <= words.start);
            let start = runs[at].row_word + (words.start - pieces[at].start);
            Column { desc, words: start..start + words.len() }
        });
        let mostly_single = row_words < 2 * pieces.len();
        let scattered = pieces.iter().filter(|_| mostly_single).cloned().flatten();
        // A data block is far below 2^32 words.
        let scattered: Box<[u32]> = scattered.map(|word| (word - first) as u32).collect();
        let near: std::result::Result<_, _> =
            scattered.iter().map(|&at| u8::try_from(at)).collect();
        Arc::new(Self {
            schema: Arc::clone(schema),
            columns: columns.collect(),
            near: near.unwrap_or_default(),
            scattered,
            runs: runs.into(),
            span_words: first..end,
            row_words,
        })
    }

    /// Returns the schema that the plan was made for.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Returns the kept statistics, in schema order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns the column of the first kept statistic of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| *self.schema.descs()[column.desc].name == *name)
    }

    /// Returns the number of words in a row.
    pub fn row_words(&self) -> usize {
        self.row_words
    }

    /// Returns the index in the data block of each word of a row.
    ///
    /// ```
    /// # use vmstrobe_core::{Desc, Mask, ReadPlan, Schema, Target};
    /// let descs = (0..4).map(|i| Desc::counter(&format!("n{i}"), 8 * i)).collect();
    /// let schema = Schema::new("xyz", Target::Vcpu, descs);
    /// let mut mask = Mask::none(4);
    /// mask.set(1);
    /// mask.set(3);
    /// assert_eq!(ReadPlan::new(&schema, &mask).kept().collect::<Vec<_>>(), [1, 3]);
    /// ```
    pub fn kept(&self) -> impl Iterator<Item = usize> {
        let first = self.span_words.start;
        self.runs.iter().flat_map(move |run| {
            let start = first + run.span_word;
            start..start + run.words
        })
    }

    /// Returns the bytes to fetch, as offsets in the data block. Both ends are multiples of 8.
    pub fn span_bytes(&self) -> Range<usize> {
        self.span_words.start * WORD_BYTES..self.span_words.end * WORD_BYTES
    }

    /// Returns whether the row equals the span, so that a source may fetch directly into the row.
    pub fn row_is_span(&self) -> bool {
        self.row_words == self.span_words.len()
    }

    /// Copies the kept words of a fetched span into a row.
    ///
    /// # Panics
    /// If `span` or `row` is shorter than the plan says, which is a bug of the source.
    #[inline]
    pub fn keep(&self, span: &[u64], row: &mut [u64]) {
        if self.scattered.len() == row.len() {
            for (word, &at) in row.iter_mut().zip(&self.scattered) {
                *word = span[at as usize];
            }
            return;
        }
        for run in &self.runs {
            row[run.row_word..run.row_word + run.words]
                .copy_from_slice(&span[run.span_word..run.span_word + run.words]);
        }
    }

    /// Copies the kept words of a span in shared memory into a row, each by one relaxed load.
    ///
    /// # Panics
    /// If `span` or `row` is shorter than the plan says, which is a bug of the source.
    #[inline]
    pub fn load(&self, span: &[AtomicU64], row: &mut [u64]) {
        self.visit(span, row, |kept, word| *kept = word);
    }

    /// Returns whether [`ReadPlan::load_near`] may be used: the kept words are single, and lie
    /// within [`NEAR_WORDS`] words.
    #[doc(hidden)] // For the providers: a shortcut for frames of the BPF reader and tables.
    pub fn is_near(&self) -> bool {
        self.near.len() == self.row_words
    }

    /// Copies as [`ReadPlan::load`] does, from a span that is extended to [`NEAR_WORDS`] words. It
    /// is faster, because an index of one byte cannot lie outside and needs no check.
    ///
    /// # Panics
    /// If the plan is not near and the row has words, which is a bug of the source.
    #[doc(hidden)] // For the providers, as `is_near`.
    #[inline]
    pub fn load_near(&self, words: &[AtomicU64; NEAR_WORDS], row: &mut [u64]) {
        assert_eq!(self.near.len(), row.len(), "a near plan, and its row");
        // Backwards, so that a word before the first one is in the cache for a check that follows,
        // even while another CPU writes there.
        for (kept, &at) in row.iter_mut().zip(&self.near).rev() {
            *kept = words[usize::from(at)].load(Ordering::Relaxed);
        }
    }

    /// Adds the kept words of a span in shared memory to a row, modulo 2^64. The shards of an
    /// object are added up to one row this way.
    ///
    /// # Panics
    /// If `span` or `row` is shorter than the plan says, which is a bug of the source.
    #[inline]
    pub fn add(&self, span: &[AtomicU64], row: &mut [u64]) {
        self.visit(span, row, |kept, word| *kept = kept.wrapping_add(word));
    }

    #[inline]
    fn visit(&self, span: &[AtomicU64], row: &mut [u64], note: impl Fn(&mut u64, u64)) {
        if self.scattered.len() == row.len() {
            for (kept, &at) in row.iter_mut().zip(&self.scattered) {
                note(kept, span[at as usize].load(Ordering::Relaxed));
            }
            return;
        }
        for run in &self.runs {
            let words = &span[run.span_word..run.span_word + run.words];
            let kept = &mut row[run.row_word..run.row_word + run.words];
            for (kept, word) in kept.iter_mut().zip(words) {
                note(kept, word.load(Ordering::Relaxed));
            }
        }
    }
}

/// Sorts the ranges and joins those that touch or overlap.
fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::schema::{Desc, Target};

    /// Checks that a span in shared memory gives the same row, and twice the row if it is added.
    fn check_shared(plan: &ReadPlan, span: &[u64], want: &[u64]) {
        let span: Vec<AtomicU64> = span.iter().map(|&word| AtomicU64::new(word)).collect();
        let mut row = vec![u64::MAX; want.len()];
        plan.load(&span, &mut row);
        assert_eq!(row, want);
        if plan.is_near() {
            let end = (span.len()..NEAR_WORDS).map(|_| AtomicU64::new(u64::MAX));
            let longer: Vec<AtomicU64> = span
                .iter()
                .map(|word| AtomicU64::new(word.load(Ordering::Relaxed)))
                .chain(end)
                .collect();
            let mut row = vec![u64::MAX; want.len()];
            plan.load_near(
                longer.first_chunk().expect("the span was extended to NEAR_WORDS"),
                &mut row,
            );
            assert_eq!(row, want);
        }
        plan.add(&span, &mut row);
        assert!(row.iter().zip(want).all(|(twice, once)| *twice == 2 * once));
    }

    /// Reads a block whose word `i` is `i` by the plan for some statistics, and checks each column.
    fn check(descs: Vec<Desc>, wanted: &[usize], span: Range<usize>, row_words: usize) {
        let schema = Schema::new("xyz", Target::Vcpu, descs);
        let mut mask = Mask::none(schema.descs().len());
        wanted.iter().for_each(|&i| mask.set(i));
        let plan = ReadPlan::new(&schema, &mask);
        assert_eq!(plan.span_bytes(), span.start * 8..span.end * 8);
        assert_eq!(plan.row_words(), row_words);
        let block: Vec<u64> = (0..schema.data_bytes() as u64 / 8).collect();
        let mut row = vec![u64::MAX; row_words];
        plan.keep(&block[span.clone()], &mut row);
        check_shared(&plan, &block[span], &row);
        assert_eq!(plan.columns().len(), wanted.len());
        for column in plan.columns() {
            let words = schema.descs()[column.desc].words();
            assert_eq!(row[column.words.clone()], block[words]);
        }
    }

    fn histogram(name: &str, offset: u32, size: u16) -> Desc {
        Desc { size, ..Desc::counter(name, offset) }
    }

    #[test]
    fn scattered_scalars_are_runs_of_one() {
        let descs: Vec<Desc> = (0..10).map(|i| Desc::counter("n", 8 * i)).collect();
        check(descs, &[1, 4, 8], 1..9, 3);
    }

    #[test]
    fn neighbours_are_one_run_and_everything_is_the_span() {
        let descs: Vec<Desc> = (0..10).map(|i| Desc::counter("n", 8 * i)).collect();
        check(descs.clone(), &[3, 4, 5], 3..6, 3);
        check(descs, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0..10, 10);
    }

    #[test]
    fn data_order_need_not_be_schema_order() {
        let descs = vec![Desc::counter("b", 24), histogram("h", 0, 3), Desc::counter("a", 40)];
        check(descs.clone(), &[0, 1, 2], 0..6, 5);
        check(descs, &[0, 2], 3..6, 2);
    }

    #[test]
    fn overlapping_statistics_share_their_words() {
        let descs = vec![histogram("h", 0, 4), Desc::counter("second", 8), histogram("t", 16, 4)];
        check(descs, &[0, 1, 2], 0..6, 6);
    }

    #[test]
    fn an_empty_mask_reads_nothing() {
        check(vec![Desc::counter("a", 0)], &[], 0..0, 0);
    }
}
