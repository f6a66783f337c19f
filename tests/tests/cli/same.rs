//! Answers that equal QEMU's own, of a QEMU at rest: as sets, for our lists have another order.

use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe_tests::qemu::Qemu;
use vmstrobe_tests::require::bpf;
use vmstrobe_tests::rig::{show, wait_for};

use crate::{LIMIT, fine, paused_qemu, vmstrobe};

/// Runs the vCPUs, so that their counters are not 0, and stops them.
pub(crate) fn run_a_while(qemu: &mut Qemu) {
    let stats = |qemu: &mut Qemu| qemu.execute("query-stats", json!({"target": "vcpu"}));
    let fresh = stats(qemu);
    qemu.execute("cont", Json::Null);
    thread::sleep(Duration::from_millis(300));
    qemu.execute("stop", Json::Null);
    // QEMU answers before the last vCPU has stopped.
    wait_for("the guest has stopped", LIMIT, || {
        let before = stats(qemu);
        thread::sleep(Duration::from_millis(20));
        before == stats(qemu) && before != fresh
    });
}

pub(crate) fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("this is no list: {json}"))
}

pub(crate) fn sorted_by(mut entries: Vec<Json>, key: &str) -> Vec<Json> {
    entries.sort_by_key(|entry| entry[key].to_string());
    entries
}

#[test]
fn schema_json_is_query_stats_schemas() {
    let Some((mut qemu, pid)) = paused_qemu("schemas", 1) else { return };
    let theirs = qemu.execute("query-stats-schemas", json!({"provider": "kvm"}));
    // QEMU keeps no stats fd of its VM open, so that group takes the BPF reader.
    let with_vm = bpf().is_ok();
    for (bpf, targets) in
        [("off", &["vcpu"][..]), ("auto", &["vm", "vcpu"][usize::from(!with_vm)..])]
    {
        let args = ["schema", "--json", "-p", &pid, "--provider", "kvm", "--bpf", bpf];
        let output = vmstrobe(&args);
        fine(&output);
        let ours = crate::json(&output.stdout);
        assert_eq!(list(&ours).len(), targets.len(), "{ours}");
        for (ours, target) in list(&ours).iter().zip(targets) {
            let theirs = list(&theirs).iter().find(|group| group["target"] == *target);
            let theirs = theirs.expect("the value exists");
            for key in ["provider", "target"] {
                assert_eq!(ours[key], theirs[key]);
            }
            let stats = |group: &Json| sorted_by(list(&group["stats"]).to_vec(), "name");
            assert_eq!(stats(ours), stats(theirs));
            let count = stats(ours).len();
            show(&format!("schema --json: {count} statistics of target {target} as QEMU's"));
        }
    }
}

#[test]
fn query_json_is_query_stats() {
    let Some((mut qemu, pid)) = paused_qemu("values", 3) else { return };
    run_a_while(&mut qemu);
    check_query(&mut qemu, &pid, &[], None);
    check_query(
        &mut qemu,
        &pid,
        &["--names", "exits,halt_wait_hist"],
        Some(&["exits", "halt_wait_hist"]),
    );
    check_query(
        &mut qemu,
        &pid,
        &["--names", "blocking", "--provider", "kvm"],
        Some(&["blocking"]),
    );
}

fn check_query(qemu: &mut Qemu, pid: &str, args: &[&str], names: Option<&[&str]>) {
    let mut provider = json!({"provider": "kvm"});
    if let Some(names) = names {
        provider["names"] = json!(names);
    }
    let request = json!({"target": "vcpu", "providers": [provider]});
    let (theirs, cpus) =
        (qemu.execute("query-stats", request), qemu.execute("query-cpus-fast", Json::Null));
    let output = vmstrobe(&[&["query", "--json", "-p", pid], args].concat());
    fine(&output);
    let ours = crate::json(&output.stdout);
    let renamed = |mut result: Json| {
        // Without its QMP socket, QEMU's own paths are not known.
        let is_its =
            |cpu: &&Json| result["qom-path"] == format!("/vm/values/vcpu[{}]", cpu["cpu-index"]);
        let cpu = list(&cpus).iter().find(is_its).expect("every path is a vCPU's");
        result["qom-path"] = cpu["qom-path"].clone();
        by_name(result)
    };
    let ours: Vec<Json> = list(&ours).iter().cloned().map(renamed).collect();
    let theirs: Vec<Json> = list(&theirs).iter().map(|r| by_name(ascending(r.clone()))).collect();
    assert_eq!(sorted_by(ours, "qom-path"), sorted_by(theirs, "qom-path"), "{args:?}");
}

/// Returns a result or a group of a schema, with its statistics by name.
pub(crate) fn by_name(mut group: Json) -> Json {
    group["stats"] = sorted_by(list(&group["stats"]).to_vec(), "name").into();
    group
}

/// Returns QEMU's result with the buckets of its histograms in ascending order.
pub(crate) fn ascending(mut result: Json) -> Json {
    for stat in result["stats"].as_array_mut().expect("the value is a list") {
        if let Some(buckets) = stat["value"].as_array_mut() {
            buckets.reverse();
        }
    }
    result
}

#[test]
fn info_stats_is_info_stats() {
    let Some((mut qemu, pid)) = paused_qemu("monitor", 2) else { return };
    run_a_while(&mut qemu);
    for (words, cpu) in [
        ("vcpu", 0),
        ("vcpu", 1),
        ("vcpu * kvm", 0),
        ("vcpu exits,halt_wait_hist", 1),
        ("vcpu exits,no_such kvm", 0),
    ] {
        let line = format!("info stats {words}");
        let arguments = json!({"command-line": line, "cpu-index": cpu});
        let theirs = qemu.execute("human-monitor-command", arguments);
        let theirs = theirs.as_str().expect("the value is a string");
        let index = cpu.to_string();
        let args: Vec<&str> = line.split(' ').chain(["-p", &pid, "--vcpu", &index]).collect();
        let output = vmstrobe(&args);
        assert_eq!(output.code, Some(0), "{output:?}");
        let ours = sorted_lines(&output.stdout, |bucket, _| bucket);
        let theirs = sorted_lines(theirs, |bucket, count| count - 1 - bucket);
        assert_eq!(ours, theirs, "{line}");
        assert!(!ours.is_empty(), "{line}");
    }
}

/// Returns the lines, sorted, with buckets placed by `place`.
fn sorted_lines(text: &str, place: fn(usize, usize) -> usize) -> Vec<String> {
    let ordered = |line: &str| {
        let Some((head, buckets)) = line.split_once(": [1]=") else { return line.to_owned() };
        let values = format!("[1]={buckets}");
        let values: Vec<&str> = values
            .split_terminator(' ')
            .map(|bucket| bucket.split_once('=').expect("a bucket has a value").1)
            .collect();
        let count = values.len();
        let mut placed = vec![""; count];
        values.iter().enumerate().for_each(|(at, value)| placed[place(at, count)] = value);
        format!("{head}: {}", placed.join(" "))
    };
    let mut lines: Vec<String> = text.lines().map(ordered).collect();
    lines.sort();
    lines
}
