//! One column of a message: its validity bitmap and its values, compressed.
//!
//! One buffer holds the values of the column at hand. A column that is constant for each object, as
//! most are, is copied as the compressed bytes of the last batch if those were of the same values.
//!
//! Invariant: copied bytes are those that compressing again would give.

use std::io;

use vmstrobe_core::RowState;

use super::codec::{Compression, Compressor};
use super::message::Body;
use crate::batch::Batch;
use crate::heads::Type;

/// The compressed bytes of a column, and the values that they are of.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The value of each object; `None` if the column was not constant or had another shape.
    values: Option<Vec<u64>>,
    bytes: Vec<u8>,
    length: i64,
}

/// A validity bitmap, compressed; empty if all values are valid.
#[derive(Debug, Default)]
pub(super) struct Validity {
    nulls: i64,
    bytes: Vec<u8>,
    length: i64,
}

/// The buffers that one column after the other goes through.
#[derive(Debug)]
pub(super) struct Packer {
    compressor: Compressor,
    values: Vec<u64>,
    raw: Vec<u8>,
}

/// A column that is being written, and its bytes in the last batch.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub(super) kept: &'a mut Kept,
    pub(super) packer: &'a mut Packer,
    pub(super) body: &'a mut Body,
    pub(super) type_: Type,
    pub(super) ticks: usize,
    pub(super) rows: usize,
}

impl Kept {
    /// Forgets the bytes, which are of another shape than the next ones.
    pub(super) fn forget(&mut self) {
        self.values = None;
    }
}

impl Slot<'_> {
    /// Writes a column that has one value for each object, or copies it if the last batch had it.
    pub(super) fn constants(&mut self, constants: &[u64], validity: &Validity) -> io::Result<()> {
        // The bitmap is written anew: the values do not depend on it.
        if self.kept.values.as_deref() != Some(constants) {
            let ticks = self.ticks;
            let start = self.body.bytes.len();
            self.values(validity, |values| {
                for (values, constant) in values.chunks_exact_mut(ticks).zip(constants) {
                    values.fill(*constant);
                }
            })?;
            let start = start + validity.bytes.len();
            self.kept.values = Some(constants.to_vec());
            self.kept.bytes = self.body.bytes[start..].to_vec();
            self.kept.length = self.body.buffers.last().map_or(0, |&(_, length)| length);
            return Ok(());
        }
        self.validity(validity);
        let at = self.body.bytes.len() as i64;
        self.body.buffers.push((at, self.kept.length));
        self.body.bytes.extend(&self.kept.bytes);
        Ok(())
    }

    /// Writes a column whose values are filled in, every one of them.
    pub(super) fn values(
        &mut self,
        validity: &Validity,
        fill: impl FnOnce(&mut [u64]),
    ) -> io::Result<()> {
        self.kept.values = None;
        self.validity(validity);
        let values = &mut self.packer.values;
        values.resize(self.rows, 0);
        fill(values);
        self.packer.put_values(self.body, self.type_)
    }

    /// Writes a column that has one value for each tick.
    pub(super) fn each_tick(&mut self, of_tick: impl Iterator<Item = u64>) -> io::Result<()> {
        let of_tick: Vec<u64> = of_tick.collect();
        // So is most often the offset of the wall clock.
        if of_tick.iter().all(|value| *value == of_tick[0]) {
            let objects = self.rows / of_tick.len();
            return self.constants(&vec![of_tick[0]; objects], &Validity::default());
        }
        self.values(&Validity::default(), |values| {
            values.chunks_exact_mut(of_tick.len()).for_each(|chunk| chunk.copy_from_slice(&of_tick))
        })
    }

    /// Writes a column that the state of each row gives; null where there is none.
    pub(super) fn each_state(
        &mut self,
        batch: &Batch,
        of: impl Fn(RowState) -> Option<u64>,
    ) -> io::Result<()> {
        let ticks = self.ticks;
        let runs = || (0..batch.layout().rows()).flat_map(|row| batch.states(row).runs(ticks));
        let valid = runs().map(|(range, state)| (range.len(), of(state).is_some()));
        let validity = self.packer.bitmap(valid)?;
        let is_constant = (0..batch.layout().rows()).all(|row| batch.states(row).is_constant());
        if is_constant {
            let values: Vec<u64> = runs().map(|(_, state)| of(state).unwrap_or(0)).collect();
            return self.constants(&values, &validity);
        }
        self.values(&validity, |values| {
            let mut rest = values;
            for (range, state) in runs() {
                let (run, others) = rest.split_at_mut(range.len());
                run.fill(of(state).unwrap_or(0));
                rest = others;
            }
        })
    }

    fn validity(&mut self, validity: &Validity) {
        self.body.nodes.push((self.rows as i64, validity.nulls));
        self.body.buffers.push((self.body.bytes.len() as i64, validity.length));
        self.body.bytes.extend(&validity.bytes);
    }
}

