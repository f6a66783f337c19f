//! `.csv`: RFC 4180, a row for each object and tick, tick after tick.
//!
//! The first row has the names of the columns: `seconds` since the first sample, `time` (RFC 3339),
//! `tick`, `vm`, `vcpu`, `path`, `schema`, `state`, `event`, `text`, then the statistics as
//! [`Columns`] names them. What is missing is empty. An event is a row of its own with `seconds`,
//! `time`, `event` (its kind) and `text`.
//!
//! Invariant: a text is one cell, whatever is in it, and no spreadsheet takes it for a formula: one
//! that begins with `=`, `+`, `-`, `@` or a control character gets a `'` before it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Layout, RowState};

use crate::batch::{Batch, TickRows};
use crate::columns::Columns;
use crate::error::Result;
use crate::exporter::{Destination, Event, Exporter, Outcome};
use crate::laid::vm_name;
use crate::metadata::Metadata;
use crate::text::{CHUNK_BYTES, Thinning, number, state_name, time};

/// The most rows that spreadsheets open, the first one included.
pub const SPREADSHEET_ROWS_MAX: u64 = 1_048_576;

/// The columns before the statistics.
const HEAD: &str = "seconds,time,tick,vm,vcpu,path,schema,state,event,text";
/// The end of a row.
const END: &[u8] = b"\r\n";

/// Writes comma-separated values.
///
/// ```
/// # fn main() -> Result<(), vmstrobe_export::Error> {
/// use vmstrobe_export::{Columns, CsvWriter, Exporter, Metadata};
/// let mut file = Vec::new();
/// let mut writer = CsvWriter::new(&mut file, Columns::default(), &Metadata::default(), None)?;
/// writer.finish()?;
/// assert!(file.starts_with(b"seconds,time,tick,vm,"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct CsvWriter<W> {
    destination: Destination<W>,
    columns: Columns,
    vm: Option<String>,
    thinning: Thinning,
    laid: Option<Laid>,
    rows: u64,
    chunk: Vec<u8>,
}

/// A layout, prepared for the writer.
#[derive(Debug)]
struct Laid {
    layout: Arc<Layout>,
    objects: Vec<LaidObject>,
}

/// An object of a layout.
#[derive(Debug)]
struct LaidObject {
    /// The cells `vm,vcpu,path,schema,`.
    cells: Vec<u8>,
    /// For each column the place of its word in a snapshot; `None` if the object has none.
    words: Vec<Option<usize>>,
}

impl<W: Write> CsvWriter<W> {
    /// Writes the row of names. With `every`, only the first tick of each such stretch of time is
    /// written.
    ///
    /// # Errors
    /// As [`Exporter::write`].
    pub fn new(
        destination: W,
        columns: Columns,
        metadata: &Metadata,
        every: Option<Duration>,
    ) -> Result<Self> {
        let mut chunk = HEAD.as_bytes().to_vec();
        for column in columns.iter() {
            chunk.push(b',');
            text(&mut chunk, &column.name);
        }
        chunk.extend(END);
        let mut destination = Destination::new(destination);
        destination.write(&chunk)?;
        let (vm, thinning) = (metadata.vm.clone(), Thinning::new(every));
        Ok(Self { destination, columns, vm, thinning, laid: None, rows: 1, chunk })
    }
}

