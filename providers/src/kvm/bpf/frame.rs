//! The frame that a tick's program writes: a table in an array map, so that any reader of tables
//! can read it, in this process or another.
//!
//! ```text
//! word 32  number of the sequence lock around all rows (and the table's heartbeat)
//!      33  begin_ns      34  end_ns      CLOCK_MONOTONIC, around the reading
//!      35  marked        36  read        rows without data, rows that were gone through
//!      37  where the first row is, in words      38  words of a row      39  rows
//!
//! row      why it has no data, or 0 | incarnation, or 0 | data words
//! ```
//!
//! All else is as in `table::format`. A row's first two words are an object's lock words there, so
//! that a reader of the table takes a row without data for an object that is gone.
//!
//! Invariant: the array is frozen before anyone sees it, so that no user space changes it. The
//! program changes words 32 to 36 and the rows, and nothing else; the rows only while word 32 is
//! odd.

use std::ops::Range;
use std::sync::Arc;

use vmstrobe_core::wire::{self, Header};
use vmstrobe_core::{
    Desc, Error, ErrorKind, Object, ReadPlan, Result, RowState, Schema, WORD_BYTES,
};

use super::sys::{ArrayMap, ArrayUse, refused};
use crate::table::format::{
    HEADER_WORDS, HEARTBEAT, LINES_WORDS, MAX_SEGMENT_BYTES, SLOT_WORDS, SLOTS_USED, Segment, Slot,
};

pub(super) use crate::table::format::LOCK_WORDS;

pub(super) const SEQ: usize = HEARTBEAT;
pub(super) const BEGIN: usize = 33;
pub(super) const END: usize = 34;
pub(super) const MARKED: usize = 35;
pub(super) const READ: usize = 36;
pub(super) const FIRST_ROW: usize = 37;
pub(super) const ROW_WORDS: usize = 38;
pub(super) const ROWS: usize = 39;

/// How long its values are believed by who reads a frame as a table. At what rate it will be ticked
/// is not known when it is made, and nothing can be said in it later.
const SILENCE_MAX_NS: u64 = 10_000_000_000;

/// Why a row has no data. Even, as the number of a lock at rest.
pub(super) mod mark {
    pub(in super::super) const EMPTY: u64 = 2;
    pub(in super::super) const FAILED: u64 = 4;
    pub(in super::super) const DEAD: u64 = 6;
    pub(in super::super) const THREADLESS: u64 = 8;
}

/// The layout of a row's data words: the plan's row, or its whole span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Row,
    Span,
}

/// The array of one bulk reader.
#[derive(Debug)]
pub(super) struct Frame {
    /// Held by the program too; kept for whoever it is lent to.
    array: Arc<ArrayMap>,
    first_row: usize,
    row_words: usize,
}

impl Frame {
    /// An array with a row for each of these objects, and `extra` more that nobody is told of.
    ///
    /// # Errors
    /// `TooLarge` if it is over [`MAX_SEGMENT_BYTES`] or a path too long for a block; `Denied` if
    /// we may not make one; `Io` if there is no memory.
    pub(super) fn new(
        plan: &ReadPlan,
        shape: Shape,
        objects: &[Object],
        extra: usize,
    ) -> Result<Self> {
        let image = Self::image(plan, shape, objects, extra)?;
        let bytes = size_of_val(&*image) as u32;
        let array = ArrayMap::create("vmstrobe_frame", bytes, ArrayUse::Mapped).map_err(refused)?;
        array.write_value(&image).map_err(refused)?;
        array.freeze().map_err(refused)?;
        let [first_row, row_words] = [FIRST_ROW, ROW_WORDS].map(|at| image[at] as usize);
        Ok(Self { array: Arc::new(array), first_row, row_words })
    }

