//! The harness itself: QEMU starts, answers, and ends with its handle.

use std::path::PathBuf;

use serde_json::{Value, json};
use vmstrobe_tests::qemu::{Config, Qemu, version};
use vmstrobe_tests::require::require_qemu;

#[test]
fn qemu_answers_and_is_gone_after_drop() {
    if !require_qemu() {
        return;
    }
    let mut qemu = Qemu::start(&Config { name: "harness", vcpus: 2, ..Config::default() });
    let process = PathBuf::from(format!("/proc/{}", qemu.pid()));
    let socket = qemu.socket();
    assert!(process.exists() && socket.exists());

    let greeted = &qemu.qmp().greeting()["QMP"]["version"]["qemu"];
    let (major, minor) = version().expect("QEMU tells its version");
    assert_eq!((&greeted["major"], &greeted["minor"]), (&json!(major), &json!(minor)));

    assert_eq!(qemu.execute("query-status", Value::Null)["status"], "running");
    assert_eq!(qemu.execute("query-name", Value::Null)["name"], "harness");
    let stats = qemu.execute("query-stats", json!({"target": "vcpu"}));
    assert_eq!(stats.as_array().map(Vec::len), Some(2), "{stats}");

    let refused = qemu.qmp().exchange(r#"{"execute": "query-stats"}"#).expect("a reply");
    assert_eq!(refused["error"]["desc"], "Parameter 'target' is missing");

    drop(qemu);
    assert!(!process.exists() && !socket.exists());
}

#[test]
fn a_paused_qemu_takes_further_arguments() {
    if !require_qemu() {
        return;
    }
    let extra = ["-object", "cryptodev-backend-builtin,id=crypto0"];
    let mut qemu = Qemu::start(&Config { paused: true, extra: &extra, ..Config::default() });
    assert_eq!(qemu.execute("query-status", Value::Null)["status"], "prelaunch");
    // An event precedes this reply, and is skipped.
    assert_eq!(qemu.execute("cont", Value::Null), json!({}));
    assert_eq!(qemu.execute("query-status", Value::Null)["running"], true);
    let objects = qemu.execute("qom-list", json!({"path": "/objects"}));
    assert!(objects.to_string().contains("crypto0"), "{objects}");
}

#[test]
fn a_qemu_that_does_not_come_up_says_why() {
    if !require_qemu() {
        return;
    }
    let why = Qemu::try_start(&Config { extra: &["-no-such-option"], ..Config::default() })
        .map(|qemu| qemu.pid())
        .expect_err("QEMU refuses an unknown option");
    assert!(why.contains("ended early, exit status: 1; it said: "), "{why}");
    assert!(why.contains("-no-such-option: invalid option"), "{why}");
}
