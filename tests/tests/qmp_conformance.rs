//! The cases of `tests/conformance` for a QMP server, replayed against a real QEMU and against a
//! server of ours that reads it: by default in any order, with `--qemu-order` byte for byte.
//!
//! The script waits after each case for further output, so the cases are shared by several runs of
//! it at once: QEMU has a socket for each, and our server has one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, run_within};
use vmstrobe_tests::observed::{Observed, Plan};
use vmstrobe_tests::require::{require, require_lending_qemu, require_older_qemu};
use vmstrobe_tests::rig::show;
use vmstrobe_tests::serve::Serve;

/// The number of runs of the script that share the cases.
const RUNS: usize = 3;
/// The index of QEMU's socket that our server uses; those before it are the script's.
const OURS: usize = RUNS;
/// The least number of cases: with fewer, the file was misread.
const CASES_MIN: usize = 100;
const LIMIT: Duration = Duration::from_secs(150);
/// The cases in which our server differs from QEMU on purpose: (id, reason).
const KNOWN_DIFFERENCES: &[(&str, &str)] = &[(
    "Q084",
    "two unexpected arguments: QEMU names the first in its hash table, vmstrobe the first in the \
     request",
)];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance")
}

/// Returns the script's directory, if there is a Python to run it.
fn conformance() -> Option<PathBuf> {
    let python = Command::new("python3").arg("--version").output();
    let there = python.map(drop).map_err(|error| format!("python3: {error}"));
    require("python3", there).then(folder)
}

/// Returns the lines of the cases that are `wanted`, one case each.
fn cases(folder: &Path, wanted: impl Fn(&Json) -> bool) -> Vec<String> {
    let text =
        fs::read_to_string(folder.join("qmp-cases.jsonl")).expect("the file is beside the script");
    let case = |line: &str| serde_json::from_str(line).expect("a case is JSON");
    let lines = text.lines().filter(|line| !line.is_empty() && wanted(&case(line)));
    let cases: Vec<String> = lines.map(str::to_owned).collect();
    assert!(cases.len() > CASES_MIN, "{} cases", cases.len());
    cases
}

/// Departures from RFC 8259 are not required, and the script leaves them out.
fn is_required(case: &Json) -> bool {
    case["dialect"] != true && !is_known_difference(case)
}

fn is_known_difference(case: &Json) -> bool {
    KNOWN_DIFFERENCES.iter().any(|(id, _)| case["id"] == **id)
}

#[test]
fn known_differences_are_cases_with_a_reason() {
    let text = fs::read_to_string(folder().join("qmp-cases.jsonl")).expect("it lies by the script");
    let cases = text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
    assert_eq!(cases.filter(is_known_difference).count(), KNOWN_DIFFERENCES.len());
    assert!(KNOWN_DIFFERENCES.iter().all(|(_, reason)| !reason.is_empty()));
}

/// Replays these cases, and checks that every one passes.
#[track_caller]
fn replay(folder: &Path, cases: &[String], observed: &Observed, ours: &Serve, mode: &[&str]) {
    let directory = TempDir::new().expect("a temporary directory can be made");
    let run = |i: usize| {
        let path = directory.path().join(format!("cases{i}"));
        // Each run takes every n-th case, because the slow ones stand together.
        let dealt: Vec<&str> = cases.iter().skip(i).step_by(RUNS).map(String::as_str).collect();
        fs::write(&path, dealt.join("\n")).expect("the directory is writable");
        let text = |path: &Path| path.to_str().expect("the path is text").to_owned();
        let (script, path) = (text(&folder.join("qmp_diff.py")), text(&path));
        let (theirs, ours) = (text(observed.socket(i)), text(ours.socket()));
        let args = [&*script, "--cases", &path, "--ref", &theirs, "--ours", &ours];
        (run_within(LIMIT, "python3", &[&args, mode].concat()), dealt.len())
    };
    let outputs: Vec<(Output, usize)> = thread::scope(|scope| {
        let runs: Vec<_> = (0..RUNS).map(|i| scope.spawn(move || run(i))).collect();
        runs.into_iter().map(|run| run.join().expect("the script ends")).collect()
    });
    let all_pass = |(output, dealt): &(Output, usize)| {
        let last = format!("{dealt} passed, 0 failed");
        output.code == Some(0) && output.stdout.lines().last() == Some(&last)
    };
    let said: Vec<String> =
        outputs.iter().map(|(output, _)| format!("{}{}", output.stdout, output.stderr)).collect();
    assert!(outputs.iter().all(all_pass), "{}\nvmstrobe said: {}", said.concat(), ours.said());
    show(&format!("qmp_diff.py {}: {} cases as QEMU", mode.concat(), cases.len()));
}

