//! `record --all`: VMs that end and VMs that start meanwhile are in one recording, and nothing of
//! the others is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use vmstrobe::{Replay, Replayed, RowState, now_ns};
use vmstrobe_tests::host::findings::Findings;
use vmstrobe_tests::host::helper::Helper;
use vmstrobe_tests::host::run::Run;
use vmstrobe_tests::rig::wait_for;

use crate::{READ_LIMIT, START_LIMIT, vcpu_paths, vmm, with_namespaces};

/// The longest time until the end or the start of a VM is noticed: a look at a busy host is slow.
const NOTICE_LIMIT: Duration = Duration::from_secs(20);
/// The longest time for which nothing of a VM need be recorded that has just started or will end at
/// once: two looks, and what is late on a busy machine.
const LATE_NS: u64 = 5_000_000_000;
/// The time after which a recorder without any VM would end, if it were to end.
const WITHOUT_VM: Duration = Duration::from_secs(4);

/// The readings of one vCPU.
#[derive(Debug, Default)]
struct Readings {
    /// The ticks with values.
    good: BTreeSet<u64>,
    /// The begin of the first and of the last reading with values, in ns.
    first_ns: u64,
    last_ns: u64,
    /// The last value of `exits`.
    exits: u64,
}

/// Returns the ticks of a recording, and the readings of each vCPU.
fn read(path: &Path) -> (BTreeSet<u64>, BTreeMap<String, Readings>) {
    let (mut ticks, mut all) = (BTreeSet::new(), BTreeMap::<String, Readings>::new());
    let replay = Replay::open(path).expect("it is a recording");
    let end = replay.run(|replayed| {
        let Replayed::Sample(sample) = replayed else { return Ok(true) };
        ticks.insert(sample.tick());
        let begin_ns = sample.window().begin_ns;
        for view in sample.objects().filter(|view| view.state() == RowState::Good) {
            let Some(exits) = view.get("exits").and_then(|value| value.number()) else { continue };
            let readings = all.entry(view.object().path.to_string()).or_default();
            if readings.good.is_empty() {
                readings.first_ns = begin_ns;
            }
            readings.good.insert(sample.tick());
            (readings.last_ns, readings.exits) = (begin_ns, exits);
        }
        Ok(true)
    });
    assert!(end.expect("it is whole").is_some());
    (ticks, all)
}

/// Ends a VM, and waits until the recorder says so. Returns when it ended.
fn end(vm: Helper, name: &str, recorder: &Run) -> u64 {
    let (text, ended_ns) = (format!("VM {name} (pid {}) has ended", vm.pid()), now_ns());
    vm.kill();
    wait_for(&text, NOTICE_LIMIT, || recorder.said().contains(&text));
    ended_ns
}

/// Starts a VM, and waits until the recorder says so and has had time to look at it.
fn start(name: &str, recorder: &Run) -> (Helper, u64) {
    let started_ns = now_ns();
    let vm = vmm("stats", name, 2);
    let text = format!("VM {name} (pid {}) has come", vm.pid());
    wait_for(&text, NOTICE_LIMIT, || recorder.said().contains(&text));
    sleep(Duration::from_secs(2));
    (vm, started_ns)
}

#[test]
fn a_recording_of_all_has_vms_that_end_and_vms_that_start() {
    let name = "shared_host::recorded::a_recording_of_all_has_vms_that_end_and_vms_that_start";
    with_namespaces(name, || {
        let mut found = Findings::default();
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("all.arrows");
        let output = path.to_str().expect("the path is text");
        let (mut first, mut stays) = (vmm("stats", "first", 2), vmm("stats", "stays", 3));
        let line = ["record", "--all", "--no-control", "-o", output, "--names", "exits,halt_*"];
        let mut recorder = Run::start(&line);
        wait_for("the file", START_LIMIT, || fs::metadata(&path).is_ok_and(|file| file.len() > 0));
        first.tell("run 50");
        let first_end_ns = end(first, "first", &recorder);
        let (mut second, second_begin_ns) = start("second", &recorder);
        second.tell("run 200");
        stays.tell("run 100");
        sleep(Duration::from_millis(500));
        let stays_end_ns = end(stays, "stays", &recorder);
        end(second, "second", &recorder);
        // A host without VMs may have others later.
        sleep(WITHOUT_VM);
        let (mut third, third_begin_ns) = start("third", &recorder);
        third.tell("run 300");
        sleep(Duration::from_millis(500));
        let stopped_ns = now_ns();
        found.note("record", recorder.terminate_within(READ_LIMIT));
        assert!(recorder.said().contains("0 lost"), "{}", recorder.said());

        let (ticks, all) = read(&path);
        for (vm, vcpus, begin_ns, end_ns, exits) in [
            ("first", 2, 0, first_end_ns, 50),
            ("stays", 3, 0, stays_end_ns, 100),
            ("second", 2, second_begin_ns, stays_end_ns, 200),
            ("third", 2, third_begin_ns, stopped_ns, 300),
        ] {
            for vcpu in vcpu_paths(vm, vcpus) {
                let Some(readings) = all.get(&vcpu) else {
                    found.must(false, || format!("{vcpu} is not recorded"));
                    continue;
                };
                let (from, to) = (readings.first_ns, readings.last_ns);
                let begins = from >= begin_ns && (begin_ns == 0 || from < begin_ns + LATE_NS * 4);
                found.must(begins, || format!("{vcpu} begins at {from}, not after {begin_ns}"));
                let ends = to + LATE_NS > end_ns;
                found.must(ends, || format!("{vcpu} ends at {to}, not about {end_ns}"));
                found.must(readings.exits >= exits, || format!("{vcpu}: {} exits", readings.exits));
                // Between its first and its last reading no tick of the file is without it.
                let (first, last) = (readings.good.first(), readings.good.last());
                let (first, last) = (*first.expect("it was read"), *last.expect("it was read"));
                let missing = ticks.range(first..=last).count() - readings.good.len();
                found.must(missing == 0, || format!("{vcpu} is not read in {missing} ticks"));
            }
        }
        let files = fs::read_dir(directory.path()).expect("it is there").count();
        found
            .must(files == 1, || format!("{files} files, though all VMs have the same statistics"));
        found.must(all.len() == 9, || format!("{:?}", all.keys()));
        found.none();
    });
}
