//! The quick way over tables: what a tick needs of its rows as long as none has gone, and no more.
//!
//! Per object it is one look at a lock word beside the data, so that this is about all that a tick
//! costs over loading the words themselves; hence the care for what is compiled into the loop.
//!
//! Invariant: rows are as good as those of the careful way, which takes over as soon as anything of
//! the provider has gone, and whenever a row was not got at the first try.

use vmstrobe_core::seq::{self, AtomicU64};
use vmstrobe_core::{NEAR_WORDS, ReadPlan, RowState, Rows, WORD_BYTES};

use super::format::LOCK_WORDS;
use super::look::Memory;
use super::map::Words;
use super::row::{Row, locked};

/// Mapped objects of one shard each, side by side.
pub(super) struct Quick {
    rows: Box<[QuickRow]>,
    /// The start of the plan's span, in words from the lock on.
    span: usize,
    tries: u32,
    way: Way,
}

/// The ways in which the rows can be read.
#[derive(Clone, Copy)]
enum Way {
    /// None has words that change together, and the plan is near: see [`ReadPlan::load_near`].
    Near,
    /// None has words that change together.
    Ungrouped,
    /// Under the sequence lock.
    Locked,
}

struct QuickRow {
    /// The words from the lock to the end of the plan's span, or as far as a near plan may look.
    words: Words,
    incarnation: u64,
}

impl Quick {
    /// `None` if a row is gone already, or is not so simple.
    pub(super) fn new(rows: &[Option<Row>], plan: &ReadPlan) -> Option<Self> {
        let rows: Vec<&Row> = rows.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let span = plan.span_bytes();
        let (first, count) = (span.start / WORD_BYTES, span.len() / WORD_BYTES);
        let held = |count: usize| -> Option<Box<[QuickRow]>> {
            rows.iter().map(|row| QuickRow::new(row, LOCK_WORDS + first + count)).collect()
        };
        let near = if plan.is_near() { held(NEAR_WORDS) } else { None };
        let way = match &near {
            _ if rows.iter().any(|row| row.is_grouped) => Way::Locked,
            Some(_) => Way::Near,
            None => Way::Ungrouped,
        };
        // Near the end of a table there is not so much to look at.
        let held = near.or_else(|| held(count))?;
        Some(Self { rows: held, span: LOCK_WORDS + first, tries: rows.first()?.tries, way })
    }

    #[inline]
    pub(super) fn read(&self, plan: &ReadPlan, rows: Rows<'_>) {
        let span = self.span;
        match self.way {
            Way::Near => rows.fill_from(&self.rows, |ours, row| {
                let Some((_, incarnation, words)) = ours.parts(span) else { return RowState::Gone };
                let Some(words) = words.first_chunk() else { return RowState::Gone };
                plan.load_near(words, row);
                state(seq::is_still(incarnation, ours.incarnation))
            }),
            Way::Ungrouped => rows.fill_from(&self.rows, |ours, row| {
                let Some((_, incarnation, words)) = ours.parts(span) else { return RowState::Gone };
                plan.load(words, row);
                state(seq::is_still(incarnation, ours.incarnation))
            }),
            Way::Locked => rows.fill_from(&self.rows, |ours, row| {
                let Some((number, theirs, words)) = ours.parts(span) else { return RowState::Gone };
                // The first try apart, and nothing but it compiled into the loop.
                match locked(number, theirs, ours.incarnation, 1, || plan.load(words, row)) {
                    RowState::Torn => self.again(plan, ours, row),
                    state => state,
                }
            }),
        }
    }

    #[cold]
    #[inline(never)]
    fn again(&self, plan: &ReadPlan, ours: &QuickRow, row: &mut [u64]) -> RowState {
        let Some((number, theirs, words)) = ours.parts(self.span) else { return RowState::Gone };
        locked(number, theirs, ours.incarnation, self.tries, || plan.load(words, row))
    }
}

impl QuickRow {
    /// `None` if it is not so simple, or has fewer words than that.
    fn new(row: &Row, words: usize) -> Option<Self> {
        let Memory::Mapped(map) = &*row.memory else { return None };
        let words = Words::new(map, row.lock, words).filter(|_| row.spans.len() == 1)?;
        Some(Self { words, incarnation: row.incarnation })
    }

    /// The number of the lock, the incarnation, and all from the plan's span on.
    #[inline]
    fn parts(&self, span: usize) -> Option<(&AtomicU64, &AtomicU64, &[AtomicU64])> {
        let words = self.words.get();
        let [number, incarnation, ..] = words else { return None };
        Some((number, incarnation, words.get(span..)?))
    }
}

#[inline]
fn state(is_still: bool) -> RowState {
    if is_still { RowState::Good } else { RowState::Gone }
}
