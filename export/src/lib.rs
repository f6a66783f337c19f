//! Recordings: snapshots in batches, batches in files, and files read back.
//!
//! A recorder pushes each [`Snapshot`](vmstrobe_core::Snapshot) into a [`Batcher`], which keeps
//! the changes, and gives each [`Batch`] to an [`Exporter`]: [`ArrowsWriter`] for `.arrows`,
//! [`CsvWriter`] for `.csv`, [`JsonLinesWriter`] for `.jsonl`. [`ArrowsReader`] gives the batches
//! of a recording again.
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
mod exporter;
mod arrows;
mod text;
mod csv;
mod jsonl;

pub use arrows::{ArrowsReader, ArrowsWriter, Compression, End, Item};
pub use batch::{Batch, BatchRows, TickRows};
pub use batcher::{BatchLimits, Batcher};
pub use columns::{Column, Columns, HEADS, KeptSchema};
pub use csv::{CsvWriter, SPREADSHEET_ROWS_MAX};
pub use error::{Error, Result};
pub use exporter::{Event, EventKind, Exporter, Outcome};
pub use jsonl::JsonLinesWriter;
pub use lists::Changes;
pub use metadata::Metadata;
