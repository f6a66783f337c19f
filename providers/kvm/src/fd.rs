//! A descriptor of KVM's that is held to read statistics: a stats fd, or a VM's or vCPU's own.
//!
//! A stats fd is read by `pread`, in `fd/source.rs`; its header, id and descriptors once, here. A
//! VM's or vCPU's own, an object fd, has no statistics to be read from it: only the BPF reader
//! follows it to them.
//!
//! Invariant: only `pread`, from an offset and into a buffer that are both aligned to a word, so
//! that no counter is torn (`lseek` on a stats fd does nothing); and never of an object fd. Each is
//! closed by a [`Reaper`], whoever drops it last: the last close of either kind tears the VM down.
//!
//! The values stay the last ones after the VM has died. So a row is good only while nobody has said
//! that the object is gone: the fd's owner ([`KvmFd::retire`]) or the watcher of its process.

use std::fmt::Debug;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::pread;
use vmstrobe_core::wire::{self, Block, Header};
use vmstrobe_core::{Error, ErrorKind, Object, ReadPlan, Result, RowState, Schema, Source, Target};
use vmstrobe_host::{FdOwner, GoneEpoch, Reaper};

use crate::bulk::{BulkOpener, KvmRows};

mod source;

pub(crate) use source::{pread_source, pread_sources};

/// The parts that the fds of one provider share: one schema for all alike, the reaper that closes
/// them, the counter that moves when an object goes, and what reads many of them in one call.
#[derive(Debug)]
pub struct Opener {
    reaper: Reaper,
    bulk: Option<Arc<dyn BulkOpener>>,
    gone_epoch: GoneEpoch,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

/// The kind of a descriptor of KVM's; by the kernel's names, `kvm-vm-stats`, `kvm-vcpu-stats:N`,
/// `kvm-vm` and `kvm-vcpu:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FdKind {
    VmStats,
    VcpuStats,
    Vm,
    Vcpu,
}

/// An open descriptor of KVM's with the statistics of its object. Closed by the reaper.
#[derive(Debug)]
pub struct KvmFd {
    // `None` only while it is dropped.
    fd: Option<Arc<OwnedFd>>,
    head: Head,
    retired: AtomicBool,
    gone_epoch: GoneEpoch,
    owner: Option<FdOwner>,
    schema: Arc<Schema>,
    reaper: Reaper,
}

/// The part of an fd's data that says where its statistics are.
#[derive(Debug)]
enum Head {
    /// A stats fd: where its data begin, and its id string.
    Stats { data_offset: u64, id: String },
    /// A VM's or vCPU's own fd: nothing can be read from it.
    ObjectFd,
}

impl Opener {
    /// Makes an opener of a new provider.
    pub fn new(reaper: Reaper, bulk: Option<Arc<dyn BulkOpener>>) -> Self {
        Self { reaper, bulk, gone_epoch: GoneEpoch::default(), schemas: Mutex::default() }
    }

    /// Returns what reads many objects in one call, if there is something.
    pub fn bulk(&self) -> Option<&dyn BulkOpener> {
        self.bulk.as_deref()
    }

    /// Whether objects can be read by their own descriptors, without a stats fd.
    pub fn reads_object_fds(&self) -> bool {
        self.bulk().is_some_and(|bulk| bulk.refusal().is_none())
    }

    /// Returns the schema of what is behind the own descriptor of a VM or a vCPU.
    ///
    /// # Errors
    /// `Unsupported` if nothing reads such descriptors, or as [`BulkOpener::object_schema`].
    pub fn object_schema(&self, target: &Target) -> Result<Arc<Schema>> {
        let none =
            || Error::new(ErrorKind::Unsupported, "nothing reads objects without a stats fd");
        self.bulk().ok_or_else(none)?.object_schema(target)
    }

    /// Returns the warnings of what reads many objects in one call.
    pub fn warnings(&self) -> Vec<Error> {
        self.bulk().map(BulkOpener::warnings).unwrap_or_default()
    }

    /// Moves when an object of the provider goes.
    pub fn gone_epoch(&self) -> &GoneEpoch {
        &self.gone_epoch
    }

    /// Reads and checks the head of a stats fd; `owner` is whose it is, if it is borrowed.
    ///
    /// # Errors
    /// `Malformed` or `TooLarge` if this is no block of statistics, `Io` if it cannot be read.
    pub fn open(&self, fd: OwnedFd, target: Target, owner: Option<FdOwner>) -> Result<KvmFd> {
        let block = match read_block(&fd, target) {
            Ok(block) => block,
            Err(error) => {
                self.reaper.close(fd);
                return Err(error);
            }
        };
        let data_offset = u64::from(block.header.data_offset);
        Ok(self.hold(fd, Head::Stats { data_offset, id: block.id }, block.schema, owner))
    }

