//! A QEMU that is read through the descriptors of its VM and vCPUs does not notice: it is neither
//! traced nor stopped, no thread of its vCPUs wakes, and its confinement stays.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use serde_json::Value as Json;
use vmstrobe_sampler::{Fanout, Tick};
use vmstrobe_tests::command::vmstrobe;
use vmstrobe_tests::qemu::Qemu;
use vmstrobe_tests::require::{require_bpf, require_older_qemu};
use vmstrobe_tests::rig::{Over, Rig, rig, show, wait_for};

use crate::{LIMIT, borrowed, fine, list, older_qemu, stats_fds};

/// Returns the lines of a thread's status with these names.
fn status(path: &str, names: &[&str]) -> Option<Vec<String>> {
    // The thread may have ended.
    let status = fs::read_to_string(path).ok()?;
    let of = |name: &&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(*name)?.strip_prefix(':'));
        line.expect("the kernel shows it").trim().to_owned()
    };
    Some(names.iter().map(of).collect())
}

/// Returns the tracer, the seccomp mode and the state of each thread of a process.
fn states(pid: u32) -> Vec<Vec<String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the process has not been reaped")
        .flatten();
    let path = |task: fs::DirEntry| task.path().join("status").display().to_string();
    tasks.filter_map(|task| status(&path(task), &["TracerPid", "Seccomp", "State"])).collect()
}

#[test]
fn the_vmm_is_neither_traced_nor_stopped() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let qemu = older_qemu("watched", 2, false);
    let pid = qemu.pid();
    let done = AtomicBool::new(false);
    let (looks, seen) = thread::scope(|scope| {
        let over = Over(&done);
        let watcher = scope.spawn(|| {
            let (mut looks, mut seen) = (0, BTreeSet::new());
            while !done.load(SeqCst) {
                looks += 1;
                seen.extend(states(pid));
            }
            (looks, seen)
        });
        let pid = pid.to_string();
        let args = ["-p", &pid, "--bpf", "require"];
        fine(&vmstrobe(&[&["query", "--target", "vm"], &args[..]].concat()));
        fine(&vmstrobe(&[&["stat", "-d", "1s"], &args[..]].concat()));
        drop(over);
        watcher.join().expect("the thread does not panic")
    });
    show(&format!("looked {looks} times at a confined QEMU that is sampled: {seen:?}"));
    assert!(looks > 50, "{looks} looks");
    for state in &seen {
        let [tracer, seccomp, state] = &state[..] else { panic!("{state:?}") };
        assert_eq!((&**tracer, &**seccomp), ("0", "2"), "{seen:?}");
        // The state is t if the thread is traced, and T if it is stopped.
        assert!(!state.starts_with(['t', 'T']), "{seen:?}");
    }
    assert_eq!(stats_fds(pid), 0);
}

/// Reading a paused QEMU wakes no thread of its vCPUs, as with the stats fds of a later QEMU.
#[test]
fn no_vcpu_thread_is_woken() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let mut qemu = older_qemu("asleep", 2, true);
    let threads = vcpu_threads(&mut qemu);
    thread::sleep(Duration::from_millis(50));
    let before = switches(&qemu, &threads);
    let kvm = borrowed(qemu.pid());
    let Rig { mut sampler, .. } = rig(kvm, &["vcpu", "vm"], Fanout::Inline);
    for _ in 0..2000 {
        assert_eq!(sampler.tick(), Tick::Published);
    }
    assert_eq!(sampler.health().counts().bulk_rows, 3);
    assert_eq!(switches(&qemu, &threads), before);
    // Check that a thread that is woken would be seen.
    qemu.execute("cont", Json::Null);
    wait_for("the threads run", LIMIT, || switches(&qemu, &threads) != before);
}

fn vcpu_threads(qemu: &mut Qemu) -> Vec<u64> {
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    list(&cpus)
        .iter()
        .map(|cpu| cpu["thread-id"].as_u64().expect("the value is an integer"))
        .collect()
}

/// Returns the voluntary and other context switches of each thread so far.
fn switches(qemu: &Qemu, threads: &[u64]) -> Vec<Vec<String>> {
    let of_thread = |thread: &u64| {
        let path = format!("/proc/{}/task/{thread}/status", qemu.pid());
        let names = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
        status(&path, &names).expect("the thread lives")
    };
    threads.iter().map(of_thread).collect()
}
