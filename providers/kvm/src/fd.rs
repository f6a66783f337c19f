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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::pread;
use vmstrobe_core::wire::{self, Block, Header};
use vmstrobe_core::{Error, ErrorKind, ReadPlan, Result, RowState, Schema, Target};
use vmstrobe_host::{FdOwner, GoneEpoch, Reaper};

mod source;

pub(crate) use source::{pread_source, pread_sources};

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
pub(crate) enum Head {
    /// A stats fd: where its data begin, and its id string.
    Stats { data_offset: u64, id: String },
    /// A VM's or vCPU's own fd: nothing can be read from it.
    ObjectFd,
}

/// Reads and checks the head of a stats fd.
///
/// # Errors
/// As [`Opener::open`](crate::Opener::open).
pub(crate) fn read_block(fd: &OwnedFd, target: Target) -> Result<Block> {
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
    /// Holds a descriptor of that owner, which the reaper will close.
    pub(crate) fn new(
        fd: OwnedFd,
        head: Head,
        schema: Arc<Schema>,
        owner: Option<FdOwner>,
        reaper: Reaper,
        gone_epoch: GoneEpoch,
    ) -> Self {
        let (fd, retired) = (Some(Arc::new(fd)), AtomicBool::new(false));
        Self { fd, head, retired, gone_epoch, owner, schema, reaper }
    }

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
