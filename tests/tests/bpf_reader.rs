//! The BPF reader on real VMs: for any VMM it reads the values that pread reads, and each failure
//! of it ends in pread or in a marked row.
//!
//! The tests also check that it is used at all: a source that has fallen back to pread would agree
//! with pread.

mod bpf_reader {
    mod still;
    mod moving;
    mod given_up;
    mod same;
    mod unnoticed;
    mod ended;
    mod rights;
    mod vmm;
}

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe::bpf::{Bpf, BpfMode};
use vmstrobe::host::Reaper;
use vmstrobe::kvm::{AttachedKvm, NewVcpu, OwnKvm};
use vmstrobe_core::{
    Desc, Mask, Object, Provider, ReadPlan, RowState, Rows, Schema, Source, Target,
};
use vmstrobe_guest::DemoGuest;
use vmstrobe_tests::command::Output;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::rig::wait_for;

const LIMIT: Duration = Duration::from_secs(20);

/// Returns a BPF reader of the test's own, which falls back to pread only if it is given up.
fn required() -> Bpf {
    Bpf::new(BpfMode::Require)
}

/// Makes one provider of the vCPUs of all these guests, numbered one after the other, which the
/// kernel permits. Its VM is that of the first guest.
fn crowd(guests: &[DemoGuest], bpf: Bpf) -> OwnKvm {
    let kvm = OwnKvm::with_bulk("crowd", guests[0].vm().fd(), bpf);
    let kvm = kvm.expect("a VM of ours has statistics");
    for (index, vcpu) in (0..).zip(guests.iter().flat_map(DemoGuest::vcpus)) {
        kvm.add_vcpu(NewVcpu::here(index, vcpu.fd())).expect("none runs");
    }
    kvm
}

/// Returns the objects of that kind, which have one schema.
fn objects_of(kvm: &dyn Provider, target: &Target) -> Vec<Object> {
    let mut objects = kvm.objects().expect("ours are known");
    objects.retain(|object| object.schema.target() == target);
    assert!(!objects.is_empty(), "there is no {target:?}");
    objects
}

/// A choice of statistics: true for those that are selected.
type Wanted = fn(&Desc) -> bool;

/// Plans of all kinds: the whole block and a part of it, which are copied; many words and few,
/// which are loaded one by one.
const PLANS: [(&str, Wanted); 8] = [
    ("everything", |_| true),
    ("every histogram", |desc| desc.stat_type.is_histogram()),
    ("every scalar", |desc| !desc.stat_type.is_histogram()),
    ("1 histogram", |desc| &*desc.name == "halt_wait_hist"),
    ("4 names", |desc| FOUR.contains(&&*desc.name)),
    ("3 names", |desc| FOUR[..3].contains(&&*desc.name)),
    ("2 names", |desc| FOUR[..2].contains(&&*desc.name)),
    ("1 name", |desc| FOUR[..1].contains(&&*desc.name)),
];

/// The statistics that plotting tools ask for first.
const FOUR: [&str; 4] = ["halt_wait_ns", "exits", "halt_exits", "blocking"];

fn plan(schema: &Arc<Schema>, wanted: Wanted) -> Arc<ReadPlan> {
    let mut mask = Mask::none(schema.descs().len());
    for (index, desc) in schema.descs().iter().enumerate() {
        if wanted(desc) {
            mask.set(index);
        }
    }
    ReadPlan::new(schema, &mask)
}

/// Rows that are read without a sampler.
struct Reader {
    sources: Vec<Box<dyn Source>>,
    words: Vec<u64>,
    states: Vec<RowState>,
    row_words: usize,
}

impl Reader {
    fn open(kvm: &dyn Provider, objects: &[Object], plan: &Arc<ReadPlan>) -> Reader {
        let sources = kvm.open(objects, plan).expect("the provider opens its objects");
        let (rows, row_words) = (objects.len(), plan.row_words());
        let (words, states) = (vec![0; rows * row_words], vec![RowState::Missing; rows]);
        Reader { sources, words, states, row_words }
    }

    /// Returns true if all rows were read in one call for each source, or would be, before the
    /// first reading.
    fn is_bulk(&self) -> bool {
        self.sources.iter().all(|source| source.read_ns().is_some())
    }

