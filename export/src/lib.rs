//! Recordings: snapshots in batches, batches in files, and files read back.
//!
//! A recorder pushes each [`Snapshot`](vmstrobe_core::Snapshot) into a [`Batcher`], which keeps
//! the changes, and gives each [`Batch`] to an [`Exporter`]: [`ArrowsWriter`] for `.arrows`,
//! [`CsvWriter`] for `.csv`, [`JsonLinesWriter`] for `.jsonl`, and by features `PerfettoWriter` for
//! `.pftrace` and `HistlogWriter` for interval logs. [`ArrowsReader`] gives the batches of a
//! recording again; [`ArrowsRing`] keeps the newest in memory. A [`PackedBatch`] takes little
//! memory and gives each object's values by themselves.
//!
//! With the feature `parquet` there are `ParquetWriter` and `ParquetReader` for `.parquet`, and
//! `WideParquetWriter` for files that the viewer of Rezolus reads.
//!
//! A batch is also the unit in which bindings, pages and the flight recorder take samples.
//!
//! Invariant: memory is bounded by [`limits`], a value that is missing stays missing, and nothing
//! that stands in a file makes a reader panic.

#![forbid(unsafe_code)]

pub mod limits;
mod error;
mod metadata;
mod columns;
mod lists;
mod batch;
mod batcher;
mod packed;
mod exporter;
mod heads;
mod laid;
mod rebuild;
mod arrows;
mod text;
mod csv;
mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "perfetto")]
mod perfetto;
#[cfg(feature = "histlog")]
mod histlog;

pub use arrows::{
    ArrowsReader, ArrowsRing, ArrowsWriter, Compression, End, Frozen, Item, RingLimits, Span,
};
pub use batch::{Batch, BatchRows, TickRows};
pub use batcher::{BatchLimits, Batcher};
pub use columns::{Column, Columns, HEADS, KeptSchema};
pub use csv::{CsvWriter, SPREADSHEET_ROWS_MAX};
pub use error::{Error, Result};
pub use exporter::{Event, EventKind, Exporter, Outcome};
#[cfg(feature = "histlog")]
pub use histlog::HistlogWriter;
pub use jsonl::JsonLinesWriter;
pub use lists::Changes;
pub use metadata::Metadata;
pub use packed::PackedBatch;
#[cfg(feature = "parquet")]
pub use parquet::{ParquetReader, ParquetWriter, WideParquetWriter};
#[cfg(feature = "perfetto")]
pub use perfetto::{PerfettoOptions, PerfettoWriter};
pub use text::Thinning;
