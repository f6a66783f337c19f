//! One object's values, from QEMU's answer to the tick.
//!
//! The poller writes a [`Block`] whenever QEMU has answered, a source reads it on every tick, both
//! under the block's sequence lock. So a tick costs the same whether QEMU answers or not; what it
//! finds is marked with its age.
//!
//! Invariant: one writer, the poller. A row is good in one tick an answer, the first that sees it.
//! A tick takes no lock, allocates nothing and asks the clock once a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES, seq};

use super::Worker;

/// Values that are older than this are not shown any more: ten answers in a row are missing.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(1);
/// Attempts at a consistent reading; the poller changes some hundred words in as many ns.
const READ_TRIES: u32 = 64;
const NS_PER_MS: u64 = 1_000_000;

/// Now, in ns of `CLOCK_MONOTONIC`.
pub(super) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The values of one object in QEMU's last answer.
#[derive(Debug)]
pub(super) struct Block {
    seq: AtomicU64,
    /// The number of answers so far.
    answers: AtomicU64,
    /// The time at which QEMU was asked, in ns of `CLOCK_MONOTONIC`: the values are not older.
    asked_ns: AtomicU64,
    /// In the layout of the object's schema.
    words: Box<[AtomicU64]>,
    is_gone: AtomicBool,
}

impl Block {
    /// Of which nothing is known yet.
    pub(super) fn new(words: usize) -> Arc<Self> {
        Arc::new(Self {
            seq: AtomicU64::new(0),
            answers: AtomicU64::new(0),
            asked_ns: AtomicU64::new(0),
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            is_gone: AtomicBool::new(false),
        })
    }

    /// For the poller: a new answer.
    pub(super) fn write(&self, asked_ns: u64, words: &[u64]) {
        seq::write(&self.seq, || {
            // Only this thread changes it.
            let answers = self.answers.load(Ordering::Relaxed) + 1;
            self.answers.store(answers, Ordering::Relaxed);
            self.asked_ns.store(asked_ns, Ordering::Relaxed);
            for (word, value) in self.words.iter().zip(words) {
                word.store(*value, Ordering::Relaxed);
            }
        });
    }

    /// For the poller: the object is no more, or nobody can say.
    pub(super) fn retire(&self) {
        // Relaxed: a flag that is seen one tick late costs one tick.
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// The words of the last answer, for who is not on a tick.
    pub(super) fn words(&self) -> Vec<u64> {
        self.words.iter().map(|word| word.load(Ordering::Relaxed)).collect()
    }
}

/// Reads objects of one schema. Holds the poller: it goes on as long as someone reads.
#[derive(Debug)]
pub(super) struct QmpSource {
    plan: Arc<ReadPlan>,
    rows: Box<[Row]>,
    _worker: Arc<Worker>,
}

#[derive(Debug)]
struct Row {
    // `None` where the object had gone before it was opened.
    block: Option<Arc<Block>>,
    /// The number of answers at the last tick.
    seen: u64,
}

impl QmpSource {
    /// # Panics
    /// On a tick, if a block is not laid out by the plan's schema.
    pub(super) fn new(
        plan: &Arc<ReadPlan>,
        blocks: impl IntoIterator<Item = Option<Arc<Block>>>,
        worker: &Arc<Worker>,
    ) -> Self {
        let rows = blocks.into_iter().map(|block| Row { block, seen: 0 }).collect();
        Self { plan: Arc::clone(plan), rows, _worker: Arc::clone(worker) }
    }
}

impl Source for QmpSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { plan, rows: objects, .. } = self;
        let now_ns = clock_ns();
        rows.fill(|index, words| objects[index].read(plan, words, now_ns));
    }
}

impl Row {
    #[inline]
    fn read(&mut self, plan: &ReadPlan, row: &mut [u64], now_ns: u64) -> RowState {
        let block = match &self.block {
            Some(block) if !block.is_gone.load(Ordering::Relaxed) => block,
            _ => return RowState::Gone,
        };
        let bytes = plan.span_bytes();
        let words = &block.words[bytes.start / WORD_BYTES..bytes.end / WORD_BYTES];
        let (mut answers, mut asked_ns) = (0, 0);
        let reading = seq::read(&block.seq, READ_TRIES, || {
            answers = block.answers.load(Ordering::Relaxed);
            asked_ns = block.asked_ns.load(Ordering::Relaxed);
            plan.load(words, row);
        });
        if reading == Err(seq::Torn) {
            return RowState::Torn;
        }
        let age_ns = now_ns.saturating_sub(asked_ns);
        if age_ns > STALE_AFTER.as_nanos() as u64 {
            return RowState::Stale;
        }
        if std::mem::replace(&mut self.seen, answers) != answers {
            return RowState::Good;
        }
        // Not older than a second.
        RowState::Aged((age_ns / NS_PER_MS) as u32)
    }
}
