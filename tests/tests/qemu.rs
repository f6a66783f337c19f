//! A real QEMU, sampled from outside through its stats fds: the same numbers as its own
//! `query-stats`, without its notice, and no longer than it runs.

mod qemu {
    mod hotplug;
    mod killed;
    mod same;
    mod unnoticed;
}

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe::host::Reaper;
use vmstrobe::kvm::AttachedKvm;
use vmstrobe_core::{ObjectView, RowState, Snapshot, Value};
use vmstrobe_sampler::Fanout;
use vmstrobe_tests::qemu::Qemu;
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::rig::{Rig, rig, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

/// A lock on this process's fds: a test that counts them holds it alone, all others share it.
static FDS: RwLock<()> = RwLock::new(());

/// The values of one vCPU by name, as QMP has them.
type Stats = BTreeMap<String, Json>;

/// Locks the fds, if there is a QEMU that keeps stats fds open, which is 8.1 or later.
fn lending_qemu() -> Option<RwLockReadGuard<'static, ()>> {
    require_lending_qemu().then(|| FDS.read().unwrap_or_else(PoisonError::into_inner))
}

/// Makes a provider of this QEMU's statistics.
fn borrowed(qemu: &Qemu) -> Arc<AttachedKvm> {
    let kvm = AttachedKvm::new(Reaper::new().expect("a thread can be started"))
        .expect("a thread can be started");
    kvm.attach(qemu.pid()).expect("a child of ours lends its statistics");
    Arc::new(kvm)
}

/// Makes a sampler of that QEMU's vCPUs.
fn sampling(qemu: &Qemu, filter: &str) -> Rig {
    rig(borrowed(qemu), &[filter], Fanout::Inline)
}

/// Runs the vCPUs, so that their counters are not 0, and stops them.
fn run_and_stop(qemu: &mut Qemu) {
    qemu.execute("cont", Json::Null);
    let exits = |stats: Vec<Stats>| stats.iter().filter_map(|s| s["exits"].as_u64()).max();
    wait_for("the guest runs", LIMIT, || exits(qemu_stats(qemu, None)) > Some(5000));
    qemu.execute("stop", Json::Null);
    // QEMU answers before the last vCPU has stopped.
    let mut last = qemu_stats(qemu, None);
    wait_for("the guest has stopped", LIMIT, || {
        let before = std::mem::replace(&mut last, qemu_stats(qemu, None));
        std::thread::sleep(Duration::from_millis(20));
        before == last && last == qemu_stats(qemu, None)
    });
}

/// Returns QEMU's own values of every vCPU, by cpu-index.
fn qemu_stats(qemu: &mut Qemu, names: Option<&[&str]>) -> Vec<Stats> {
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    let mut request = json!({"target": "vcpu", "providers": [{"provider": "kvm"}]});
    if let Some(names) = names {
        request["providers"][0]["names"] = json!(names);
    }
    let results = qemu.execute("query-stats", request);
    let results = results.as_array().expect("the value is a list");
    let mut cpus = cpus.as_array().expect("the value is a list").clone();
    cpus.sort_by_key(|cpu| cpu["cpu-index"].as_u64());
    let of_cpu = |cpu: &Json| {
        let its_own = |result: &&Json| result["qom-path"] == cpu["qom-path"];
        let result = results.iter().find(its_own).expect("every vCPU has statistics");
        let stats = result["stats"].as_array().expect("the value is a list").iter();
        stats.map(|stat| (text(&stat["name"]), stat["value"].clone())).collect()
    };
    cpus.iter().map(of_cpu).collect()
}

fn text(json: &Json) -> String {
    json.as_str().expect("the value is a string").to_owned()
}

/// Returns our values of every vCPU, by index, as QMP has them: QEMU returns buckets in reverse.
fn our_stats(snapshot: &Snapshot) -> Vec<Stats> {
    let mut views: Vec<ObjectView<'_>> = snapshot.objects().collect();
    assert!(views.iter().all(|view| view.state() == RowState::Good), "{views:?}");
    views.sort_by_key(|view| view.object().index);
    let stats = |view: &ObjectView<'_>| {
        view.stats().map(|value| (value.desc().name.to_string(), qmp_value(value))).collect()
    };
    views.iter().map(stats).collect()
}

fn qmp_value(value: Value<'_>) -> Json {
    match (value.boolean(), value.number()) {
        (Some(truth), _) => json!(truth),
        (None, Some(number)) => json!(number),
        (None, None) => value.words().iter().rev().copied().collect(),
    }
}
