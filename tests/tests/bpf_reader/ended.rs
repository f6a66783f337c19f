//! VMs and vCPUs that end while they are read through their own descriptors: their rows are gone,
//! the others are still read, and a command that measures one says so.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use vmstrobe_core::{Provider, RowState, Snapshot};
use vmstrobe_sampler::{Fanout, Tick, Timing};
use vmstrobe_tests::command::{spawn, vmstrobe};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_bpf, require_kvm, require_older_qemu};
use vmstrobe_tests::rig::{Rig, health, rig, show, wait_for};

use super::vmm::Vmm;
use crate::{LIMIT, SANDBOX, borrowed, fine, older_qemu, stats_fds};

fn states(snapshot: &Snapshot) -> Vec<RowState> {
    snapshot.objects().map(|view| view.state()).collect()
}

#[test]
fn stat_of_a_qemu_without_stats_fds_reports_when_it_is_killed() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let qemu = older_qemu("dying", 2, false);
    let pid = qemu.pid().to_string();
    let args = ["stat", "-p", &pid, "--json", "--names", "exits"];
    let output = vmstrobe(&[&args[..], &["-d", "300ms"]].concat());
    fine(&output);
    let report: Json = serde_json::from_str(&output.stdout).expect("the text is JSON");
    let read = &report["read"];
    assert_eq!((&read["method"], &read["bpf_objects"]), (&"bpf".into(), &2.into()), "{read}");

    let mut child = spawn(&[&args[..], &["-i", "50"]].concat());
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut line = String::new();
    let (mut exits, begun) = (0, Instant::now());
    while exits < 5 {
        assert!(begun.elapsed() < LIMIT, "the guest does nothing: {line}");
        line.clear();
        stdout.read_line(&mut line).expect("the child prints lines");
        let report: Json = serde_json::from_str(&line).expect("the text is JSON");
        exits += report["stats"][0]["delta"].as_u64().unwrap_or(0);
    }
    let killed = Instant::now();
    drop(qemu);
    let status = child.wait_within(LIMIT).expect("the process ends in time");
    let ended_after = killed.elapsed();
    let (mut rest, mut stderr) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("the output is text");
    child
        .stderr
        .take()
        .expect("the child's stream is a pipe")
        .read_to_string(&mut stderr)
        .expect("so is that");
    show(&format!("stat of a QEMU 7.2: {exits} exits; killed, it ends {ended_after:?} later"));
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, format!("vmstrobe: VM dying (pid {pid}) has ended\n"));
}

