//! The tick over tables: each row copied out of memory that its writer goes on changing.
//!
//! Invariant: a row is good only if it was copied between two equal, even numbers of its sequence
//! lock, and the incarnation within was that of the object it was opened for. A writer that holds
//! the lock costs some looks and no more ([`READ_TRIES`], fewer where each is long); nothing that
//! it stores is followed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::io::Errno;
use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES, seq};

use super::format::LOCK_WORDS;
use super::look::{Found, Memory, lock_of, read_words};
use super::map::{Map, Words};
use crate::departures::Departures;
use crate::fd::Lender;

/// How often a row is copied that keeps changing, or is looked at while it is being changed.
const READ_TRIES: usize = 32;
/// The most words that are copied for a row that keeps changing, once it was copied twice.
const RETRIED_WORDS_MAX: usize = 1 << 16;

/// What is known of the writer of a table.
#[derive(Debug)]
pub(crate) struct Writer {
    /// It has broken its promise to say that it lives.
    pub(crate) silent: AtomicBool,
    /// The table was given back, or nobody writes it any more.
    pub(crate) gone: AtomicBool,
    /// Whose it is, if it came from a process or a peer.
    pub(crate) lender: Option<Lender>,
}

/// The row of one object.
pub(crate) struct Row {
    place: Place,
    incarnation: u64,
    tries: u32,
    writer: Arc<Writer>,
}

/// Where the words of a row are.
enum Place {
    /// In a mapping: seq and incarnation, and the plan's span of each shard, the first apart.
    Mapped { lock: Words, span: Words, more: Box<[Words]> },
    /// In a file: the first word of the lock, and of the span of each shard.
    File { memory: Arc<Memory>, lock: usize, spans: Box<[usize]> },
}

/// Reads objects of tables, one after the other.
pub(crate) struct TableSource {
    plan: Arc<ReadPlan>,
    /// `None` where the object had gone before it was opened.
    rows: Box<[Option<Row>]>,
    /// A span that is read by system calls, and the sum of its shards.
    spans: Box<[[u64; 2]]>,
    departures: Departures,
    opened_at: u64,
}

impl Writer {
    /// What a row of it is, if it is not to be read.
    pub(crate) fn mark(&self) -> Option<RowState> {
        // Relaxed: `Departures` sees to it that no source misses a flag for good.
        let has_ended = |lender: &Lender| !lender.alive.load(Ordering::Relaxed);
        if self.gone.load(Ordering::Relaxed) || self.lender.as_ref().is_some_and(has_ended) {
            return Some(RowState::Gone);
        }
        self.silent.load(Ordering::Relaxed).then_some(RowState::Stale)
    }
}

