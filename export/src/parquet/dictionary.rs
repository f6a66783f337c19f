//! Column chunks of few distinct values or long runs, written from the runs alone: a page with the
//! distinct values, then one page with levels and indexes.
//!
//! Most columns of a recording do not move for seconds. The parquet crate would be given each value
//! of them; here they cost as much as they have changes.
//!
//! Invariant: a chunk has as many values as its runs have together.

use std::collections::HashMap;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use super::codec::{Compressor, ZSTD_LEVEL};
use super::hybrid;
use crate::heads::Type;

/// Equal values, one after the other; `None` are nulls.
pub(super) type Run = (usize, Option<u64>);

/// The texts whose numbers are the values of a column of texts.
pub(super) type Texts<'a> = &'a [&'a str];

/// A column chunk, as bytes and as the footer describes it.
pub(super) type Chunk = (Bytes, ColumnCloseResult);

/// The distinct values of a chunk, in the order in which they were met.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    numbers: HashMap<u64, u32>,
    values: Vec<u64>,
}

impl Dictionary {
    /// Returns the index of a value.
    pub(super) fn index(&mut self, value: u64) -> u32 {
        let values = &mut self.values;
        *self.numbers.entry(value).or_insert_with(|| {
            values.push(value);
            (values.len() - 1) as u32
        })
    }

    /// Returns the bits of an index.
    pub(super) fn index_bits(&self) -> u32 {
        hybrid::index_bits(self.values.len())
    }

    /// Returns the values as their column has them.
    fn plain(&self, type_: Type, texts: Texts<'_>) -> Vec<u8> {
        let mut plain = Vec::new();
        for &value in &self.values {
            match type_ {
                Type::Text(_) => {
                    let text = texts[value as usize];
                    plain.extend((text.len() as u32).to_le_bytes());
                    plain.extend(text.as_bytes());
                }
                Type::U64 | Type::I64 | Type::Time => plain.extend(value.to_le_bytes()),
                Type::U8 | Type::U32 | Type::I32 => plain.extend((value as u32).to_le_bytes()),
            }
        }
        plain
    }

    /// Returns the smallest and the largest value for the footer.
    fn statistics(&self, type_: Type, nulls: u64) -> Option<Statistics> {
        let values = || self.values.iter().copied();
        let signed = || values().map(|value| value as i64);
        let narrow = || values().map(|value| value as u32);
        let (i64_of, i32_of) = (|value| value as i64, |value| value as i32);
        let nulls = Some(nulls);
        Some(match type_ {
            Type::Text(_) => return None,
            Type::U64 => Statistics::int64(
                values().min().map(i64_of),
                values().max().map(i64_of),
                None,
                nulls,
                false,
            ),
            Type::I64 | Type::Time => {
                Statistics::int64(signed().min(), signed().max(), None, nulls, false)
            }
            Type::U8 | Type::U32 => Statistics::int32(
                narrow().min().map(i32_of),
                narrow().max().map(i32_of),
                None,
                nulls,
                false,
            ),
            Type::I32 => {
                let signed = || narrow().map(i32_of);
                Statistics::int32(signed().min(), signed().max(), None, nulls, false)
            }
        })
    }
}

/// The page behind a dictionary: levels, then indexes.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    pub(super) rows: usize,
    /// The number of values, of which a list has several and a null one.
    pub(super) values: usize,
    pub(super) nulls: usize,
    /// The page's bytes: levels with their lengths, the bits of an index, the indexes.
    pub(super) page: Vec<u8>,
}

