//! The columns of one message, uncompressed one at a time.
//!
//! Invariant: every buffer lies in the body, has exactly the bytes that its rows need, and memory
//! is asked for only after the number of rows was checked.

use super::codec::{Compression, Decompressor};
use super::message::ColumnsHeader;
use crate::heads::Type;
use crate::rebuild::{Broken, Values};

/// The columns of a message.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    header: ColumnsHeader<'a>,
    body: &'a [u8],
    rows: usize,
    compression: Option<Compression>,
}

impl<'a> Fields<'a> {
    /// Checks that there are as many columns as the schema has.
    pub(super) fn new(
        header: ColumnsHeader<'a>,
        body: &'a [u8],
        rows: usize,
        columns: usize,
        buffers: usize,
    ) -> Result<Self, Broken> {
        if (header.nodes.len(), header.buffers.len()) != (columns, buffers) {
            return Err("it has not as many columns as the schema".into());
        }
        let compression = header.compression;
        Ok(Self { header, body, rows, compression })
    }

    /// Reads a column, whose buffers are its bitmap and its values.
    pub(super) fn read(
        &self,
        index: usize,
        type_: Type,
        decompressor: &mut Decompressor,
        into: &mut Values,
    ) -> Result<(), Broken> {
        let broken = || format!("the values of column {index} are not as many as its rows");
        if self.header.nodes.pair(index).map(|(rows, _)| rows) != Some(self.rows as i64) {
            return Err(broken());
        }
        let bitmap = self.buffer(2 * index).ok_or_else(broken)?;
        into.valid.clear();
        if !bitmap.is_empty() {
            into.valid.resize(self.rows.div_ceil(8), 0);
            let is_filled = decompressor.fill(bitmap, self.compression, &mut into.valid);
            is_filled.then_some(()).ok_or_else(broken)?;
        }
        let buffer = self.buffer(2 * index + 1).ok_or_else(broken)?;
        let values = &mut into.values;
        if type_.bytes() == size_of::<u64>() {
            values.resize(self.rows, 0);
            let bytes = bytemuck::cast_slice_mut(values);
            let is_filled = decompressor.fill(buffer, self.compression, bytes);
            // On a little-endian machine this changes nothing.
            values.iter_mut().for_each(|value| *value = u64::from_le(*value));
            return is_filled.then_some(()).ok_or_else(broken);
        }
        let mut raw = vec![0; self.rows * type_.bytes()];
        let is_filled = decompressor.fill(buffer, self.compression, &mut raw);
        values.clear();
        if type_.bytes() == size_of::<u32>() {
            let (numbers, _) = raw.as_chunks::<4>();
            values.extend(numbers.iter().map(|number| u64::from(u32::from_le_bytes(*number))));
        } else {
            values.extend(raw.iter().map(|&number| u64::from(number)));
        }
        is_filled.then_some(()).ok_or_else(broken)
    }

    /// Returns the bytes of a column, if it has as many rows as there should be: its bitmap and its
    /// values, as they were compressed. They tell the codec, too; without one there are none.
    pub(super) fn bytes(&self, index: usize) -> Option<[&'a [u8]; 2]> {
        let rows = self.header.nodes.pair(index).map(|(rows, _)| rows);
        let is_whole = rows == Some(self.rows as i64) && self.compression.is_some();
        Some([self.buffer(2 * index)?, self.buffer(2 * index + 1)?]).filter(|_| is_whole)
    }

    /// Reads texts, whose buffers are a bitmap, the ends of the texts behind a 0, and the texts.
    pub(super) fn texts(
        &self,
        decompressor: &mut Decompressor,
        most_bytes: usize,
    ) -> Result<Vec<Box<str>>, Broken> {
        let broken = || "its texts are not as many as its rows".to_owned();
        let ends = self.buffer(1).filter(|_| self.rows > 0);
        let Some(ends_buffer) = ends else { return Ok(Vec::new()) };
        let mut ends = vec![0; 4 * (self.rows + 1)];
        let is_filled = decompressor.fill(ends_buffer, self.compression, &mut ends);
        let text_buffer = self.buffer(2).ok_or_else(broken)?;
        let claimed = Decompressor::claimed(text_buffer, self.compression);
        let claimed = claimed.filter(|&bytes| is_filled && bytes <= most_bytes);
        let mut texts = vec![0; claimed.ok_or_else(broken)?];
        if !decompressor.fill(text_buffer, self.compression, &mut texts) {
            return Err(broken());
        }
        let (ends, _) = ends.as_chunks::<4>();
        let ends: Vec<usize> = ends.iter().map(|end| u32::from_le_bytes(*end) as usize).collect();
        let text = |bounds: &[usize]| {
            let bytes = texts.get(bounds[0]..bounds[1])?;
            str::from_utf8(bytes).ok().map(Box::from)
        };
        // Ends that ascend give each byte to one text at most.
        let texts: Option<Vec<Box<str>>> =
            if ends.is_sorted() { ends.windows(2).map(text).collect() } else { None };
        texts.ok_or_else(|| "its texts are not UTF-8".to_owned())
    }

    fn buffer(&self, index: usize) -> Option<&'a [u8]> {
        let (start, length) = self.header.buffers.pair(index)?;
        let start = usize::try_from(start).ok()?;
        self.body.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }
}
