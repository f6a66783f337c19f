//! Messages as batches again.
//!
//! Invariant: a batch is given only if all of it was understood: its rows are objects times ticks,
//! and every value of a row that was read is there.

use std::sync::Arc;

use vmstrobe_core::{Layout, Mask, Object, ReadPlan};

use super::codec::Decompressor;
use super::events;
use super::fields::{Broken, Fields, Values};
use super::heads::DICTIONARIES;
use super::heads::Dictionary;
use super::message::{ColumnsHeader, Header, Message};
use super::rows::{ObjectRows, Rows, STATISTIC};
use super::schema::{self, FileColumn};
use super::table::Table;
use crate::batch::{Batch, cell};
use crate::columns::{Columns, Placement};
use crate::error::{Error, Result};
use crate::exporter::Event;
use crate::limits::{MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_TEXT_BYTES, MAX_TICK_WORDS};
use crate::lists::Lists;
use crate::metadata::Metadata;

/// The state of a stream: its schema, and its dictionaries so far.
#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) metadata: Metadata,
    pub(super) columns: Columns,
    file_columns: Vec<FileColumn>,
    plans: Vec<Arc<ReadPlan>>,
    dictionaries: [Vec<Box<str>>; 3],
    decompressor: Decompressor,
    values: Values,
    known: Option<Known>,
    layouts: u64,
}

/// The layout of the last batch, and the objects that it was made of.
#[derive(Debug)]
struct Known {
    objects: Vec<ObjectRows>,
    layout: Arc<Layout>,
    placement: Placement,
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
        let plans = columns.schemas().iter().map(|kept| &kept.schema);
        let plans = plans.map(|schema| ReadPlan::new(schema, &Mask::all(schema))).collect();
        Ok(Self {
            metadata,
            columns,
            file_columns,
            plans,
            dictionaries: Default::default(),
            decompressor: Decompressor::new().map_err(Error::Compress)?,
            values: Values::default(),
            known: None,
            layouts: 0,
        })
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
                let values = rows.saturating_mul(self.columns.len());
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
        self.known = None;
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
        let rows = Rows::read(&fields, &self.file_columns, rows, &mut self.decompressor)?;
        let known = self.known.take().filter(|known| known.objects == rows.objects);
        let known = match known {
            Some(known) => known,
            None => self.layout(&rows.objects)?,
        };
        let words = self.words(&fields, &rows, &known);
        let layout = Arc::clone(&known.layout);
        self.known = Some(known);
        let (ticks, windows) = (rows.ticks.into(), rows.windows.into());
        Ok(Some(Batch::new(layout, ticks, windows, rows.states, words?)))
    }

    /// Lays out the objects of a batch.
    fn layout(&mut self, objects: &[ObjectRows]) -> std::result::Result<Known, Broken> {
        let text = |of: Dictionary, number: u64| {
            let texts = &self.dictionaries[of.id() as usize];
            usize::try_from(number).ok().and_then(|number| texts.get(number))
        };
        let mut parts: Vec<(usize, Vec<Object>)> = Vec::new();
        let mut words = 0_usize;
        for object in objects {
            let path = text(Dictionary::Path, object.path);
            let path = path.ok_or("a path is not in the dictionary")?;
            let name = text(Dictionary::Schema, object.schema);
            let name = name.ok_or("a schema is not in the dictionary")?;
            let mut schemas = self.columns.schemas().iter();
            let number = schemas.position(|kept| kept.name == *name);
            let number = number.ok_or_else(|| format!("there is no schema {name}"))?;
            words += self.plans[number].row_words();
            if words > MAX_TICK_WORDS {
                return Err(format!("its objects have more than {MAX_TICK_WORDS} words"));
            }
            if parts.last().is_none_or(|(last, _)| *last != number) {
                parts.push((number, Vec::new()));
            }
            let (_, of_part) = parts.last_mut().expect("a part was pushed if there was none");
            of_part.push(Object {
                path: path.clone(),
                index: object.vcpu.map(|number| number as u32),
                schema: Arc::clone(self.plans[number].schema()),
                key: object.key,
            });
        }
        let parts =
            parts.into_iter().map(|(number, objects)| (Arc::clone(&self.plans[number]), objects));
        self.layouts += 1;
        let layout = Layout::new(self.layouts, parts.collect());
        let placement = self.columns.place(&layout).ok_or("its schemas are not of this file")?;
        Ok(Known { objects: objects.to_vec(), layout, placement })
    }

    /// Reads the statistics.
    fn words(
        &mut self,
        fields: &Fields<'_>,
        rows: &Rows,
        known: &Known,
    ) -> std::result::Result<Lists<u64>, Broken> {
        let ticks = rows.ticks.len();
        let mut words = Lists::constant(known.layout.words());
        for (index, column) in self.file_columns.iter().enumerate() {
            let FileColumn::Statistic(number) = *column else { continue };
            let places = &known.placement.columns[number];
            if places.is_empty() {
                continue;
            }
            fields.read(index, STATISTIC, &mut self.decompressor, &mut self.values)?;
            for &(group_number, word) in places {
                let group = &known.layout.groups()[group_number];
                for object in 0..group.objects.len() {
                    let start = (group.first_row + object) * ticks;
                    let have_values = &rows.have_values[start..start + ticks];
                    let is_null = |tick| !self.values.is_valid(start + tick);
                    let lacks = |(tick, &has): (usize, &bool)| has && is_null(tick);
                    if !self.values.all_valid() && have_values.iter().enumerate().any(lacks) {
                        return Err(format!("column {index} has a null in a row that was read"));
                    }
                    let cell = cell(&known.layout, group_number, object, word);
                    words
                        .set(cell, &self.values.values[start..start + ticks], |t| have_values[t])
                        .map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(words)
    }
}

/// Returns the number of rows of a message, if it is within the limits.
fn rows(columns: &ColumnsHeader<'_>, offset: u64) -> Result<usize> {
    let rows = usize::try_from(columns.rows)
        .map_err(|_| Error::damaged(offset, "the number of its rows is negative"))?;
    Error::check("the number of rows in a message", rows, MAX_BATCH_ROWS)?;
    Ok(rows)
}
