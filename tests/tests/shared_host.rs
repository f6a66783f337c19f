//! A host with VMMs of several kinds, a VMM that embeds the BPF reader, and several vmstrobes at
//! once. Each VM is counted once, in the process that made it, and no vmstrobe is counted as a VM.
//!
//! Each test has a pid namespace of its own, so it knows all VMs that can be found there.

mod shared_host {
    mod beside;
    mod copies;
    mod ended;
    mod only;
    mod recorded;
    mod totals;
}

use std::sync::LazyLock;
use std::time::Duration;

use serde_json::Value as Json;
use vmstrobe_tests::command::program;
use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::helper::Helper;
use vmstrobe_tests::host::namespace::run_in_namespaces;
use vmstrobe_tests::host::run;
use vmstrobe_tests::require::{require_kvm, require_namespaces};

static VMM: LazyLock<String> = LazyLock::new(|| program("vmm"));

/// The longest time that a test may take in its namespaces.
const TEST_LIMIT: Duration = Duration::from_secs(110);
/// The longest time until a server that has just been started serves the VMs that are there.
const START_LIMIT: Duration = Duration::from_secs(15);
/// The longest time that a command may take that reads once.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// Runs a test in namespaces of its own, if the machine lets it.
fn with_namespaces(test: &str, body: impl FnOnce()) {
    if require_kvm() && require_namespaces() {
        run_in_namespaces(test, TEST_LIMIT, body);
    }
}

/// Starts a VMM of that kind: see `vmstrobe_tests::host::machine`.
fn vmm(kind: &str, name: &str, vcpus: u32) -> Helper {
    Helper::start(&VMM, &[kind, &vcpus.to_string(), "-name", name])
}

/// Checks that `list` shows these VMs, by pid and number of vCPUs, and no others.
fn lists(found: &mut Findings, what: &str, want: &[(u32, u64)]) {
    let mut want = want.to_vec();
    want.sort_unstable();
    if let Some(vms) = found.note(what, run::listed_vms(READ_LIMIT)) {
        let (count, first) = (vms.len(), &vms[..vms.len().min(8)]);
        found.must(vms == want, || {
            format!("{what}: list shows {count} VMs (pid, vCPUs), {first:?}, not {want:?}")
        });
    }
}

/// Runs `query` and returns the path of each object that it shows, and its value of `exits`.
fn exits(args: &[&str]) -> Result<Vec<(String, u64)>, String> {
    let args = [&["query", "--names", "exits", "--json"], args].concat();
    let results = run::json(READ_LIMIT, &args)?;
    let results = results.as_array().ok_or_else(|| format!("not a list: {results}"))?;
    let of = |result: &Json| {
        let path = result["qom-path"].as_str().unwrap_or_default().to_owned();
        (path, result["stats"][0]["value"].as_u64().unwrap_or_default())
    };
    Ok(results.iter().map(of).collect())
}

/// Returns the paths of the vCPUs of a VM of this name.
fn vcpu_paths(vm: &str, vcpus: u32) -> Vec<String> {
    (0..vcpus).map(|index| format!("/vm/{vm}/vcpu[{index}]")).collect()
}

/// Checks that `query` shows the vCPUs of a VM of this name, each once, and no others.
fn queries(found: &mut Findings, args: &[&str], vm: &str, vcpus: u32) {
    let what = format!("query {}", args.join(" "));
    if let Some(seen) = found.note(&what, exits(args)) {
        let paths: Vec<String> = seen.into_iter().map(|(path, _)| path).collect();
        let first = &paths[..paths.len().min(8)];
        let right = paths == vcpu_paths(vm, vcpus);
        found.must(right, || format!("{what} shows {} vCPUs: {first:?}", paths.len()));
    }
}
