//! The formats of recordings, and the writers that make them.
//!
//! Invariant: this is the only place of the library that knows the writers of formats.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use vmstrobe_export::{
    ArrowsWriter, Columns, Compression, CsvWriter, Exporter, JsonLinesWriter, Metadata,
};
#[cfg(feature = "parquet")]
use vmstrobe_export::{ParquetWriter, WideParquetWriter};
#[cfg(feature = "perfetto")]
use vmstrobe_export::{PerfettoOptions, PerfettoWriter};

/// The format of a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// An Arrow IPC stream: the only format that can be read while it is written.
    Arrows,
    /// Parquet, with a row for each object and tick.
    Parquet,
    /// Parquet, with a row for each tick, as Rezolus' viewer reads it.
    WideParquet,
    /// A trace for Perfetto.
    Perfetto,
    /// A table for spreadsheets.
    Csv,
    /// A JSON text for each object and tick.
    JsonLines,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [
        Self::Arrows,
        Self::Parquet,
        Self::WideParquet,
        Self::Perfetto,
        Self::Csv,
        Self::JsonLines,
    ];

    /// Returns the format that a file's name ends in; `None` for any other name. No name stands for
    /// the wide layout of Parquet.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        Self::ALL.into_iter().find(|format| format.extension() == extension)
    }

    /// Returns the end of the names of such files, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Arrows => "arrows",
            Self::Parquet | Self::WideParquet => "parquet",
            Self::Perfetto => "pftrace",
            Self::Csv => "csv",
            Self::JsonLines => "jsonl",
        }
    }

    /// Returns whether a file is good up to the last batch if its writer is killed.
    pub fn is_good_unfinished(self) -> bool {
        !matches!(self, Self::Parquet | Self::WideParquet)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WideParquet => "parquet, wide",
            format => format.extension(),
        })
    }
}

/// The settings of writers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) compression: Compression,
    pub(super) every: Option<Duration>,
    /// The difference of `CLOCK_BOOTTIME` to `CLOCK_MONOTONIC`, if it is known.
    pub(super) boottime_offset_ns: Option<i64>,
}

/// Makes the writer of a file.
///
/// # Errors
/// If the head of the file cannot be written, or the program is built without the format.
pub(super) fn writer(
    format: Format,
    out: impl Write + Send + 'static,
    columns: Columns,
    metadata: &Metadata,
    settings: Settings,
) -> vmstrobe_export::Result<Box<dyn Exporter + Send>> {
    Ok(match format {
        Format::Arrows => {
            Box::new(ArrowsWriter::new(out, columns, metadata, settings.compression)?)
        }
        Format::Csv => Box::new(CsvWriter::new(out, columns, metadata, settings.every)?),
        Format::JsonLines => Box::new(JsonLinesWriter::new(out, metadata, settings.every)?),
        #[cfg(feature = "parquet")]
        Format::Parquet => Box::new(ParquetWriter::new(out, columns, metadata)?),
        #[cfg(feature = "parquet")]
        Format::WideParquet => Box::new(WideParquetWriter::new(out, metadata)),
        #[cfg(feature = "perfetto")]
        Format::Perfetto => {
            let boottime_offset_ns = settings.boottime_offset_ns;
            let options = PerfettoOptions { boottime_offset_ns, ..PerfettoOptions::default() };
            Box::new(PerfettoWriter::new(out, metadata.clone(), options))
        }
        #[allow(unreachable_patterns, reason = "all formats may be compiled in")]
        other => return Err(vmstrobe_export::Error::NoFormat { format: other.to_string() }),
    })
}

/// Returns the ends of the names of all formats, for people.
pub(crate) fn extensions() -> String {
    let mut extensions: Vec<String> =
        Format::ALL.iter().map(|format| format!(".{}", format.extension())).collect();
    extensions.dedup();
    extensions.join(", ")
}
