//! Histograms as columns of lists, one list for each tick.
//!
//! The buckets of a row are packed once, and copied until one of them changes.
//!
//! Invariant: a row without values is a null, and every other list has all buckets.

use std::io::Write;

use parquet::errors::Result;

use super::super::chunks::ChunkWriter;
use super::super::dictionary::{Dictionary, Indexes, Run};
use super::super::file::RowGroup;
use super::super::hybrid;
use super::super::pending::{Pending, Place};
use crate::heads::Type;

/// The definition levels of a list: null, or with values.
const NULL: u32 = 0;
const VALUE: u32 = 2;
/// The bits of these levels.
const LEVEL_BITS: u32 = 2;

/// Writes columns of lists, with buffers that it keeps.
#[derive(Debug, Default)]
pub(super) struct ListWriter {
    runs: Vec<Run>,
    /// The changes of all buckets: the row, the bucket and the index of the value.
    changes: Vec<(usize, usize, Option<u32>)>,
    spans: Vec<Span>,
    /// The indexes of the values of each span, one span after the other.
    indexes: Vec<u32>,
}

/// Rows with the same values.
#[derive(Clone, Copy, Debug)]
struct Span {
    rows: usize,
    is_null: bool,
}

impl ListWriter {
    /// Writes the histogram of that many buckets whose first is at a place.
    pub(super) fn write<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        index: usize,
        chunks: &mut ChunkWriter,
        pending: &Pending,
        place: Place,
        buckets: u16,
    ) -> Result<()> {
        let (rows, buckets) = (pending.ticks(), usize::from(buckets));
        let dictionary = self.find_changes(pending, place, buckets);
        self.find_spans(rows, buckets);
        let mut body = Indexes { rows, ..Indexes::default() };
        let lists = self.spans.iter().filter(|span| !span.is_null).map(|span| span.rows);
        let lists: usize = lists.sum();
        body.nulls = rows - lists;
        body.values = lists * buckets + body.nulls;
        let repetitions = self.spans.iter().flat_map(|span| {
            let rest = if span.is_null { 0 } else { buckets - 1 };
            (0..span.rows).flat_map(move |_| [(1, 0), (rest, 1)])
        });
        body.levels(repetitions, 1);
        let definitions = self.spans.iter().map(|span| match span.is_null {
            true => (span.rows, NULL),
            false => (span.rows * buckets, VALUE),
        });
        body.levels(definitions, LEVEL_BITS);
        if lists > 0 {
            let bits = dictionary.index_bits();
            body.page.push(bits as u8);
            self.write_indexes(lists, buckets, bits, &mut body.page);
        }
        chunks.lists(group, index, Type::U64, &dictionary, body)
    }

    /// Finds the changes of all buckets, row by row. Returns the values that they have.
    fn find_changes(
        &mut self,
        pending: &Pending,
        (group, object, word): Place,
        buckets: usize,
    ) -> Dictionary {
        let mut dictionary = Dictionary::default();
        self.changes.clear();
        for bucket in 0..buckets {
            self.runs.clear();
            pending.runs((group, object, word + bucket), &mut self.runs);
            let mut row = 0;
            for &(length, value) in &self.runs {
                let value = value.map(|value| dictionary.index(value));
                self.changes.push((row, bucket, value));
                row += length;
            }
        }
        self.changes.sort_unstable_by_key(|&(row, bucket, _)| (row, bucket));
        dictionary
    }

    /// Finds the rows with the same values.
    fn find_spans(&mut self, rows: usize, buckets: usize) {
        self.spans.clear();
        self.indexes.clear();
        let mut changes = self.changes.chunk_by(|one, other| one.0 == other.0).peekable();
        while let Some(of_row) = changes.next() {
            // A row begins with the values of the one before. All its buckets are null, or none.
            let before = self.indexes.len().checked_sub(buckets);
            match before {
                Some(before) => self.indexes.extend_from_within(before..),
                None => self.indexes.resize(buckets, 0),
            }
            let start = self.indexes.len() - buckets;
            let mut is_null = false;
            for &(_, bucket, index) in of_row {
                is_null |= index.is_none();
                self.indexes[start + bucket] = index.unwrap_or(0);
            }
            let end = changes.peek().map_or(rows, |next| next[0].0);
            self.spans.push(Span { rows: end - of_row[0].0, is_null });
        }
    }

    /// Appends the indexes of all lists.
    fn write_indexes(&self, lists: usize, buckets: usize, bits: u32, out: &mut Vec<u8>) {
        let spans = self.spans.iter().zip(self.indexes.chunks_exact(buckets));
        let mut spans = spans.filter(|(span, _)| !span.is_null);
        if buckets.is_multiple_of(hybrid::GROUP) {
            hybrid::begin_groups(lists * buckets, out);
            for (span, indexes) in spans {
                let start = out.len();
                hybrid::pack(indexes, bits, out);
                for _ in 1..span.rows {
                    out.extend_from_within(start..start + buckets * bits as usize / 8);
                }
            }
            return;
        }
        let rows = std::iter::from_fn(|| spans.next())
            .flat_map(|(span, indexes)| std::iter::repeat_n(indexes, span.rows));
        hybrid::encode(rows.flatten().map(|&index| (1, index)), bits, out);
    }
}
