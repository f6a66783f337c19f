//! The frame that a tick's program writes: the words of an array map.
//!
//! ```text
//! word 0   number of the sequence lock around all rows
//!      1   begin_ns    2  end_ns    CLOCK_MONOTONIC, around the reading
//!      3   marked      4  read      rows without data, rows that were gone through
//!      8   the first row
//!
//! row      why it has no data, or 0 | incarnation, or 0 | data words
//! ```
//!
//! Invariant: the array is frozen before anyone reads it, so that no user space changes it. The
//! program changes words 0 to 4 and the rows, and nothing else; the rows only while word 0 is odd.

use std::ops::Range;

use vmstrobe_core::{Error, ErrorKind, Result, RowState, WORD_BYTES};

use super::sys::{ArrayMap, ArrayUse, refused};

pub(super) const SEQ: usize = 0;
pub(super) const BEGIN: usize = 1;
pub(super) const END: usize = 2;
pub(super) const MARKED: usize = 3;
pub(super) const READ: usize = 4;

/// The index of the first row's first word, behind a cache line.
const FIRST_ROW: usize = 8;

/// The number of words before the data of a row: its mark, and its incarnation.
pub(super) const LOCK_WORDS: usize = 2;

/// The most bytes of a frame.
const MAX_FRAME_BYTES: usize = 64 << 20;

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
    array: ArrayMap,
    row_words: usize,
}

impl Frame {
    /// Creates an array of so many rows, each with so many words of data, all zero.
    ///
    /// # Errors
    /// `TooLarge` if it is over [`MAX_FRAME_BYTES`]; `Denied` if we may not make one; `Io` if there
    /// is no memory.
    pub(super) fn new(rows: usize, data_words: usize) -> Result<Self> {
        let row_words = LOCK_WORDS + data_words;
        let bytes = bytes_of(rows, row_words)?;
        let array = ArrayMap::create("vmstrobe_frame", bytes, ArrayUse::Mapped).map_err(refused)?;
        array.freeze().map_err(refused)?;
        Ok(Self { array, row_words })
    }

    /// Returns the array, for the program that writes it.
    pub(super) fn array(&self) -> &ArrayMap {
        &self.array
    }

    /// Returns the offset of the first row in bytes.
    pub(super) fn rows_byte(&self) -> usize {
        FIRST_ROW * WORD_BYTES
    }

    /// Returns the distance in bytes from one row to the next.
    pub(super) fn row_bytes(&self) -> usize {
        self.row_words * WORD_BYTES
    }

    /// Returns the range in words of the row with that number, its two lock words included.
    #[inline]
    pub(super) fn row(&self, at: usize) -> Range<usize> {
        let first = FIRST_ROW + at * self.row_words;
        first..first + self.row_words
    }
}

/// Returns the bytes of a frame of so many rows, each of so many words.
///
/// # Errors
/// `TooLarge` if these are over [`MAX_FRAME_BYTES`].
fn bytes_of(rows: usize, row_words: usize) -> Result<u32> {
    let words = rows.saturating_mul(row_words).saturating_add(FIRST_ROW);
    let bytes = Some(words.saturating_mul(WORD_BYTES)).filter(|bytes| *bytes <= MAX_FRAME_BYTES);
    bytes.map(|bytes| bytes as u32).ok_or_else(|| {
        let text = format!("a frame of {rows} rows is too large");
        Error::new(ErrorKind::TooLarge, text)
    })
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

#[cfg(test)]
mod tests;