impl Packer {
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        let compressor = Compressor::new(compression)?;
        Ok(Self { compressor, values: Vec::new(), raw: Vec::new() })
    }

    pub(super) fn compression(&self) -> Compression {
        self.compressor.compression()
    }

    /// Appends a buffer.
    pub(super) fn put(&mut self, body: &mut Body, raw: &[u8]) -> io::Result<()> {
        let at = body.bytes.len() as i64;
        let length = self.compressor.append(&mut body.bytes, raw)?;
        body.buffers.push((at, length));
        Ok(())
    }

    /// Appends the values as numbers of a type.
    fn put_values(&mut self, body: &mut Body, type_: Type) -> io::Result<()> {
        let mut raw = std::mem::take(&mut self.raw);
        raw.clear();
        match type_.bytes() {
            8 => {
                // On a little-endian machine this changes nothing, and copies nothing.
                self.values.iter_mut().for_each(|value| *value = value.to_le());
                let values = std::mem::take(&mut self.values);
                self.put(body, bytemuck::cast_slice(&values))?;
                self.values = values;
            }
            4 => {
                raw.extend(self.values.iter().flat_map(|&value| (value as u32).to_le_bytes()));
                self.put(body, &raw)?;
            }
            _ => {
                raw.extend(self.values.iter().map(|&value| value as u8));
                self.put(body, &raw)?;
            }
        }
        self.raw = raw;
        Ok(())
    }

    /// Returns the bitmap of a column that only some groups have.
    pub(super) fn set(
        &mut self,
        batch: &Batch,
        set: &[bool],
        all_good: bool,
    ) -> io::Result<Validity> {
        let ticks = batch.ticks().len();
        if all_good && set.iter().all(|&has| has) {
            return Ok(Validity::default());
        }
        let groups = batch.layout().groups().iter().zip(set);
        let rows = groups.flat_map(|(group, &has)| {
            (group.first_row..group.first_row + group.objects.len()).map(move |row| (row, has))
        });
        self.bitmap(rows.flat_map(|(row, has)| {
            let runs = batch.states(row).runs(ticks);
            runs.map(move |(range, state)| (range.len(), has && state.has_values()))
        }))
    }

    /// Returns the bitmap of runs of rows with and without a value.
    pub(super) fn bitmap(
        &mut self,
        runs: impl Iterator<Item = (usize, bool)>,
    ) -> io::Result<Validity> {
        let (mut bits, mut rows, mut nulls) = (std::mem::take(&mut self.raw), 0_usize, 0);
        bits.clear();
        for (length, is_valid) in runs {
            let end = rows + length;
            bits.resize(end.div_ceil(8), 0);
            if is_valid {
                (rows..end).for_each(|row| bits[row / 8] |= 1 << (row % 8));
            } else {
                nulls += length as i64;
            }
            rows = end;
        }
        let mut validity = Validity::default();
        if nulls > 0 {
            validity.nulls = nulls;
            validity.length = self.compressor.append(&mut validity.bytes, &bits)?;
        }
        self.raw = bits;
        Ok(validity)
    }
}
