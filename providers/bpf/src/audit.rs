//! The guard of a running bulk reader: about once a second one of its vCPUs is read by pread, by
//! the program, and by pread again; a counter that only grows must lie between the two.
//!
//! Invariant: an audit is two system calls and a comparison, on the tick, without allocation; it is
//! done before what the program read is used.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{ReadPlan, RowState, StatType, WORD_BYTES};
use vmstrobe_kvm::KvmFd;

use super::bulk::BulkReader;
use super::frame::{LOCK_WORDS, Shape};
use super::health::Outside;

/// The time for which what the program reads is believed, in ns.
const PERIOD_NS: u64 = 1_000_000_000;

/// The rows and words of a bulk reader that are compared with pread, and when the next turn is due.
#[derive(Debug)]
pub(super) struct Audit {
    /// Each with its stats fd.
    rows: Box<[(usize, Arc<KvmFd>)]>,
    words: Box<[Word]>,
    plan: Arc<ReadPlan>,
    next: usize,
    due_ns: u64,
    before: Box<[u64]>,
    after: Box<[u64]>,
}

/// A word that never becomes less.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// Its index in the plan's span, which pread reads.
    span: usize,
    /// Its index in the data words of the program's row.
    data: usize,
    /// The index of its statistic among the plan's columns.
    column: usize,
}

impl Audit {
    /// Makes the audit of these rows, which have stats fds.
    pub(super) fn new(
        plan: &Arc<ReadPlan>,
        shape: Shape,
        rows: Box<[(usize, Arc<KvmFd>)]>,
    ) -> Self {
        let first = plan.span_bytes().start / WORD_BYTES;
        let kept: Vec<usize> = plan.kept().map(|word| word - first).collect();
        let descs = plan.schema().descs();
        let grows = |desc: usize| {
            let of = descs[desc].stat_type;
            matches!(of, StatType::Cumulative | StatType::Peak) || of.is_histogram()
        };
        let columns = plan.columns().iter().enumerate().filter(|(_, column)| grows(column.desc));
        let words = columns.flat_map(|(column, of)| {
            let kept = &kept;
            of.words.clone().map(move |at| {
                let span = kept[at];
                Word { span, data: if shape == Shape::Row { at } else { span }, column }
            })
        });
        let span = vec![0; plan.span_bytes().len() / WORD_BYTES];
        Self {
            rows,
            words: words.collect(),
            plan: Arc::clone(plan),
            next: 0,
            due_ns: 0,
            before: span.clone().into(),
            after: span.into(),
        }
    }

    /// Returns the number of rows that can be compared.
    pub(super) fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Whether one is to be done with the next run; `now_ns` is the time of the last run.
    #[inline]
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.due_ns
    }

    /// Reads the row by pread before a run. False if it cannot be read now.
    pub(super) fn begin(&mut self) -> bool {
        let Some((_, fd)) = self.rows.get(self.next) else { return false };
        !fd.is_gone() && fd.read_span(&self.plan, &mut self.before) == RowState::Good
    }

    /// Reads the row by pread after the run, and compares.
    ///
    /// # Errors
    /// The first value that does not lie between.
    pub(super) fn end(&mut self, bulk: &BulkReader) -> Result<(), Outside> {
        let Some((row, fd)) = self.rows.get(self.next) else { return Ok(()) };
        if fd.read_span(&self.plan, &mut self.after) != RowState::Good {
            return Ok(());
        }
        // Without an incarnation it has no data, and says so itself.
        let seen = bulk.row(*row);
        if !has_data(seen) {
            return Ok(());
        }
        let data = &seen[LOCK_WORDS..];
        debug_assert!(self.words.iter().all(|word| word.data < data.len()));
        for word in &self.words {
            let (before, after) = (self.before[word.span], self.after[word.span]);
            let value = data[word.data].load(Ordering::Relaxed);
            // The other way round if somebody has set it to 0 meanwhile, as debugfs allows.
            if before <= after && !(before..=after).contains(&value) {
                let values = [before, value, after];
                return Err(Outside { row: *row, column: word.column, values });
            }
        }
        Ok(())
    }

    /// The next one is of another row, and this much later.
    pub(super) fn advance(&mut self, now_ns: u64) {
        self.next = (self.next + 1) % self.rows.len().max(1);
        self.due_ns = now_ns.saturating_add(PERIOD_NS);
    }
}

/// Whether a row has an incarnation, and so data.
fn has_data(row: &[AtomicU64]) -> bool {
    row[1].load(Ordering::Relaxed) != 0
}

#[cfg(test)]
mod tests;
