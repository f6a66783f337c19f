//! The tick where /proc is asked: a thread of ours writes what it read into words, a source copies
//! them, both under a sequence lock.
//!
//! Invariant: one writer at a time, whoever holds the poller's lock. A row is good in the first
//! tick that sees a reading and aged until the next. A tick takes no lock, allocates nothing,
//! closes no file, and looks at the clock once a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES, seq};

use super::poller::Poller;
use super::schedstat::WORDS;
use crate::fd::KvmFd;

/// Values that are older than this are not shown any more: ten readings in a row are missing.
pub(super) const STALE_AFTER: Duration = Duration::from_secs(1);
/// Attempts at a consistent reading; the writer changes six words in as many ns.
const READ_TRIES: u32 = 64;
const NS_PER_MS: u64 = 1_000_000;

/// Now, in ns of `CLOCK_MONOTONIC`.
pub(super) fn clock_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// A vCPU whose thread is asked for in /proc, with what was read last.
#[derive(Debug)]
pub(super) struct Watched {
    key: u64,
    /// Says whether the vCPU is gone.
    fd: Arc<KvmFd>,
    /// Somebody reads it. Until then it is not read in /proc.
    is_wanted: AtomicBool,
    seq: AtomicU64,
    /// The number of readings so far.
    readings: AtomicU64,
    /// When the last one began, in ns of `CLOCK_MONOTONIC`; 0 while there is no thread to be read.
    read_ns: AtomicU64,
    words: [AtomicU64; WORDS],
}

impl Watched {
    /// Returns a vCPU of which nothing has been read yet.
    pub(super) fn new(key: u64, fd: &Arc<KvmFd>) -> Arc<Self> {
        Arc::new(Self {
            key,
            fd: Arc::clone(fd),
            is_wanted: AtomicBool::new(false),
            seq: AtomicU64::new(0),
            readings: AtomicU64::new(0),
            read_ns: AtomicU64::new(0),
            words: Default::default(),
        })
    }

    /// The key of its object.
    pub(super) fn key(&self) -> u64 {
        self.key
    }

    pub(super) fn is_gone(&self) -> bool {
        self.fd.is_gone()
    }

    pub(super) fn is_wanted(&self) -> bool {
        // Relaxed, as where it is set: nothing is read because of it.
        self.is_wanted.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn want(&self) {
        // Mostly it is, and a load leaves the cache line where it is.
        if !self.is_wanted() {
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// For the poller: a new reading.
    pub(super) fn write(&self, read_ns: u64, words: &[u64; WORDS]) {
        seq::write(&self.seq, || {
            // Only one writes at a time.
            let readings = self.readings.load(Ordering::Relaxed) + 1;
            self.readings.store(readings, Ordering::Relaxed);
            self.read_ns.store(read_ns, Ordering::Relaxed);
            for (word, value) in self.words.iter().zip(words) {
                word.store(*value, Ordering::Relaxed);
            }
        });
    }

    /// For the poller: there is no thread that runs it, or nobody knows which.
    pub(super) fn forget(&self) {
        seq::write(&self.seq, || self.read_ns.store(0, Ordering::Relaxed));
    }
}

/// Reads vCPUs of one provider. Holds the poller: it goes on as long as someone reads.
#[derive(Debug)]
pub(super) struct SchedSource {
    plan: Arc<ReadPlan>,
    rows: Box<[Row]>,
    _poller: Arc<Poller>,
}

#[derive(Debug)]
struct Row {
    // `None` where the vCPU had gone before it was opened.
    watched: Option<Arc<Watched>>,
    /// The number of readings at the last tick.
    seen: u64,
}

impl SchedSource {
    /// # Panics
    /// On a tick, if the plan is not of `sched`'s schema.
    pub(super) fn new(
        plan: &Arc<ReadPlan>,
        rows: &[Option<Arc<Watched>>],
        poller: &Arc<Poller>,
    ) -> Self {
        let rows = rows.iter().map(|watched| Row { watched: watched.clone(), seen: 0 }).collect();
        Self { plan: Arc::clone(plan), rows, _poller: Arc::clone(poller) }
    }
}

impl Source for SchedSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { plan, rows: watched, .. } = self;
        let now_ns = clock_ns();
        rows.fill(|index, words| watched[index].read(plan, words, now_ns));
    }
}

impl Row {
    #[inline]
    fn read(&mut self, plan: &ReadPlan, row: &mut [u64], now_ns: u64) -> RowState {
        let Some(watched) = self.watched.as_ref().filter(|watched| !watched.is_gone()) else {
            return RowState::Gone;
        };
        watched.want();
        let bytes = plan.span_bytes();
        let words = &watched.words[bytes.start / WORD_BYTES..bytes.end / WORD_BYTES];
        let (mut readings, mut read_ns) = (0, 0);
        let reading = seq::read(&watched.seq, READ_TRIES, || {
            readings = watched.readings.load(Ordering::Relaxed);
            read_ns = watched.read_ns.load(Ordering::Relaxed);
            plan.load(words, row);
        });
        if reading == Err(seq::Torn) {
            return RowState::Torn;
        }
        if read_ns == 0 {
            return RowState::Missing;
        }
        let age_ns = now_ns.saturating_sub(read_ns);
        if age_ns > STALE_AFTER.as_nanos() as u64 {
            return RowState::Stale;
        }
        if std::mem::replace(&mut self.seen, readings) != readings {
            return RowState::Good;
        }
        // Not older than a second.
        RowState::Aged((age_ns / NS_PER_MS) as u32)
    }
}

#[cfg(test)]
mod tests;
