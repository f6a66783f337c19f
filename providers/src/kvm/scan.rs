//! Finds VMs: the processes that hold a KVM VM's fd, and whose VM each of their KVM fds is.
//!
//! Invariant: looks only; nothing is opened in another process, nothing there notices. What /proc
//! shows may be the past a moment later: whoever acts on it checks again.
//!
//! The kernel does not say which VM an fd belongs to. With several VMs in a process we go by the
//! order in which fds were made ([`group`]), which can be wrong for a VMM that re-opens some.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::os::fd::RawFd;

use vmstrobe_core::{Error, ErrorKind, Result};

use super::proc::{self, KvmLink};
use crate::procfs;

/// A VM of some process on this host. It was found by its own descriptor, which its VMM keeps open
/// for as long as the VM lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// The VMM's process id.
    pub pid: u32,
    /// What the VMM's command line calls it. Of several VMs in one process the second gets `#2`.
    pub name: Option<String>,
    /// When the process started, in clock ticks since boot (field 22 of `/proc/<pid>/stat`).
    pub start_time_ticks: u64,
    /// How many vCPUs it has: those whose own descriptors its VMM keeps open, as it must to run
    /// them. By these and the VM's own the kernel-side tick reads them all, where it is allowed.
    pub vcpus: usize,
    /// Which stats fds there are to read it by.
    pub access: Access,
}

/// How a VM's statistics can be read from outside without the kernel-side tick; in words by
/// `Display`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its VMM keeps stats fds open, which can be borrowed.
    StatsFds {
        /// How many vCPUs have one.
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

/// What [`scan_all`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The VMs, by process id.
    pub vms: Vec<Vm>,
    /// Processes of others, of which we may not see whether they have a VM. Seldom any, as root.
    pub hidden: usize,
}

