//! The reader of `.parquet`: one row group after the other, each as a batch.
//!
//! Invariant: one column is held at a time, beside the changes of the batch that is made of them.

use std::collections::VecDeque;
use std::io::{self, Read, Seek, SeekFrom};
use std::vec;

use parquet::basic::CompressionCodec;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};

use super::footer::Footer;
use super::values::{Decoder, Kind, Texts};
use crate::arrows::{End, Item};
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::Event;
use crate::heads::{ARROW_HEADS, Dictionary, Head, Type};
use crate::limits::{MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_BODY_BYTES};
use crate::metadata::Metadata;
use crate::rebuild::{Broken, FileRows, Rebuilder, Values};

/// Reads a Parquet file of rows that [`ParquetWriter`](crate::ParquetWriter) wrote.
///
/// A file without its footer, which is written last, cannot be read. Each row group is a batch; an
/// event stands before the batch in whose time it happened.
///
/// ```no_run
/// use vmstrobe_export::{Item, ParquetReader};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut reader = ParquetReader::new(std::fs::File::open("run.parquet")?)?;
/// while let Some(item) = reader.next_item()? {
///     if let Item::Batch(batch) = item {
///         println!("{} ticks", batch.ticks().len());
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ParquetReader<R> {
    file: R,
    metadata: Metadata,
    rebuilder: Rebuilder,
    groups: vec::IntoIter<RowGroupMetaData>,
    events: VecDeque<Event>,
    batch: Option<Batch>,
    texts: [Texts; 3],
    decoder: Decoder,
    whole_bytes: u64,
    end: Option<End>,
}

/// The columns of a row group.
struct GroupRows<'a, R> {
    file: &'a mut R,
    group: &'a RowGroupMetaData,
    rows: usize,
    texts: &'a mut [Texts; 3],
    decoder: &'a mut Decoder,
    /// The error of the file, which is another than a broken rule.
    failed: Option<Error>,
}

impl<R: Read + Seek> ParquetReader<R> {
    /// Reads the footer of a recording.
    ///
    /// # Errors
    /// [`Error::NotARecording`] if the file is something else or was not finished,
    /// [`Error::TooLarge`] if it exceeds a limit, [`Error::Read`] if reading fails.
    pub fn new(mut file: R) -> Result<Self> {
        let footer = Footer::read(&mut file)?;
        Ok(Self {
            file,
            metadata: footer.metadata,
            rebuilder: Rebuilder::new(footer.columns),
            groups: footer.groups.into_iter(),
            events: footer.events.into(),
            batch: None,
            texts: Default::default(),
            decoder: Decoder::default(),
            whole_bytes: 0,
            end: None,
        })
    }

    /// Returns the circumstances of the recording.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Returns the columns of the recording.
    pub fn columns(&self) -> &Columns {
        &self.rebuilder.columns
    }

    /// Returns the end of the recording, once it was reached: [`End::Finished`] or
    /// [`End::Damaged`].
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Returns the end of the last row group that was read and found good.
    pub fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    /// Returns the next item; `None` at the end.
    ///
    /// # Errors
    /// [`Error::Damaged`] or [`Error::TooLarge`] for a row group that is not as it was written,
    /// [`Error::Read`] if reading fails. There are no items behind it.
    pub fn next_item(&mut self) -> Result<Option<Item>> {
        if self.end.is_some() {
            return Ok(None);
        }
        if self.batch.is_none()
            && let Some(group) = self.groups.next()
        {
            self.batch = Some(self.read_group(&group).inspect_err(|_| {
                self.end = Some(End::Damaged { whole_bytes: self.whole_bytes });
            })?);
        }
        let Some(batch) = &self.batch else {
            let event = self.events.pop_front().map(Item::Event);
            self.end = event.is_none().then_some(End::Finished);
            return Ok(event);
        };
        let end_ns = batch.windows().last().map_or(0, |window| window.end_ns);
        if self.events.front().is_some_and(|event| event.monotonic_ns <= end_ns) {
            return Ok(self.events.pop_front().map(Item::Event));
        }
        Ok(self.batch.take().map(Item::Batch))
    }

