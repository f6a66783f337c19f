//! Tells the KVM descriptors that a process made from those of other processes, which it inherited
//! by a fork, was handed, or borrowed in order to read statistics.
//!
//! A stats fd names the thread that made its object: its id string (`kvm-<thread>`) has the
//! thread's number in the first pid namespace. A VM's or vCPU's own descriptor names none; two of
//! them can be compared ([`divide`]).
//!
//! Invariant: an open file counts once, and in one process.

use std::collections::{HashMap, HashSet};

use vmstrobe_host::{Host, KvmLink, Seen, SeenKvm, procfs};

use super::Place;

/// The most descriptors that are compared at a time, of the ones that are known to be their
/// process's and of the ones that are not.
const COMPARED_AT_ONCE: usize = 250;

/// The descriptors of a process that it made itself; ascending, without duplicates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The process made these.
    Here(Vec<Place>),
    /// The process made these, unless another one has them too, and a better claim to them.
    Somewhere(Vec<Place>),
    /// The process made none.
    Elsewhere,
}

/// The process that made an object, by the id string of its stats fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    This,
    Other,
    Unknown,
}

/// Returns the descriptors that the process made. Among duplicates, one of which `is_held` is true
/// is taken, or else the first.
pub(super) fn made(host: &Host, pid: u32, seen: &Seen, is_held: impl Fn(Place) -> bool) -> Made {
    // It was found to be its when it was new.
    let is_known = |seen: &SeenKvm| is_held((seen.fd, seen.link));
    let threads = seen.kvm.iter().filter(|seen| !is_known(seen)).filter_map(|seen| seen.maker);
    let makers = makers(host, pid, threads.collect());
    let maker = |seen: &SeenKvm| match seen.maker {
        _ if is_known(seen) => Maker::This,
        Some(thread) => makers.get(&thread).copied().unwrap_or(Maker::Unknown),
        None => Maker::Unknown,
    };
    judge(seen, maker, &is_held)
}

/// Tells of each of these threads whether it is, or was, one of the process; of none where the
/// kernel's numbers are others than ours.
fn makers(host: &Host, pid: u32, threads: HashSet<u32>) -> HashMap<u32, Maker> {
    if threads.is_empty() || !procfs::sees_every_process() {
        return HashMap::new();
    }
    let of_each = move || threads.into_iter().map(|thread| (thread, maker(pid, thread))).collect();
    host.broker().run(of_each)
}

fn maker(pid: u32, thread: u32) -> Maker {
    if procfs::has_thread(pid, thread) {
        return Maker::This;
    }
    // A thread that has ended was this process's if it began after it: numbers grow, but for once
    // in some four million. A fork has what was made before it.
    let may_be_its = !procfs::is_thread(thread) && thread > pid;
    if may_be_its { Maker::This } else { Maker::Other }
}

fn judge(seen: &Seen, maker: impl Fn(&SeenKvm) -> Maker, is_held: impl Fn(Place) -> bool) -> Made {
    let files = distinct(&seen.kvm, is_held);
    let maker = |file: &SeenKvm| match file.link.is_stats() {
        true => maker(file),
        false => Maker::Unknown,
    };
    let makers: Vec<Maker> = files.iter().map(maker).collect();
    let place = |seen: &SeenKvm| (seen.fd, seen.link);
    let is_made_here = |at: Maker| at == Maker::This;
    if !makers.iter().copied().any(is_made_here) {
        return match makers.contains(&Maker::Other) {
            true => Made::Elsewhere,
            false => Made::Somewhere(files.iter().map(place).collect()),
        };
    }
    let kept = files.iter().zip(makers).filter(|(file, maker)| {
        // A process that reads others' statistics has others' vCPUs: its own are the ones with
        // stats fds.
        let is_doubtful = seen.is_reader && matches!(file.link, KvmLink::Vcpu(_));
        let has_own_stats = || {
            let KvmLink::Vcpu(id) = file.link else { return true };
            files.iter().any(|other| other.link == KvmLink::VcpuStats(id))
        };
        *maker != Maker::Other && (!is_doubtful || has_own_stats())
    });
    Made::Here(kept.map(|(file, _)| place(file)).collect())
}

/// One descriptor of each open file.
fn distinct(seen: &[SeenKvm], is_held: impl Fn(Place) -> bool) -> Vec<SeenKvm> {
    let mut files: HashMap<u32, SeenKvm> = HashMap::new();
    for seen in seen {
        let first = files.entry(seen.file).or_insert(*seen);
        if is_held((seen.fd, seen.link)) && !is_held((first.fd, first.link)) {
            *first = SeenKvm { maker: first.maker, ..*seen };
        }
    }
    let mut files: Vec<SeenKvm> = files.into_values().collect();
    files.sort_unstable_by_key(|file| file.fd);
    files
}

/// Takes from processes the VMs that another process has, too, and has better reason to: one that
/// is known to have made them, or else the one that started first.
pub(super) fn divide(host: &Host, processes: &mut [(u32, Made)]) {
    let is_doubtful = |made: &Made| matches!(made, Made::Somewhere(_));
    if !processes.iter().any(|(_, made)| is_doubtful(made)) {
        return;
    }
    // In the order of their claims.
    let mut claims: Vec<(bool, Option<u64>, u32, i32)> = Vec::new();
    for (pid, made) in &*processes {
        let (Made::Here(places) | Made::Somewhere(places)) = made else { continue };
        let vms = places.iter().filter(|(_, link)| *link == KvmLink::Vm);
        let started = host.start_time_ticks(*pid);
        claims.extend(vms.map(|(fd, _)| (is_doubtful(made), started, *pid, *fd)));
    }
    claims.sort_unstable();
    let mut lost = Vec::new();
    for (at, doubtful) in claims.chunks(COMPARED_AT_ONCE).enumerate() {
        if !doubtful.iter().any(|claim| claim.0) {
            continue;
        }
        for better in claims.chunks(COMPARED_AT_ONCE).take(at + 1) {
            let both = if std::ptr::eq(better, doubtful) { &[][..] } else { better };
            let all: Vec<_> = both.iter().chain(doubtful).collect();
            let places: Vec<_> = all.iter().map(|claim| (claim.2, claim.3)).collect();
            let Some(classes) = host.classes(&places) else { continue };
            // The first of a class has the best claim.
            let is_later = |&at: &usize| classes[at] < at && all[at].0;
            lost.extend((0..all.len()).filter(is_later).map(|at| places[at]));
        }
    }
    for (pid, made) in processes {
        let Made::Somewhere(places) = made else { continue };
        let had = places.len();
        places.retain(|(fd, link)| *link != KvmLink::Vm || !lost.contains(&(*pid, *fd)));
        let has_vm = places.iter().any(|(_, link)| *link == KvmLink::Vm);
        if places.len() < had && !has_vm {
            *made = Made::Elsewhere;
        }
    }
}

#[cfg(test)]
mod tests;
