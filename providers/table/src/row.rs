//! The row of one object of a table: copied out of memory that its writer goes on changing.
//!
//! Invariant: a row is good only if its object was still the one it was opened for when the copy
//! was done, and, if words of it are changed together, no change was under way. A writer that holds
//! the lock costs some looks and no more ([`READ_TRIES`], fewer where each is long); nothing that
//! it stores is followed. No hole of a table is filled: a row of which a page is not known to be
//! there is read by system calls until its writer has stored something there, which the same tick
//! sees.

use std::cell::Cell;
use std::ops::Range;
use std::result::Result as StdResult;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use rustix::io::Errno;
use vmstrobe_core::seq::{self, AtomicU64};
use vmstrobe_core::{ReadPlan, Result, RowState, WORD_BYTES};
use vmstrobe_host::FdOwner;

use super::budget::Claim;
use super::format::LOCK_WORDS;
use super::look::{Found, Memory, lock_of};
use super::map::{Map, read_words};

/// The most tries at a row that keeps changing, or that is being changed.
const READ_TRIES: usize = 32;
/// The most tries at a row that is read by system calls, each of which takes as long as many
/// changes.
const FETCH_TRIES: u32 = 8;
/// The most words that are copied for a row that keeps changing, once it was copied twice.
const RETRIED_WORDS_MAX: usize = 1 << 16;

/// The state of the writer of a table.
#[derive(Debug)]
pub(crate) struct Writer {
    /// It has broken its promise to say that it lives.
    pub(crate) silent: AtomicBool,
    /// The table was given back, or nobody writes it any more.
    pub(crate) gone: AtomicBool,
    /// The process or peer that the table came from, if it came from one.
    pub(crate) owner: Option<FdOwner>,
}

/// The row of one object: where its words are.
pub(crate) struct Row {
    pub(super) memory: Arc<Memory>,
    /// The first word of the lock: seq, then the incarnation.
    pub(super) lock: usize,
    /// The first word of the plan's span in each shard.
    pub(super) spans: Box<[usize]>,
    pub(super) incarnation: u64,
    pub(super) is_grouped: bool,
    pub(super) tries: u32,
    /// Whether all pages of it are known to be there, so that it can be loaded.
    is_present: Cell<bool>,
    writer: Arc<Writer>,
    /// The words that each tick reads for it.
    _claim: Claim,
}

impl Writer {
    /// Returns the state of the table's rows if they are not to be read: gone or stale.
    pub(crate) fn mark(&self) -> Option<RowState> {
        let has_ended = self.owner.as_ref().is_some_and(FdOwner::has_ended);
        // Relaxed: `GoneEpoch` sees to it that no source misses a flag for good.
        if has_ended || self.gone.load(Ordering::Relaxed) {
            return Some(RowState::Gone);
        }
        self.silent.load(Ordering::Relaxed).then_some(RowState::Stale)
    }
}

impl Row {
    /// The row that a plan keeps of an object, whose words of that plan were claimed.
    ///
    /// # Errors
    /// `Io` if there is no memory for a hole of our own.
    pub(crate) fn new(
        memory: &Arc<Memory>,
        found: &Found,
        plan: &ReadPlan,
        writer: &Arc<Writer>,
        claim: Claim,
    ) -> Result<Self> {
        let span = plan.span_bytes();
        let first = found.data.start + span.start / WORD_BYTES;
        let spans = (0..found.shards).map(|shard| first + shard * found.shard_words);
        // Without words there is still a lock to look at.
        let words = (found.shards * span.len() / WORD_BYTES).max(1);
        let row = Self {
            memory: Arc::clone(memory),
            lock: lock_of(&found.data),
            spans: spans.collect(),
            incarnation: found.incarnation,
            is_grouped: found.is_grouped,
            tries: (RETRIED_WORDS_MAX / words).clamp(2, READ_TRIES) as u32,
            is_present: Cell::new(false),
            writer: Arc::clone(writer),
            _claim: claim,
        };
        let mut is_present = true;
        for words in row.parts(span.len() / WORD_BYTES) {
            is_present &= memory.can_load(&words)?;
        }
        row.is_present.set(is_present);
        Ok(row)
    }

    /// Returns the ranges of the words that a tick reads: the lock, and the span in each shard.
    fn parts(&self, span_words: usize) -> impl Iterator<Item = Range<usize>> {
        let spans = self.spans.iter().map(move |&first| first..first + span_words);
        std::iter::once(self.lock..self.lock + LOCK_WORDS).chain(spans)
    }

