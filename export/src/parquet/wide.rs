//! The exporter of wide Parquet files: a row for each tick, a column for each statistic of each
//! object, as the viewer of Rezolus and metriken-query read them.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `timestamp` | uint64 | the middle of the reading, in ns since 1970 |
//! | `duration` | uint64 | the width of the reading, in ns |
//! | `:window_begin` | int64 | the begin of the reading less `timestamp`, in ns |
//! | `:window_width` | uint64 | the width again, by the name that error bars are drawn from |
//! | `:wall_offset` | int64 | `timestamp` less this is `CLOCK_MONOTONIC` |
//! | statistics | uint64 | of a count; null if there is no value |
//! | | int64 | of any other value |
//! | `…:buckets` | list of uint64 | of a histogram whose buckets double |
//!
//! The field metadata of a statistic has `metric`, `metric_type`, `unit`, and the labels `vm`,
//! `vcpu` or `path`, and `provider`.
//!
//! Invariant: one column is held at a time, whose number may go into thousands, and all batches of
//! a file are of the same objects.

use std::io::Write;
use std::mem;
use std::sync::Arc;

use parquet::errors::Result as Written;
use vmstrobe_core::{Layout, Window};

use super::chunks::ChunkWriter;
use super::dictionary::Run;
use super::events::{self, Events};
use super::file::{self, File, RowGroup};
use super::pending::Pending;
use super::schema;
use crate::arrows::schema::{Field, write_fields};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::exporter::{Event, Exporter, Outcome};
use crate::heads::{Type, window_columns};
use crate::limits::MAX_COLUMNS;
use crate::metadata::Metadata;

mod lists;
mod series;

use self::lists::ListWriter;
use self::series::{Kind, Series};

/// The ticks of a row group. Readers skip groups by their times; larger groups are smaller in all.
const GROUP_TICKS: usize = 20_000;
/// A column with fewer runs than its ticks divided by this is written from its runs.
const TICKS_PER_RUN: usize = 64;

/// The columns before those of the statistics.
const HEADS: [(&str, Type, Option<&str>); 5] = [
    ("timestamp", Type::U64, Some("timestamp")),
    ("duration", Type::U64, Some("duration")),
    (":window_begin", Type::I64, None),
    (":window_width", Type::U64, None),
    (":wall_offset", Type::I64, None),
];

/// Writes a wide Parquet file.
///
/// The first batch says which objects it has; one of other objects belongs to a new part. Nothing
/// can be read before [`Exporter::finish`] has written the footer. [`ParquetReader`] reads rows
/// only: this layout is for other programs.
///
/// [`ParquetReader`]: crate::ParquetReader
#[derive(Debug)]
pub struct WideParquetWriter<W: Write + Send> {
    state: State<W>,
    metadata: Metadata,
    events: Events,
}

/// A file that has no columns yet, or has some.
#[derive(Debug)]
enum State<W: Write + Send> {
    New(W),
    Open(Box<Open<W>>),
    Ended,
}

/// A file whose columns are known.
#[derive(Debug)]
struct Open<W: Write + Send> {
    file: File<W>,
    layout: Arc<Layout>,
    series: Vec<Series>,
    pending: Pending,
    chunks: ChunkWriter,
    lists: ListWriter,
    runs: Vec<Run>,
}

impl<W: Write + Send> WideParquetWriter<W> {
    /// Begins a recording. Nothing is written before the first row group.
    pub fn new(destination: W, metadata: &Metadata) -> Self {
        let state = State::New(destination);
        Self { state, metadata: metadata.clone(), events: Events::default() }
    }

    /// Returns the open file, which is made for the first layout.
    fn open(&mut self, layout: &Arc<Layout>) -> Result<&mut Open<W>> {
        if matches!(self.state, State::New(_)) {
            let series = series::of(layout, self.metadata.vm.as_deref());
            Error::check("the number of columns", series.len(), MAX_COLUMNS)?;
            if let State::New(destination) = mem::replace(&mut self.state, State::Ended) {
                let open = Open::new(destination, Arc::clone(layout), series)?;
                self.state = State::Open(Box::new(open));
            }
        }
        match &mut self.state {
            State::Open(open) => Ok(open),
            State::New(_) | State::Ended => Err(Error::Ended),
        }
    }
}

impl<W: Write + Send> Open<W> {
    fn new(destination: W, layout: Arc<Layout>, series: Vec<Series>) -> Result<Self> {
        let heads = HEADS.iter();
        let heads = heads.map(|(name, type_, _)| schema::leaf(name, *type_, *name != TIMESTAMP));
        let statistics = series.iter().map(|series| match series.kind {
            Kind::Histogram(_) => schema::list(&series.name, Type::U64),
            kind => schema::leaf(&series.name, kind.type_(), true),
        });
        let columns: Written<Vec<_>> = heads.chain(statistics).collect();
        let schema = columns.and_then(schema::root).map_err(file::error)?;
        Ok(Self {
            chunks: ChunkWriter::new(Arc::clone(&schema)).map_err(Error::Compress)?,
            lists: ListWriter::default(),
            file: File::new(destination, schema, HEADS.len() + series.len())?,
            layout,
            series,
            pending: Pending::default(),
            runs: Vec::new(),
        })
    }

    /// Returns whether a layout has the same objects with the same statistics.
    fn fits(&self, layout: &Arc<Layout>) -> bool {
        let groups = self.layout.groups().iter().zip(layout.groups());
        Arc::ptr_eq(&self.layout, layout)
            || self.layout.groups().len() == layout.groups().len()
                && groups.into_iter().all(|(one, other)| {
                    one.objects == other.objects && one.plan.columns() == other.plan.columns()
                })
    }

