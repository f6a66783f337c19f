//! A recording of any format that is read back: the first bytes of the file tell which.
//!
//! Invariant: the name of a file decides nothing about how it is read.

use std::fs::File;
use std::io::BufReader;
use std::os::unix::fs::FileExt;

use vmstrobe_export::{ArrowsReader, Columns, End, Item, Metadata, Result};

/// The bytes that are read at a time.
const READ_BYTES: usize = 1 << 18;
/// The first bytes of Parquet.
const PARQUET: &[u8; 4] = b"PAR1";

/// A reader of a recording.
#[derive(Debug)]
pub(super) enum Reader {
    Arrows(Box<ArrowsReader<BufReader<File>>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<vmstrobe_export::ParquetReader<File>>),
}

impl Reader {
    /// Reads the head of a recording.
    ///
    /// # Errors
    /// If it is none, or of a format that this program is built without.
    pub(super) fn new(file: File) -> Result<Self> {
        let mut first = [0; PARQUET.len()];
        // A pipe has no bytes at a place: what comes from it is an Arrow stream.
        let is_parquet = file.read_exact_at(&mut first, 0).is_ok() && first == *PARQUET;
        if !is_parquet {
            let file = BufReader::with_capacity(READ_BYTES, file);
            return Ok(Self::Arrows(Box::new(ArrowsReader::new(file)?)));
        }
        #[cfg(feature = "parquet")]
        return Ok(Self::Parquet(Box::new(vmstrobe_export::ParquetReader::new(file)?)));
        #[cfg(not(feature = "parquet"))]
        Err(vmstrobe_export::Error::NoFormat { format: "parquet".to_owned() })
    }

    pub(super) fn metadata(&self) -> &Metadata {
        match self {
            Self::Arrows(reader) => reader.metadata(),
            #[cfg(feature = "parquet")]
            Self::Parquet(reader) => reader.metadata(),
        }
    }

    pub(super) fn columns(&self) -> &Columns {
        match self {
            Self::Arrows(reader) => reader.columns(),
            #[cfg(feature = "parquet")]
            Self::Parquet(reader) => reader.columns(),
        }
    }

    /// Returns the end of the recording, once it was reached.
    pub(super) fn end(&self) -> Option<End> {
        match self {
            Self::Arrows(reader) => reader.end(),
            #[cfg(feature = "parquet")]
            Self::Parquet(reader) => reader.end(),
        }
    }

    /// Returns the bytes up to the last part that was read and found good.
    pub(super) fn whole_bytes(&self) -> u64 {
        match self {
            Self::Arrows(reader) => reader.whole_bytes(),
            #[cfg(feature = "parquet")]
            Self::Parquet(reader) => reader.whole_bytes(),
        }
    }

    /// Returns the next item; `None` at the end.
    ///
    /// # Errors
    /// As the reader of the format.
    pub(super) fn next_item(&mut self) -> Result<Option<Item>> {
        match self {
            Self::Arrows(reader) => reader.next_item(),
            #[cfg(feature = "parquet")]
            Self::Parquet(reader) => reader.next_item(),
        }
    }
}