/// Finds all VMs on this host that we may see.
///
/// # Errors
/// `Io` if /proc cannot be read.
pub fn scan_all() -> Result<Scan> {
    let mut found = Scan::default();
    for pid in procfs::pids()? {
        match procfs::links(pid, KvmLink::parse) {
            Ok(links) => found.vms.extend(vms(pid, &group(&links))),
            // The kernel's own threads have no command line, and no VM.
            Err(error) if procfs::is_denied(&error) => {
                found.hidden += usize::from(!procfs::cmdline(pid).is_empty());
            }
            // Ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(found)
}

/// Finds the VMs of one process: one, with most VMMs.
///
/// # Errors
/// `NotFound` if there is no such process or it has no VM, `Denied` if we may not see its fds.
pub fn scan(pid: u32) -> Result<Vec<Vm>> {
    vm_fds(pid).map(|fds| vms(pid, &fds))
}

/// The KVM fds of a process, by VM; at least one VM.
///
/// # Errors
/// As [`scan`].
pub(super) fn vm_fds(pid: u32) -> Result<Vec<VmFds>> {
    let links = procfs::links(pid, KvmLink::parse).map_err(|e| procfs::unseen(pid, e))?;
    let vms = group(&links);
    if vms.is_empty() {
        let text = format!(
            "pid {pid} ({}) has no KVM virtual machine open: give the pid of a VMM; \
             `vmstrobe list` shows them",
            procfs::comm(pid)
        );
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    Ok(vms)
}

/// What the command line of a process calls its VM.
pub(super) fn vm_name(pid: u32) -> Option<String> {
    proc::vm_name(&procfs::cmdline(pid))
}

fn vms(pid: u32, fds: &[VmFds]) -> Vec<Vm> {
    if fds.is_empty() {
        return Vec::new();
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Without one it ended just now.
    let Some(start_time_ticks) = proc::start_time_ticks(&stat) else { return Vec::new() };
    let name = vm_name(pid);
    let vm = |(at, fds): (usize, &VmFds)| Vm {
        pid,
        name: match (&name, at) {
            (name, 0) => name.clone(),
            (Some(name), at) => Some(numbered(name, at)),
            (None, at) => Some(numbered(&pid.to_string(), at)),
        },
        start_time_ticks,
        vcpus: fds.vcpus.len(),
        access: fds.access(),
    };
    fds.iter().enumerate().map(vm).collect()
}

/// The name of the VM at that place in its process.
pub(super) fn numbered(name: &str, at: usize) -> String {
    if at == 0 { name.to_owned() } else { format!("{name}#{}", at + 1) }
}

/// An fd of a process: its number, and what its link must be.
pub(super) type Place = (RawFd, KvmLink);

/// The fds of one object, by any of which its statistics can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectFds {
    /// The vCPU's id; the VM has none.
    pub(super) vcpu: Option<u32>,
    /// Its statistics, readable as they are.
    pub(super) stats: Option<Place>,
    /// The object's own, for the kernel-side tick: those of a VM by number, of a vCPU at most one.
    pub(super) plain: Vec<Place>,
}

/// The KVM fds of one VM, by their numbers in its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VmFds {
    /// The VM's own, ascending: mostly one.
    own: Vec<RawFd>,
    /// Of vCPUs, by id.
    vcpus: BTreeMap<u32, RawFd>,
    /// Of vCPUs' statistics, by vCPU id.
    vcpu_stats: BTreeMap<u32, RawFd>,
    /// Of the VM's statistics.
    vm_stats: Option<RawFd>,
}

impl VmFds {
    /// The VM, then its vCPUs by id.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectFds> {
        let vm = ObjectFds {
            vcpu: None,
            stats: self.vm_stats.map(|fd| (fd, KvmLink::VmStats)),
            plain: self.own.iter().map(|&fd| (fd, KvmLink::Vm)).collect(),
        };
        let vcpu = |id| ObjectFds {
            vcpu: Some(id),
            stats: self.vcpu_stats.get(&id).map(|&fd| (fd, KvmLink::VcpuStats(id))),
            plain: self.vcpus.get(&id).map(|&fd| (fd, KvmLink::Vcpu(id))).into_iter().collect(),
        };
        let ids: BTreeSet<u32> = self.vcpus.keys().chain(self.vcpu_stats.keys()).copied().collect();
        std::iter::once(vm).chain(ids.into_iter().map(vcpu))
    }

    fn access(&self) -> Access {
        match (self.vcpu_stats.len(), self.vm_stats.is_some()) {
            (0, false) => Access::NoStatsFds,
            (vcpus, vm) => Access::StatsFds { vcpus, vm },
        }
    }

    /// True if nothing belongs to it but the VM's own fd.
    fn is_bare(&self) -> bool {
        self.vcpus.is_empty() && self.vcpu_stats.is_empty() && self.vm_stats.is_none()
    }
}

/// Divides a process's KVM fds among its VMs; `links` ascending by fd.
///
/// An fd belongs to the VM whose own fd is the greatest below it. Where that leaves one VM without
/// an fd that another has twice, the VMs were made first, and fds of one id go to them in turn. Of
/// two fds of one id in one VM the higher counts: QEMU leaves one behind when a vCPU is unplugged
/// and plugged again.
fn group(links: &[(RawFd, KvmLink)]) -> Vec<VmFds> {
    let of = |pick: fn(KvmLink) -> Option<u32>| -> Vec<(RawFd, u32)> {
        links.iter().filter_map(|&(fd, link)| Some((fd, pick(link)?))).collect()
    };
    let vms = of(|link| (link == KvmLink::Vm).then_some(0));
    let vcpus = of(|link| if let KvmLink::Vcpu(id) = link { Some(id) } else { None });
    let vcpu_stats = of(|link| if let KvmLink::VcpuStats(id) = link { Some(id) } else { None });
    let vm_stats = of(|link| (link == KvmLink::VmStats).then_some(0));

    let vcpus = share_out(&vms, &vcpus, |_, _| true);
    let vcpu_stats = share_out(&vms, &vcpu_stats, |vm, id| vcpus[vm].contains_key(&id));
    let vm_stats = share_out(&vms, &vm_stats, |_, _| true);
    let own: Vec<RawFd> = vms.iter().map(|&(fd, _)| fd).collect();
    let all = own.iter().zip(vcpus).zip(vcpu_stats).zip(vm_stats);
    let vm = |(((&own, vcpus), vcpu_stats), vm_stats): (_, BTreeMap<_, _>)| VmFds {
        own: vec![own],
        vcpus,
        vcpu_stats,
        vm_stats: vm_stats.get(&0).copied(),
    };
    let mut vms: Vec<VmFds> = all.map(vm).collect();
    // A VMM may hold its VM by several fds (crosvm does): those that nothing belongs to are no VMs,
    // but the VM's, if there is only one that they can be of.
    if !vms.iter().all(VmFds::is_bare) {
        vms.retain(|vm| !vm.is_bare());
    }
    if let [vm] = &mut vms[..] {
        vm.own = own;
    }
    vms
}

/// Divides fds of one kind, each with its id, among VMs of which `may_own` says who can have one.
fn share_out(
    vms: &[(RawFd, u32)],
    fds: &[(RawFd, u32)],
    may_own: impl Fn(usize, u32) -> bool,
) -> Vec<BTreeMap<u32, RawFd>> {
    let mut by_order = vec![BTreeMap::new(); vms.len()];
    let mut in_turn = by_order.clone();
    let mut seen: BTreeMap<u32, usize> = BTreeMap::new();
    if vms.is_empty() {
        return in_turn;
    }
    // If nobody can, an owner is not known: then anybody can.
    let owners = |id| -> Vec<usize> {
        let owners: Vec<usize> = (0..vms.len()).filter(|&vm| may_own(vm, id)).collect();
        if owners.is_empty() { (0..vms.len()).collect() } else { owners }
    };
    for &(fd, id) in fds {
        let nearest = vms.partition_point(|&(vm, _)| vm < fd).saturating_sub(1);
        by_order[nearest].insert(id, fd);
        let (turn, owners) = (seen.entry(id).or_default(), owners(id));
        in_turn[owners[(*turn).min(owners.len() - 1)]].insert(id, fd);
        *turn += 1;
    }
    let fits = seen.iter().all(|(&id, &count)| {
        let holds = |&vm: &usize| by_order[vm].contains_key(&id);
        let (owners, holders) = (owners(id), (0..vms.len()).filter(holds).collect::<Vec<_>>());
        let all_may = holders.iter().all(|vm| owners.contains(vm));
        all_may && holders.len() == count.min(owners.len())
    });
    if fits { by_order } else { in_turn }
}

#[cfg(test)]
pub(super) mod tests;
