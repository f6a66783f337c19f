//! The facts about a virtual machine of another process, as a look at its descriptors shows them.
//!
//! Invariant: it is data, and may be outdated a moment later.

use std::fmt;

/// A VM of some process on this host. It was found by its own descriptor, which its VMM keeps open
/// for as long as the VM lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmInfo {
    /// The VMM's process id.
    pub pid: u32,
    /// Its name, from the VMM's command line, as it was written: see [`vmstrobe_core::text`]. The
    /// second of several VMs in one process has `#2` behind that name, or behind the process id if
    /// there is none.
    pub name: Option<String>,
    /// When the process started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_time_ticks: u64,
    /// The user that the process belongs to: its real user id.
    pub uid: u32,
    /// The number of its vCPUs: the ones whose own descriptors its VMM keeps open, as it must to
    /// run them. Through these and the VM's own the BPF reader reads them all, where it is
    /// allowed.
    pub vcpus: usize,
    /// The stats fds by which it can be read.
    pub access: Access,
}

/// The means to read a VM's statistics from outside without the BPF reader; in words by
/// `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Its VMM keeps stats fds open, which can be borrowed.
    StatsFds {
        /// The number of vCPUs that have one.
        vcpus: usize,
        /// Whether the VM as a whole has one.
        vm: bool,
    },
    /// Its VMM keeps none open: QEMU before 8.1, and VMMs that know nothing of statistics.
    NoStatsFds,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StatsFds { vcpus: 1.., vm: true } => "stats fds of the VM and its vCPUs",
            Self::StatsFds { vcpus: 1.., vm: false } => "stats fds of its vCPUs",
            Self::StatsFds { vcpus: 0, .. } => "stats fd of the VM alone",
            Self::NoStatsFds => "keeps no stats fds open (QEMU 8.1 and later do)",
        })
    }
}