impl Row {
    /// The row that a plan keeps of an object; `None` if it is not there.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        found: &Found,
        plan: &ReadPlan,
        writer: &Arc<Writer>,
    ) -> Option<Self> {
        let span = plan.span_bytes();
        let (span_first, span_words) = (span.start / WORD_BYTES, span.len() / WORD_BYTES);
        let firsts = (0..found.shards).map(|shard| found.data.start + shard * found.shard_words);
        let firsts = firsts.map(|first| first + span_first);
        let lock = lock_of(&found.data);
        let place = match &**memory {
            Memory::Mapped(map) => Place::mapped(map, lock, firsts, span_words)?,
            Memory::File(_) => {
                Place::File { memory: Arc::clone(memory), lock, spans: firsts.collect() }
            }
        };
        // Without words there is still a lock to look at.
        let words = (found.shards * span_words).max(1);
        let tries = (RETRIED_WORDS_MAX / words).clamp(2, READ_TRIES) as u32;
        let incarnation = found.incarnation;
        Some(Self { place, incarnation, tries, writer: Arc::clone(writer) })
    }

    #[inline]
    fn read(&self, plan: &ReadPlan, words: &mut [u64], spans: &mut [[u64; 2]]) -> RowState {
        match &self.place {
            Place::Mapped { lock, span, more } => self.load(plan, lock, span, more, words),
            Place::File { memory, lock, spans: firsts } => {
                self.fetch(plan, memory, *lock, firsts, words, spans)
            }
        }
    }

    #[inline]
    fn load(
        &self,
        plan: &ReadPlan,
        lock: &Words,
        span: &Words,
        more: &[Words],
        words: &mut [u64],
    ) -> RowState {
        let [number, incarnation] = lock.get() else { return RowState::Gone };
        let mut theirs = 0;
        let outcome = seq::read(number, self.tries, || {
            theirs = incarnation.load(Ordering::Relaxed);
            plan.load(span.get(), words);
            more.iter().for_each(|span| plan.add(span.get(), words));
        });
        match outcome {
            Ok(()) if theirs == self.incarnation => RowState::Good,
            Ok(()) => RowState::Gone,
            Err(seq::Torn) => RowState::Torn,
        }
    }

    /// The same by system calls: the lock, the spans, the lock again.
    fn fetch(
        &self,
        plan: &ReadPlan,
        memory: &Memory,
        lock: usize,
        firsts: &[usize],
        words: &mut [u64],
        spans: &mut [[u64; 2]],
    ) -> RowState {
        let Memory::File(fd) = memory else { return RowState::Gone };
        let half = spans.len();
        let (sum, span) = spans.as_flattened_mut().split_at_mut(half);
        let whole = || -> Result<Option<[u64; LOCK_WORDS]>, Errno> {
            let (mut before, mut after) = ([0; LOCK_WORDS], [0; LOCK_WORDS]);
            read_words(fd, &mut before, lock)?;
            fence(Ordering::Acquire);
            sum.fill(0);
            for &first in firsts {
                read_words(fd, span, first)?;
                sum.iter_mut().zip(&*span).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
            }
            fence(Ordering::Acquire);
            read_words(fd, &mut after, lock)?;
            Ok((before == after && before[0].is_multiple_of(2)).then_some(before))
        };
        match retried(self.tries, whole) {
            Ok(Some([_, theirs])) if theirs == self.incarnation => {
                plan.keep(sum, words);
                RowState::Good
            }
            Ok(Some(_)) => RowState::Gone,
            Ok(None) => RowState::Torn,
            // It has become shorter.
            Err(Errno::NXIO) => RowState::Gone,
            Err(errno) => RowState::Io(errno.raw_os_error()),
        }
    }
}

/// Calls it until it gives something, at most so many times.
fn retried<T>(
    tries: u32,
    mut read: impl FnMut() -> Result<Option<T>, Errno>,
) -> Result<Option<T>, Errno> {
    for _ in 0..tries {
        if let Some(read) = read()? {
            return Ok(Some(read));
        }
    }
    Ok(None)
}

impl Place {
    fn mapped(
        map: &Arc<Map>,
        lock: usize,
        mut firsts: impl Iterator<Item = usize>,
        words: usize,
    ) -> Option<Self> {
        let span_at = |first| Words::new(map, first, words);
        Some(Self::Mapped {
            lock: Words::new(map, lock, LOCK_WORDS)?,
            span: span_at(firsts.next()?)?,
            more: firsts.map(span_at).collect::<Option<_>>()?,
        })
    }
}

impl TableSource {
    /// A source of these rows. `opened_at` is the number of departures before anyone was asked
    /// whether an object is there.
    pub(crate) fn new(
        plan: &Arc<ReadPlan>,
        rows: Box<[Option<Row>]>,
        departures: &Departures,
        opened_at: u64,
    ) -> Self {
        let spans = vec![[0; 2]; plan.span_bytes().len() / WORD_BYTES].into();
        let departures = departures.clone();
        let mut source = Self { plan: Arc::clone(plan), rows, spans, departures, opened_at };
        source.warm_up();
        source
    }

    /// Reads once for nothing, so that no tick is the first to touch a page.
    fn warm_up(&mut self) {
        let mut words = vec![0; self.plan.row_words()];
        for row in self.rows.iter().flatten() {
            row.read(&self.plan, &mut words, &mut self.spans);
        }
    }
}

impl Source for TableSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let Self { plan, rows: ours, spans, departures, opened_at } = self;
        let some_are_gone = departures.count() != *opened_at;
        rows.fill(|index, words| {
            let Some(row) = &ours[index] else { return RowState::Gone };
            // Asked only after something has gone: else it is a pointer to follow for each row.
            if some_are_gone && let Some(mark) = row.writer.mark() {
                return mark;
            }
            row.read(plan, words, spans)
        });
    }
}
