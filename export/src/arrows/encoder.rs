//! Batches as messages, encoded one column at a time.
//!
//! Invariant: a message is complete, with every dictionary that its batch needs before it, or
//! nothing of it is written.

use std::io;
use std::sync::Arc;

use vmstrobe_core::RowState;

use super::codec::Compression;
use super::column::{Kept, Packer, Slot, Validity};
use super::events;
use super::message::{self, Body};
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::{Event, Outcome};
use crate::heads::{ARROW_HEADS, DICTIONARIES, Dictionary, Head, Type};
use crate::heads::{state_number, window_columns};
use crate::laid::Laid;
use crate::limits::{
    MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_BODY_BYTES, MAX_TEXT_BYTES,
};

/// Makes messages of batches.
#[derive(Debug)]
pub(super) struct Encoder {
    columns: Columns,
    vm: Option<String>,
    laid: Option<Laid>,
    /// The ticks of the last batch.
    ticks: usize,
    /// The texts that the dictionaries have in the stream; `None` before the first.
    dictionaries: [Option<Vec<String>>; 3],
    /// The columns of the last batch that were constant for each object.
    kept: Vec<Kept>,
    body: Body,
    packer: Packer,
}

impl Encoder {
    pub(super) fn new(
        columns: Columns,
        vm: Option<String>,
        compression: Compression,
    ) -> Result<Self> {
        let fields = ARROW_HEADS.len() + columns.len();
        Ok(Self {
            columns,
            vm,
            laid: None,
            ticks: 0,
            dictionaries: [None, None, None],
            kept: std::iter::repeat_with(Kept::default).take(fields).collect(),
            body: Body::default(),
            packer: Packer::new(compression).map_err(Error::Compress)?,
        })
    }

    /// Appends the messages of a batch, with events.
    pub(super) fn batch(
        &mut self,
        batch: &Batch,
        events: &[Event],
        out: &mut Vec<u8>,
    ) -> Result<Outcome> {
        let outcome = self.try_batch(batch, events, out);
        if outcome.is_err() {
            // Dictionaries that were not written must come with the next batch.
            (self.laid, self.dictionaries) = (None, [None, None, None]);
        }
        outcome
    }

    fn try_batch(&mut self, batch: &Batch, events: &[Event], out: &mut Vec<u8>) -> Result<Outcome> {
        let values = batch.rows().saturating_mul(self.columns.len());
        Error::check("the number of rows in a batch", batch.rows(), MAX_BATCH_ROWS)?;
        Error::check("the number of values in a batch", values, MAX_BATCH_VALUES)?;
        Error::check("the number of changes in a batch", batch.changes(), MAX_BATCH_CHANGES)?;
        let known = |laid: &Laid| Arc::ptr_eq(&laid.layout, batch.layout());
        let known = self.laid.take().filter(known);
        let is_known = known.is_some();
        let new = || Laid::new(batch.layout(), &self.columns, self.vm.as_deref());
        let Some(laid) = known.or_else(new) else { return Ok(Outcome::OtherColumns) };
        Error::check("the number of bytes of all paths", laid.text_bytes(), MAX_TEXT_BYTES)?;
        if !is_known || self.ticks != batch.ticks().len() {
            self.kept.iter_mut().for_each(Kept::forget);
            self.ticks = batch.ticks().len();
        }
        if !is_known {
            self.write_dictionaries(Some(&laid), out)?;
        }
        self.write_columns(batch, &laid).map_err(Error::Compress)?;
        self.laid = Some(laid);
        let bytes = self.body.bytes.len();
        Error::check("the number of bytes of a batch", bytes, MAX_BODY_BYTES)?;
        let compression = self.packer.compression();
        message::batch(out, batch.rows(), &self.body, compression, &events::write(events));
        Ok(Outcome::Written)
    }

    /// Appends the messages of a batch without rows, with events.
    pub(super) fn events(&mut self, events: &[Event], out: &mut Vec<u8>) -> Result<()> {
        self.write_dictionaries(None, out)?;
        self.body.clear();
        let fields = ARROW_HEADS.len() + self.columns.len();
        self.body.nodes.resize(fields, (0, 0));
        self.body.buffers.resize(2 * fields, (0, 0));
        let compression = self.packer.compression();
        message::batch(out, 0, &self.body, compression, &events::write(events));
        Ok(())
    }

    /// Appends all dictionaries of the last batch, as a stream that begins with the next one needs
    /// them.
    pub(super) fn dictionaries_again(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let laid = self.laid.take();
        self.dictionaries = [None, None, None];
        let written = self.write_dictionaries(laid.as_ref(), out);
        self.laid = laid;
        written
    }

