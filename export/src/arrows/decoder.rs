//! Messages as batches again.
//!
//! Invariant: a message is taken as a whole or not at all, and its size is checked before memory is
//! asked for.

use super::codec::Decompressor;
use super::events;
use super::fields::Fields;
use super::message::{ColumnsHeader, Header, Message};
use super::schema::{self, FileColumn};
use super::table::Table;
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::Event;
use crate::heads::{DICTIONARIES, Dictionary, Head, Type};
use crate::limits::{MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_TEXT_BYTES};
use crate::metadata::Metadata;
use crate::rebuild::{Broken, FileRows, Rebuilder, Values};

/// The state of a stream: its schema, and its dictionaries so far.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) metadata: Metadata,
    file_columns: Vec<FileColumn>,
    dictionaries: [Vec<Box<str>>; 3],
    decompressor: Decompressor,
    rebuilder: Rebuilder,
}

/// The columns of a message.
struct MessageRows<'a> {
    fields: Fields<'a>,
    file_columns: &'a [FileColumn],
    dictionaries: &'a [Vec<Box<str>>; 3],
    decompressor: &'a mut Decompressor,
}

impl MessageRows<'_> {
    fn read(
        &mut self,
        is_wanted: impl Fn(FileColumn) -> Option<Type>,
        into: &mut Values,
    ) -> std::result::Result<(), Broken> {
        let mut columns = self.file_columns.iter().enumerate();
        let found = columns.find_map(|(index, &column)| Some((index, is_wanted(column)?)));
        let (index, type_) = found.expect("a schema that lacks a column was refused");
        self.fields.read(index, type_, self.decompressor, into)
    }
}

impl FileRows for MessageRows<'_> {
    fn head(&mut self, wanted: Head, into: &mut Values) -> std::result::Result<(), Broken> {
        let is_wanted = |column| match column {
            FileColumn::Head(head, type_) if head == wanted => Some(type_),
            _ => None,
        };
        self.read(is_wanted, into)
    }

    fn statistic(&mut self, number: usize, into: &mut Values) -> std::result::Result<(), Broken> {
        self.read(|column| (column == FileColumn::Statistic(number)).then_some(Type::U64), into)
    }

    fn statistic_bytes(&self, number: usize) -> Option<[&[u8]; 2]> {
        let mut columns = self.file_columns.iter();
        let index = columns.position(|column| *column == FileColumn::Statistic(number))?;
        self.fields.bytes(index)
    }

    fn text(&self, of: Dictionary, number: u64) -> Option<&str> {
        let texts = &self.dictionaries[of.id() as usize];
        Some(texts.get(usize::try_from(number).ok()?)?)
    }
}

/// The content of a message.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) events: Vec<Event>,
    pub(super) batch: Option<Batch>,
}

impl Decoder {
    /// Reads the schema of a stream.
    pub(super) fn new(schema: Table<'_>, header_bytes: usize) -> Result<Self> {
        let (metadata, columns, file_columns) = schema::read(schema, header_bytes)?;
        Ok(Self {
            metadata,
            file_columns,
            dictionaries: Default::default(),
            decompressor: Decompressor::new().map_err(Error::Compress)?,
            rebuilder: Rebuilder::new(columns),
        })
    }

    /// Returns the columns of the stream.
    pub(super) fn columns(&self) -> &Columns {
        &self.rebuilder.columns
    }

    /// Reads a message behind the schema, which begins at that offset.
    pub(super) fn message(
        &mut self,
        message: Message<'_>,
        body: &[u8],
        offset: u64,
    ) -> Result<Decoded> {
        let damaged = |reason: &str| Error::damaged(offset, reason);
        let events = message.metadata().map(|pairs| events::read(&pairs)).map_err(damaged)?;
        let events = events.ok_or_else(|| damaged("its events are incomplete"))?;
        let batch = match message.header {
            Header::Schema(_) => return Err(damaged("a second schema")),
            Header::Dictionary { is_delta: true, .. } => {
                return Err(damaged("a dictionary that adds to an earlier one"));
            }
            Header::Dictionary { id, columns, .. } => {
                let rows = rows(&columns, offset)?;
                self.dictionary(id, columns, body, rows).map_err(|reason| damaged(&reason))?;
                None
            }
            Header::Batch(columns) => {
                let rows = rows(&columns, offset)?;
                let values = rows.saturating_mul(self.columns().len());
                Error::check("the number of values in a batch", values, MAX_BATCH_VALUES)?;
                let batch = self.batch(columns, body, rows);
                batch.map_err(|reason| damaged(&reason))?
            }
        };
        Ok(Decoded { events, batch })
    }

    fn dictionary(
        &mut self,
        id: i64,
        header: ColumnsHeader<'_>,
        body: &[u8],
        rows: usize,
    ) -> std::result::Result<(), Broken> {
        let fields = Fields::new(header, body, rows, 1, 3)?;
        let number = DICTIONARIES.iter().position(|of| of.id() == id);
        let number = number.ok_or_else(|| format!("no column has dictionary {id}"))?;
        self.dictionaries[number] = fields.texts(&mut self.decompressor, MAX_TEXT_BYTES)?;
        // Numbers of objects may have another meaning now.
        self.rebuilder.forget();
        Ok(())
    }

    fn batch(
        &mut self,
        header: ColumnsHeader<'_>,
        body: &[u8],
        rows: usize,
    ) -> std::result::Result<Option<Batch>, Broken> {
        let columns = self.file_columns.len();
        let fields = Fields::new(header, body, rows, columns, 2 * columns)?;
        if rows == 0 {
            return Ok(None);
        }
        let mut file = MessageRows {
            fields,
            file_columns: &self.file_columns,
            dictionaries: &self.dictionaries,
            decompressor: &mut self.decompressor,
        };
        self.rebuilder.batch(&mut file, rows).map(Some)
    }
}

/// Returns the number of rows of a message, if it is within the limits.
fn rows(columns: &ColumnsHeader<'_>, offset: u64) -> Result<usize> {
    let rows = usize::try_from(columns.rows)
        .map_err(|_| Error::damaged(offset, "the number of its rows is negative"))?;
    Error::check("the number of rows in a message", rows, MAX_BATCH_ROWS)?;
    Ok(rows)
}
