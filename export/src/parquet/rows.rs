//! The exporter of `.parquet`, a row for each object and tick.
//!
//! Invariant: a row group is the product of the objects of one layout and some ticks, object-major,
//! so that a reader can take it as a batch.

use std::io::Write;
use std::sync::Arc;

use vmstrobe_core::Layout;

use super::events::{self, Events};
use super::file::{self, File};
use super::group::GroupWriter;
use super::pending::Pending;
use super::schema;
use crate::arrows;
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::{Event, Exporter, Outcome};
use crate::heads::ARROW_HEADS;
use crate::laid::Laid;
use crate::limits::{MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_BATCH_VALUES, MAX_TEXT_BYTES};
use crate::metadata::Metadata;

/// The rows of a row group. More of them make a file smaller by little, and take more memory: five
/// seconds of 64 vCPUs at 1 kHz are 320,000.
const GROUP_ROWS: usize = 300_000;

/// Writes a Parquet file of the same columns as an Arrow stream, in about half of its size.
///
/// Nothing can be read before [`Exporter::finish`] has written the footer; [`Exporter::flush`]
/// keeps back what does not fill a row group.
///
/// ```
/// # fn main() -> Result<(), vmstrobe_export::Error> {
/// # use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, Schema, Snapshot, Target};
/// # let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
/// # let plan = ReadPlan::new(&schema, &Mask::all(&schema));
/// # let object = Object { path: "/vm/a/vcpu[0]".into(), index: Some(0), schema, key: 0 };
/// # let layout = Layout::new(0, vec![(plan, vec![object])]);
/// use std::io::Cursor;
/// use vmstrobe_export::{BatchLimits, Batcher, Columns, Exporter, Item, Metadata, Outcome};
/// use vmstrobe_export::{ParquetReader, ParquetWriter};
///
/// let mut file = Vec::new();
/// let mut writer = ParquetWriter::new(&mut file, Columns::of(&layout)?, &Metadata::default())?;
/// let mut batcher = Batcher::new(BatchLimits::default());
/// batcher.push(&Snapshot::new(&layout))?;
/// if let Some(batch) = batcher.take() {
///     assert_eq!(writer.write(&batch)?, Outcome::Written);
/// }
/// writer.finish()?;
/// drop(writer);
///
/// let mut reader = ParquetReader::new(Cursor::new(file))?;
/// assert!(matches!(reader.next_item()?, Some(Item::Batch(batch)) if batch.rows() == 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ParquetWriter<W: Write + Send> {
    file: File<W>,
    columns: Columns,
    metadata: Metadata,
    laid: Option<Laid>,
    pending: Pending,
    group: GroupWriter,
    events: Events,
}

impl<W: Write + Send> ParquetWriter<W> {
    /// Begins a recording with these columns.
    ///
    /// # Errors
    /// [`Error::Compress`] if the compressor cannot be made, which happens only without memory.
    pub fn new(destination: W, columns: Columns, metadata: &Metadata) -> Result<Self> {
        let schema = schema::of_rows(&columns).map_err(file::error)?;
        Ok(Self {
            group: GroupWriter::new(Arc::clone(&schema)).map_err(Error::Compress)?,
            file: File::new(destination, schema, ARROW_HEADS.len() + columns.len())?,
            columns,
            metadata: metadata.clone(),
            laid: None,
            pending: Pending::default(),
            events: Events::default(),
        })
    }

    /// Takes a layout, unless it is the last one. Returns whether the columns fit it.
    fn lay_out(&mut self, layout: &Arc<Layout>) -> Result<bool> {
        if self.laid.as_ref().is_some_and(|laid| Arc::ptr_eq(&laid.layout, layout)) {
            return Ok(true);
        }
        let laid = Laid::new(layout, &self.columns, self.metadata.vm.as_deref());
        let Some(laid) = laid else { return Ok(false) };
        Error::check("the number of bytes of all paths", laid.text_bytes(), MAX_TEXT_BYTES)?;
        self.write_group()?;
        self.laid = Some(laid);
        Ok(true)
    }

    /// Writes the batches that wait as a row group.
    fn write_group(&mut self) -> Result<()> {
        let (Some(laid), true) = (&self.laid, self.pending.rows() > 0) else { return Ok(()) };
        let schemas: Vec<&str> = self.columns.schemas().iter().map(|kept| &*kept.name).collect();
        self.file.row_group(|group| self.group.write(group, &self.pending, laid, &schemas))?;
        self.pending.clear();
        Ok(())
    }
}

impl<W: Write + Send> Exporter for ParquetWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        self.file.check()?;
        let values = batch.rows().saturating_mul(self.columns.len());
        Error::check("the number of rows in a batch", batch.rows(), MAX_BATCH_ROWS)?;
        Error::check("the number of values in a batch", values, MAX_BATCH_VALUES)?;
        Error::check("the number of changes in a batch", batch.changes(), MAX_BATCH_CHANGES)?;
        if !self.file.has_room() || !self.lay_out(batch.layout())? {
            return Ok(Outcome::OtherColumns);
        }
        if batch.rows() == 0 {
            return Ok(Outcome::Written);
        }
        if !self.pending.has_room(batch, self.columns.len()) {
            self.write_group()?;
        }
        self.pending.push(batch.clone());
        if self.pending.rows() >= GROUP_ROWS {
            self.write_group()?;
        }
        Ok(Outcome::Written)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.file.check()?;
        self.events.push(event)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }

    fn finish(&mut self) -> Result<()> {
        self.file.check()?;
        self.write_group()?;
        let mut pairs = self.metadata.pairs();
        let schema = arrows::schema::write(&self.columns, &self.metadata);
        pairs.push((schema::ARROW_KEY.to_owned(), schema::arrow_text(&schema)));
        pairs.push((events::KEY.to_owned(), self.events.text()));
        self.file.finish(pairs)
    }

    fn whole_bytes(&self) -> u64 {
        self.file.whole_bytes()
    }
}
