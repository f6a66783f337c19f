//! KVM's statistics: of a VM of this process ([`OwnKvm`]) and of VMs of others ([`AttachedKvm`]);
//! and the scheduler's, of the threads that run their vCPUs ([`Sched`]).
//!
//! [`OwnKvm`] is for a VMM that holds the VM's descriptors itself, [`AttachedKvm`] for a program
//! beside it that knows its process id. Both read a stats fd of each object by `pread`; with a
//! [`BulkOpener`], many objects in one call. With the feature `kvm-ioctls`, `OwnKvm` takes the
//! `VmFd` and `VcpuFd` of that crate.
//!
//! Invariant: all that blocks, allocates or parses happens when something is opened. On the tick
//! there is at most one `pread` for an object, and no close: the last close of a stats fd may tear
//! down a whole VM, so a `Reaper` does it. An object's key is given out once, so that no source can
//! read another vCPU than the one that it was opened for.

#![deny(unsafe_code)]

mod sys;
#[cfg(feature = "kvm-ioctls")]
mod ioctls;

mod fd;
mod opened;
mod vcpu;
mod bulk;
mod opener;
mod vcpu_owner;
mod proc;
mod scan;
mod own;
mod attach;
mod sched;

#[cfg(test)]
pub mod tests;

pub use attach::{AttachOptions, AttachedKvm};
pub use bulk::{BulkOpener, KvmRows, MakeFallback, NoThreads, ThreadRows, ThreadSources};
pub use fd::KvmFd;
pub use own::{KvmFdRef, NewVcpu, OwnKvm};
pub use scan::{scan, scan_by};
pub use sched::Sched;
pub use sys::kvm_get_stats_fd;
pub use vcpu::Vcpu;
pub use vmstrobe_host::{Access, VmInfo};

// For the providers that stand on this crate, which hold such descriptors themselves (fd-server,
// the guest of the BPF reader).
#[doc(hidden)]
pub use opened::{Opened, schemas_of};
#[doc(hidden)]
pub use opener::Opener;
// For the look at all processes.
#[doc(hidden)]
pub use scan::vms_of;
// For the BPF reader, which compares the threads that it reads with /proc.
#[doc(hidden)]
pub use sched::{GROWING, Schedstat, THREAD_ID, WORD_NAMES, WORDS, check_schedstat, sched_schema};

/// The name of the providers of KVM's statistics.
pub const PROVIDER: &str = "kvm";
/// The name of the provider of the scheduler's statistics.
pub const SCHED: &str = "sched";
