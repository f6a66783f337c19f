//! QEMU does not notice that it is sampled: none of its vCPU threads wakes, and none of its
//! statistics changes.

use std::fs;

use serde_json::Value as Json;
use vmstrobe_sampler::Timing;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::rig::{Rig, show, wait_for};

use crate::{LIMIT, lending_qemu, qemu_stats, run_and_stop, sampling};

const TICKS: u64 = 1000;

/// The thread of a stopped vCPU sleeps until QEMU wakes it, so any switch would be caused by us.
#[test]
fn a_thousand_ticks_wake_no_vcpu_thread() {
    let Some(_fds) = lending_qemu() else { return };
    let mut qemu = Qemu::start(&Config { name: "calm", vcpus: 2, ..Config::default() });
    run_and_stop(&mut qemu);
    let threads = vcpu_threads(&mut qemu);
    let Rig { sampler, .. } = sampling(&qemu, "vcpu");
    let (stats, switches) = (qemu_stats(&mut qemu, None), switches(&qemu, &threads));

    let timing = Timing {
        ticks_max: Some(TICKS),
        ..Timing::hz(1000.0).expect("the rate is within the bounds")
    };
    let running = sampler.start(timing).expect("a thread can be started");
    wait_for("1 s passes", LIMIT, || running.is_finished());
    let sampler = running.stop().expect("the sampler's thread does not panic");
    let counts = sampler.health().counts();
    assert!(counts.ticks > TICKS / 10 && counts.unread_rows == 0, "{counts:?}");

    assert_eq!(self::switches(&qemu, &threads), switches, "context switches by thread");
    assert_eq!(qemu_stats(&mut qemu, None), stats);
    show(&format!(
        "{} ticks: vCPU threads switched as often as before: {switches:?}",
        counts.ticks
    ));
    // Check that a thread that is woken would be seen.
    qemu.execute("cont", Json::Null);
    let woken = || self::switches(&qemu, &threads) != switches;
    wait_for("the threads run", LIMIT, woken);
}

fn vcpu_threads(qemu: &mut Qemu) -> Vec<u64> {
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    let cpus = cpus.as_array().expect("the value is a list").iter();
    cpus.map(|cpu| cpu["thread-id"].as_u64().expect("the value is an integer")).collect()
}

/// Returns the voluntary and other context switches of each thread so far.
fn switches(qemu: &Qemu, threads: &[u64]) -> Vec<[u64; 2]> {
    let of_thread = |thread: &u64| {
        let path = format!("/proc/{}/task/{thread}/status", qemu.pid());
        let status = fs::read_to_string(&path).expect("the thread lives");
        let count = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.trim().parse().ok()).expect("the kernel counts them")
        };
        ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"].map(count)
    };
    threads.iter().map(of_thread).collect()
}
