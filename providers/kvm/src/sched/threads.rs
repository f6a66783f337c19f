//! Finds the thread that runs a vCPU, where a BPF program cannot follow the vCPU to it.
//!
//! The kernel shows only one trace of it: a stats fd's id string names the thread that made the
//! vCPU. In QEMU that is the vCPU's own; other VMMs make all vCPUs on one thread, and give the
//! vCPUs' own threads names with the vCPU's number instead.
//!
//! Invariant: a thread is told for certain or not at all, and no thread is told for two vCPUs.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::sync::Arc;

use vmstrobe_host::{Broker, Process, thread_of};

use crate::vcpu::Vcpu;

/// The most threads of one process that are looked at. A VM of 4096 vCPUs has some 5000.
const THREADS_MAX: usize = 1 << 14;

/// More than a thread's name is long: 15 bytes.
const NAME_BYTES_MAX: u64 = 64;

/// The names that VMMs give to the threads of their vCPUs: the text before and after the vCPU's
/// number. They are those of QEMU (`kvm_start_vcpu_thread`, with `-name debug-threads=on`),
/// Firecracker, Cloud Hypervisor, crosvm and kvmtool.
const NAMES: [(&str, &str); 5] =
    [("CPU ", "/KVM"), ("fc_vcpu ", ""), ("vcpu", ""), ("crosvm_vcpu", ""), ("kvm-vcpu-", "")];

/// The facts about a vCPU by which its thread may be found.
#[derive(Clone, Debug)]
pub(super) struct Clues {
    /// The key of the vCPU's object.
    pub(super) key: u64,
    /// `None`: it is of this process.
    pub(super) process: Option<Arc<Process>>,
    index: Option<u32>,
    /// The thread that made it.
    made_by: Option<u32>,
    /// The thread that runs it, as its VMM says.
    run_by: Option<u32>,
}

/// A thread of a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Thread {
    id: u32,
    /// The number of the vCPU that it runs, by its name.
    vcpu: Option<u32>,
}

impl Clues {
    /// `ids_are_ours` says whether the kernel, in id strings, numbers threads as /proc does.
    pub(super) fn of(vcpu: &Vcpu, ids_are_ours: bool) -> Self {
        Self {
            key: vcpu.key,
            process: vcpu.process.clone(),
            index: vcpu.index,
            made_by: vcpu.fd.id().filter(|_| ids_are_ours).and_then(thread_of),
            run_by: vcpu.thread_id,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.as_ref().map_or_else(std::process::id, |process| process.pid())
    }

    /// Whether what was read of that process since was of the one that is meant.
    pub(super) fn lives(&self) -> bool {
        self.process.as_ref().is_none_or(|process| process.lives())
    }
}

/// Returns the threads that run these vCPUs now, by the vCPUs' keys; none for a vCPU whose thread
/// cannot be told. The broker reads /proc, which may hide other users' processes from this thread.
pub(super) fn tell(vcpus: &[Clues], broker: &Broker) -> HashMap<u64, u32> {
    let mut told = HashMap::new();
    let mut processes: HashMap<u32, Vec<&Clues>> = HashMap::new();
    vcpus.iter().for_each(|vcpu| processes.entry(vcpu.pid()).or_default().push(vcpu));
    for (pid, vcpus) in processes {
        let threads = broker.run(move || threads(pid, THREADS_MAX));
        let threads = tell_of_one(pid, &vcpus, &threads);
        if vcpus[0].lives() {
            let each = vcpus.iter().zip(threads);
            told.extend(each.filter_map(|(vcpu, thread)| Some((vcpu.key, thread?))));
        }
    }
    told
}

/// Returns the threads of the vCPUs of one process, in the order of `vcpus`.
fn tell_of_one(pid: u32, vcpus: &[&Clues], threads: &[Thread]) -> Vec<Option<u32>> {
    let by_id: HashMap<u32, &Thread> = threads.iter().map(|thread| (thread.id, thread)).collect();
    let once = |pick: fn(&Clues) -> Option<u32>| -> Vec<Option<u32>> {
        let mut count: HashMap<u32, usize> = HashMap::new();
        vcpus.iter().filter_map(|v| pick(v)).for_each(|id| *count.entry(id).or_default() += 1);
        let is_there = |id: &u32| count[id] == 1 && by_id.contains_key(id);
        vcpus.iter().map(|vcpu| pick(vcpu).filter(is_there)).collect()
    };
    let (run_by, made_by) = (once(|vcpu| vcpu.run_by), once(|vcpu| vcpu.made_by));
    // A maker that is called as a vCPU's thread is one, whatever the number in its name: for some
    // topologies QEMU's is not the kernel's.
    let own = |id: &u32| by_id[id].vcpu.is_some();
    let mut told: Vec<Option<u32>> =
        run_by.iter().zip(&made_by).map(|(run_by, made)| run_by.or(made.filter(own))).collect();
    tell_by_name(vcpus, threads, &mut told);
    for (at, made) in made_by.into_iter().enumerate() {
        let is_new = |id: &u32| *id != pid && !told.contains(&Some(*id));
        told[at] = told[at].or(made.filter(is_new));
    }
    told
}

/// Gives the vCPUs that are left the threads that are left and bear their numbers: all or none,
/// because one number without its vCPU shows that numbers mean something else here, such as the
/// vCPUs of several VMs.
fn tell_by_name(vcpus: &[&Clues], threads: &[Thread], told: &mut [Option<u32>]) {
    let left: Vec<usize> = (0..vcpus.len()).filter(|&at| told[at].is_none()).collect();
    let is_left = |thread: &&Thread| thread.vcpu.is_some() && !told.contains(&Some(thread.id));
    let named: Vec<&Thread> = threads.iter().filter(is_left).collect();
    let by_index: HashMap<Option<u32>, u32> =
        named.iter().map(|thread| (thread.vcpu, thread.id)).collect();
    let found: Vec<u32> =
        left.iter().filter_map(|&at| by_index.get(&vcpus[at].index).copied()).collect();
    let is_one_to_one = by_index.len() == named.len()
        && named.len() == left.len()
        && found.len() == left.len()
        && found.iter().collect::<std::collections::HashSet<_>>().len() == found.len();
    if is_one_to_one {
        left.into_iter().zip(found).for_each(|(at, thread)| told[at] = Some(thread));
    }
}

/// The first so many threads of a process; none if it cannot be looked into.
fn threads(pid: u32, max: usize) -> Vec<Thread> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok()?;
        let mut name = Vec::new();
        // Without a name it ended just now.
        let comm = File::open(entry.path().join("comm")).ok()?;
        comm.take(NAME_BYTES_MAX).read_to_end(&mut name).ok()?;
        Some(Thread { id, vcpu: vcpu_of(&name) })
    };
    entries.flatten().take(max).filter_map(thread).collect()
}

/// The number of the vCPU that a thread of that name runs.
fn vcpu_of(name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?.trim_end_matches('\n');
    let number = |(before, behind): &(&str, &str)| {
        let number = name.strip_prefix(before)?.strip_suffix(behind)?;
        // A sign would parse too.
        number.bytes().all(|byte| byte.is_ascii_digit()).then(|| number.parse().ok())?
    };
    NAMES.iter().find_map(number)
}

#[cfg(test)]
mod tests;
