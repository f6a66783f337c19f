//! The pread tick: one `pread` an object, of the bytes that the plan spans.
//!
//! It is the reference for every other way to read the same objects, and what is left if none of
//! those can be used.
//!
//! Invariant: a row is read from a stats fd or not at all; an object fd's row stays missing. No row
//! of an object that is known to be gone is read.

use std::sync::Arc;

use vmstrobe_core::{ReadPlan, RowState, Rows, Source, WORD_BYTES};
use vmstrobe_host::GoneEpoch;

use super::{KvmFd, fetch};
use crate::sys::HeldFds;

/// The most objects of one source: enough to make its own cost vanish beside that of the reads,
/// few enough that several threads can share 256 objects.
const ROWS_PER_SOURCE: usize = 64;

/// Bytes of a cache line, as a power of two that any CPU is content with.
const LINE_BYTES: usize = 64;

/// Sources of these rows, [`ROWS_PER_SOURCE`] each; `None` is the row of an object that had gone.
/// All are of the plan's schema, and `opened_at` is the value of `gone_epoch` from before any of
/// them was asked whether it is gone.
pub(crate) fn pread_sources(
    plan: &Arc<ReadPlan>,
    rows: &[Option<Arc<KvmFd>>],
    gone_epoch: &GoneEpoch,
    opened_at: u64,
) -> Vec<Box<dyn Source>> {
    let source = |rows| pread_source(plan, rows, gone_epoch, opened_at);
    rows.chunks(ROWS_PER_SOURCE).map(source).collect()
}

/// Makes one source of all these rows; the rest is as in [`pread_sources`].
pub(crate) fn pread_source(
    plan: &Arc<ReadPlan>,
    rows: &[Option<Arc<KvmFd>>],
    gone_epoch: &GoneEpoch,
    opened_at: u64,
) -> Box<dyn Source> {
    // Rows that are the span are filled without it.
    let words = if plan.row_is_span() { 0 } else { plan.span_bytes().len() / WORD_BYTES };
    Box::new(FdSource {
        plan: Arc::clone(plan),
        quick: Quick::new(rows, plan),
        rows: rows.into(),
        span: Span::new(words),
        gone_epoch: gone_epoch.clone(),
        opened_at,
    })
}

/// Reads objects one after the other, a `pread` each.
#[derive(Debug)]
struct FdSource {
    plan: Arc<ReadPlan>,
    // Before `rows`, so that it lets go of the fds before they do.
    quick: Option<Quick>,
    // `None` where the object had gone before it was opened.
    rows: Box<[Option<Arc<KvmFd>>]>,
    span: Span,
    gone_epoch: GoneEpoch,
    opened_at: u64,
}

/// The data that a tick needs of the rows as long as none has gone: little memory, which stays in
/// the cache.
#[derive(Debug)]
struct Quick {
    fds: HeldFds,
    /// The offset of the plan's span, which is the same in every file.
    offset: u64,
}

impl Quick {
    /// `None` if an object has gone already, or not all are stats fds that are laid out alike.
    fn new(rows: &[Option<Arc<KvmFd>>], plan: &ReadPlan) -> Option<Self> {
        let rows: Vec<&Arc<KvmFd>> = rows.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let offset = rows.first()?.span_offset(plan)?;
        let is_alike = |row: &&Arc<KvmFd>| row.span_offset(plan) == Some(offset);
        let alike = plan.row_words() > 0 && rows.iter().all(is_alike);
        alike.then(|| Self {
            fds: HeldFds::new(rows.iter().map(|row| Arc::clone(row.fd())).collect()),
            offset,
        })
    }
}

/// The buffer that a span is read into: words at the start of a cache line. The kernel's copy takes
/// 8 ns longer to anywhere else (an Intel Xeon, 920 bytes), a twenty-fifth of the whole read.
#[derive(Debug)]
struct Span {
    // With up to a line before the first word.
    words: Box<[u64]>,
    first: usize,
}

impl Span {
    fn new(words: usize) -> Self {
        let words: Box<[u64]> = vec![0; words + LINE_BYTES / WORD_BYTES].into();
        // At most a line less a word. (A pointer that cannot be aligned gives `usize::MAX`.)
        let first = words.as_ptr().align_offset(LINE_BYTES).min(LINE_BYTES / WORD_BYTES);
        Self { words, first }
    }

    fn words(&mut self) -> &mut [u64] {
        let words = self.words.len() - LINE_BYTES / WORD_BYTES;
        &mut self.words[self.first..self.first + words]
    }
}

impl Source for FdSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, rows: Rows<'_>) {
        let some_are_gone = self.gone_epoch.count() != self.opened_at;
        let Some(Quick { fds, offset }) = self.quick.as_ref().filter(|_| !some_are_gone) else {
            return self.read_with_care(rows);
        };
        // The loops are apart because what is asked behind a system call costs ns a row.
        if self.plan.row_is_span() {
            return rows.fill_from(fds.all(), |&fd, words| fetch(fd, words, *offset));
        }
        let (plan, span) = (&*self.plan, self.span.words());
        rows.fill_from(fds.all(), |&fd, words| {
            let state = fetch(fd, span, *offset);
            if state == RowState::Good {
                plan.keep(span, words);
            }
            state
        });
    }
}

impl FdSource {
    /// Asks each row whether it is still there; whatever the plan, whatever the fds, and wherever
    /// the files have it.
    fn read_with_care(&mut self, rows: Rows<'_>) {
        let (plan, span) = (&*self.plan, self.span.words());
        rows.fill(|index, words| {
            let Some(row) = self.rows[index].as_ref().filter(|row| !row.is_gone()) else {
                return RowState::Gone;
            };
            if words.is_empty() && !row.is_object_fd() {
                return RowState::Good;
            }
            if plan.row_is_span() {
                return row.read_span(plan, words);
            }
            let state = row.read_span(plan, span);
            if state == RowState::Good {
                plan.keep(span, words);
            }
            state
        });
    }
}
