//! A QEMU's names for the vCPUs that are read of its process, by the threads that made them.
//!
//! A stats fd names its vCPU's thread as the first pid namespace numbers it, QEMU as its own does.
//! In the first, /proc translates. In another (a container) the kernel's numbers mean nothing to
//! /proc; but both number threads in the order in which they were made, so that as many
//! threads on both sides are pairs in that order ([`Pairs`]).
//!
//! Invariant: a name is given for certain or not at all. Pairs are made only if they are as many on
//! both sides, and QEMU's order of its vCPUs (`cpu-index`) is the kernel's (the vCPU's id), as it
//! is in every QEMU: one number space that has wrapped around between two threads would show.

use std::collections::{HashMap, HashSet};
use std::fs;

use vmstrobe_host::{Broker, CpuName, CpuNames, own_number, procfs, thread_of};

/// The names of the vCPUs of one process.
#[derive(Debug)]
pub(super) struct VcpuNames {
    pid: u32,
    /// Reads /proc, which may hide other users' processes from other threads.
    broker: Broker,
    names: CpuNames,
    numbers: Numbers,
}

/// QEMU's numbers for threads, by the kernel's.
#[derive(Debug)]
enum Numbers {
    /// /proc numbers threads as the kernel does, and translates: the threads of the vCPUs at the
    /// last look. `None` for a thread that has ended.
    OfProc(HashMap<u32, Option<u32>>),
    /// It does not.
    Paired(Pairs),
}

/// Threads by their numbers in the first pid namespace, with those in QEMU's.
#[derive(Debug, Default)]
struct Pairs(HashMap<u32, u32>);

impl Default for Numbers {
    fn default() -> Self {
        match procfs::sees_every_process() {
            true => Self::OfProc(HashMap::new()),
            false => Self::Paired(Pairs::default()),
        }
    }
}

impl VcpuNames {
    /// No names yet, of the vCPUs of that process.
    pub(super) fn new(pid: u32, broker: Broker) -> Self {
        Self { pid, broker, names: CpuNames::default(), numbers: Numbers::default() }
    }

    /// Puts these names in place of all others.
    pub(super) fn replace(&mut self, names: CpuNames) {
        (self.names, self.numbers) = (names, Numbers::default());
    }

    /// Whether there are any.
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Looks at the vCPUs that are read now: the kernel's id of each, and its stats fd's id string.
    pub(super) fn follow<'a>(&mut self, vcpus: impl Iterator<Item = (u32, &'a str)>) {
        let names = self.names.all();
        let threads: Vec<_> = vcpus.filter_map(|(id, text)| Some((id, thread_of(text)?))).collect();
        match &mut self.numbers {
            Numbers::OfProc(numbers) if names.is_empty() => numbers.clear(),
            Numbers::OfProc(numbers) => {
                let pid = self.pid;
                let of_each = threads.into_iter().map(move |(_, thread)| thread);
                let of_each = of_each.map(move |thread| (thread, own_number(pid, thread)));
                *numbers = self.broker.run(move || of_each.collect());
            }
            Numbers::Paired(pairs) => {
                let qemus: Vec<_> = names.iter().map(|(tid, n)| (n.index, *tid)).collect();
                pairs.update(&threads, &qemus);
            }
        }
    }

    /// Returns the name of the vCPU whose stats fd has that id string.
    pub(super) fn of_stats(&self, id: &str) -> Option<CpuName> {
        let thread = thread_of(id)?;
        let number = match &self.numbers {
            _ if self.is_empty() => None,
            Numbers::Paired(pairs) => pairs.0.get(&thread).copied(),
            Numbers::OfProc(numbers) => match numbers.get(&thread) {
                Some(number) => *number,
                // A vCPU that has come since the last look.
                None => {
                    let pid = self.pid;
                    self.broker.run(move || own_number(pid, thread))
                }
            },
        };
        self.names.get(number?)
    }

    /// Returns the threads of vCPUs as our /proc numbers them, by the kernel's numbers; none where
    /// these are the same.
    pub(super) fn threads(&self) -> HashMap<u32, u32> {
        let Numbers::Paired(pairs) = &self.numbers else { return HashMap::new() };
        if pairs.0.is_empty() {
            return HashMap::new();
        }
        let pid = self.pid;
        let ours: HashMap<u32, u32> = self.broker.run(move || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            let ours = tasks.filter_map(|task| {
                let thread = task.file_name().to_str()?.parse().ok()?;
                Some((own_number(pid, thread)?, thread))
            });
            ours.collect()
        });
        pairs.0.iter().filter_map(|(kernels, qemus)| Some((*kernels, *ours.get(qemus)?))).collect()
    }

    /// Why no vCPU bears QEMU's names.
    pub(super) fn why_not(&self) -> &'static str {
        match self.numbers {
            Numbers::OfProc(_) => {
                "other threads than those that QEMU names made these vCPUs: give the QMP socket \
                 of this QEMU"
            }
            Numbers::Paired(_) => {
                "vmstrobe runs in a pid namespace of its own, where the threads of vCPUs can only \
                 be told apart by their order, and QEMU's order or number is another: run it \
                 outside of the container, or ask QEMU alone (--from-qmp without -p)"
            }
        }
    }
}

