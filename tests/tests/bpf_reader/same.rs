//! A QEMU without stats fds, read from outside: while it is stopped, each value equals its own
//! answer; while it runs, each value lies between its answers before and after.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use vmstrobe_core::{RowState, Snapshot, StatType};
use vmstrobe_sampler::{Fanout, Tick};
use vmstrobe_tests::command::vmstrobe;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_bpf, require_lending_qemu, require_older_qemu};
use vmstrobe_tests::rig::{Rig, rig, show};

use crate::{SANDBOX, boot_and_stop, borrowed, fine, list, older_qemu, stats_fds, their_results};

/// Asserts that `query` returns QEMU's own values of a target, and returns the number of values.
#[track_caller]
fn check(qemu: &mut Qemu, name: &str, target: &str, further: &[&str]) -> usize {
    let pid = qemu.pid().to_string();
    let args = ["query", "-p", &pid, "--json", "--target", target];
    let output = vmstrobe(&[&args[..], further].concat());
    fine(&output);
    let ours: Json = serde_json::from_str(&output.stdout).expect("the text is JSON");
    let theirs = their_results(qemu, name, target);
    assert!(!theirs.is_empty() && *list(&ours) == theirs, "{target}: {ours}\nQEMU: {theirs:?}");
    let stats = theirs.iter().flat_map(|result| list(&result["stats"]));
    let words = stats.map(|stat| stat["value"].as_array().map_or(1, Vec::len));
    words.sum()
}

#[test]
fn a_confined_qemu_without_stats_fds_is_read_as_it_answers() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    const NAME: &str = "older";
    let mut qemu = older_qemu(NAME, 3, false);
    boot_and_stop(&mut qemu, NAME);
    for bpf in ["auto", "require"] {
        assert_eq!(stats_fds(qemu.pid()), 0, "QEMU keeps stats fds open");
        let [vcpu, vm] =
            ["vcpu", "vm"].map(|target| check(&mut qemu, NAME, target, &["--bpf", bpf]));
        show(&format!("QEMU 7.2, --bpf {bpf}: {vcpu} values of vcpu and {vm} of vm as QEMU's"));
        assert!(vcpu > 3 * 100 && vm > 10);
    }
    assert_eq!(stats_fds(qemu.pid()), 0, "QEMU has been made to open one");
}

/// A sampler reads everything in one call.
#[test]
fn a_qemu_without_stats_fds_is_read_in_one_call() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    let qemu = older_qemu("bulk", 3, true);
    let Rig { mut sampler, control, .. } =
        rig(borrowed(qemu.pid()), &["vcpu", "vm"], Fanout::Inline);
    assert_eq!(sampler.tick(), Tick::Published);
    let newest = control.latest().load_full();
    let paths: Vec<_> = newest.objects().map(|view| view.object().path.to_string()).collect();
    assert_eq!(paths, ["/vm/bulk", "/vm/bulk/vcpu[0]", "/vm/bulk/vcpu[1]", "/vm/bulk/vcpu[2]"]);
    assert!(newest.objects().all(|view| view.state() == RowState::Good), "{newest:?}");
    let counts = sampler.health().counts();
    assert_eq!((counts.rows, counts.bulk_rows), (4, 4));
}

