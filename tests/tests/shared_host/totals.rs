//! The sums of `stat --all` are those of its VMs, each counted once, whoever else samples them.

use std::fs;
use std::time::Duration;

use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::helper::Helper;
use vmstrobe_tests::host::run::Run;
use vmstrobe_tests::host::serve_dir::ServeDir;
use vmstrobe_tests::rig::wait_for;

use crate::{READ_LIMIT, START_LIMIT, exits, vmm, with_namespaces};

/// The command that `stat` measures: it makes a file when it begins, and ends with another.
const COMMAND: &str = "touch \"$0/begin\"; until test -e \"$0/end\"; do sleep 0.02; done";
/// The number of times that each VM's vCPUs run meanwhile, and the command that runs them.
const RUNS: usize = 5;
const RUN: &str = "run 200";

/// Arguments of `stat`, and the VMs whose exits it must count.
struct Case<'a> {
    args: &'a [&'a str],
    vms: &'a [usize],
}

/// Adds up all exits of these VMs so far, while they do not run.
fn sum(vms: &[Helper], of: &[usize]) -> u64 {
    let total = |&index: &usize| {
        let pid = vms[index].pid().to_string();
        let seen = exits(&["-p", &pid]).expect("a VM that rests can be read");
        seen.into_iter().map(|(_, exits)| exits).sum::<u64>()
    };
    of.iter().map(total).sum()
}

/// Checks that `stat` counts the exits that the VMs make while it measures.
fn check(found: &mut Findings, vms: &mut [Helper], case: &Case<'_>) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().to_str().expect("the path is text");
    let before = sum(vms, case.vms);
    let fixed = ["stat", "--names", "exits", "--json"];
    let command = ["--", "sh", "-c", COMMAND, path];
    let stat = Run::start(&[&fixed[..], case.args, &command].concat());
    wait_for("stat begins its command", START_LIMIT, || directory.path().join("begin").exists());
    for _ in 0..RUNS {
        vms.iter_mut().for_each(|vm| drop(vm.tell(RUN)));
        // The run is long enough for several samples.
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::write(directory.path().join("end"), "").expect("a file in our directory");
    let what = format!("stat {}", case.args.join(" "));
    let output = found.note(&what, stat.output_within(READ_LIMIT * 2));
    let want = sum(vms, case.vms) - before;
    assert!(want >= (RUNS * 200) as u64, "the vCPUs made {want} exits");
    let Some(output) = output else { return };
    let line: serde_json::Value = serde_json::from_str(output.stdout.trim()).unwrap_or_default();
    let delta = line["stats"][0]["delta"].as_u64();
    found.must(delta == Some(want), || {
        format!("{what} counts {delta:?} exits, the VMs {want}: {output:?}")
    });
}

#[test]
fn totals_of_stat_equal_the_counters_of_its_vms() {
    let name = "shared_host::totals::totals_of_stat_equal_the_counters_of_its_vms";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let mut vms = [vmm("stats", "a", 2), vmm("stats", "b", 3)];
        let pids = [0, 1].map(|index: usize| vms[index].pid().to_string());
        let serve = ServeDir::all();
        assert_eq!(serve.serves_within(START_LIMIT, "a", 2), Ok(()));
        let _stat = Run::start(&["stat", "-p", &pids[0], "-d", "70s"]);
        let cases = [
            Case { args: &["-p", &pids[0]], vms: &[0] },
            Case { args: &["-p", &pids[0], "-p", &pids[1]], vms: &[0, 1] },
            Case { args: &["--all"], vms: &[0, 1] },
        ];
        cases.iter().for_each(|case| check(&mut found, &mut vms, case));
        found.none();
    });
}