    /// Writes the batches that wait as a row group.
    fn write_group(&mut self) -> Result<()> {
        if self.pending.ticks() == 0 {
            return Ok(());
        }
        let Self { file, series, pending, chunks, lists, runs, .. } = self;
        file.row_group(|group| {
            write_heads(group, pending, chunks)?;
            for (index, series) in (HEADS.len()..).zip(series.iter()) {
                match series.kind {
                    Kind::Histogram(buckets) => {
                        lists.write(group, index, chunks, pending, series.place, buckets)?;
                    }
                    kind => write_series(group, index, (series, kind), pending, chunks, runs)?,
                }
            }
            Ok(())
        })?;
        self.pending.clear();
        Ok(())
    }
}

/// The name of the column of times.
const TIMESTAMP: &str = "timestamp";

fn write_heads<W: Write + Send>(
    group: &mut RowGroup<'_, W>,
    pending: &Pending,
    chunks: &mut ChunkWriter,
) -> Written<()> {
    let of_window: [fn(Window) -> u64; 5] = [
        |window| window_columns(window).0,
        |window| window_columns(window).1,
        |window| (window_columns(window).1 / 2).wrapping_neg(),
        |window| window_columns(window).1,
        |window| window_columns(window).2,
    ];
    for (index, of_window) in of_window.into_iter().enumerate() {
        let mut values = pending.times().map(|(_, window)| of_window(window));
        if index == 0 {
            // Readers find the time of a file by the statistics of this column.
            chunks.repeated_deltas(group, &values.collect::<Vec<_>>(), 1)?;
            continue;
        }
        chunks.values(group, pending.ticks(), false, |places, _| {
            places.fill_with(|| values.next().unwrap_or(0));
        })?;
    }
    Ok(())
}

/// Writes a statistic that is one number.
fn write_series<W: Write + Send>(
    group: &mut RowGroup<'_, W>,
    index: usize,
    (series, kind): (&Series, Kind),
    pending: &Pending,
    chunks: &mut ChunkWriter,
    runs: &mut Vec<Run>,
) -> Written<()> {
    // A value that a signed number does not hold is missing rather than wrong.
    let fits = |value: u64| kind == Kind::Counter || i64::try_from(value).is_ok();
    if pending.changes(series.place) <= pending.ticks() / TICKS_PER_RUN {
        runs.clear();
        pending.runs(series.place, runs);
        runs.iter_mut().for_each(|(_, value)| *value = value.filter(|&value| fits(value)));
        return chunks.runs(group, index, kind.type_(), runs, &[]);
    }
    chunks.values(group, pending.ticks(), true, |values, levels| {
        pending.fill(series.place, values, Some(levels));
        for (value, level) in values.iter().zip(levels) {
            *level &= i16::from(fits(*value));
        }
    })
}

impl<W: Write + Send> Exporter for WideParquetWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        let open = self.open(batch.layout())?;
        open.file.check()?;
        if !open.file.has_room() || !open.fits(batch.layout()) {
            return Ok(Outcome::OtherColumns);
        }
        if !open.pending.has_room(batch, 0) {
            open.write_group()?;
        }
        open.pending.push(batch.clone());
        if open.pending.ticks() >= GROUP_TICKS {
            open.write_group()?;
        }
        Ok(Outcome::Written)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        match &self.state {
            State::New(_) => {}
            State::Open(open) => open.file.check()?,
            State::Ended => return Err(Error::Ended),
        }
        self.events.push(event)
    }

    fn flush(&mut self) -> Result<()> {
        match &mut self.state {
            State::New(destination) => {
                destination.flush().map_err(|source| Error::Write { whole_bytes: 0, source })
            }
            State::Open(open) => open.file.flush(),
            State::Ended => Err(Error::Ended),
        }
    }

    fn finish(&mut self) -> Result<()> {
        let events = self.events.text();
        let metadata = self.metadata.clone();
        let mut pairs = metadata.pairs();
        // A recording without a batch has no columns but those of time.
        let open = self.open(&Layout::new(0, Vec::new()))?;
        open.file.check()?;
        open.write_group()?;
        pairs.extend(series::pairs(&metadata, &open.series));
        pairs.push((schema::ARROW_KEY.to_owned(), schema::arrow_text(&arrow_schema(&open.series))));
        pairs.push((events::KEY.to_owned(), events));
        open.file.finish(pairs)
    }

    fn whole_bytes(&self) -> u64 {
        match &self.state {
            State::Open(open) => open.file.whole_bytes(),
            State::New(_) | State::Ended => 0,
        }
    }
}

/// Returns the message of the Arrow schema.
fn arrow_schema(series: &[Series]) -> Vec<u8> {
    let heads = HEADS.iter().map(|&(name, type_, metric_type)| {
        let texts = metric_type.map(|of| [("metric_type", of), ("unit", "nanoseconds")]);
        let pairs = texts.into_iter().flatten();
        let pairs = pairs.map(|(key, text)| (key.to_owned(), text.to_owned())).collect();
        let is_nullable = name != TIMESTAMP;
        Field { name: name.to_owned(), is_nullable, type_, is_list: false, pairs }
    });
    let statistics = series.iter().map(|series| Field {
        name: series.name.clone(),
        is_nullable: true,
        type_: series.kind.type_(),
        is_list: matches!(series.kind, Kind::Histogram(_)),
        pairs: series.field_pairs(),
    });
    write_fields(&heads.chain(statistics).collect::<Vec<_>>(), &[])
}

#[cfg(test)]
mod tests;