    /// Appends each dictionary that differs from the one in the stream. Without a layout, those
    /// that the stream does not have yet are empty.
    fn write_dictionaries(&mut self, laid: Option<&Laid>, out: &mut Vec<u8>) -> Result<()> {
        for (of, known) in DICTIONARIES.into_iter().zip(&mut self.dictionaries) {
            let texts = match (of, laid) {
                (Dictionary::Schema, _) => {
                    self.columns.schemas().iter().map(|kept| kept.name.to_string()).collect()
                }
                (Dictionary::Vm, Some(laid)) => laid.vms.clone(),
                (Dictionary::Path, Some(laid)) => laid.paths.clone(),
                (_, None) => known.clone().unwrap_or_default(),
            };
            if known.as_ref() == Some(&texts) {
                continue;
            }
            self.body.clear();
            pack_texts(&mut self.packer, &mut self.body, &texts).map_err(Error::Compress)?;
            let compression = self.packer.compression();
            message::dictionary(out, of.id(), texts.len(), &self.body, compression);
            *known = Some(texts);
        }
        Ok(())
    }

    fn write_columns(&mut self, batch: &Batch, laid: &Laid) -> io::Result<()> {
        self.body.clear();
        for (index, (head, _, type_)) in ARROW_HEADS.into_iter().enumerate() {
            let mut column = self.slot(index, type_, batch);
            write_head(&mut column, batch, laid, head)?;
        }
        let all_good = is_good(batch);
        let validities: io::Result<Vec<Validity>> =
            laid.sets.iter().map(|set| self.packer.set(batch, set, all_good)).collect();
        let validities = validities?;
        let mut constants = Vec::new();
        for (number, places) in laid.placement.columns.iter().enumerate() {
            let mut column = self.slot(ARROW_HEADS.len() + number, Type::U64, batch);
            let validity = &validities[laid.set_of[number]];
            if gather(batch, places, &mut constants) {
                column.constants(&constants, validity)?;
                continue;
            }
            column.values(validity, |values| {
                // Rows of groups without the column.
                if laid.sets[laid.set_of[number]].contains(&false) {
                    values.fill(0);
                }
                for &(group, word) in places {
                    let rows = &batch.layout().groups()[group];
                    let start = rows.first_row * batch.ticks().len();
                    let end = start + rows.objects.len() * batch.ticks().len();
                    batch.fill(group, word, &mut values[start..end]);
                }
            })?;
        }
        Ok(())
    }

    fn slot(&mut self, index: usize, type_: Type, batch: &Batch) -> Slot<'_> {
        Slot {
            kept: &mut self.kept[index],
            packer: &mut self.packer,
            body: &mut self.body,
            type_,
            ticks: batch.ticks().len(),
            rows: batch.rows(),
        }
    }
}

/// Gathers the value of each row of a column. Returns whether the column is constant for each.
fn gather(batch: &Batch, places: &[(usize, usize)], constants: &mut Vec<u64>) -> bool {
    let layout = batch.layout();
    constants.clear();
    constants.resize(layout.rows(), 0);
    places.iter().all(|&(number, word)| {
        let group = &layout.groups()[number];
        let rows = &mut constants[group.first_row..group.first_row + group.objects.len()];
        rows.iter_mut().enumerate().all(|(object, constant)| {
            let changes = batch.word(number, object, word);
            *constant = changes.first;
            changes.is_constant()
        })
    })
}

/// Returns whether all rows of a batch are good.
fn is_good(batch: &Batch) -> bool {
    (0..batch.layout().rows()).all(|row| {
        let states = batch.states(row);
        states.first.has_values() && states.values.iter().all(|state| state.has_values())
    })
}

/// Writes a column that is no statistic.
fn write_head(column: &mut Slot<'_>, batch: &Batch, laid: &Laid, head: Head) -> io::Result<()> {
    let windows = || batch.windows().iter().map(|&window| window_columns(window));
    match head {
        Head::Time => column.each_tick(windows().map(|(time, _, _)| time)),
        Head::Tick => column.each_tick(batch.ticks().iter().copied()),
        Head::WindowNs => column.each_tick(windows().map(|(_, width, _)| width)),
        Head::WallOffsetNs => column.each_tick(windows().map(|(_, _, offset)| offset)),
        Head::State => column.each_state(batch, |state| Some(state_number(state).into())),
        Head::AgeMs => column.each_state(batch, |state| match state {
            RowState::Aged(age_ms) => Some(age_ms.into()),
            _ => None,
        }),
        Head::Errno => column.each_state(batch, |state| match state {
            RowState::Io(errno) => Some(u64::from(errno as u32)),
            _ => None,
        }),
        Head::Vm | Head::Vcpu | Head::Path | Head::Schema | Head::Object => {
            let objects = laid.constants(head).expect("these columns are constant for an object");
            let ticks = column.ticks;
            let validity =
                column.packer.bitmap(objects.iter().map(|value| (ticks, value.is_some())))?;
            let values: Vec<u64> = objects.iter().map(|value| value.unwrap_or(0)).collect();
            column.constants(&values, &validity)
        }
    }
}

/// Packs texts: an empty bitmap, the end of each text behind a 0, and the texts one after another.
fn pack_texts(packer: &mut Packer, body: &mut Body, texts: &[String]) -> io::Result<()> {
    let (mut offsets, mut end) = (vec![0; 4], 0_u32);
    for text in texts {
        // The caller has checked the sum.
        end += text.len() as u32;
        offsets.extend(end.to_le_bytes());
    }
    body.nodes.push((texts.len() as i64, 0));
    packer.put(body, &[])?;
    packer.put(body, &offsets)?;
    packer.put(body, texts.concat().as_bytes())
}