    fn read_group(&mut self, group: &RowGroupMetaData) -> Result<Batch> {
        let place = |column: &ColumnChunkMetaData| span(column);
        let spans = group.columns().iter().map(place).collect::<Option<Vec<_>>>();
        let spans = spans.unwrap_or_default();
        let start = spans.iter().map(|(start, _)| *start).min().unwrap_or(self.whole_bytes);
        let end = spans.iter().map(|(start, bytes)| start.saturating_add(*bytes)).max();
        let damaged = |reason: &str| Error::damaged(start, reason);
        let rows = usize::try_from(group.num_rows());
        let rows = rows.map_err(|_| damaged("the number of its rows is negative"))?;
        Error::check("the number of rows in a row group", rows, MAX_BATCH_ROWS)?;
        let values = rows.saturating_mul(self.rebuilder.columns.len());
        Error::check("the number of values in a row group", values, MAX_BATCH_VALUES)?;
        let columns = ARROW_HEADS.len() + self.rebuilder.columns.len();
        if rows == 0 || group.num_columns() != columns {
            return Err(damaged("it has no rows, or not all columns"));
        }
        for texts in &mut self.texts {
            if texts.limit() {
                self.rebuilder.forget();
            }
        }
        let (file, texts, decoder) = (&mut self.file, &mut self.texts, &mut self.decoder);
        let mut of_group = GroupRows { file, group, rows, texts, decoder, failed: None };
        let batch = self.rebuilder.batch(&mut of_group, rows);
        let batch =
            batch.map_err(|reason| of_group.failed.take().unwrap_or_else(|| damaged(&reason)))?;
        self.whole_bytes = end.unwrap_or(start);
        Ok(batch)
    }
}

impl<R: Read + Seek> GroupRows<'_, R> {
    /// Reads the bytes of a column.
    fn chunk(&mut self, index: usize) -> std::result::Result<Vec<u8>, Broken> {
        let column = self.group.column(index);
        if column.compression_codec() != CompressionCodec::ZSTD {
            return Err("it is not compressed by zstd, as vmstrobe writes it".into());
        }
        let (start, bytes) = span(column).ok_or("it lies outside of the file")?;
        if bytes > MAX_BODY_BYTES as u64 {
            return Err(format!("it has more than {MAX_BODY_BYTES} bytes"));
        }
        let mut chunk = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.file.by_ref().take(bytes).read_to_end(&mut chunk));
        if let Err(source) = read {
            return Err(self.fail(start, source));
        }
        if chunk.len() as u64 != bytes {
            return Err("it lies outside of the file".into());
        }
        Ok(chunk)
    }

    fn fail(&mut self, offset: u64, source: io::Error) -> Broken {
        self.failed = Some(Error::Read { offset, source });
        "reading fails".into()
    }

    /// Reads a column of a type.
    fn column(
        &mut self,
        index: usize,
        type_: Type,
        into: &mut Values,
    ) -> std::result::Result<(), Broken> {
        let column = self.group.column(index).column_descr_ptr();
        let is_nullable = column.max_def_level() > 0;
        let read = self.chunk(index).and_then(|chunk| {
            let kind = match type_ {
                Type::Text(of) => Kind::Text(&mut self.texts[of.id() as usize]),
                Type::U64 | Type::I64 | Type::Time => Kind::Bits64,
                Type::U8 | Type::U32 | Type::I32 => Kind::Bits32,
            };
            self.decoder.read(chunk, kind, is_nullable, self.rows, into)
        });
        read.map_err(|reason| format!("column {}: {reason}", column.name()))
    }
}

impl<R: Read + Seek> FileRows for GroupRows<'_, R> {
    fn head(&mut self, head: Head, into: &mut Values) -> std::result::Result<(), Broken> {
        let mut heads = ARROW_HEADS.into_iter().enumerate();
        let found = heads.find(|(_, (of, _, _))| *of == head);
        let (index, (_, _, type_)) = found.expect("each head is a column of a file");
        self.column(index, type_, into)
    }

    fn statistic(&mut self, number: usize, into: &mut Values) -> std::result::Result<(), Broken> {
        self.column(ARROW_HEADS.len() + number, Type::U64, into)
    }

    fn text(&self, of: Dictionary, number: u64) -> Option<&str> {
        self.texts[of.id() as usize].get(number)
    }
}

/// Returns the place of a column chunk in the file, and its bytes.
fn span(column: &ColumnChunkMetaData) -> Option<(u64, u64)> {
    let data = column.data_page_offset();
    let start = column.dictionary_page_offset().map_or(data, |dictionary| dictionary.min(data));
    let bytes = column.compressed_size();
    Some((u64::try_from(start).ok()?, u64::try_from(bytes).ok()?))
}

#[cfg(test)]
mod tests;
