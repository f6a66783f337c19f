//! The samples of the last minutes in memory: any of them again, and the rates between them.
//!
//! Samples go into batches, and these are packed. A reader of the newest samples closes the open
//! batch first, so that all readers take packed batches, be they of a session or of a recording.
//!
//! Invariant: batches are in the order of time, and take no more than the limits, but for the
//! newest. An event is held as long as the samples of its time, and no more than `MAX_EVENTS`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_core::Snapshot;
use vmstrobe_export::{BatchLimits, Batcher, Event, PackedBatch};

use crate::error::{Error, Result};

mod envelope;
mod follow;
mod held;
mod strip;

pub(crate) use envelope::{Edges, Envelope, Extent};
pub(crate) use follow::Spot;
pub use held::HeldSamples;
pub(crate) use strip::Strip;

/// The most events that are held.
pub(crate) const MAX_EVENTS: usize = 1024;
/// The most changes of a batch, which take 12 bytes each until it is packed.
const BATCH_CHANGES: usize = 1 << 18;
/// The most ticks of a batch. Reading one value takes time in proportion to them.
const BATCH_TICKS: usize = 256;
/// The batches from which the time of a tick is taken.
const PERIOD_BATCHES: usize = 16;

/// The limits of the samples that are held, of which the first that is reached counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// The time that is held.
    pub time: Duration,
    /// The bytes that are held.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// Returns limits of a minute and 32 MiB.
    fn default() -> Self {
        Self { time: Duration::from_secs(60), bytes: 32 << 20 }
    }
}

/// The newest samples.
#[derive(Debug)]
pub(crate) struct History {
    limits: HistoryLimits,
    batcher: Batcher,
    batches: VecDeque<Arc<PackedBatch>>,
    bytes: usize,
    events: VecDeque<Event>,
}

/// The place of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    batch: usize,
    tick: usize,
}

