//! The exporter of `.arrows`.
//!
//! Invariant: the schema is written at once, so that the file can be opened from its first moment,
//! and every later write ends at a message.

use std::io::Write;

use super::codec::Compression;
use super::encoder::Encoder;
use super::{message, schema};
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::{Destination, Event, Exporter, Outcome};
use crate::limits::{MAX_HEADER_BYTES, MAX_WAITING_EVENTS};
use crate::metadata::Metadata;

/// Writes an Arrow stream.
///
/// ```
/// # fn main() -> Result<(), vmstrobe_export::Error> {
/// # use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, Schema, Snapshot, Target};
/// # let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
/// # let plan = ReadPlan::new(&schema, &Mask::all(&schema));
/// # let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 0 };
/// # let layout = Layout::new(0, vec![(plan, vec![object])]);
/// use vmstrobe_export::{ArrowsWriter, BatchLimits, Batcher, Columns, Compression};
/// use vmstrobe_export::{Exporter, Metadata, Outcome};
///
/// let columns = Columns::of(&layout)?;
/// let mut file = Vec::new();
/// let mut writer =
///     ArrowsWriter::new(&mut file, columns, &Metadata::default(), Compression::Zstd)?;
/// let mut batcher = Batcher::new(BatchLimits::default());
/// batcher.push(&Snapshot::new(&layout))?;
/// if let Some(batch) = batcher.take() {
///     assert_eq!(writer.write(&batch)?, Outcome::Written);
/// }
/// writer.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ArrowsWriter<W> {
    destination: Destination<W>,
    encoder: Encoder,
    events: Vec<Event>,
    message: Vec<u8>,
}

impl<W: Write> ArrowsWriter<W> {
    /// Writes the schema of a recording with these columns.
    ///
    /// # Errors
    /// As [`Exporter::write`]; `TooLarge` also if names and labels are too long for a schema.
    pub fn new(
        destination: W,
        columns: Columns,
        metadata: &Metadata,
        compression: Compression,
    ) -> Result<Self> {
        let mut destination = Destination::new(destination);
        let message = schema::write(&columns, metadata);
        Error::check("the number of bytes of the schema", message.len(), MAX_HEADER_BYTES)?;
        destination.write(&message)?;
        let encoder = Encoder::new(columns, metadata.vm.clone(), compression)?;
        Ok(Self { destination, encoder, events: Vec::new(), message })
    }

    /// Writes the events that wait for a batch.
    fn write_events(&mut self) -> Result<()> {
        if self.events.is_empty() {
            return Ok(());
        }
        self.message.clear();
        self.encoder.events(&self.events, &mut self.message)?;
        self.destination.write(&self.message)?;
        self.events.clear();
        Ok(())
    }
}

impl<W: Write> Exporter for ArrowsWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        self.message.clear();
        let outcome = self.encoder.batch(batch, &self.events, &mut self.message)?;
        if outcome == Outcome::Written {
            self.destination.write(&self.message)?;
            self.events.clear();
        }
        Ok(outcome)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        self.events.push(event.clone());
        if self.events.len() >= MAX_WAITING_EVENTS { self.write_events() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        self.write_events()?;
        self.destination.flush()
    }

    fn finish(&mut self) -> Result<()> {
        self.write_events()?;
        self.destination.write(&message::END)?;
        self.destination.flush()?;
        self.destination.end();
        Ok(())
    }

    fn whole_bytes(&self) -> u64 {
        self.destination.whole_bytes()
    }
}
