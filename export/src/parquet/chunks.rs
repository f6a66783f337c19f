//! One column of a row group after the other.
//!
//! A column that hardly moves is written from its runs, one that moves from its values, in the
//! encoding DELTA_BINARY_PACKED.
//!
//! Invariant: one buffer of values is filled, written and used again; no column is held beside
//! another.

use std::io::{self, Write};

use parquet::data_type::Int64Type;
use parquet::errors::{ParquetError, Result};
use parquet::schema::types::{SchemaDescriptor, TypePtr};

use super::dictionary::{Dictionary, DictionaryWriter, Indexes, Run, Texts};
use super::file::RowGroup;
use crate::heads::Type;

/// Writes columns, with buffers that it keeps.
#[derive(Debug)]
pub(super) struct ChunkWriter {
    schema: SchemaDescriptor,
    dictionaries: DictionaryWriter,
    values: Vec<u64>,
    numbers: Vec<i64>,
    levels: Vec<i16>,
}

impl ChunkWriter {
    /// Makes one for files of these columns.
    pub(super) fn new(schema: TypePtr) -> io::Result<Self> {
        Ok(Self {
            schema: SchemaDescriptor::new(schema),
            dictionaries: DictionaryWriter::new()?,
            values: Vec::new(),
            numbers: Vec::new(),
            levels: Vec::new(),
        })
    }

    /// Writes the column of that index from its runs. A text is its number in `texts`.
    pub(super) fn runs<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        index: usize,
        type_: Type,
        runs: &[Run],
        texts: Texts<'_>,
    ) -> Result<()> {
        let column = self.schema.column(index);
        let (bytes, close) = self.dictionaries.runs(&column, type_, runs, texts)?;
        group.append_column(&bytes, close)
    }

    /// Writes the column of that index, whose values repeat so many times.
    pub(super) fn repeated<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        index: usize,
        type_: Type,
        values: &[u64],
        times: usize,
    ) -> Result<()> {
        let column = self.schema.column(index);
        let (bytes, close) = self.dictionaries.repeated(&column, type_, values, times)?;
        group.append_column(&bytes, close)
    }

    /// Writes the column of that index, of lists, from its dictionary and what stands behind it.
    pub(super) fn lists<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        index: usize,
        type_: Type,
        dictionary: &Dictionary,
        body: Indexes,
    ) -> Result<()> {
        let column = self.schema.column(index);
        let (bytes, close) = self.dictionaries.chunk(&column, type_, dictionary, &[], body)?;
        group.append_column(&bytes, close)
    }

    /// Writes the next column, of 64 bits, from its values. `fill` is given a place for each row,
    /// and a level that it sets to 0 where the row is null.
    pub(super) fn values<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        rows: usize,
        has_nulls: bool,
        fill: impl FnOnce(&mut [u64], &mut [i16]),
    ) -> Result<()> {
        self.values.resize(rows, 0);
        self.levels.clear();
        self.levels.resize(rows, 1);
        fill(&mut self.values, &mut self.levels);
        self.numbers.clear();
        let values = self.values.iter().map(|&value| value as i64);
        if has_nulls {
            let valid = values.zip(&self.levels).filter(|(_, level)| **level == 1);
            self.numbers.extend(valid.map(|(value, _)| value));
        } else {
            self.numbers.extend(values);
        }
        self.deltas(group, true)
    }

    /// Writes the next column, of 64 bits and without nulls, whose values repeat so many times.
    pub(super) fn repeated_deltas<W: Write + Send>(
        &mut self,
        group: &mut RowGroup<'_, W>,
        values: &[u64],
        times: usize,
    ) -> Result<()> {
        self.numbers.clear();
        for _ in 0..times {
            self.numbers.extend(values.iter().map(|&value| value as i64));
        }
        self.deltas(group, false)
    }

    /// Writes the numbers as the next column.
    fn deltas<W: Write + Send>(&self, group: &mut RowGroup<'_, W>, has_levels: bool) -> Result<()> {
        let lacks = || ParquetError::General("the row group has no such column".to_owned());
        let mut column = group.next_column()?.ok_or_else(lacks)?;
        let levels = has_levels.then_some(&*self.levels);
        column.typed::<Int64Type>().write_batch(&self.numbers, levels, None)?;
        column.close()
    }
}
