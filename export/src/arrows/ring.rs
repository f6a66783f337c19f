//! The newest batches of a recording in memory, as finished messages of an Arrow stream.
//!
//! A dump copies messages and encodes nothing, so it takes milliseconds and can be written by
//! another thread while the ring goes on.
//!
//! Invariant: the ring holds no more than its limits, but for the newest batch; what is frozen is a
//! good stream from whichever batch it begins with.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::{Layout, Window};

use super::codec::Compression;
use super::encoder::Encoder;
use super::{message, schema};
use crate::batch::Batch;
use crate::columns::Columns;
use crate::error::{Error, Result};
use crate::exporter::{Destination, Event, Outcome};
use crate::metadata::Metadata;

/// The limits of a ring, of which the first that is reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingLimits {
    /// The time that is held.
    pub time: Duration,
    /// The bytes that are held.
    pub bytes: usize,
}

/// The newest batches of a recording.
#[derive(Debug)]
pub struct ArrowsRing {
    limits: RingLimits,
    metadata: Metadata,
    compression: Compression,
    columns: Columns,
    encoder: Option<Encoder>,
    layout: Option<Arc<Layout>>,
    /// The messages before those of a batch: the schema, and the dictionaries.
    schema: Arc<[u8]>,
    dictionaries: Arc<[u8]>,
    batches: VecDeque<Encoded>,
    bytes: usize,
    events: Vec<Event>,
}

/// A batch as messages.
#[derive(Clone, Debug)]
struct Encoded {
    schema: Arc<[u8]>,
    dictionaries: Arc<[u8]>,
    messages: Arc<[u8]>,
    begin: Window,
    end: Window,
    samples: u64,
}

/// The content of a ring at one moment.
#[derive(Clone, Debug)]
pub struct Frozen {
    batches: Vec<Encoded>,
}

/// The samples of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Span {
    /// The time of the first sample, in ns since 1970.
    pub begin_wall_ns: u64,
    /// The time of the last sample, in ns since 1970.
    pub end_wall_ns: u64,
    /// The number of samples.
    pub samples: u64,
}

impl ArrowsRing {
    /// Makes an empty ring.
    pub fn new(limits: RingLimits, metadata: Metadata, compression: Compression) -> Self {
        Self {
            limits,
            metadata,
            compression,
            columns: Columns::default(),
            encoder: None,
            layout: None,
            schema: Arc::default(),
            dictionaries: Arc::default(),
            batches: VecDeque::new(),
            bytes: 0,
            events: Vec::new(),
        }
    }

    /// Adds a batch, and drops the oldest that are beyond the limits.
    ///
    /// # Errors
    /// `TooLarge` if the batch is beyond the limits of recordings.
    pub fn push(&mut self, batch: &Batch) -> Result<()> {
        let mut messages = Vec::new();
        let mut outcome = match &mut self.encoder {
            Some(encoder) => encoder.batch(batch, &self.events, &mut messages)?,
            None => Outcome::OtherColumns,
        };
        if outcome == Outcome::OtherColumns {
            let encoder = self.begin(batch)?;
            outcome = encoder.batch(batch, &[], &mut messages)?;
            if !self.events.is_empty() {
                let events = std::mem::take(&mut self.events);
                self.encoder()?.events(&events, &mut messages)?;
            }
        }
        debug_assert_eq!(outcome, Outcome::Written, "the columns were made for this batch");
        self.events.clear();
        if !self.layout.as_ref().is_some_and(|layout| Arc::ptr_eq(layout, batch.layout())) {
            let mut dictionaries = Vec::new();
            self.encoder()?.dictionaries_again(&mut dictionaries)?;
            self.dictionaries = dictionaries.into();
            self.layout = Some(Arc::clone(batch.layout()));
        }
        let windows = batch.windows();
        self.bytes += messages.len();
        self.batches.push_back(Encoded {
            schema: Arc::clone(&self.schema),
            dictionaries: Arc::clone(&self.dictionaries),
            messages: messages.into(),
            begin: windows[0],
            end: windows[windows.len() - 1],
            samples: windows.len() as u64,
        });
        self.drop_oldest();
        Ok(())
    }