    /// Returns the words of the array before anything is read: its rows are all zero.
    ///
    /// # Errors
    /// `TooLarge` as [`Frame::new`].
    pub(super) fn image(
        plan: &ReadPlan,
        shape: Shape,
        objects: &[Object],
        extra: usize,
    ) -> Result<Vec<u64>> {
        let schema = schema(plan, shape);
        let data_words = match shape {
            Shape::Row => plan.row_words(),
            Shape::Span => plan.span_bytes().len() / WORD_BYTES,
        };
        let (row_words, rows) = (LOCK_WORDS + data_words, objects.len() + extra);
        let blocks: Vec<Vec<u8>> =
            objects.iter().map(|o| wire::write(&o.path, &schema)).collect::<Result<_>>()?;
        let directory = HEADER_WORDS;
        let first_block = directory + objects.len() * SLOT_WORDS;
        let block_words: usize = blocks.iter().map(|block| block.len().div_ceil(WORD_BYTES)).sum();
        let first_row = (first_block + block_words).next_multiple_of(LINES_WORDS);
        let words = first_row + rows * row_words;
        if words as u64 * WORD_BYTES as u64 > MAX_SEGMENT_BYTES {
            let text = format!("a frame of {rows} rows is too large");
            return Err(Error::new(ErrorKind::TooLarge, text));
        }
        let mut image = vec![0; words];
        let segment = Segment {
            words,
            directory_word: directory,
            slots: objects.len(),
            heartbeat_period_ns: SILENCE_MAX_NS,
            provider: schema.provider().to_owned(),
        };
        image[..HEADER_WORDS].copy_from_slice(&segment.to_words());
        image[SLOTS_USED] = objects.len() as u64;
        image[FIRST_ROW..=ROWS].copy_from_slice(&[first_row, row_words, rows].map(|n| n as u64));
        let mut at = first_block;
        for (row, (object, block)) in objects.iter().zip(blocks).enumerate() {
            let data = first_row + row * row_words + LOCK_WORDS;
            let slot = Slot {
                incarnation: row as u64 + 1,
                block_word: at,
                index: object.index,
                shards: 1,
                shard_words: 0,
                is_grouped: false,
                target: schema.target().clone(),
            };
            let entry = directory + row * SLOT_WORDS;
            image[entry..entry + SLOT_WORDS].copy_from_slice(&slot.to_words());
            at += write_block(&mut image[at..], block, (data - at) * WORD_BYTES)?;
        }
        Ok(image)
    }

    /// The array, for a program that writes it or a process that reads it.
    pub(super) fn array(&self) -> &Arc<ArrayMap> {
        &self.array
    }

    pub(super) fn rows_byte(&self) -> usize {
        self.first_row * WORD_BYTES
    }

    pub(super) fn row_bytes(&self) -> usize {
        self.row_words * WORD_BYTES
    }

    /// Returns the range in words of the row with that number, its two lock words included.
    #[inline]
    pub(super) fn row(&self, at: usize) -> Range<usize> {
        let first = self.first_row + at * self.row_words;
        first..first + self.row_words
    }
}

/// Returns the state of a row that has this mark in its first word.
pub(super) fn state_of(mark: u64) -> RowState {
    match mark {
        0 => RowState::Good,
        mark::EMPTY | mark::DEAD => RowState::Gone,
        mark::THREADLESS => RowState::Missing,
        _ => RowState::Io(rustix::io::Errno::FAULT.raw_os_error()),
    }
}

/// The statistics that are kept, where they are in the data words of a row.
fn schema(plan: &ReadPlan, shape: Shape) -> Arc<Schema> {
    let span = plan.span_bytes();
    let desc = |column: &vmstrobe_core::Column| {
        let desc = &plan.schema().descs()[column.desc];
        let offset = match shape {
            Shape::Row => (column.words.start * WORD_BYTES) as u32,
            Shape::Span => desc.offset - span.start as u32,
        };
        Desc { offset, ..desc.clone() }
    };
    let descs = plan.columns().iter().map(desc).collect();
    Schema::new(plan.schema().provider(), plan.schema().target().clone(), descs)
}

/// Writes a block whose data is so many bytes behind it; gives its words.
fn write_block(image: &mut [u64], mut block: Vec<u8>, data_offset: usize) -> Result<usize> {
    let head = block.first_chunk().expect("a block begins with a header");
    let header = Header::parse(head)?;
    let data_offset = data_offset as u32;
    block[..Header::BYTES].copy_from_slice(&Header { data_offset, ..header }.to_bytes());
    block.resize(block.len().next_multiple_of(WORD_BYTES), 0);
    let words = block.as_chunks().0;
    for (word, bytes) in image.iter_mut().zip(words) {
        *word = u64::from_ne_bytes(*bytes);
    }
    Ok(words.len())
}

#[cfg(test)]
mod tests;
