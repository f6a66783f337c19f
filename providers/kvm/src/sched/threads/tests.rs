//! VMMs as they name their threads and make their vCPUs; threads of this process.

use std::sync::mpsc;

use super::*;

const PID: u32 = 100;

/// A vCPU: index, maker, runner.
fn vcpu(index: u32, made_by: Option<u32>, run_by: Option<u32>) -> Clues {
    Clues { key: index.into(), process: None, index: Some(index), made_by, run_by }
}

fn thread(id: u32, name: &str) -> Thread {
    Thread { id, vcpu: vcpu_of(name.as_bytes()) }
}

#[track_caller]
fn check(vcpus: &[Clues], names: &[(u32, &str)], want: &[Option<u32>]) {
    let threads: Vec<Thread> = names.iter().map(|(id, name)| thread(*id, name)).collect();
    let vcpus: Vec<&Clues> = vcpus.iter().collect();
    let told = tell_of_one(PID, &vcpus, &threads);
    assert_eq!(told, want);
    let mut once: Vec<u32> = told.into_iter().flatten().collect();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), want.iter().flatten().count(), "a thread of two vCPUs");
}

#[test]
fn names_are_those_that_vmms_give() {
    for (name, want) in [
        ("CPU 0/KVM\n", Some(0)),
        ("CPU 1023/KVM\n", Some(1023)),
        ("CPU 3/TCG\n", None),
        ("CPU /KVM\n", None),
        ("CPU +3/KVM\n", None),
        ("CPU 3/KVM x\n", None),
        ("fc_vcpu 7\n", Some(7)),
        ("fc_vmm\n", None),
        ("vcpu2\n", Some(2)),
        ("vcpu2", Some(2)),
        ("vcpu\n", None),
        ("vcpu99999999999\n", None),
        ("crosvm_vcpu3\n", Some(3)),
        ("kvm-vcpu-4\n", Some(4)),
        ("vmstrobe\n", None),
        ("\n", None),
        ("", None),
    ] {
        assert_eq!(vcpu_of(name.as_bytes()), want, "{name:?}");
    }
    assert_eq!(vcpu_of(b"vcpu\xff1\n"), None);
}

#[test]
fn a_qemu_makes_each_vcpu_on_its_own_thread() {
    let vcpus = [vcpu(0, Some(110), None), vcpu(1, Some(111), None)];
    let plain = [(PID, "qemu"), (105, "qemu"), (110, "qemu"), (111, "qemu")];
    check(&vcpus, &plain, &[Some(110), Some(111)]);
    let debug = [(PID, "qemu"), (110, "CPU 0/KVM"), (111, "CPU 1/KVM")];
    check(&vcpus, &debug, &[Some(110), Some(111)]);
    // With three cores a socket, the kernel's ids have a gap, QEMU's numbers have none.
    let gap = [vcpu(0, Some(110), None), vcpu(4, Some(111), None), vcpu(5, Some(112), None)];
    let debug = [(110, "CPU 0/KVM"), (111, "CPU 3/KVM"), (112, "CPU 4/KVM")];
    check(&gap, &debug, &[Some(110), Some(111), Some(112)]);
    // By object fds, which name no maker, it cannot be told.
    let plain = [vcpu(0, None, None), vcpu(4, None, None), vcpu(5, None, None)];
    check(&plain, &debug, &[None; 3]);
}

#[test]
fn other_vmms_make_all_vcpus_on_one_thread() {
    let named = |name: fn(u32) -> String| -> Vec<(u32, String)> {
        (0..2).map(|at| (110 + at, name(at))).chain([(PID, "main".into())]).collect()
    };
    for (maker, names) in [
        // Firecracker's main thread, Cloud Hypervisor's `vmm`.
        (PID, named(|at| format!("fc_vcpu {at}"))),
        (105, named(|at| format!("vcpu{at}"))),
    ] {
        let mut names: Vec<(u32, &str)> = names.iter().map(|(id, n)| (*id, &**n)).collect();
        names.push((105, "vmm"));
        let both = [vcpu(0, Some(maker), None), vcpu(1, Some(maker), None)];
        check(&both, &names, &[Some(110), Some(111)]);
        // A single vCPU's thread is told too, although its maker made no other vCPU.
        names.retain(|(id, _)| *id != 111);
        check(&both[..1], &names, &[Some(110)]);
    }
}

#[test]
fn who_makes_but_does_not_run_is_not_taken() {
    let vcpus = [vcpu(0, Some(105), None), vcpu(1, Some(105), None)];
    let threads = [(PID, "main"), (105, "vmm")];
    check(&vcpus, &threads, &[None, None]);
    check(&[vcpu(0, Some(PID), None)], &threads, &[None]);
    // It has ended, or is another process's.
    check(&[vcpu(0, Some(106), None)], &threads, &[None]);
    check(&[vcpu(0, Some(105), None)], &threads, &[Some(105)]);
}

#[test]
fn names_tell_all_or_none() {
    let vcpus = [vcpu(0, None, None), vcpu(1, None, None)];
    check(&vcpus, &[(110, "vcpu0"), (111, "vcpu1")], &[Some(110), Some(111)]);
    check(&vcpus, &[(110, "vcpu0")], &[None, None]);
    check(&vcpus, &[(110, "vcpu0"), (111, "vcpu1"), (112, "vcpu2")], &[None, None]);
    // Two VMs of one process.
    let twice = [(110, "vcpu0"), (111, "vcpu1"), (112, "vcpu0"), (113, "vcpu1")];
    check(&vcpus, &twice, &[None, None]);
    let same = [vcpu(0, None, None), vcpu(0, None, None)];
    check(&same, &[(110, "vcpu0"), (111, "vcpu0")], &[None, None]);
    check(&same, &[(110, "vcpu0"), (111, "vcpu1")], &[None, None]);
}

#[test]
fn what_the_vmm_says_goes_first() {
    let names = [(PID, "main"), (110, "x"), (111, "vcpu0"), (112, "vcpu1")];
    let said = [vcpu(0, Some(105), Some(112)), vcpu(1, Some(105), Some(111))];
    check(&said, &names, &[Some(112), Some(111)]);
    // A vCPU may run on the main thread.
    check(&[vcpu(0, None, Some(PID))], &names, &[Some(PID)]);
    // It runs elsewhere now.
    let ended = [vcpu(0, None, Some(109)), vcpu(1, None, Some(109))];
    check(&ended, &names, &[Some(111), Some(112)]);
}

#[test]
fn the_threads_of_a_process_are_listed() {
    let (say, said) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let other = std::thread::Builder::new().name("fc_vcpu 4711".to_owned());
    let other = other.spawn(move || {
        say.send(rustix::thread::gettid().as_raw_nonzero().get() as u32).unwrap();
        let _ = ended.recv();
    });
    let id = said.recv().unwrap();
    let pid = std::process::id();
    assert!(threads(pid, THREADS_MAX).contains(&Thread { id, vcpu: Some(4711) }));
    assert!(threads(pid, THREADS_MAX).iter().any(|thread| thread.id == pid));
    assert_eq!(threads(pid, 1).len(), 1);
    let clues = [Clues { key: 7, process: None, index: Some(1), made_by: Some(id), run_by: None }];
    assert_eq!(tell(&clues, &Broker::default()), HashMap::from([(7, id)]));
    drop(end);
    other.unwrap().join().unwrap();
    let is_gone = || tell(&clues, &Broker::default()).is_empty();
    assert!(vmstrobe_testing::soon(std::time::Duration::from_secs(5), is_gone));
    // A pid that cannot be.
    assert_eq!(threads(u32::MAX, THREADS_MAX), []);
}
