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

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, pread};
use vmstrobe_core::wire::{self, Block, Header};
use vmstrobe_core::{
    Error, ErrorKind, Object, ReadPlan, Result, RowState, Rows, Schema, Source, Target, WORD_BYTES,
};

use crate::reaper::Reaper;

/// The most objects of one source: enough to make its own cost vanish beside that of the reads,
/// few enough that several threads can share 256 objects.
const ROWS_PER_SOURCE: usize = 64;

/// How often a read interrupted by a signal is begun again. KVM's reads never are.
const READ_TRIES: usize = 4;

/// What the stats fds of one provider share: one schema for all alike, and who closes them.
#[derive(Debug)]
pub(crate) struct Opener {
    reaper: Reaper,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

/// An open stats fd with what its head says. Closed by the reaper.
#[derive(Debug)]
pub(crate) struct StatsFd {
    // `None` only while it is dropped.
    fd: Option<OwnedFd>,
    data_offset: u64,
    retired: AtomicBool,
    process: Option<Arc<AtomicBool>>,
    id: String,
    schema: Arc<Schema>,
    reaper: Reaper,
}

impl Opener {
    pub(crate) fn new(reaper: Reaper) -> Self {
        Self { reaper, schemas: Mutex::default() }
    }

    /// Reads and checks the head of a stats fd. `process`, if its VM is in another process, is
    /// true as long as that lives.
    ///
    /// # Errors
    /// `Malformed` or `TooLarge` if this is no block of statistics, `Io` if it cannot be read.
    pub(crate) fn open(
        &self,
        fd: OwnedFd,
        target: Target,
        process: Option<Arc<AtomicBool>>,
    ) -> Result<StatsFd> {
        let block = match read_block(&fd, target) {
            Ok(block) => block,
            Err(error) => {
                self.reaper.close(fd);
                return Err(error);
            }
        };
        Ok(StatsFd {
            fd: Some(fd),
            data_offset: u64::from(block.header.data_offset),
            retired: AtomicBool::new(false),
            process,
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
    match pread_retried(fd, bytes, offset) {
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

#[inline]
fn pread_retried(fd: &OwnedFd, bytes: &mut [u8], offset: u64) -> rustix::io::Result<usize> {
    for _ in 1..READ_TRIES {
        match pread(fd, &mut *bytes, offset) {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
    pread(fd, bytes, offset)
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
        // Relaxed, as every use of both flags: they order nothing. The words of a row come from
        // the kernel in the same read, and a flag seen one tick late costs one tick.
        self.retired.store(true, Ordering::Relaxed);
    }

    #[inline]
    fn is_gone(&self) -> bool {
        let process_ended = |alive: &Arc<AtomicBool>| !alive.load(Ordering::Relaxed);
        self.retired.load(Ordering::Relaxed) || self.process.as_ref().is_some_and(process_ended)
    }

    /// Fills the words from that offset in the file.
    #[inline]
    fn fetch(&self, words: &mut [u64], offset: u64) -> RowState {
        if self.is_gone() {
            return RowState::Gone;
        }
        if words.is_empty() {
            return RowState::Good;
        }
        let fd = self.fd.as_ref().expect("only drop takes it");
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(words);
        let want = bytes.len();
        match pread_retried(fd, bytes, offset) {
            Ok(got) if got == want => RowState::Good,
            Ok(_) => RowState::Torn,
            Err(errno) => RowState::Io(errno.raw_os_error()),
        }
    }
}

impl Drop for StatsFd {
    fn drop(&mut self) {
        if let Some(fd) = self.fd.take() {
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
    find: impl Fn(u64) -> Option<Arc<StatsFd>>,
) -> Result<Vec<Box<dyn Source>>> {
    let row = |object: &Object| {
        let Some(stats) = find(object.key) else { return Ok(None) };
        // Else the plan's words would be other statistics' here.
        if stats.schema != *plan.schema() {
            let text = format!("{} has other statistics than the plan is for", object.path);
            return Err(Error::new(ErrorKind::Malformed, text));
        }
        let offset = stats.data_offset + plan.span_bytes().start as u64;
        Ok(Some(Row { stats, offset }))
    };
    let source = |objects: &[Object]| {
        let rows = objects.iter().map(row).collect::<Result<_>>()?;
        Ok(Box::new(FdSource::new(plan, rows)) as Box<dyn Source>)
    };
    objects.chunks(ROWS_PER_SOURCE).map(source).collect()
}

/// Reads objects one after the other, a `pread` each.
#[derive(Debug)]
struct FdSource {
    plan: Arc<ReadPlan>,
    // `None` where the object had gone before it was opened.
    rows: Box<[Option<Row>]>,
    // Words, so that it is aligned to them. Empty where rows can be filled without it.
    span: Box<[u64]>,
}

#[derive(Debug)]
struct Row {
    stats: Arc<StatsFd>,
    /// Where the plan's span starts in the file.
    offset: u64,
}

impl FdSource {
    fn new(plan: &Arc<ReadPlan>, rows: Box<[Option<Row>]>) -> Self {
        let words = if plan.row_is_span() { 0 } else { plan.span_bytes().len() / WORD_BYTES };
        Self { plan: Arc::clone(plan), rows, span: vec![0; words].into() }
    }
}

impl Source for FdSource {
    fn rows(&self) -> usize {
        self.rows.len()
    }

    fn read(&mut self, mut rows: Rows<'_>) {
        let (plan, span, direct) = (&*self.plan, &mut *self.span, self.plan.row_is_span());
        for (index, row) in self.rows.iter().enumerate() {
            rows.fill(index, |words| {
                let Some(Row { stats, offset }) = row else { return RowState::Gone };
                if direct {
                    return stats.fetch(words, *offset);
                }
                let state = stats.fetch(span, *offset);
                if state == RowState::Good {
                    plan.keep(span, words);
                }
                state
            });
        }
    }
}

#[cfg(test)]
mod tests;