#[test]
fn without_bpf_a_qemu_without_stats_fds_is_refused_with_advice() {
    if !require_older_qemu() {
        return;
    }
    let qemu = older_qemu("off", 1, true);
    let pid = qemu.pid().to_string();
    for target in ["vcpu", "vm"] {
        let args = ["query", "-p", &pid, "--json", "--target", target, "--bpf", "off"];
        let output = vmstrobe(&args);
        assert_eq!((output.code, &*output.stdout), (Some(1), ""), "{output:?}");
        let said = output
            .stderr
            .strip_prefix("vmstrobe: ")
            .expect("the line begins with the name of the program");
        assert_eq!(said.lines().count(), 1, "{said}");
        for part in [
            &*format!("the VMM of pid {pid} keeps no stats fds open (QEMU 8.1 and later do"),
            "the BPF reader, which needs none, is switched off (--bpf)",
            "--from-qmp SOCKET",
        ] {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
}

/// A QEMU from 8.1 on keeps the stats fds of its vCPUs open, and not that of its VM.
#[test]
fn the_vm_of_a_qemu_with_stats_fds_is_read_too() {
    if !require_lending_qemu() || !require_bpf() {
        return;
    }
    const NAME: &str = "newer";
    let config = Config { name: NAME, vcpus: 3, extra: &SANDBOX, ..Config::default() };
    let mut qemu = Qemu::start(&config);
    boot_and_stop(&mut qemu, NAME);
    let vm_stats = || stats_fds(qemu.pid()) - 3;
    assert_eq!(vm_stats(), 0, "QEMU keeps one of its VM open");
    for (target, bpf) in
        [("vcpu", "off"), ("vcpu", "auto"), ("vcpu", "require"), ("vm", "auto"), ("vm", "require")]
    {
        let values = check(&mut qemu, NAME, target, &["--bpf", bpf]);
        show(&format!("QEMU 8.1 or later, --bpf {bpf}: {values} values of {target} as QEMU's"));
    }
    let pid = qemu.pid().to_string();
    let off = vmstrobe(&["query", "-p", &pid, "--json", "--target", "vm", "--bpf", "off"]);
    assert_eq!((off.code, &*off.stdout), (Some(1), ""), "{off:?}");
    show(&format!("--target vm --bpf off says: {}", off.stderr.trim_end()));
}

/// Returns the cumulative counters of a snapshot or of QEMU, by path and name.
type Counters = BTreeMap<(String, String), u64>;

fn our_counters(snapshot: &Snapshot) -> Counters {
    let mut counters = Counters::new();
    for view in snapshot.objects() {
        assert_eq!(view.state(), RowState::Good, "{}", view.object().path);
        // QEMU has no path for the VM.
        let path = if view.object().index.is_some() { &*view.object().path } else { "" };
        for value in view.stats().filter(|value| value.desc().stat_type == StatType::Cumulative) {
            let number = value.number().expect("a counter is a number");
            counters.insert((path.to_owned(), value.desc().name.to_string()), number);
        }
    }
    counters
}

/// Returns QEMU's values of the counters that `like` has.
fn their_counters(qemu: &mut Qemu, name: &str, like: &Counters) -> Counters {
    let mut counters = Counters::new();
    for result in ["vm", "vcpu"].iter().flat_map(|target| their_results(qemu, name, target)) {
        let path = result["qom-path"].as_str().unwrap_or_default();
        for stat in list(&result["stats"]) {
            let key =
                (path.to_owned(), stat["name"].as_str().expect("the value is a string").to_owned());
            if like.contains_key(&key) {
                counters.insert(key, stat["value"].as_u64().expect("a counter is a number"));
            }
        }
    }
    counters
}

#[test]
fn readings_of_a_running_qemu_lie_between_its_answers() {
    if !require_older_qemu() || !require_bpf() {
        return;
    }
    const NAME: &str = "between";
    let mut qemu = older_qemu(NAME, 2, true);
    let Rig { mut sampler, control, .. } =
        rig(borrowed(qemu.pid()), &["vcpu", "vm"], Fanout::Inline);
    let mut ours = || {
        assert_eq!(sampler.tick(), Tick::Published);
        our_counters(&control.latest().load_full())
    };
    let like = ours();
    qemu.execute("cont", Json::Null);
    let (mut moved, mut rounds) = ([0, 0], 0);
    // What a VM counts as a whole need not move.
    while rounds < 60 || moved[0] < 100 {
        assert!(rounds < 1000, "the guest does next to nothing: {moved:?}");
        // Once its firmware has come to its end, it begins again.
        if rounds % 50 == 49 {
            qemu.execute("system_reset", Json::Null);
        }
        rounds += 1;
        let before = their_counters(&mut qemu, NAME, &like);
        let seen = ours();
        let after = their_counters(&mut qemu, NAME, &like);
        assert_eq!((before.len(), after.len()), (like.len(), like.len()));
        for (key, seen) in &seen {
            let (before, after) = (before[key], after[key]);
            assert!((before..=after).contains(seen), "{key:?}: {before}, {seen}, {after}");
            moved[usize::from(key.0.is_empty())] += u32::from(before < after);
        }
    }
    let [vcpu, vm] = moved;
    show(&format!(
        "{} counters of a running QEMU 7.2 read {rounds} times: between; {vcpu} of vcpu and {vm} \
         of vm moved",
        like.len()
    ));
}
