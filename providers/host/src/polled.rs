//! Values that a thread of ours asks for at its own rate, from the answer to the tick.
//!
//! The poller writes each answer into the words of an object ([`PolledWords`]), and a source copies
//! them on every tick ([`PolledSource`]), both under the sequence lock of the object. So a tick
//! costs the same whether anybody answers or not; what it finds is marked with its age.
//!
//! Invariant: one writer at a time. A row is good in the first tick that sees an answer and aged
//! until the next. A tick takes no lock, allocates nothing and asks the clock once a source.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::seq::{self, AtomicU64};
use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES};

/// The age from which values are not shown any more: ten answers in a row are missing.
pub const STALE_AFTER: Duration = Duration::from_secs(1);
/// The attempts at a consistent reading; a poller changes some hundred words in as many ns.
const READ_TRIES: u32 = 64;
const NS_PER_MS: u64 = 1_000_000;

/// Returns the time now, in ns of `CLOCK_MONOTONIC`.
// `vmstrobe_sampler::now_ns` is the same: neither crate knows the other, and core makes no calls.
pub fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The words of one object in the last answer.
#[derive(Debug)]
pub struct PolledWords {
    seq: AtomicU64,
    /// The number of answers so far.
    answers: AtomicU64,
    /// The time at which the last one was asked for, in ns of `CLOCK_MONOTONIC`: the values are not
    /// older. 0 while there is none.
    asked_ns: AtomicU64,
    /// The words, in the layout of the object's schema.
    words: Box<[AtomicU64]>,
}

/// An object of which a poller asks.
pub trait Polled: Debug + Send + Sync {
    /// Returns the words of the last answer.
    fn words(&self) -> &PolledWords;

    /// Whether the object is no more. For the tick.
    fn is_gone(&self) -> bool;

    /// Notes that a source reads it. For the tick.
    #[inline]
    fn want(&self) {}
}

/// Reads objects of one schema. Holds the poller, which goes on as long as a source is there.
#[derive(Debug)]
pub struct PolledSource<O, P> {
    plan: Arc<ReadPlan>,
    rows: Box<[Row<O>]>,
    _poller: Arc<P>,
}

#[derive(Debug)]
struct Row<O> {
    // `None` where the object had gone before it was opened.
    object: Option<Arc<O>>,
    /// The number of answers at the last tick.
    seen: u64,
}

impl PolledWords {
    /// Makes so many words, of which nothing is known yet.
    pub fn new(words: usize) -> Self {
        Self {
            seq: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            asked_ns: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Writes an answer that was asked for at that time. To be called by one thread at a time.
    pub fn write(&self, asked_ns: u64, words: &[u64]) {
        seq::write(&self.seq, || {
            // Only one writes at a time.
            let answers = self.answers.load(Ordering::Relaxed) + 1;
            self.answers.store(answers, Ordering::Relaxed);
            self.asked_ns.store(asked_ns, Ordering::Relaxed);
            for (word, value) in self.words.iter().zip(words) {
                word.store(*value, Ordering::Relaxed);
            }
        });
    }

    /// Forgets the last answer: rows have no data until the next. To be called by the thread that
    /// writes.
    pub fn forget(&self) {
        seq::write(&self.seq, || self.asked_ns.store(0, Ordering::Relaxed));
    }

    /// Returns a copy of the words, for a thread that knows that nobody writes them now.
    pub fn copy(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }

    /// Copies the words that the plan keeps into a row; `seen` is the number of answers at the last
    /// tick.
    #[inline]
    fn read(&self, plan: &ReadPlan, row: &mut [u64], seen: &mut u64, now_ns: u64) -> RowState {
        let bytes = plan.span_bytes();
        let words = &self.words[bytes.start / WORD_BYTES..bytes.end / WORD_BYTES];
        let (mut answers, mut asked_ns) = (0, 0);
        let reading = seq::read(&self.seq, READ_TRIES, || {
            answers = self.answers.load(Ordering::Relaxed);
            asked_ns = self.asked_ns.load(Ordering::Relaxed);
            plan.load(words, row);
        });
        if reading == Err(seq::Torn) {
            return RowState::Torn;
        }
        if asked_ns == 0 {
            return RowState::Missing;
        }
        let age_ns = now_ns.saturating_sub(asked_ns);
        if age_ns > STALE_AFTER.as_nanos() as u64 {
            return RowState::Stale;
        }
        if std::mem::replace(seen, answers) != answers {
            return RowState::Good;
        }
        // Not older than a second.
        RowState::Aged((age_ns / NS_PER_MS) as u32)
    }
}

impl<O, P> PolledSource<O, P> {
    /// Makes a source of these objects; `None` is the row of one that had gone.
    ///
    /// # Panics
    /// On a tick, if an object's words are not laid out by the plan's schema: a bug of the
    /// provider.
    pub fn new(
        plan: &Arc<ReadPlan>,
        objects: impl IntoIterator<Item = Option<Arc<O>>>,
        poller: &Arc<P>,
    ) -> Self {
        let rows = objects.into_iter().map(|object| Row { object, seen: 0 }).collect();
        Self { plan: Arc::clone(plan), rows, _poller: Arc::clone(poller) }
    }
}

impl<O: Polled, P: Debug + Send + Sync> Source for PolledSource<O, P> {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { plan, rows: objects, .. } = self;
        let now_ns = clock_ns();
        rows.fill(|index, words| objects[index].read(plan, words, now_ns));
    }
}

impl<O: Polled> Row<O> {
    #[inline]
    fn read(&mut self, plan: &ReadPlan, row: &mut [u64], now_ns: u64) -> RowState {
        let Some(object) = self.object.as_ref().filter(|object| !object.is_gone()) else {
            return RowState::Gone;
        };
        object.want();
        object.words().read(plan, row, &mut self.seen, now_ns)
    }
}

#[cfg(test)]
mod tests;