    /// Adds an event, which is dumped with the next batch.
    ///
    /// # Errors
    /// `TooLarge` if its text is too long.
    pub fn event(&mut self, event: &Event) -> Result<()> {
        event.check()?;
        let waiting = self.events.len() + 1;
        Error::check(
            "the number of events of a batch",
            waiting,
            crate::limits::MAX_WAITING_EVENTS,
        )?;
        self.events.push(event.clone());
        Ok(())
    }

    /// Returns the bytes of all batches.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the samples of the ring; `None` if it is empty.
    pub fn span(&self) -> Option<Span> {
        span(self.batches.iter())
    }

    /// Returns the batches of the last time, or all. Their memory is shared with the ring.
    pub fn freeze(&self, last: Option<Duration>) -> Frozen {
        let newest_ns = self.batches.back().map_or(0, |newest| newest.end.end_ns);
        let is_wanted = |batch: &&Encoded| {
            let age_ns = newest_ns.saturating_sub(batch.end.end_ns);
            last.is_none_or(|last| u128::from(age_ns) < last.as_nanos())
        };
        Frozen { batches: self.batches.iter().filter(is_wanted).cloned().collect() }
    }

    /// Begins a stream with other columns.
    fn begin(&mut self, batch: &Batch) -> Result<&mut Encoder> {
        self.columns = self.columns.joined(batch.layout())?;
        self.schema = schema::write(&self.columns, &self.metadata).into();
        self.layout = None;
        let vm = self.metadata.vm.clone();
        let encoder = Encoder::new(self.columns.clone(), vm, self.compression)?;
        Ok(self.encoder.insert(encoder))
    }

    fn encoder(&mut self) -> Result<&mut Encoder> {
        self.encoder.as_mut().ok_or(Error::Ended)
    }

    fn drop_oldest(&mut self) {
        let newest_ns = self.batches.back().map_or(0, |newest| newest.end.end_ns);
        while self.batches.len() > 1 {
            let second_ns = self.batches[1].begin.begin_ns;
            // The oldest is still needed if the others alone do not cover the time.
            let covered_ns = newest_ns.saturating_sub(second_ns);
            let is_covered = u128::from(covered_ns) >= self.limits.time.as_nanos();
            if !is_covered && self.bytes <= self.limits.bytes {
                break;
            }
            let oldest = self.batches.pop_front().expect("there are two");
            self.bytes -= oldest.messages.len();
        }
    }
}

fn span<'a>(mut batches: impl Iterator<Item = &'a Encoded>) -> Option<Span> {
    let first = batches.next()?;
    let mut span = Span {
        begin_wall_ns: first.begin.wall_ns(),
        end_wall_ns: first.end.wall_ns(),
        samples: first.samples,
    };
    for batch in batches {
        span.end_wall_ns = batch.end.wall_ns();
        span.samples += batch.samples;
    }
    Some(span)
}

impl Frozen {
    /// Returns the samples; `None` if there are none.
    pub fn span(&self) -> Option<Span> {
        span(self.batches.iter())
    }

    /// Splits it where the columns change: each part is a recording of its own.
    pub fn parts(self) -> Vec<Self> {
        let same = |a: &Encoded, b: &Encoded| Arc::ptr_eq(&a.schema, &b.schema);
        let parts = self.batches.chunk_by(same);
        parts.map(|batches| Self { batches: batches.to_vec() }).collect()
    }

    /// Writes a part as an Arrow stream. Returns its length in bytes.
    ///
    /// # Errors
    /// [`Error::Write`] if the destination fails.
    pub fn write(&self, out: impl Write) -> Result<u64> {
        let mut out = Destination::new(out);
        let Some(first) = self.batches.first() else { return Ok(0) };
        out.write(&first.schema)?;
        out.write(&first.dictionaries)?;
        for batch in &self.batches {
            out.write(&batch.messages)?;
        }
        out.write(&message::END)?;
        out.flush()?;
        Ok(out.whole_bytes())
    }
}
