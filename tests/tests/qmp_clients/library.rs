//! The library: a program that uses it prints the same of QEMU and of our server.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe_tests::command::run_within;
use vmstrobe_tests::python::{python_program, require_qmp_library};
use vmstrobe_tests::rig::show;

use crate::both;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs library.py, and returns the values that it prints.
#[track_caller]
fn library(socket: &Path, what: &[&str]) -> Vec<Json> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qmp_clients/library.py");
    let [script, socket] = [&*script, socket].map(|path| path.to_str().expect("the path is text"));
    let output = run_within(LIMIT, python_program("python3"), &[&[script, socket], what].concat());
    assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{output:?}");
    let values = output.stdout.lines().map(serde_json::from_str);
    values.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_library_gets_what_it_gets_from_qemu() {
    if !require_qmp_library() {
        return;
    }
    let Some((observed, serve)) = both("library") else { return };
    let theirs = library(observed.socket(0), &[]);
    assert_eq!(theirs.len(), 11, "{theirs:?}");
    assert_eq!(theirs[10], json!({"at_once": true}));
    assert_eq!(library(serve.socket(), &[]), theirs);
    // A second run works, because the first has closed its connection.
    assert_eq!(library(serve.socket(), &[]), theirs);
    show(&format!("qemu.qmp: {} replies as QEMU's", theirs.len()));
}

#[test]
fn the_library_gets_the_samples_it_subscribed() {
    if !require_qmp_library() {
        return;
    }
    let Some((_observed, serve)) = both("stream") else { return };
    let told = library(serve.socket(), &["stream"]);
    let [subscribed, events @ .., end] = &told[..] else { panic!("{told:?}") };
    let subscribed = &subscribed["subscribed"];
    assert_eq!((&subscribed["rate"], &subscribed["batch"]), (&json!(1000), &json!(50)));
    let group = &subscribed["groups"][0];
    assert_eq!((&group["provider"], &group["target"]), (&json!("kvm"), &json!("vcpu")));
    let names: Vec<&Json> = group["stats"]
        .as_array()
        .expect("the value is a list")
        .iter()
        .map(|stat| &stat["name"])
        .collect();
    assert_eq!(names.len(), 2, "{subscribed}");
    let mut last_tick = None;
    assert_eq!(events.len(), 4);
    for event in events {
        let event = &event["event"];
        assert_eq!(event["event"], "STATS_SAMPLES");
        let data = &event["data"];
        assert_eq!(data["subscription"], subscribed["subscription"]);
        assert_eq!(data["generation"], subscribed["generation"]);
        let samples = data["samples"].as_array().expect("the value is a list");
        assert_eq!(samples.len(), 50, "{event}");
        let mut lost = data["lost"].as_u64().expect("the value is an integer");
        for sample in samples {
            let tick = sample["tick"].as_u64().expect("the value is an integer");
            let missed = last_tick.map_or(0, |last| tick - last - 1);
            assert!(
                missed <= lost,
                "{missed} ticks before {tick} are not among those lost: {event}"
            );
            lost -= missed;
            last_tick = Some(tick);
            assert!(sample["begin-ns"].as_u64() < sample["end-ns"].as_u64(), "{sample}");
            let values = sample["values"].as_array().expect("the value is a list");
            assert_eq!(values.len(), 2, "a list of values for each vCPU: {sample}");
            assert!(values.iter().all(|values| values.as_array().map(Vec::len) == Some(2)));
        }
    }
    assert_eq!(end, &json!({"after_the_end": 0}));
}
