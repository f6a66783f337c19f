//! Finds the VMs of a process, by the descriptors of KVM's that it made.
//!
//! Invariant: a VM is found in the process that made it, and in no other. Nothing in another
//! process notices that it is looked at. The contents of /proc may be outdated a moment later: code
//! that acts on them checks again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::RawFd;

use vmstrobe_core::{Error, ErrorKind, Result};
use vmstrobe_host::{Access, Care, Host, KvmLink, Seen, SeenKvm, VmInfo};

use super::proc;
use group::group;
use owner::Made;

mod group;
mod owner;

/// Finds the VMs of one process: one, with most VMMs.
///
/// # Errors
/// `NotFound` if there is no such process or it made no VM, `Denied` if we may not see its fds,
/// `Busy` if it does not let itself be looked at.
pub fn scan(pid: u32) -> Result<Vec<VmInfo>> {
    scan_by(&Host::default(), pid)
}

/// As [`scan`], by the helper process of that host.
///
/// # Errors
/// As [`scan`].
pub fn scan_by(host: &Host, pid: u32) -> Result<Vec<VmInfo>> {
    vm_fds(host, pid, |_| false).map(|fds| vms(host, pid, &fds))
}

/// The KVM fds of a process that it made, by VM; at least one VM. Of duplicates one `is_held` is
/// taken, or else the first.
///
/// # Errors
/// As [`scan`].
pub(super) fn vm_fds(host: &Host, pid: u32, is_held: impl Fn(Place) -> bool) -> Result<Vec<VmFds>> {
    let mut seen = host.look(pid, Care { makers: false, ..Care::FULL })?;
    // The makers are read only if a stats fd is new: that takes a descriptor.
    if seen.kvm.iter().any(|seen| seen.link.is_stats() && !is_held((seen.fd, seen.link))) {
        seen = host.look(pid, Care::FULL)?;
    }
    let made = owner::made(host, pid, &seen, &is_held);
    let vms = group(match &made {
        Made::Here(fds) | Made::Somewhere(fds) => fds,
        Made::Elsewhere => &[],
    });
    if vms.is_empty() {
        let comm = host.comm(pid);
        let what = match made {
            Made::Elsewhere => "only has descriptors of other processes' virtual machines",
            _ if seen.is_crowded => {
                "has so many descriptors that not all are looked at, and no KVM virtual machine \
                 among those that are"
            }
            _ => "has no KVM virtual machine open",
        };
        let text =
            format!("pid {pid} ({comm}) {what}: give the pid of a VMM; `vmstrobe list` shows them");
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    Ok(vms)
}

/// Returns the name that the command line of a process gives to its VM.
pub(super) fn vm_name(host: &Host, pid: u32) -> Option<String> {
    proc::vm_name(&host.cmdline(pid))
}

/// Returns the VMs of these processes, whose descriptors were seen; each in the process that made
/// it.
pub fn vms_of(host: &Host, seen: &[(u32, Seen)]) -> Vec<VmInfo> {
    let with_kvm = seen.iter().filter(|(_, seen)| !seen.kvm.is_empty());
    let mut processes: Vec<(u32, Made)> = with_kvm
        .map(|(pid, seen)| match owner::made(host, *pid, seen, |_| false) {
            Made::Somewhere(_) if !may_have_made(host, *pid, seen) => (*pid, Made::Elsewhere),
            made => (*pid, made),
        })
        .collect();
    owner::divide(host, &mut processes);
    let of_process = |(pid, made)| match made {
        Made::Here(places) | Made::Somewhere(places) => vms(host, pid, &group(&places)),
        Made::Elsewhere => Vec::new(),
    };
    processes.into_iter().flat_map(of_process).collect()
}

/// Whether a process can be the one that made what it has, where its statistics do not say: not if
/// it reads others' statistics, nor if it inherited it all.
fn may_have_made(host: &Host, pid: u32, seen: &Seen) -> bool {
    let is_vcpu = |seen: &&SeenKvm| matches!(seen.link, KvmLink::Vcpu(_) | KvmLink::VcpuStats(_));
    let vcpus: Vec<_> = seen.kvm.iter().filter(is_vcpu).map(|seen| seen.fd).collect();
    !seen.is_reader && (vcpus.is_empty() || host.may_have_made(pid, &vcpus))
}

fn vms(host: &Host, pid: u32, fds: &[VmFds]) -> Vec<VmInfo> {
    if fds.is_empty() {
        return Vec::new();
    }
    // Without one it ended just now.
    let (Some(start_time_ticks), Some(uid)) = (host.start_time_ticks(pid), host.uid(pid)) else {
        return Vec::new();
    };
    let name = vm_name(host, pid);
    let vm = |(at, fds): (usize, &VmFds)| VmInfo {
        pid,
        name: match (&name, at) {
            (name, 0) => name.clone(),
            (Some(name), at) => Some(numbered(name, at)),
            (None, at) => Some(numbered(&pid.to_string(), at)),
        },
        start_time_ticks,
        uid,
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
pub(crate) type Place = (RawFd, KvmLink);

/// The fds of one object, by any of which its statistics can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ObjectFds {
    /// The vCPU's id; `None` for the VM.
    pub(super) vcpu: Option<u32>,
    /// Its stats fd, which can be read as it is.
    pub(super) stats: Option<Place>,
    /// The object's own fds, for the BPF reader: a VM's in ascending order, a vCPU's at most
    /// one.
    pub(super) object_fds: Vec<Place>,
}

/// The KVM fds of one VM, by their numbers in its process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct VmFds {
    /// The VM's own fds, ascending; mostly one.
    own: Vec<RawFd>,
    /// The vCPUs' own fds, by id.
    vcpus: BTreeMap<u32, RawFd>,
    /// The vCPUs' stats fds, by vCPU id.
    vcpu_stats: BTreeMap<u32, RawFd>,
    /// The VM's stats fd.
    vm_stats: Option<RawFd>,
}

impl VmFds {
    /// The VM, then its vCPUs by id.
    pub(super) fn objects(&self) -> impl Iterator<Item = ObjectFds> {
        let vm = ObjectFds {
            vcpu: None,
            stats: self.vm_stats.map(|fd| (fd, KvmLink::VmStats)),
            object_fds: self.own.iter().map(|&fd| (fd, KvmLink::Vm)).collect(),
        };
        let vcpu = |id| ObjectFds {
            vcpu: Some(id),
            stats: self.vcpu_stats.get(&id).map(|&fd| (fd, KvmLink::VcpuStats(id))),
            object_fds: self
                .vcpus
                .get(&id)
                .map(|&fd| (fd, KvmLink::Vcpu(id)))
                .into_iter()
                .collect(),
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

#[cfg(test)]
pub(crate) mod tests;
