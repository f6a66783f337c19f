//! Destinations of a recorder's thread.
//!
//! Invariant: a sink that returned an error is not used again, and has left what it wrote before in
//! good order.

use std::sync::mpsc::Sender;

use vmstrobe_core::Snapshot;
use vmstrobe_export::{Batch, Event, Exporter, Outcome};

use super::files::RecordedFile;
use super::flight::{Dump, DumpRequest};
use crate::error::{Error, Result};

/// A destination of batches: files, or the memory of a flight recorder.
pub(super) trait Sink: Send + 'static {
    /// Sees each sample when it is taken, before the batch that it goes into.
    fn sample(&mut self, _sample: &Snapshot) -> Result<()> {
        Ok(())
    }

    /// Takes a batch.
    fn write(&mut self, batch: Batch) -> Result<()>;

    /// Notes an event, after all samples that were taken before.
    fn event(&mut self, event: &Event) -> Result<()>;

    /// Takes a request for a dump, which only a flight recorder can write.
    fn dump(&mut self, request: DumpRequest, reply: Option<Sender<Dump>>) {
        let dump = Dump { cause: request.cause, triggered: None, result: Err(Error::NoFlight) };
        if let Some(reply) = reply {
            let _ = reply.send(dump);
        }
    }

    /// Returns whether there is something to do that needs all samples that were taken.
    fn is_due(&self) -> bool {
        false
    }

    /// Does what is due, after all samples were written.
    fn settle(&mut self) {}

    /// Hands over to the system all that was written.
    fn flush(&mut self) -> Result<()>;

    fn finish(&mut self) -> Result<()>;

    /// Returns the bytes that were written, or are held.
    fn bytes(&self) -> u64;

    /// Returns the number of files that were removed to make room.
    fn removed_files(&self) -> u64 {
        0
    }

    /// Takes the files that are finished and still there, the oldest first.
    fn files(&mut self) -> Vec<RecordedFile> {
        Vec::new()
    }
}

/// A single exporter of the caller's.
#[derive(Debug)]
pub(super) struct One<E>(pub(super) E);

impl<E: Exporter + Send + 'static> Sink for One<E> {
    fn write(&mut self, batch: Batch) -> Result<()> {
        match self.0.write(&batch).map_err(Error::Export)? {
            Outcome::Written => Ok(()),
            Outcome::OtherColumns => Err(Error::OtherColumns),
        }
    }

    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.event(event).map_err(Error::Export)
    }

    fn flush(&mut self) -> Result<()> {
        self.0.flush().map_err(Error::Export)
    }

    fn finish(&mut self) -> Result<()> {
        self.0.finish().map_err(Error::Export)
    }

    fn bytes(&self) -> u64 {
        self.0.whole_bytes()
    }
}