    /// Returns true if all pages of it are known to be there.
    pub(super) fn is_present(&self) -> bool {
        self.is_present.get()
    }

    /// Returns the state of the row if its table's writer is gone or silent.
    pub(super) fn mark(&self) -> Option<RowState> {
        self.writer.mark()
    }

    /// Copies the row, by loads if it can be loaded. `spans` is as long as the plan's span.
    pub(super) fn read(
        &self,
        plan: &ReadPlan,
        words: &mut [u64],
        spans: &mut [[u64; 2]],
    ) -> RowState {
        let outcome = match &*self.memory {
            Memory::Mapped(map) if self.is_present.get() => {
                return self.load(plan, map, words).unwrap_or(RowState::Gone);
            }
            Memory::Mapped(map) => {
                let mut are_present = true;
                let outcome = self.fetch(spans, |words, first| {
                    are_present &= map.read(words, first)?;
                    Ok(())
                });
                // Otherwise not all of it has been read.
                if matches!(outcome, Ok(Some(_))) {
                    self.is_present.set(are_present);
                }
                outcome
            }
            Memory::File(fd) => self.fetch(spans, |words, first| read_words(fd, words, first)),
        };
        match outcome {
            Ok(Some([_, theirs])) if theirs == self.incarnation => {
                plan.keep(&spans.as_flattened()[..spans.len()], words);
                RowState::Good
            }
            Ok(None) => RowState::Torn,
            // Another's, or it has become shorter.
            Ok(Some(_)) | Err(Errno::NXIO) => RowState::Gone,
            Err(errno) => RowState::Io(errno.raw_os_error()),
        }
    }

    /// `None` if the words are not there, as they were when the object was found.
    fn load(&self, plan: &ReadPlan, map: &Map, words: &mut [u64]) -> Option<RowState> {
        let [number, incarnation] = map.words().get(self.lock..)?.first_chunk()?;
        let count = plan.span_bytes().len() / WORD_BYTES;
        let span = |&first: &usize| map.words().get(first..first + count);
        let (first, more) = self.spans.split_first()?;
        let first = span(first)?;
        Some(locked(number, incarnation, self.incarnation, self.tries, || {
            plan.load(first, words);
            more.iter().filter_map(span).for_each(|span| plan.add(span, words));
        }))
    }

    /// Copies the row as [`Row::load`] does, but by `read`, which copies words from an index on and
    /// may take a system call for it: the lock, the spans, the lock again. Leaves the sum of the
    /// spans in the first half of `spans`. Returns the lock, or `None` if it kept changing.
    fn fetch(
        &self,
        spans: &mut [[u64; 2]],
        mut read: impl FnMut(&mut [u64], usize) -> StdResult<(), Errno>,
    ) -> StdResult<Option<[u64; LOCK_WORDS]>, Errno> {
        let half = spans.len();
        let (sum, span) = spans.as_flattened_mut().split_at_mut(half);
        for _ in 0..self.tries.min(FETCH_TRIES) {
            let (mut before, mut after) = ([0; LOCK_WORDS], [0; LOCK_WORDS]);
            read(&mut before, self.lock)?;
            if !before[0].is_multiple_of(2) {
                continue;
            }
            fence(Ordering::Acquire);
            sum.fill(0);
            for &first in &self.spans {
                read(span, first)?;
                sum.iter_mut().zip(&*span).for_each(|(sum, word)| *sum = sum.wrapping_add(*word));
            }
            fence(Ordering::Acquire);
            read(&mut after, self.lock)?;
            if before == after {
                return Ok(Some(before));
            }
        }
        Ok(None)
    }
}

/// Copies a row between two equal numbers; it is good if it was that incarnation's.
#[inline]
pub(super) fn locked(
    number: &AtomicU64,
    incarnation: &AtomicU64,
    ours: u64,
    tries: u32,
    mut copy: impl FnMut(),
) -> RowState {
    let mut theirs = 0;
    let outcome = seq::read(number, tries, || {
        theirs = incarnation.load(Ordering::Relaxed);
        copy();
    });
    match outcome {
        Ok(()) if theirs == ours => RowState::Good,
        Ok(()) => RowState::Gone,
        Err(seq::Torn) => RowState::Torn,
    }
}
