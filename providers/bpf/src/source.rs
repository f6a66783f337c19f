//! The BPF reader as a source: one call, and then the rows out of the frame.
//!
//! Invariant: after anything doubtful nothing that was read is used, and every later read is the
//! fall-back's. The program and its array of addresses are gone before the descriptors that keep
//! their objects: fields are dropped in their order.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmstrobe_core::seq::AtomicU64;
use vmstrobe_core::{ReadPlan, RowState, Rows, Source};
use vmstrobe_host::GoneEpoch;
use vmstrobe_kvm::KvmFd;

use super::audit::Audit;
use super::bulk::{BulkReader, Head};
use super::frame::{LOCK_WORDS, Shape, state_of};
use super::health::{BpfHealth, Fault, SourceFault};

/// Reads all its objects in one call.
#[derive(Debug)]
pub(super) struct KernelSource {
    pub(super) bulk: BulkReader,
    pub(super) audit: Audit,
    pub(super) plan: Arc<ReadPlan>,
    pub(super) health: Arc<BpfHealth>,
    pub(super) fault: Arc<SourceFault>,
    /// `None` where the object had gone before it was opened.
    pub(super) rows: Box<[Option<Arc<KvmFd>>]>,
    pub(super) fallback: Fallback,
    pub(super) gone_epoch: GoneEpoch,
    pub(super) opened_at: u64,
    pub(super) read_ns: Option<Range<u64>>,
}

/// The source that reads the same objects without the program.
pub(super) struct Fallback(pub(super) Box<dyn Source>);

impl std::fmt::Debug for Fallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fallback").field(&self.0.rows()).finish()
    }
}

impl KernelSource {
    /// Runs the program, and compares a row before and after if it is time.
    #[inline]
    fn run(&mut self) -> Result<Head, Fault> {
        let last_ns = self.read_ns.as_ref().map_or(0, |read| read.start);
        if !self.audit.is_due(last_ns) {
            return self.bulk.run().map_err(Fault::Unread);
        }
        self.run_audited()
    }

    #[cold]
    fn run_audited(&mut self) -> Result<Head, Fault> {
        let begun = self.audit.begin();
        let head = self.bulk.run().map_err(Fault::Unread)?;
        if begun {
            self.audit.end(&self.bulk).map_err(Fault::Outside)?;
        }
        self.audit.advance(head.begin_ns);
        Ok(head)
    }

    /// Compares every row that can be, once, before anyone relies on them.
    ///
    /// # Errors
    /// The first fault.
    pub(super) fn prove(&mut self) -> Result<(), Fault> {
        for _ in 0..self.audit.rows() {
            self.run_audited()?;
        }
        Ok(())
    }

    /// Fills the rows with what the last run has read.
    #[inline]
    fn copy(&self, rows: Rows<'_>) {
        // The loops are apart because a ns a row counts: of few words, each number has its own.
        match (self.bulk.shape(), self.plan.row_words()) {
            (Shape::Row, 1) => self.copy_words::<1>(rows),
            (Shape::Row, 2) => self.copy_words::<2>(rows),
            (Shape::Row, 3) => self.copy_words::<3>(rows),
            (Shape::Row, 4) => self.copy_words::<4>(rows),
            (Shape::Row, _) => {
                self.copy_with(rows, |row, words| load(&row[LOCK_WORDS..], words));
            }
            (Shape::Span, _) => {
                self.copy_with(rows, |row, words| self.plan.load(&row[LOCK_WORDS..], words));
            }
        }
    }

    #[inline]
    fn copy_words<const WORDS: usize>(&self, rows: Rows<'_>) {
        self.copy_with(rows, |row, words| {
            let data = row[LOCK_WORDS..].first_chunk::<WORDS>();
            if let (Some(data), Some(words)) = (data, words.first_chunk_mut::<WORDS>()) {
                *words = std::array::from_fn(|at| data[at].load(Ordering::Relaxed));
            }
        });
    }

    #[inline]
    fn copy_with(&self, rows: Rows<'_>, copy: impl Fn(&[AtomicU64], &mut [u64])) {
        let mut seen = self.bulk.rows();
        rows.fill(|_, words| {
            let Some(row) = seen.next() else { return RowState::Missing };
            copy(row, words);
            RowState::Good
        });
    }

    /// Fills the rows, and checks for each that it has data and that its object is still there.
    #[cold]
    fn copy_with_care(&self, rows: Rows<'_>) {
        let (mut seen, plan) = (self.bulk.rows(), &*self.plan);
        rows.fill(|index, words| {
            let Some(row) = seen.next() else { return RowState::Missing };
            if self.rows[index].as_ref().is_none_or(|fd| fd.is_gone()) {
                return RowState::Gone;
            }
            match self.bulk.shape() {
                Shape::Row => load(&row[LOCK_WORDS..], words),
                Shape::Span => plan.load(&row[LOCK_WORDS..], words),
            }
            state_of(row[0].load(Ordering::Relaxed))
        });
    }
}

impl Source for KernelSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        if self.health.is_given_up() {
            self.read_ns = None;
            return self.fallback.0.read(rows);
        }
        let head = match self.run() {
            Ok(head) => head,
            Err(fault) => {
                self.health.give_up(&self.fault, fault);
                self.read_ns = None;
                return self.fallback.0.read(rows);
            }
        };
        self.read_ns = Some(head.begin_ns..head.end_ns);
        if head.marked == 0 && self.gone_epoch.count() == self.opened_at {
            self.copy(rows);
        } else {
            self.copy_with_care(rows);
        }
    }

    fn read_ns(&self) -> Option<Range<u64>> {
        self.read_ns.clone()
    }
}

/// Copies words that the kernel wrote. Relaxed: the program ran on this thread, and has ended.
#[inline]
fn load(data: &[AtomicU64], words: &mut [u64]) {
    for (word, data) in words.iter_mut().zip(data) {
        *word = data.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