    /// Reads every row.
    fn read(&mut self) -> &[RowState] {
        // The states of earlier readings are overwritten, so that each row has to be read.
        self.words.fill(u64::MAX);
        self.states.fill(RowState::Missing);
        let (mut words, mut states) = (&mut self.words[..], &mut self.states[..]);
        for source in &mut self.sources {
            let (these, others) = words.split_at_mut(source.rows() * self.row_words);
            let (their, rest) = states.split_at_mut(source.rows());
            source.read(Rows::new(these, their, self.row_words));
            (words, states) = (others, rest);
        }
        &self.states
    }

    /// Reads every row, and checks that all can be read.
    #[track_caller]
    fn read_all(&mut self) -> &[u64] {
        let bad = self.read().iter().find(|state| **state != RowState::Good);
        assert_eq!(bad, None);
        &self.words
    }
}

/// The options with which management software confines a QEMU.
const SANDBOX: [&str; 2] =
    ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"];

/// Starts a confined QEMU 7.2, which keeps no stats fds open.
fn older_qemu(name: &str, vcpus: u32, paused: bool) -> Qemu {
    Qemu::start_older(&Config { name, vcpus, paused, extra: &SANDBOX })
}

/// A provider of this process's VMs that reads nothing by pread.
fn borrowed(pid: u32) -> Arc<AttachedKvm> {
    let reaper = Reaper::new().expect("a thread can be started");
    let kvm = AttachedKvm::with_bulk(reaper, required()).expect("a thread can be started");
    kvm.attach(pid).expect("a child of ours can be looked into");
    Arc::new(kvm)
}

/// Returns QEMU's own results for a target, in our form: with our vCPU paths, sorted by them, and
/// with statistics and buckets, which QEMU lists in reverse, in ascending order.
fn their_results(qemu: &mut Qemu, name: &str, target: &str) -> Vec<Json> {
    let results = qemu.execute("query-stats", json!({"target": target}));
    let cpus = qemu.execute("query-cpus-fast", Json::Null);
    let renamed = |mut result: Json| {
        if let Some(path) = result.get("qom-path") {
            let cpu = list(&cpus).iter().find(|cpu| cpu["qom-path"] == *path);
            let index = &cpu.expect("every path is a vCPU's")["cpu-index"];
            result["qom-path"] = format!("/vm/{name}/vcpu[{index}]").into();
        }
        let stats = result["stats"].as_array_mut().expect("the value is a list");
        stats.reverse();
        for buckets in stats.iter_mut().filter_map(|stat| stat["value"].as_array_mut()) {
            buckets.reverse();
        }
        result
    };
    let mut results: Vec<Json> = list(&results).iter().cloned().map(renamed).collect();
    results.sort_by_key(|result| result["qom-path"].to_string());
    results
}

fn list(json: &Json) -> &[Json] {
    json.as_array().unwrap_or_else(|| panic!("this is no list: {json}"))
}

/// Waits until the firmware has run for a while, and stops the guest.
fn boot_and_stop(qemu: &mut Qemu, name: &str) {
    let exits = |results: &[Json]| {
        let stats = results.iter().flat_map(|result| list(&result["stats"]));
        stats.filter(|stat| stat["name"] == "exits").filter_map(|stat| stat["value"].as_u64()).max()
    };
    wait_for("the guest runs", LIMIT, || exits(&their_results(qemu, name, "vcpu")) > Some(5000));
    qemu.execute("stop", Json::Null);
    // QEMU answers before the last vCPU has stopped.
    wait_for("the guest has stopped", LIMIT, || {
        let before = their_results(qemu, name, "vcpu");
        thread::sleep(Duration::from_millis(20));
        before == their_results(qemu, name, "vcpu")
    });
}

/// Returns the KVM files of a process that are for statistics.
fn stats_fds(pid: u32) -> usize {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).expect("the process has not been reaped");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let is_stats = |link: &str| link.starts_with("anon_inode:kvm-") && link.contains("-stats");
    links.filter(|link| is_stats(&link.to_string_lossy())).count()
}

/// Checks that the command ended with success and printed no message.
#[track_caller]
fn fine(output: &Output) {
    assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{output:?}");
}