impl History {
    pub(crate) fn new(limits: HistoryLimits) -> Self {
        let of_batch = BatchLimits { ticks: BATCH_TICKS, changes: BATCH_CHANGES };
        Self {
            limits,
            batcher: Batcher::new(of_batch),
            batches: VecDeque::new(),
            bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// Adds a sample, which is later than those before.
    ///
    /// # Errors
    /// [`Error::Export`] if it is beyond the limits of recordings.
    pub(crate) fn push(&mut self, sample: &Snapshot) -> Result<()> {
        if let Some(batch) = self.batcher.push(sample).map_err(Error::Export)? {
            self.pack(&batch);
        }
        if self.batcher.is_full() {
            self.close();
        }
        Ok(())
    }

    /// Closes the open batch, so that its samples can be read.
    pub(crate) fn close(&mut self) {
        if let Some(batch) = self.batcher.take() {
            self.pack(&batch);
        }
    }

    /// Adds a packed batch, which is later than those before.
    pub(crate) fn push_packed(&mut self, batch: Arc<PackedBatch>) {
        self.bytes += batch.bytes();
        self.batches.push_back(batch);
        self.drop_oldest();
    }

    /// Adds an event.
    pub(crate) fn event(&mut self, event: &Event) {
        let at = self.events.partition_point(|it| it.monotonic_ns <= event.monotonic_ns);
        self.events.insert(at, event.clone());
        if self.events.len() > MAX_EVENTS {
            self.events.pop_front();
        }
    }

    /// Returns the events, in the order of time.
    pub(crate) fn events(&self) -> impl DoubleEndedIterator<Item = &Event> {
        self.events.iter()
    }

    pub(crate) fn limits(&self) -> HistoryLimits {
        self.limits
    }

    /// Returns the bytes of all packed batches.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the time of the oldest and of the newest sample, in ns of `CLOCK_MONOTONIC`.
    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        Some((begin_ns(self.batches.front()?), end_ns(self.batches.back()?)))
    }

    /// Returns the time from one tick to the next, in ns, as the newest samples show it; `None`
    /// with fewer than two.
    pub(crate) fn period_ns(&self) -> Option<u64> {
        let newest = self.batches.back()?;
        let first = self.batches.len().saturating_sub(PERIOD_BATCHES);
        let oldest = &self.batches[first];
        let ticks = newest.ticks().last()?.checked_sub(*oldest.ticks().first()?)?;
        (end_ns(newest).saturating_sub(begin_ns(oldest))).checked_div(ticks)
    }

    /// Returns the place of the newest sample that is no later than a time.
    pub(crate) fn find(&self, at_ns: u64) -> Option<Place> {
        let after = self.batches.partition_point(|batch| begin_ns(batch) <= at_ns);
        let batch = after.checked_sub(1)?;
        let windows = self.batches[batch].windows();
        let tick = windows.partition_point(|window| window.middle_ns() <= at_ns) - 1;
        Some(Place { batch, tick })
    }

    /// Returns the time of a sample.
    pub(crate) fn time_ns(&self, at: Place) -> u64 {
        self.batches[at.batch].windows()[at.tick].middle_ns()
    }

    /// Returns the place that is so many samples later, or earlier if negative; at the ends, the
    /// last one there is.
    pub(crate) fn step(&self, from: Place, samples: i32) -> Place {
        let Place { mut batch, tick } = from;
        let mut tick = tick as i64 + i64::from(samples);
        while tick < 0 && batch > 0 {
            batch -= 1;
            tick += self.batches[batch].ticks().len() as i64;
        }
        while batch + 1 < self.batches.len() && tick >= self.batches[batch].ticks().len() as i64 {
            tick -= self.batches[batch].ticks().len() as i64;
            batch += 1;
        }
        let last = self.batches[batch].ticks().len() as i64 - 1;
        Place { batch, tick: tick.clamp(0, last) as usize }
    }

    /// Returns the sample at a place.
    pub(crate) fn sample(&self, at: Place) -> Arc<Snapshot> {
        Arc::new(self.batches[at.batch].snapshot(at.tick))
    }

    /// Returns the batch at a place, and the index of its tick there.
    pub(crate) fn batch(&self, at: Place) -> (&PackedBatch, usize) {
        (&self.batches[at.batch], at.tick)
    }

    /// Returns the batches that have samples later than a time.
    pub(crate) fn later_than(&self, at_ns: u64) -> impl Iterator<Item = &PackedBatch> {
        let first = self.batches.partition_point(|batch| end_ns(batch) <= at_ns);
        self.batches.iter().skip(first).map(|batch| &**batch)
    }

    fn pack(&mut self, batch: &vmstrobe_export::Batch) {
        let before = self.batches.back().map(|before| &**before);
        self.push_packed(Arc::new(PackedBatch::new(batch, before)));
    }

    fn drop_oldest(&mut self) {
        let newest_ns = self.batches.back().map_or(0, |newest| end_ns(newest));
        while let [_, second, ..] = self.batches.make_contiguous() {
            // The oldest is still needed if the others alone do not cover the time.
            let covered_ns = newest_ns.saturating_sub(begin_ns(second));
            let is_covered = u128::from(covered_ns) >= self.limits.time.as_nanos();
            if !is_covered && self.bytes <= self.limits.bytes {
                break;
            }
            let oldest = self.batches.pop_front().expect("there are two");
            self.bytes -= oldest.bytes();
        }
        if let Some((begin_ns, _)) = self.span() {
            while self.events.front().is_some_and(|event| event.monotonic_ns < begin_ns) {
                self.events.pop_front();
            }
        }
    }
}

/// Returns the time of the first sample of a batch.
fn begin_ns(batch: &PackedBatch) -> u64 {
    batch.windows()[0].middle_ns()
}

/// Returns the time of the last sample of a batch.
fn end_ns(batch: &PackedBatch) -> u64 {
    batch.windows()[batch.windows().len() - 1].middle_ns()
}

#[cfg(test)]
mod tests;
