//! The file that is written: its destination, its row groups, its footer.
//!
//! Invariant: after an error nothing more is written, and the destination's own error is given.

use std::io::{self, Write};
use std::sync::Arc;

use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::{ParquetError, Result as Written};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::TypePtr;

use super::codec::ZSTD_LEVEL;
use crate::error::{Error, Result};

/// The most column chunks of a file. The footer describes each, and the writer holds half a
/// kilobyte for it until then: 64 MiB. 64 vCPUs at 1 kHz reach it after an hour in rows.
pub(super) const CHUNKS_MAX: usize = 1 << 17;
/// The values that the parquet crate takes at once.
const VALUES_AT_ONCE: usize = 16_384;

/// A row group that is being written.
pub(super) type RowGroup<'a, W> = SerializedRowGroupWriter<'a, Sink<W>>;

/// A file that is being written.
#[derive(Debug)]
pub(super) struct File<W: Write + Send> {
    /// `None` behind the footer or an error.
    writer: Option<SerializedFileWriter<Sink<W>>>,
    columns: usize,
    groups: usize,
    whole_bytes: u64,
}

/// A destination that keeps its error, of which the parquet crate would keep only the text.
#[derive(Debug)]
pub(super) struct Sink<W> {
    inner: W,
    failed: Option<io::Error>,
    /// Set by the first error: the parquet crate's buffer would be written once more on its drop.
    has_failed: bool,
}

impl<W: Write> Sink<W> {
    /// Does something with the destination, unless it has failed, and keeps its error.
    fn with<T>(&mut self, act: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        let again = || io::Error::other("the destination has failed before");
        if self.has_failed {
            return Err(again());
        }
        act(&mut self.inner).map_err(|error| {
            self.has_failed = true;
            self.failed = Some(error);
            again()
        })
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All of it: an interrupted write is no error.
        self.with(|inner| inner.write_all(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.with(W::flush)
    }
}

impl<W: Write + Send> File<W> {
    /// Begins a file. Nothing is written before the first row group.
    pub(super) fn new(destination: W, schema: TypePtr, columns: usize) -> Result<Self> {
        let sink = Sink { inner: destination, failed: None, has_failed: false };
        let writer = SerializedFileWriter::new(sink, schema, Arc::new(properties()));
        // The magic number fits into the writer's buffer.
        let writer = Some(writer.map_err(error)?);
        Ok(Self { writer, columns, groups: 0, whole_bytes: 0 })
    }

    /// Returns whether another row group can be described in the footer.
    pub(super) fn has_room(&self) -> bool {
        self.groups == 0 || (self.groups + 1).saturating_mul(self.columns) <= CHUNKS_MAX
    }

    /// Writes a row group.
    pub(super) fn row_group(
        &mut self,
        write: impl FnOnce(&mut RowGroup<'_, W>) -> Written<()>,
    ) -> Result<()> {
        self.groups += 1;
        self.write(|writer| {
            let mut group = writer.next_row_group()?;
            write(&mut group)?;
            group.close()?;
            Ok(())
        })
    }

    /// Flushes the destination.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.write(|writer| Ok(writer.flush()?))
    }

    /// Writes the footer with these keys and texts. Nothing more can be written.
    pub(super) fn finish(&mut self, pairs: Vec<(String, String)>) -> Result<()> {
        self.write(|writer| {
            for (key, text) in pairs {
                writer.append_key_value_metadata(KeyValue::new(key, text));
            }
            writer.finish()?;
            Ok(writer.flush()?)
        })?;
        self.writer = None;
        Ok(())
    }

    /// Fails if nothing more can be written.
    pub(super) fn check(&self) -> Result<()> {
        self.writer.as_ref().map(drop).ok_or(Error::Ended)
    }

    /// Returns the bytes that were written, and 0 after an error: without its footer a file is
    /// worth nothing.
    pub(super) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut SerializedFileWriter<Sink<W>>) -> Written<()>,
    ) -> Result<()> {
        let writer = self.writer.as_mut().ok_or(Error::Ended)?;
        let written = write(writer);
        self.whole_bytes = writer.bytes_written() as u64;
        let Err(error) = written else { return Ok(()) };
        let failed = writer.inner_mut().failed.take();
        self.writer = None;
        self.whole_bytes = 0;
        Err(match failed {
            Some(source) => Error::Write { whole_bytes: 0, source },
            None => self::error(error),
        })
    }
}

/// Makes the error of a file that could not be encoded.
pub(super) fn error(error: ParquetError) -> Error {
    Error::Compress(io::Error::other(error))
}

/// Returns the properties of columns that the parquet crate encodes: those that move.
fn properties() -> WriterProperties {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("zstd has the level");
    WriterProperties::builder()
        .set_created_by(concat!("vmstrobe version ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .set_dictionary_enabled(false)
        // Those of pages make a file 3 to 7 % larger.
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_data_page_row_count_limit(usize::MAX)
        .set_write_batch_size(VALUES_AT_ONCE)
        .build()
}
