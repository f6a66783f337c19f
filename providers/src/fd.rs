//! A stats fd, from opening it to reading it on the tick.
//!
//! Invariant: only `pread`, from an offset and into a buffer that are both aligned to a word, so
//! that no counter is torn (`lseek` on a stats fd does nothing). The header, the id and the
//! descriptors are read once; a tick is one `pread` an object, of the bytes that the plan spans.
//! The fd is closed by a [`Reaper`], whoever drops it last.
//!
//! A stats fd goes on returning the last values after its VM has died. So a row is good only while
//! nobody has said that the object is gone: the fd's owner ([`StatsFd::retire`]) or the watcher of
//! its process.

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::pread;
use vmstrobe_core::wire::{self, Block, Header};
use vmstrobe_core::{
    Error, ErrorKind, Object, ReadPlan, Result, RowState, Rows, Schema, Source, Target, WORD_BYTES,
};

use crate::departures::Departures;
use crate::reaper::Reaper;
use crate::sys::HeldFds;

/// The most objects of one source: enough to make its own cost vanish beside that of the reads,
/// few enough that several threads can share 256 objects.
const ROWS_PER_SOURCE: usize = 64;

/// Bytes of a cache line, as a power of two that any CPU is content with.
const LINE_BYTES: usize = 64;

/// What the stats fds of one provider share: one schema for all alike, who closes them, and
/// whether any is gone.
#[derive(Debug)]
pub(crate) struct Opener {
    reaper: Reaper,
    departures: Departures,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

/// The process that a stats fd was borrowed from.
#[derive(Clone, Debug)]
pub(crate) struct Lender {
    /// True until it has ended.
    pub(crate) alive: Arc<AtomicBool>,
    /// Who finds that out. Held by what is borrowed, which may outlive the provider.
    pub(crate) _watch: Arc<dyn Debug + Send + Sync>,
}

/// An open stats fd with what its head says. Closed by the reaper.
#[derive(Debug)]
pub(crate) struct StatsFd {
    // `None` only while it is dropped.
    fd: Option<Arc<OwnedFd>>,
    data_offset: u64,
    retired: AtomicBool,
    departures: Departures,
    lender: Option<Lender>,
    id: String,
    schema: Arc<Schema>,
    reaper: Reaper,
}

impl Opener {
    pub(crate) fn new(reaper: Reaper) -> Self {
        Self { reaper, departures: Departures::default(), schemas: Mutex::default() }
    }

    /// Moves when an object of the provider goes.
    pub(crate) fn departures(&self) -> &Departures {
        &self.departures
    }

    /// Reads and checks the head of a stats fd; `lender` is whose it is, if it is borrowed.
    ///
    /// # Errors
    /// `Malformed` or `TooLarge` if this is no block of statistics, `Io` if it cannot be read.
    pub(crate) fn open(
        &self,
        fd: OwnedFd,
        target: Target,
        lender: Option<Lender>,
    ) -> Result<StatsFd> {
        let block = match read_block(&fd, target) {
            Ok(block) => block,
            Err(error) => {
                self.reaper.close(fd);
                return Err(error);
            }
        };
        Ok(StatsFd {
            fd: Some(Arc::new(fd)),
            data_offset: u64::from(block.header.data_offset),
            retired: AtomicBool::new(false),
            departures: self.departures.clone(),
            lender,
            id: block.id,
            schema: self.intern(block.schema),
            reaper: self.reaper.clone(),
        })
    }

    /// The one of equal schemas that was there first.
    fn intern(&self, schema: Arc<Schema>) -> Arc<Schema> {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = schemas.iter().find(|known| **known == schema) {
            return Arc::clone(known);
        }
        schemas.push(Arc::clone(&schema));
        schema
    }
}

fn read_block(fd: &OwnedFd, target: Target) -> Result<Block> {
    let mut header = [0; Header::BYTES];
    read_exactly(fd, &mut header, 0, "header")?;
    let header = Header::parse(&header)?;
    let part = |range: std::ops::Range<u64>, what| {
        // Both parts are bounded by the limits that the header has passed.
        let mut bytes = vec![0; (range.end - range.start) as usize];
        read_exactly(fd, &mut bytes, range.start, what).map(|()| bytes)
    };
    let id = part(header.id_range(), "id string")?;
    let descs = part(header.desc_range(), "descriptors")?;
    wire::parse(&header, &id, &descs, "kvm", target)
}

fn read_exactly(fd: &OwnedFd, bytes: &mut [u8], offset: u64, what: &str) -> Result<()> {
    let want = bytes.len();
    match pread(fd, bytes, offset) {
        Ok(got) if got == want => Ok(()),
        Ok(got) => Err(Error::new(
            ErrorKind::Malformed,
            format!("not a stats fd: its {what} should be {want} bytes and is {got}"),
        )),
        Err(errno) => Err(Error::caused(
            ErrorKind::Io,
            format!("cannot read the {what} of a stats fd"),
            errno,
        )),
    }
}

impl StatsFd {
    /// What it says of its creator: `kvm-<tid>` or `kvm-<tid>/vcpu-<n>`.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Marks its object as gone: rows that are still read from it say so from now on.
    pub(crate) fn retire(&self) {
        // Relaxed, as every use of both flags: that nobody misses one for good is the business of
        // `Departures`, and a flag seen one tick late costs one tick.
        self.retired.store(true, Ordering::Relaxed);
        self.departures.note();
    }

