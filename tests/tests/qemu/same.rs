//! Values, names and units are equal to QEMU's own.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use vmstrobe_core::{Desc, Names, Provider, StatType};
use vmstrobe_sampler::Tick;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::rig::{Rig, show};

use crate::{Stats, borrowed, lending_qemu, our_stats, qemu_stats, run_and_stop, sampling};

fn paused(name: &str, vcpus: u32) -> Qemu {
    Qemu::start(&Config { name, vcpus, paused: true, ..Config::default() })
}

fn read_once(qemu: &Qemu, filter: &str) -> Vec<Stats> {
    let Rig { mut sampler, control, .. } = sampling(qemu, filter);
    assert_eq!(sampler.tick(), Tick::Published);
    our_stats(&control.latest().load_full())
}

#[test]
fn values_are_those_of_query_stats() {
    let Some(_fds) = lending_qemu() else { return };
    let mut qemu = paused("values", 3);
    // The values are compared before the guest's first instruction, and after it has run.
    assert_eq!(read_once(&qemu, "vcpu"), qemu_stats(&mut qemu, None));
    run_and_stop(&mut qemu);
    let (ours, theirs) = (read_once(&qemu, "vcpu"), qemu_stats(&mut qemu, None));
    assert_eq!(ours, theirs);
    let values: usize = ours.iter().map(|stats| stats.len()).sum();
    let moved = ours.iter().flatten().filter(|(_, value)| value.as_u64() > Some(0)).count();
    show(&format!("{values} values of 3 vCPUs as QEMU's own, {moved} scalars of them not 0"));
    assert!(ours.len() == 3 && moved > 10);
    let moved_hist = |value: &Json| value.as_array().is_some_and(|b| b.iter().any(|n| *n != 0));
    assert!(ours.iter().flatten().any(|(_, value)| moved_hist(value)), "no histogram has changed");
}

#[test]
fn a_filter_gives_what_query_stats_gives_for_the_names() {
    let Some(_fds) = lending_qemu() else { return };
    let mut qemu = paused("names", 2);
    run_and_stop(&mut qemu);
    check_names(&mut qemu, "exits", &["exits"]);
    check_names(&mut qemu, "halt_exits,exits,nonsense", &["halt_exits", "exits", "nonsense"]);
    check_names(&mut qemu, "halt_wait_*", &["halt_wait_hist", "halt_wait_ns"]);
    check_names(
        &mut qemu,
        "/^halt_.*_hist$/,blocking,-*success*",
        &["blocking", "halt_poll_fail_hist", "halt_wait_hist"],
    );
}

fn check_names(qemu: &mut Qemu, list: &str, names: &[&str]) {
    let (ours, theirs) = (read_once(qemu, &format!("vcpu: {list}")), qemu_stats(qemu, Some(names)));
    assert_eq!(ours, theirs, "{list}");
    let known = names.iter().filter(|name| **name != "nonsense").count();
    assert!(ours.iter().all(|stats| stats.len() == known), "{list}");
    // A list of names means the same in QEMU and here.
    let wanted = Names::parse(list).expect("the list is well formed");
    assert!(ours[0].keys().all(|name| wanted.wants(name)), "{list}");
}

#[test]
fn the_schema_is_that_of_query_stats_schemas() {
    let Some(_fds) = lending_qemu() else { return };
    let mut qemu = paused("schema", 1);
    let schemas = qemu.execute("query-stats-schemas", json!({"provider": "kvm"}));
    let of_vcpus = |schema: &&Json| schema["target"] == "vcpu";
    let schemas = schemas.as_array().expect("the value is a list");
    let theirs = schemas.iter().find(of_vcpus).expect("the VM has vCPUs")["stats"].clone();
    let kvm = borrowed(&qemu);
    let ours = kvm.schemas().expect("the provider lists its schemas");
    assert_eq!(ours.len(), 1, "QEMU keeps the VM's own stats fd closed");
    // QEMU's list is in reverse order.
    let ours: Json = ours[0].descs().iter().rev().map(qapi).collect();
    assert_eq!(ours, theirs);
    assert!(ours.as_array().is_some_and(|stats| stats.len() > 20));
}

/// Returns a descriptor as QAPI's `StatsSchemaValue`.
fn qapi(desc: &Desc) -> Json {
    let mut entry = json!({
        "name": *desc.name,
        "type": desc.stat_type.to_string(),
        "exponent": desc.scale.exponent,
    });
    if let Some(unit) = desc.unit.name() {
        entry["unit"] = json!(unit);
    }
    if desc.scale.exponent != 0 {
        entry["base"] = json!(desc.scale.base.value());
    }
    if desc.stat_type == StatType::LinearHistogram {
        entry["bucket-size"] = json!(desc.bucket_size);
    }
    entry
}

/// The counters of a running guest: our readings lie between QEMU's answers before and after.
#[test]
fn a_reading_lies_between_qemus_own() {
    let Some(_fds) = lending_qemu() else { return };
    let mut qemu = Qemu::start(&Config { name: "between", vcpus: 2, ..Config::default() });
    let Rig { mut sampler, control, .. } = sampling(&qemu, "vcpu");
    let desc_of = |name: &str| {
        let layout = sampler.layout();
        let schema = layout.groups()[0].plan.schema();
        schema.descs()[schema.find(name).expect("the list has the entry")].clone()
    };
    let counters: Vec<String> = {
        let names = qemu_stats(&mut qemu, None)[0].keys().cloned().collect::<Vec<_>>();
        let only_grows = |name: &String| {
            let desc = desc_of(name);
            desc.stat_type == StatType::Cumulative && !desc.is_boolean()
        };
        names.into_iter().filter(only_grows).collect()
    };
    let (mut moved, mut rounds) = (0, 0);
    // The guest of a busy machine may take a while until it runs.
    let deadline = Instant::now() + Duration::from_secs(30);
    while rounds < 40 || moved == 0 && Instant::now() < deadline {
        rounds += 1;
        let before = qemu_stats(&mut qemu, None);
        assert_eq!(sampler.tick(), Tick::Published);
        let ours = our_stats(&control.latest().load_full());
        let after = qemu_stats(&mut qemu, None);
        for ((before, ours), after) in before.iter().zip(&ours).zip(&after) {
            for name in &counters {
                let [low, our, high] = [before, ours, after]
                    .map(|stats| stats[name].as_u64().expect("the value is an integer"));
                assert!((low..=high).contains(&our), "{name}: {our} is not in {low}..={high}");
                moved += u32::from(low < high);
            }
        }
    }
    show(&format!("{} counters read {rounds} times: {moved} moved meanwhile", counters.len()));
    assert!(moved > 0, "no counter has changed: the guest does not run");
}