impl Pairs {
    /// Pairs the threads of vCPUs, each with the kernel's id of the vCPU, with QEMU's, each with
    /// its `cpu-index`. Pairs that there were stay, as long as both are there.
    fn update(&mut self, kernels: &[(u32, u32)], qemus: &[(u32, u32)]) {
        let of = |pairs: &[(u32, u32)]| pairs.iter().map(|(at, tid)| (*tid, *at)).collect();
        let (ids, indexes): (HashMap<u32, u32>, HashMap<u32, u32>) = (of(kernels), of(qemus));
        self.0.retain(|kernels, qemus| ids.contains_key(kernels) && indexes.contains_key(qemus));
        // A thread that has made several vCPUs runs one of them at most.
        if ids.len() != kernels.len() || indexes.len() != qemus.len() {
            self.0.clear();
            return;
        }
        let paired: HashSet<u32> = self.0.values().copied().collect();
        let mut left: Vec<u32> = ids.keys().copied().filter(|t| !self.0.contains_key(t)).collect();
        let mut theirs: Vec<u32> =
            indexes.keys().copied().filter(|thread| !paired.contains(thread)).collect();
        if left.len() != theirs.len() {
            return;
        }
        left.sort_unstable();
        theirs.sort_unstable();
        let new = || left.iter().copied().zip(theirs.iter().copied());
        let all = self.0.iter().map(|(kernels, qemus)| (*kernels, *qemus)).chain(new());
        let mut order: Vec<_> = all.map(|(ours, theirs)| (ids[&ours], indexes[&theirs])).collect();
        order.sort_unstable();
        if order.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1) {
            self.0.extend(new().collect::<Vec<_>>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(
        known: &[(u32, u32)],
        kernels: &[(u32, u32)],
        qemus: &[(u32, u32)],
    ) -> Vec<(u32, u32)> {
        let mut pairs = Pairs(known.iter().copied().collect());
        pairs.update(kernels, qemus);
        let mut all: Vec<_> = pairs.0.into_iter().collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn as_many_threads_in_the_same_order_are_pairs() {
        let two = [(9001, 4), (9002, 5)];
        // By vCPU id and thread; by cpu-index and thread.
        assert_eq!(pairs(&[], &[(0, 9001), (1, 9002)], &[(0, 4), (1, 5)]), two);
        // Ids with gaps, as of three cores a socket; listed in any order.
        assert_eq!(pairs(&[], &[(4, 9002), (0, 9001)], &[(1, 5), (0, 4)]), two);
        assert_eq!(pairs(&[], &[], &[]), []);
    }

    #[test]
    fn what_is_not_certain_is_no_pair() {
        // Fewer on one side; one more that QEMU has not told of yet.
        assert_eq!(pairs(&[], &[(0, 9001)], &[(0, 4), (1, 5)]), []);
        assert_eq!(pairs(&[], &[(0, 9001), (1, 9002)], &[(0, 4)]), []);
        // A number space that wrapped around, or threads made in another order.
        assert_eq!(pairs(&[], &[(0, 9001), (1, 300)], &[(0, 4), (1, 5)]), []);
        // A thread that made two.
        assert_eq!(pairs(&[(9001, 4)], &[(0, 9001), (1, 9001)], &[(0, 4), (1, 5)]), []);
    }

    #[test]
    fn pairs_stay_while_a_vcpu_comes_or_goes() {
        let known = [(9001, 4), (9002, 5)];
        let with_new = [(0, 9001), (1, 9002), (2, 9700)];
        assert_eq!(pairs(&known, &with_new, &[(0, 4), (1, 5)]), known);
        let all = [known[0], known[1], (9700, 80)];
        assert_eq!(pairs(&known, &with_new, &[(0, 4), (1, 5), (2, 80)]), all);
        // Plugged in between: what is known already tells it from the others.
        let between = [(0, 9001), (1, 9700), (2, 9002)];
        assert_eq!(pairs(&known, &between, &[(0, 4), (1, 80), (2, 5)]), all);
        assert_eq!(pairs(&known, &[(1, 9002)], &[(0, 4), (1, 5)]), [(9002, 5)]);
        assert_eq!(pairs(&known, &[(1, 9002)], &[(1, 5)]), [(9002, 5)]);
    }

    #[test]
    fn names_are_those_of_the_threads() {
        let name = |index| CpuName { index, path: format!("/cpu[{index}]").into() };
        let names = CpuNames::default();
        names.replace([(4, name(0)), (5, name(1))]);
        let numbers = Numbers::Paired(Pairs::default());
        let mut vcpus = VcpuNames { names, numbers, ..VcpuNames::new(1, Broker::default()) };
        assert_eq!(vcpus.of_stats("kvm-9001/vcpu-0"), None);
        vcpus.follow([(0, "kvm-9001/vcpu-0"), (1, "kvm-9002/vcpu-1")].into_iter());
        assert_eq!(vcpus.of_stats("kvm-9002/vcpu-1"), Some(name(1)));
        assert_eq!(vcpus.of_stats("kvm-4/vcpu-0"), None);
    }

    #[test]
    fn threads_that_proc_translates_are_read_by_the_broker() {
        let broker = Broker::start().unwrap();
        let (pid, thread) = (std::process::id(), broker.run(rustix::thread::gettid));
        let thread = thread.as_raw_nonzero().get().cast_unsigned();
        let qemus = own_number(pid, thread).unwrap();
        let name = CpuName { index: 3, path: "/cpu[3]".into() };
        let numbers = Numbers::OfProc(HashMap::new());
        let mut vcpus = VcpuNames { numbers, ..VcpuNames::new(pid, broker) };
        let id = format!("kvm-{thread}/vcpu-0");
        assert_eq!(vcpus.of_stats(&id), None);
        vcpus.names.replace([(qemus, name.clone()), (1, name.clone())]);
        assert_eq!(vcpus.of_stats(&id), Some(name.clone()), "without a look");
        vcpus.follow([(0, &*id), (1, "kvm-1/vcpu-1")].into_iter());
        let Numbers::OfProc(numbers) = &vcpus.numbers else { panic!("{vcpus:?}") };
        assert_eq!(*numbers, HashMap::from([(thread, Some(qemus)), (1, None)]));
        assert_eq!(vcpus.of_stats(&id), Some(name));
        assert_eq!(vcpus.of_stats("kvm-1/vcpu-1"), None, "a thread, but not of this process");
        vcpus.names.replace([]);
        assert_eq!(vcpus.of_stats(&id), None);
    }
}
