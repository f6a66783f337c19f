//! A vCPU is plugged into a running QEMU while it is sampled.

use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe_core::RowState;
use vmstrobe_sampler::Timing;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::rig::{Rig, wait_for};

use crate::{LIMIT, lending_qemu, sampling};

#[test]
fn a_plugged_vcpu_appears() {
    let Some(_fds) = lending_qemu() else { return };
    let config = Config { name: "plug", extra: &["-smp", "1,maxcpus=2"], ..Config::default() };
    let mut qemu = Qemu::start(&config);
    let Rig { roster, sampler, control } = sampling(&qemu, "vcpu");
    let running = sampler.start(Timing::hz(1000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let watch = roster.watch(control.clone(), Duration::from_millis(20), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    let mut latest = control.latest();
    let mut good_rows = || {
        let newest = latest.load();
        newest.objects().filter(|view| view.state() == RowState::Good).count()
    };
    wait_for("the one vCPU is read", LIMIT, || good_rows() == 1);
    plug(&mut qemu);
    wait_for("the second vCPU is read", LIMIT, || good_rows() == 2);
    let newest = control.latest().load_full();
    let paths: Vec<_> = newest.objects().map(|view| view.object().path.to_string()).collect();
    assert_eq!(paths, ["/vm/plug/vcpu[0]", "/vm/plug/vcpu[1]"]);
    drop(watch);
    let sampler = running.stop().expect("the sampler's thread does not panic");
    assert_eq!(sampler.health().counts().unread_rows, 0);
}

/// Plugs a vCPU into the first free slot.
fn plug(qemu: &mut Qemu) {
    let slots = qemu.execute("query-hotpluggable-cpus", Json::Null);
    let slots = slots.as_array().expect("the value is a list");
    let free =
        slots.iter().find(|slot| slot.get("qom-path").is_none()).expect("one vCPU is unplugged");
    let mut device = free["props"].clone();
    device["driver"] = free["type"].clone();
    assert_eq!(qemu.execute("device_add", device), json!({}));
}
