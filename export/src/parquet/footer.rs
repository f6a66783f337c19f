//! The footer of a file that is read: its columns, its row groups, its metadata.
//!
//! Invariant: a footer is given only if its columns are those of a recording, and memory is asked
//! for only as its bytes arrive.

use std::io::{Read, Seek, SeekFrom};

use parquet::file::metadata::{KeyValue, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::schema::types::SchemaDescriptor;

use super::{events, schema};
use crate::arrows;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::Event;
use crate::metadata::Metadata;

/// The most bytes of a footer. One of the most column chunks takes 17 MB, and events and schema
/// 24 MB more.
const FOOTER_BYTES_MAX: usize = 64 << 20;
/// The mark at the end of a file, behind the length of the footer.
const MARK: [u8; 4] = *b"PAR1";
/// The bytes of that length and mark.
const TAIL_BYTES: usize = 8;

/// A footer.
#[derive(Debug)]
pub(super) struct Footer {
    pub(super) metadata: Metadata,
    pub(super) columns: Columns,
    pub(super) events: Vec<Event>,
    pub(super) groups: Vec<RowGroupMetaData>,
}

impl Footer {
    /// Reads the footer of a file.
    ///
    /// # Errors
    /// `NotARecording` if the file is something else, or was not finished; `Read` if reading fails.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Self> {
        let file = bytes(file)?;
        let parsed = ParquetMetaDataReader::decode_metadata(&file);
        let parsed = parsed.map_err(|error| {
            Error::not_a_recording(format!("its footer is not Parquet's: {error}"))
        })?;
        Self::of(&parsed)
    }

    fn of(parsed: &ParquetMetaData) -> Result<Self> {
        let pairs = parsed.file_metadata().key_value_metadata();
        let pairs = pairs.map_or(&[][..], Vec::as_slice);
        let text = |wanted: &str| {
            let named = |pair: &&KeyValue| pair.key == wanted;
            pairs.iter().find(named).and_then(|pair| pair.value.as_deref())
        };
        let lacks = |key: &str| Error::not_a_recording(format!("its footer has no {key}"));
        let arrow = text(schema::ARROW_KEY).ok_or_else(|| lacks(schema::ARROW_KEY))?;
        let broken = || Error::not_a_recording(format!("its {} is no text", schema::ARROW_KEY));
        let message = schema::arrow_message(arrow).ok_or_else(broken)?;
        let (metadata, columns) = arrows::schema::read_message(&message)?;
        let wanted = schema::of_rows(&columns).map_err(super::file::error)?;
        let wanted = SchemaDescriptor::new(wanted);
        if !schema::is_same(parsed.file_metadata().schema_descr(), &wanted) {
            return Err(Error::not_a_recording("its columns are not those of its Arrow schema"));
        }
        let events = text(events::KEY).ok_or_else(|| lacks(events::KEY))?;
        let events = events::read(events)
            .ok_or_else(|| Error::not_a_recording("its events are no list of events"))?;
        Ok(Self { metadata, columns, events, groups: parsed.row_groups().to_vec() })
    }
}

/// Reads the bytes of a footer.
fn bytes(file: &mut (impl Read + Seek)) -> Result<Vec<u8>> {
    let failed = |source| Error::Read { offset: 0, source };
    let end = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let unfinished = "it does not end as a Parquet file: its writer did not finish it";
    let unfinished = || Error::not_a_recording(unfinished);
    let mut read = |before_end: usize, count: usize| -> Result<Vec<u8>> {
        let start = end.checked_sub(before_end as u64).ok_or_else(unfinished)?;
        let mut bytes = Vec::new();
        let read = file
            .seek(SeekFrom::Start(start))
            .and_then(|_| file.by_ref().take(count as u64).read_to_end(&mut bytes));
        let read = read.map_err(|source| Error::Read { offset: start, source })?;
        if read == count { Ok(bytes) } else { Err(unfinished()) }
    };
    let tail = read(TAIL_BYTES, TAIL_BYTES)?;
    let (length, mark) = tail.split_first_chunk().ok_or_else(unfinished)?;
    if mark != MARK {
        return Err(unfinished());
    }
    let length = u32::from_le_bytes(*length) as usize;
    Error::check("the number of bytes of a footer", length, FOOTER_BYTES_MAX)?;
    read(length + TAIL_BYTES, length)
}