impl<W: Write> Exporter for CsvWriter<W> {
    fn write(&mut self, batch: &Batch) -> Result<Outcome> {
        let known = |laid: &Laid| Arc::ptr_eq(&laid.layout, batch.layout());
        let known = self.laid.take().filter(known);
        let new = || Laid::new(batch.layout(), &self.columns, self.vm.as_deref());
        let Some(laid) = known.or_else(new) else { return Ok(Outcome::OtherColumns) };
        self.chunk.clear();
        let mut ticks = batch.by_tick();
        while let Some(tick) = ticks.next() {
            if !self.thinning.keeps(tick.window) {
                continue;
            }
            for (row, object) in laid.objects.iter().enumerate() {
                self.thinning.seconds(&mut self.chunk, tick.window.middle_ns());
                write_row(&mut self.chunk, &tick, row, object);
                self.rows += 1;
            }
            if self.chunk.len() >= CHUNK_BYTES {
                self.destination.write(&self.chunk)?;
                self.chunk.clear();
            }
        }
        self.destination.write(&self.chunk)?;
        self.laid = Some(laid);
        Ok(Outcome::Written)
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        self.chunk.clear();
        self.thinning.seconds(&mut self.chunk, event.monotonic_ns);
        self.chunk.push(b',');
        time(&mut self.chunk, event.wall_ns());
        self.chunk.extend(b",,,,,,,");
        text(&mut self.chunk, event.kind.name());
        self.chunk.push(b',');
        text(&mut self.chunk, &event.text);
        self.chunk.extend(std::iter::repeat_n(b',', self.columns.len()));
        self.chunk.extend(END);
        self.rows += 1;
        self.destination.write(&self.chunk)
    }

    fn flush(&mut self) -> Result<()> {
        self.destination.flush()
    }

    fn finish(&mut self) -> Result<()> {
        self.destination.flush()?;
        self.destination.end();
        Ok(())
    }

    fn whole_bytes(&self) -> u64 {
        self.destination.whole_bytes()
    }

    /// A spreadsheet opens [`SPREADSHEET_ROWS_MAX`] rows.
    fn spreadsheet_rows(&self) -> Option<u64> {
        Some(self.rows)
    }
}

impl Laid {
    fn new(layout: &Arc<Layout>, columns: &Columns, vm: Option<&str>) -> Option<Self> {
        let placement = columns.place(layout)?;
        let mut objects = Vec::with_capacity(layout.rows());
        for (number_of, group) in layout.groups().iter().enumerate() {
            let words = placement.columns.iter().map(|places| {
                places.iter().find(|(group, _)| *group == number_of).map(|(_, word)| *word)
            });
            let words: Vec<Option<usize>> = words.collect();
            let schema = &columns.schemas()[placement.schemas[number_of]].name;
            for (at, object) in group.objects.iter().enumerate() {
                let mut cells = Vec::new();
                text(&mut cells, vm_name(&object.path).or(vm).unwrap_or(""));
                cells.push(b',');
                if let Some(index) = object.index {
                    number(&mut cells, index);
                }
                cells.push(b',');
                text(&mut cells, &object.path);
                cells.push(b',');
                text(&mut cells, schema);
                cells.push(b',');
                let first = group.first_word + at * group.plan.row_words();
                let words = words.iter().map(|word| word.map(|word| first + word)).collect();
                objects.push(LaidObject { cells, words });
            }
        }
        Some(Self { layout: Arc::clone(layout), objects })
    }
}

/// Appends a row behind its `seconds`.
fn write_row(out: &mut Vec<u8>, tick: &TickRows<'_>, row: usize, object: &LaidObject) {
    let state: RowState = tick.states[row];
    out.push(b',');
    time(out, tick.window.wall_ns());
    out.push(b',');
    number(out, tick.tick);
    out.push(b',');
    out.extend(&object.cells);
    out.extend(state_name(state).as_bytes());
    out.extend(b",,");
    for word in &object.words {
        out.push(b',');
        if let Some(word) = word.filter(|_| state.has_values()) {
            number(out, tick.words[word]);
        }
    }
    out.extend(END);
}

/// Appends a text as one cell.
fn text(out: &mut Vec<u8>, text: &str) {
    let is_formula = text.starts_with(['=', '+', '-', '@']) || text.starts_with(|c: char| c < ' ');
    let is_plain = !text.contains([',', '"', '\r', '\n', ' ', '\'']) && !is_formula;
    if is_plain {
        out.extend(text.as_bytes());
        return;
    }
    out.push(b'"');
    if is_formula {
        out.push(b'\'');
    }
    out.extend(text.replace('"', "\"\"").as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests;