/// The QEMU has no crypto device: QEMU ignores the names for those, and our server does not.
#[test]
fn every_case_passes() {
    if !require_lending_qemu() {
        return;
    }
    let Some(folder) = conformance() else { return };
    let observed = Observed::start(&Plan { name: "cases", sockets: RUNS + 1, ..Plan::default() });
    let ours = observed.serve(OURS, &[]);
    replay(&folder, &cases(&folder, is_required), &observed, &ours, &[]);
}

#[test]
fn every_case_passes_to_the_byte() {
    if !require_lending_qemu() {
        return;
    }
    let Some(folder) = conformance() else { return };
    let plan = Plan {
        name: "bytes",
        sockets: RUNS + 1,
        crypto_devices: &["cryptodev0"],
        ..Plan::default()
    };
    let observed = Observed::start(&plan);
    let ours = observed.serve(OURS, &["--qemu-order"]);
    replay(&folder, &cases(&folder, is_required), &observed, &ours, &["--exact"]);
}

/// Before 8.1 QEMU keeps no statistics descriptors open that could be duplicated, and before 8.0 it
/// has no crypto devices.
#[test]
fn every_case_without_crypto_devices_passes_with_an_older_qemu() {
    if !require_older_qemu() {
        return;
    }
    let Some(folder) = conformance() else { return };
    let observed =
        Observed::start_older(&Plan { name: "older", sockets: RUNS + 2, ..Plan::default() });
    let has_none = |case: &Json| is_required(case) && !case.to_string().contains("cryptodev");
    let cases = cases(&folder, has_none);
    for (socket, flags, mode) in
        [(OURS, &[][..], &[][..]), (OURS + 1, &["--qemu-order"], &["--exact"])]
    {
        let socket = observed.socket(socket).to_str().expect("the path is text");
        let ours = Serve::start(&[&["--from-qmp", socket], flags].concat());
        replay(&folder, &cases, &observed, &ours, mode);
    }
}

/// The script finds no difference between two sockets of one QEMU, and one between two QEMUs with 1
/// and 2 vCPUs.
#[test]
fn a_case_that_differs_is_seen() {
    if !require_lending_qemu() {
        return;
    }
    let Some(folder) = conformance() else { return };
    let observed =
        Observed::start(&Plan { name: "differs", sockets: 2, vcpus: 1, ..Plan::default() });
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("case");
    let other = Observed::start(&Plan { name: "other", sockets: 1, vcpus: 2, ..Plan::default() });
    let request = r#"{"execute": "query-stats", "arguments": {"target": "vcpu"}}"#;
    let case = json!({"id": "Q1", "name": "all", "request": format!("{request}\n")});
    fs::write(&path, case.to_string()).expect("the directory is writable");
    let text = |path: &Path| path.to_str().expect("the path is text").to_owned();
    let script = text(&folder.join("qmp_diff.py"));
    let run = |ours: &Path| {
        let (path, theirs, ours) = (text(&path), text(observed.socket(0)), text(ours));
        let args = [&*script, "--cases", &path, "--ref", &theirs, "--ours", &ours, "--exact"];
        run_within(LIMIT, "python3", &args)
    };
    let (same, different) = (run(observed.socket(1)), run(other.socket(0)));
    assert_eq!((same.code, &*same.stdout), (Some(0), "1 passed, 0 failed\n"), "{same:?}");
    assert_eq!(different.code, Some(1), "{different:?}");
    assert!(different.stdout.ends_with("0 passed, 1 failed\n"), "{different:?}");
}