impl Indexes {
    /// Appends levels and their length.
    pub(super) fn levels(&mut self, runs: impl Iterator<Item = (usize, u32)>, bits: u32) {
        let start = self.page.len();
        self.page.extend([0; 4]);
        hybrid::encode(runs, bits, &mut self.page);
        let length = (self.page.len() - start - 4) as u32;
        self.page[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Writes column chunks.
#[derive(Debug)]
pub(super) struct DictionaryWriter {
    compressor: Compressor,
}

impl DictionaryWriter {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { compressor: Compressor::new()? })
    }

    /// Returns the chunk of a column of these runs.
    pub(super) fn runs(
        &mut self,
        column: &ColumnDescPtr,
        type_: Type,
        runs: &[Run],
        texts: Texts<'_>,
    ) -> Result<Chunk> {
        let mut dictionary = Dictionary::default();
        let indexes: Vec<(usize, u32)> = runs
            .iter()
            .filter_map(|&(length, value)| Some((length, dictionary.index(value?))))
            .collect();
        let rows = runs.iter().map(|(length, _)| length).sum();
        let nulls = rows - indexes.iter().map(|(length, _)| length).sum::<usize>();
        let mut body = Indexes { rows, values: rows, nulls, page: Vec::new() };
        if column.max_def_level() > 0 {
            body.levels(runs.iter().map(|(length, value)| (*length, value.is_some().into())), 1);
        }
        let bits = dictionary.index_bits();
        if nulls < rows {
            body.page.push(bits as u8);
            hybrid::encode(indexes, bits, &mut body.page);
        }
        self.chunk(column, type_, &dictionary, texts, body)
    }

    /// Returns the chunk of a column without nulls that repeats these values so many times.
    pub(super) fn repeated(
        &mut self,
        column: &ColumnDescPtr,
        type_: Type,
        values: &[u64],
        times: usize,
    ) -> Result<Chunk> {
        let mut dictionary = Dictionary::default();
        let indexes: Vec<u32> = values.iter().map(|&value| dictionary.index(value)).collect();
        let (rows, bits) = (values.len() * times, dictionary.index_bits());
        let mut once = Vec::new();
        if let [0, rest @ ..] = &*indexes
            && rest.iter().all(|&index| index == 0)
        {
            hybrid::encode([(rows, 0)], bits, &mut once);
        } else {
            hybrid::encode(indexes.into_iter().map(|index| (1, index)), bits, &mut once);
            once = once.repeat(times);
        }
        once.insert(0, bits as u8);
        let body = Indexes { rows, values: rows, nulls: 0, page: once };
        self.chunk(column, type_, &dictionary, &[], body)
    }

    /// Returns the chunk of a dictionary and the page behind it.
    pub(super) fn chunk(
        &mut self,
        column: &ColumnDescPtr,
        type_: Type,
        dictionary: &Dictionary,
        texts: Texts<'_>,
        body: Indexes,
    ) -> Result<Chunk> {
        let mut bytes = TrackedWrite::new(Vec::new());
        let mut uncompressed = 0;
        let plain = dictionary.plain(type_, texts);
        // Where all are null there are no values, and some readers want no page of none.
        let has_dictionary = !dictionary.values.is_empty();
        let encoding = if has_dictionary { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
        let mut pages = SerializedPageWriter::new(&mut bytes);
        if has_dictionary {
            let page = Page::DictionaryPage {
                buf: self.compressor.compress(&plain)?.into(),
                num_values: dictionary.values.len() as u32,
                encoding: Encoding::PLAIN,
                is_sorted: false,
            };
            let written = pages.write_page(CompressedPage::new(page, plain.len()))?;
            uncompressed += written.uncompressed_size;
        }
        let page = Page::DataPage {
            buf: self.compressor.compress(&body.page)?.into(),
            num_values: body.values as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let written = pages.write_page(CompressedPage::new(page, body.page.len()))?;
        uncompressed += written.uncompressed_size;
        let bytes: Bytes = bytes.into_inner()?.into();
        let stats = |page_type, encoding| PageEncodingStats { page_type, encoding, count: 1 };
        let data = stats(PageType::DATA_PAGE, encoding);
        let (encodings, encoding_stats) = if has_dictionary {
            let dictionary = stats(PageType::DICTIONARY_PAGE, Encoding::PLAIN);
            (vec![Encoding::PLAIN, Encoding::RLE, encoding], vec![dictionary, data])
        } else {
            (vec![Encoding::PLAIN, Encoding::RLE], vec![data])
        };
        let mut metadata = ColumnChunkMetaData::builder(column.clone())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_encodings(encodings)
            .set_page_encoding_stats(encoding_stats)
            .set_num_values(body.values as i64)
            .set_total_compressed_size(bytes.len() as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_data_page_offset(written.offset as i64)
            .set_dictionary_page_offset(has_dictionary.then_some(0));
        if let Some(statistics) = dictionary.statistics(type_, body.nulls as u64) {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: bytes.len() as u64,
            rows_written: body.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: None,
            offset_index: None,
        };
        Ok((bytes, close))
    }
}
