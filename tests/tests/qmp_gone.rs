//! `vmstrobe serve` while things come and go: virtual machines, crypto devices and sockets; and
//! values, which are read after the request.

mod qmp_gone {
    mod directory;
    mod fresh;
    mod place;
}

use std::time::Duration;

use rustix::process::geteuid;
use serde_json::{Value as Json, json};
use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::{require, require_lending_qemu};
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::serve::Serve;

/// The longest time for which a VM that came or went may stay unseen.
const SEEN_LIMIT: Duration = Duration::from_secs(3);
const END_LIMIT: Duration = Duration::from_secs(10);

/// Starts a stopped QEMU; `None` if there is none that keeps its stats fds open.
fn observed(name: &str, crypto_devices: &[&str]) -> Option<Observed> {
    let plan = Plan { name, vcpus: 2, crypto_devices, sockets: 1 };
    require_lending_qemu().then(|| Observed::start(&plan))
}

fn require_root() -> bool {
    let root = geteuid().is_root();
    require("root", if root { Ok(()) } else { Err("this takes user id 0".to_owned()) })
}

/// Returns the results of a query for all statistics of a target.
#[track_caller]
fn query(client: &mut Qmp, target: &str) -> Vec<Json> {
    let results = client.execute("query-stats", json!({"target": target}));
    results.as_array().unwrap_or_else(|| panic!("this is no list: {results}")).clone()
}

fn count(client: &mut Qmp, target: &str) -> usize {
    query(client, target).len()
}

#[test]
fn a_vm_that_has_ended_has_no_statistics() {
    let Some(observed) = observed("waits", &["c0"]) else { return };
    let mut serve = observed.serve(0, &["--on-exit", "wait"]);
    let mut client = Qmp::connect(serve.socket()).expect("the server accepts the client");
    let all = ["vcpu", "vm", "cryptodev"];
    assert_eq!(all.map(|target| count(&mut client, target)), [2, 1, 1]);
    drop(observed);
    // The last values in the stats fds are not returned any more.
    wait_for("the end of the VM is seen", SEEN_LIMIT, || {
        all.map(|target| count(&mut client, target)) == [0, 0, 0]
    });
    let filter = json!({"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}]});
    assert_eq!(client.execute("query-stats", filter), json!([]));
    wait_for("the text has gone", SEEN_LIMIT, || {
        let line = json!({"command-line": "info stats vm"});
        client.execute("human-monitor-command", line) == ""
    });
    let mut other = Qmp::connect(serve.socket()).expect("the server still accepts clients");
    assert_eq!(count(&mut other, "vcpu"), 0);
    assert_eq!(serve.wait_within(Duration::from_millis(300)), None, "{}", serve.said());
}

#[test]
fn the_server_ends_with_its_vm() {
    for further in [&[][..], &["--on-exit", "end"]] {
        let Some(observed) = observed("ends", &[]) else { return };
        let mut serve = observed.serve(0, further);
        let mut client = Qmp::connect(serve.socket()).expect("the server accepts the client");
        assert_eq!(count(&mut client, "vcpu"), 2);
        drop(observed);
        let status = serve.wait_within(END_LIMIT).expect("the process ends in time");
        assert_eq!(status.code(), Some(0), "{}", serve.said());
        assert!(!serve.socket().exists(), "its socket stays: {}", serve.said());
        let refused = client.exchange(r#"{"execute": "query-version"}"#);
        assert!(refused.is_err(), "{refused:?}");
    }
}

#[test]
fn crypto_devices_come_and_go() {
    let Some(mut observed) = observed("crypto", &["first"]) else { return };
    let serve = observed.serve(0, &[]);
    let mut client = Qmp::connect(serve.socket()).expect("the server accepts the client");
    assert_eq!(count(&mut client, "cryptodev"), 1);
    let late = json!({"qom-type": "cryptodev-backend-builtin", "id": "late"});
    observed.qemu.execute("object-add", late);
    wait_for("the device is seen", SEEN_LIMIT, || {
        let paths: Vec<Json> =
            query(&mut client, "cryptodev").into_iter().map(|of| of["qom-path"].clone()).collect();
        paths == ["/objects/first", "/objects/late"] || paths == ["/objects/late", "/objects/first"]
    });
    observed.qemu.execute("object-del", json!({"id": "first"}));
    wait_for("the end of the VM is seen", SEEN_LIMIT, || {
        let results = query(&mut client, "cryptodev");
        results.len() == 1 && results[0]["qom-path"] == "/objects/late"
    });
    assert_eq!(count(&mut client, "vcpu"), 2);
}

/// Later vCPUs come first, in QEMU's order as in QEMU, whatever their numbers; for a server that
/// saw them come, and for one that started afterwards.
#[test]
fn a_plugged_vcpu_is_served() {
    if !require_lending_qemu() {
        return;
    }
    let extra = ["-smp", "1,maxcpus=3"];
    let config = Config { name: "plugged", paused: true, extra: &extra, ..Config::default() };
    let mut qemu = Qemu::start(&config);
    let pid = qemu.pid().to_string();
    let serve = || Serve::start(&["-p", &pid, "--qemu-order"]);
    let seen = serve();
    let mut client = Qmp::connect(seen.socket()).expect("the server accepts the client");
    assert_eq!(count(&mut client, "vcpu"), 1);
    let slots = qemu.execute("query-hotpluggable-cpus", Json::Null);
    let mut slots = slots.as_array().expect("the value is a list").clone();
    slots.retain(|slot| slot.get("qom-path").is_none());
    slots.sort_by_key(|slot| std::cmp::Reverse(slot["props"]["core-id"].as_u64()));
    for slot in &slots {
        let mut device = slot["props"].clone();
        device["driver"] = slot["type"].clone();
        device["id"] = json!(format!("late{}", slot["props"]["core-id"]));
        qemu.execute("device_add", device);
    }
    wait_for("the vCPUs are seen", SEEN_LIMIT, || count(&mut client, "vcpu") == 3);
    let paths =
        query(qemu.qmp(), "vcpu").iter().map(|of| of["qom-path"].clone()).collect::<Vec<_>>();
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    let index = |path: &Json| {
        let mut cpus = cpus.as_array().expect("the value is a list").iter();
        let cpu = cpus.find(|cpu| cpu["qom-path"] == *path).expect("the list has the entry");
        format!("/vm/plugged/vcpu[{}]", cpu["cpu-index"])
    };
    let want: Vec<String> = paths.iter().map(index).collect();
    assert_ne!(want[0], "/vm/plugged/vcpu[2]", "the last one has not the last number: {want:?}");
    let unseen = serve();
    let mut other = Qmp::connect(unseen.socket()).expect("the server accepts the client");
    for client in [&mut client, &mut other] {
        let ours: Vec<Json> =
            query(client, "vcpu").iter().map(|of| of["qom-path"].clone()).collect();
        assert_eq!(ours, want);
    }
}