/// At 1 kHz the rows are gone within a second, with no tick by pread and no message.
#[test]
fn the_rows_of_a_killed_qemu_are_gone() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let qemu = older_qemu("killed", 3, false);
    let kvm = borrowed(qemu.pid());
    let Rig { roster, sampler, control } = rig(kvm.clone(), &["vcpu", "vm"], Fanout::Inline);
    let running = sampler.start(Timing::hz(1000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let mut latest = control.latest();
    let mut all = |state| {
        let states = states(latest.load());
        states.len() == 4 && states.iter().all(|its| *its == state)
    };
    wait_for("all are read", LIMIT, || all(RowState::Good));
    let killed = Instant::now();
    drop(qemu);
    wait_for("the rows are gone", Duration::from_secs(1), || all(RowState::Gone));
    show(&format!("a QEMU 7.2 that is killed is gone after {:?}", killed.elapsed()));
    let watch = roster.watch(control.clone(), Duration::from_millis(20), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    let mut latest = control.latest();
    wait_for("the roster is empty", LIMIT, || latest.load().layout().rows() == 0);
    drop(watch);
    let counts = running.stop().expect("the sampler's thread does not panic").health().counts();
    assert_eq!((counts.fallback_ticks, counts.rows), (0, 0), "{counts:?}");
    assert_eq!(kvm.warnings().len(), 0);
}

/// A VMM of our own, which keeps only its VM and its vCPUs open.
#[test]
fn a_vcpu_that_its_vmm_closes_is_gone_and_the_others_are_read() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let mut vmm = Vmm::start();
    vmm.tell("vm", (1, 0));
    for (id, count) in [(0, 1), (1, 2), (2, 3)] {
        vmm.tell(&format!("vcpu {id}"), (1, count));
    }
    let kvm = borrowed(vmm.pid());
    let Rig { mut roster, mut sampler, control } =
        rig(kvm.clone(), &["vcpu", "vm"], Fanout::Inline);
    let mut tick = || {
        assert_eq!(sampler.tick(), Tick::Published);
        (states(&control.latest().load_full()), sampler.health().counts().bulk_rows)
    };
    const GOOD: RowState = RowState::Good;
    assert_eq!(tick(), (vec![GOOD; 4], 4));

    vmm.tell("close 1", (1, 2));
    // The duplicated fd keeps the vCPU: only a new look finds that it is gone.
    assert_eq!(tick().0, [GOOD; 4]);
    assert_eq!(kvm.objects().expect("the provider lists its objects").len(), 3);
    assert_eq!(tick(), (vec![GOOD, GOOD, RowState::Gone, GOOD], 4));
    let (sources, errors) = roster.refresh();
    assert!(errors.is_empty(), "{errors:?}");
    control.replace(sources.expect("the objects have changed")).expect("the sampler ticks");
    assert_eq!(tick(), (vec![GOOD; 3], 3));

    // A new vCPU is read with the others, also if it has a stats fd.
    vmm.tell("vcpu 5", (1, 3));
    vmm.tell("stats 5", (1, 3));
    wait_for("the process has the stats fd", LIMIT, || stats_fds(vmm.pid()) == 1);
    let (sources, errors) = roster.refresh();
    assert!(errors.is_empty(), "{errors:?}");
    control.replace(sources.expect("the objects have changed")).expect("the sampler ticks");
    assert_eq!(tick(), (vec![GOOD; 4], 4));
    assert_eq!(kvm.warnings().len(), 0);
}

/// A vCPU is plugged into a QEMU while it is sampled.
#[test]
fn a_vcpu_that_is_plugged_is_read_with_the_others() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let extra = [&SANDBOX[..], &["-smp", "1,maxcpus=2"]].concat();
    let config = Config { name: "plug", extra: &extra, ..Config::default() };
    let mut qemu = Qemu::start_older(&config);
    let kvm = borrowed(qemu.pid());
    let Rig { roster, sampler, control } = rig(kvm, &["vcpu", "sampler"], Fanout::Inline);
    let running = sampler.start(Timing::hz(1000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let watch = roster.watch(control.clone(), Duration::from_millis(20), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    let mut latest = control.latest();
    let mut bulk = || {
        let newest = latest.load();
        newest.tick() > 0 && states(newest).iter().all(|state| *state == RowState::Good) && {
            // The object of the sampler's health is read in another way.
            health(newest, "bulk_rows") + 1 == newest.layout().rows() as u64
        }
    };
    wait_for("the one vCPU is read", LIMIT, &mut bulk);
    let slots = qemu.execute("query-hotpluggable-cpus", Json::Null);
    let free = crate::list(&slots).iter().find(|slot| slot.get("qom-path").is_none());
    let free = free.expect("one vCPU is unplugged");
    let mut device = free["props"].clone();
    device["driver"] = free["type"].clone();
    qemu.execute("device_add", device);
    let mut latest = control.latest();
    wait_for("the second vCPU is there", LIMIT, || latest.load().layout().rows() == 3);
    wait_for("both vCPUs are read", LIMIT, &mut bulk);
    drop(watch);
    let counts = running.stop().expect("the sampler's thread does not panic").health().counts();
    assert_eq!((counts.unread_rows, counts.fallback_ticks), (0, 0), "{counts:?}");
}
