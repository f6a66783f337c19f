//! The seam of formats: an exporter takes batches and events, and writes one recording.
//!
//! Invariant: after an error, everything before [`Exporter::whole_bytes`] is a good recording, and
//! nothing more is written.

use std::io::{self, Write};

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::limits::MAX_EVENT_BYTES;

/// A writer of one recording. It takes any [`Write`], such as a file or a socket, and needs no
/// buffer between: it writes whole messages.
pub trait Exporter {
    /// Writes a batch.
    ///
    /// # Errors
    /// [`Error::Write`] if the destination fails; `TooLarge` if the batch is beyond a limit.
    fn write(&mut self, batch: &Batch) -> Result<Outcome>;

    /// Writes an event, at the latest with the next flush.
    ///
    /// # Errors
    /// [`Error::Write`] if the destination fails; `TooLarge` if the text is too long.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// Writes everything that was taken, and flushes the destination. A Parquet file, which cannot
    /// be read before its end, keeps back what does not fill a row group.
    ///
    /// # Errors
    /// [`Error::Write`] if the destination fails.
    fn flush(&mut self) -> Result<()>;

    /// Ends the recording and flushes it. Nothing more can be written.
    ///
    /// # Errors
    /// [`Error::Write`] if the destination fails.
    fn finish(&mut self) -> Result<()>;

    /// Returns the bytes that were written, up to the last whole message or row. Of a Parquet file
    /// whose writing failed, that is 0.
    fn whole_bytes(&self) -> u64;

    /// Returns the names of the statistics that the format leaves out so far.
    fn left_out(&self) -> Vec<String> {
        Vec::new()
    }

    /// Returns the number of rows of a table for spreadsheets, its head included; `None` for any
    /// other format.
    fn spreadsheet_rows(&self) -> Option<u64> {
        None
    }
}

/// The outcome of writing a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// The batch is in the recording.
    Written,
    /// Nothing was written, because an object of the batch has statistics that the recording has no
    /// columns for, or because a Parquet file holds no more. Finish the recording and write the
    /// batch to a new part, with [`Columns::joined`](crate::Columns::joined).
    OtherColumns,
}

/// Something that happened during a recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The time, in ns of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// The difference to ns since 1970, to be added, as in a window.
    pub wall_offset_ns: i64,
    /// The kind of event.
    pub kind: EventKind,
    /// The user's text, or the condition that came true.
    pub text: String,
}

/// The kind of an [`Event`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind {
    /// The user marked the moment.
    Mark,
    /// A condition came true.
    Trigger,
    /// A kind of a later version, by its name.
    Other(String),
}

impl EventKind {
    /// Returns the name of the kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Mark => "mark",
            Self::Trigger => "trigger",
            Self::Other(name) => name,
        }
    }

    /// Returns the kind of that name.
    pub fn from_name(name: &str) -> Self {
        match name {
            "mark" => Self::Mark,
            "trigger" => Self::Trigger,
            other => Self::Other(other.into()),
        }
    }
}

impl Event {
    /// Makes an event that was read, by its time since 1970 and its offset.
    pub(crate) fn at_wall(wall_ns: u64, wall_offset_ns: i64, kind: &str, text: &str) -> Self {
        Self {
            monotonic_ns: wall_ns.wrapping_sub(wall_offset_ns as u64),
            wall_offset_ns,
            kind: EventKind::from_name(kind),
            text: text.to_owned(),
        }
    }

    /// Returns the time in ns since 1970.
    pub fn wall_ns(&self) -> u64 {
        self.monotonic_ns.saturating_add_signed(self.wall_offset_ns)
    }

    /// Checks the length of the texts.
    pub(crate) fn check(&self) -> Result<()> {
        let bytes = self.text.len() + self.kind.name().len();
        Error::check("the number of bytes of an event's text", bytes, MAX_EVENT_BYTES)
    }
}

/// A destination that counts whole messages, and fails for good once it has failed.
#[derive(Debug)]
pub(crate) struct Destination<W> {
    inner: W,
    whole_bytes: u64,
    has_ended: bool,
}

impl<W: Write> Destination<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, whole_bytes: 0, has_ended: false }
    }

    /// Writes whole messages with one call.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.has_ended {
            return Err(Error::Ended);
        }
        let written = self.inner.write_all(bytes);
        self.note(written)?;
        self.whole_bytes += bytes.len() as u64;
        Ok(())
    }

    /// Flushes the destination.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if self.has_ended {
            return Err(Error::Ended);
        }
        let flushed = self.inner.flush();
        self.note(flushed)
    }

    /// Takes nothing more.
    pub(crate) fn end(&mut self) {
        self.has_ended = true;
    }

    pub(crate) fn whole_bytes(&self) -> u64 {
        self.whole_bytes
    }

    fn note(&mut self, outcome: io::Result<()>) -> Result<()> {
        outcome.map_err(|source| {
            self.has_ended = true;
            Error::Write { whole_bytes: self.whole_bytes, source }
        })
    }
}