    /// Holds a VM's or vCPU's own fd, which nothing is read from; `schema` is what the BPF
    /// reader finds behind it.
    pub fn open_object_fd(
        &self,
        fd: OwnedFd,
        schema: Arc<Schema>,
        owner: Option<FdOwner>,
    ) -> KvmFd {
        self.hold(fd, Head::ObjectFd, schema, owner)
    }

    fn hold(&self, fd: OwnedFd, head: Head, schema: Arc<Schema>, owner: Option<FdOwner>) -> KvmFd {
        KvmFd {
            fd: Some(Arc::new(fd)),
            head,
            retired: AtomicBool::new(false),
            gone_epoch: self.gone_epoch.clone(),
            owner,
            schema: self.intern(schema),
            reaper: self.reaper.clone(),
        }
    }

    /// Opens sources of these objects, in their order. `find` gives an object's fd by its key; the
    /// row of one that it does not find is marked as gone.
    ///
    /// # Errors
    /// `Malformed` if an object's statistics are not those that the plan was made for, or as
    /// [`BulkOpener::open`].
    pub fn sources(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
        find: impl Fn(u64) -> Option<Arc<KvmFd>>,
    ) -> Result<Vec<Box<dyn Source>>> {
        // Before anyone is asked whether it is gone; see `GoneEpoch`.
        let opened_at = self.gone_epoch.count();
        let row = |object: &Object| {
            let Some(fd) = find(object.key).filter(|fd| !fd.is_gone()) else {
                return Ok(None);
            };
            // Else the plan's words would be other statistics' here.
            if fd.schema != *plan.schema() {
                let text = format!("{} has other statistics than the plan is for", object.path);
                return Err(Error::new(ErrorKind::Malformed, text));
            }
            Ok(Some(fd))
        };
        let rows = KvmRows {
            fds: objects.iter().map(row).collect::<Result<_>>()?,
            objects: objects.into(),
            plan: Arc::clone(plan),
            gone_epoch: self.gone_epoch.clone(),
            opened_at,
        };
        let opened = self.bulk().map_or(Ok(None), |bulk| bulk.open(&rows))?;
        Ok(opened.unwrap_or_else(|| rows.pread_sources()))
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
    wire::parse(&header, &id, &descs, crate::PROVIDER, target)
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

impl KvmFd {
    pub(crate) fn kind(&self) -> FdKind {
        match (&self.head, self.schema.target()) {
            (Head::Stats { .. }, Target::Vm) => FdKind::VmStats,
            (Head::Stats { .. }, _) => FdKind::VcpuStats,
            (Head::ObjectFd, Target::Vm) => FdKind::Vm,
            (Head::ObjectFd, _) => FdKind::Vcpu,
        }
    }

    /// Returns true if it is a VM's or vCPU's own, which only the BPF reader can read.
    pub fn is_object_fd(&self) -> bool {
        matches!(self.head, Head::ObjectFd)
    }

    /// Returns the id of a stats fd, which names its creator: `kvm-<tid>` or `kvm-<tid>/vcpu-<n>`.
    pub fn id(&self) -> Option<&str> {
        match &self.head {
            Head::Stats { id, .. } => Some(id),
            Head::ObjectFd => None,
        }
    }

    /// Returns the schema of its statistics.
    pub fn schema(&self) -> &Arc<Schema> {
        &self.schema
    }

    /// Marks its object as gone: rows that are still read from it say so from now on.
    pub fn retire(&self) {
        // Relaxed, as every use of both flags: that nobody misses one for good is the business of
        // `GoneEpoch`, and a flag seen one tick late costs one tick.
        self.retired.store(true, Ordering::Relaxed);
        self.gone_epoch.note();
    }

    /// Whether its object is gone, as far as that was noticed. For the tick.
    pub fn is_gone(&self) -> bool {
        let has_ended = self.owner.as_ref().is_some_and(FdOwner::has_ended);
        self.retired.load(Ordering::Relaxed) || has_ended
    }

    /// Returns the offset of a plan's span in the file; `None` for an object fd.
    fn span_offset(&self, plan: &ReadPlan) -> Option<u64> {
        match &self.head {
            Head::Stats { data_offset, .. } => Some(data_offset + plan.span_bytes().start as u64),
            Head::ObjectFd => None,
        }
    }

    /// Reads the plan's span, which must have that many words, by one `pread`. `Missing` of an
    /// object fd.
    #[inline]
    pub fn read_span(&self, plan: &ReadPlan, span: &mut [u64]) -> RowState {
        match self.span_offset(plan) {
            Some(offset) => fetch(self.fd().as_fd(), span, offset),
            None => RowState::Missing,
        }
    }

    /// Returns the descriptor. A clone must not outlive this, or the reaper would not close it.
    pub fn fd(&self) -> &Arc<OwnedFd> {
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

impl Drop for KvmFd {
    fn drop(&mut self) {
        // Rows let go of the fd before they let go of this, so it is ours alone.
        if let Some(fd) = self.fd.take().and_then(Arc::into_inner) {
            self.reaper.close(fd);
        }
    }
}

#[cfg(test)]
mod tests;