    fn is_gone(&self) -> bool {
        let has_ended = |lender: &Lender| !lender.alive.load(Ordering::Relaxed);
        self.retired.load(Ordering::Relaxed) || self.lender.as_ref().is_some_and(has_ended)
    }

    /// Where a plan's span starts in the file.
    fn span_offset(&self, plan: &ReadPlan) -> u64 {
        self.data_offset + plan.span_bytes().start as u64
    }

    /// Clones must not outlive this, nor keep it from being closed by the reaper.
    pub(crate) fn fd(&self) -> &Arc<OwnedFd> {
        self.fd.as_ref().expect("only drop takes it")
    }
}

/// Fills the words from that offset in the file.
#[inline]
fn fetch(fd: BorrowedFd<'_>, words: &mut [u64], offset: u64) -> RowState {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
    let want = bytes.len();
    // Not begun again if interrupted: it never waits, so no signal can.
    match pread(fd, bytes, offset) {
        Ok(got) if got == want => RowState::Good,
        Ok(_) => RowState::Torn,
        Err(errno) => RowState::Io(errno.raw_os_error()),
    }
}

impl Drop for StatsFd {
    fn drop(&mut self) {
        // Rows let go of the fd before they let go of this, so it is ours alone.
        if let Some(fd) = self.fd.take().and_then(Arc::into_inner) {
            self.reaper.close(fd);
        }
    }
}

/// Sources for these objects, in their order, [`ROWS_PER_SOURCE`] each. `find` gives an object's
/// fd by its key; the row of one that it does not find is marked as gone.
///
/// # Errors
/// `Malformed` if an object's statistics are not those that the plan was made for.
pub(crate) fn sources(
    objects: &[Object],
    plan: &Arc<ReadPlan>,
    departures: &Departures,
    find: impl Fn(u64) -> Option<Arc<StatsFd>>,
) -> Result<Vec<Box<dyn Source>>> {
    // Before anyone is asked whether it is gone; see `Departures`.
    let opened_at = departures.count();
    let row = |object: &Object| {
        let Some(stats) = find(object.key).filter(|stats| !stats.is_gone()) else {
            return Ok(None);
        };
        // Else the plan's words would be other statistics' here.
        if stats.schema != *plan.schema() {
            let text = format!("{} has other statistics than the plan is for", object.path);
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        Ok(Some(stats))
    };
    let source = |objects: &[Object]| {
        let rows: Box<[Option<Arc<StatsFd>>]> = objects.iter().map(row).collect::<Result<_>>()?;
        // Rows that are the span are filled without it.
        let words = if plan.row_is_span() { 0 } else { plan.span_bytes().len() / WORD_BYTES };
        Ok(Box::new(FdSource {
            plan: Arc::clone(plan),
            quick: Quick::new(&rows, plan),
            rows,
            span: Span::new(words),
            departures: departures.clone(),
            opened_at,
        }) as Box<dyn Source>)
    };
    objects.chunks(ROWS_PER_SOURCE).map(source).collect()
}

/// Reads objects one after the other, a `pread` each.
#[derive(Debug)]
struct FdSource {
    plan: Arc<ReadPlan>,
    // Before `rows`, so that it lets go of the fds before they do.
    quick: Option<Quick>,
    // `None` where the object had gone before it was opened.
    rows: Box<[Option<Arc<StatsFd>>]>,
    span: Span,
    departures: Departures,
    opened_at: u64,
}

/// What a tick needs of the rows as long as none has gone, and no more: little memory that stays in
/// the cache.
#[derive(Debug)]
struct Quick {
    fds: HeldFds,
    /// Where the plan's span starts in every file.
    offset: u64,
}

impl Quick {
    /// `None` if an object has gone already, or the files are not laid out alike.
    fn new(rows: &[Option<Arc<StatsFd>>], plan: &ReadPlan) -> Option<Self> {
        let rows: Vec<&Arc<StatsFd>> = rows.iter().map(Option::as_ref).collect::<Option<_>>()?;
        let offset = rows.first()?.span_offset(plan);
        let alike = plan.row_words() > 0 && rows.iter().all(|r| r.span_offset(plan) == offset);
        alike.then(|| Self {
            fds: HeldFds::new(rows.iter().map(|row| Arc::clone(row.fd())).collect()),
            offset,
        })
    }
}

/// Where a span is read to: words at the start of a cache line. The kernel's copy takes 8 ns longer
/// to anywhere else (an Intel Xeon, 920 bytes), a twenty-fifth of the whole read.
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
        let some_are_gone = self.departures.count() != self.opened_at;
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
    /// Asks each row whether it is still there; whatever the plan, and wherever the files have it.
    fn read_with_care(&mut self, rows: Rows<'_>) {
        let (plan, span) = (&*self.plan, self.span.words());
        rows.fill(|index, words| {
            let Some(row) = self.rows[index].as_ref().filter(|row| !row.is_gone()) else {
                return RowState::Gone;
            };
            let (fd, offset) = (row.fd().as_fd(), row.span_offset(plan));
            if words.is_empty() {
                return RowState::Good;
            }
            if plan.row_is_span() {
                return fetch(fd, words, offset);
            }
            let state = fetch(fd, span, offset);
            if state == RowState::Good {
                plan.keep(span, words);
            }
            state
        });
    }
}

#[cfg(test)]
mod tests;
