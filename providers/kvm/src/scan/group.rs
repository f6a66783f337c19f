//! Finds the VM of a process to which each of its KVM descriptors belongs.
//!
//! The kernel does not tell. If a process has several VMs, the order in which descriptors were made
//! decides, which can be wrong for a VMM that opens some again.

use std::collections::BTreeMap;
use std::os::fd::RawFd;

use vmstrobe_host::KvmLink;

use super::VmFds;

/// Divides a process's KVM fds among its VMs; `links` ascending by fd.
///
/// An fd belongs to the VM whose own fd is the greatest below it. Where that leaves one VM without
/// an fd that another has twice, the VMs were made first, and fds of one id go to them in turn. Of
/// two fds of one id in one VM the higher counts: QEMU leaves one behind when a vCPU is unplugged
/// and plugged again.
pub(super) fn group(links: &[(RawFd, KvmLink)]) -> Vec<VmFds> {
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
