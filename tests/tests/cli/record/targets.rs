//! Recordings of several targets: in every format, and in what reads recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use vmstrobe::{Replay, Replayed};
use vmstrobe_tests::command::run_within;
use vmstrobe_tests::python::{python_program, require_readers};

use super::{Place, number_before};
use crate::{json, says, vmstrobe};

/// Returns the paths of each target in a recording, and the number of its samples.
fn targets(path: impl AsRef<Path>) -> (BTreeMap<String, BTreeSet<String>>, usize) {
    let (mut targets, mut samples) = (BTreeMap::<String, BTreeSet<String>>::new(), 0);
    let replay = Replay::open(path.as_ref()).expect("it is a recording");
    let end = replay.run(|replayed| {
        let Replayed::Sample(sample) = replayed else { return Ok(true) };
        samples += 1;
        for view in sample.objects() {
            let object = view.object();
            let paths = targets.entry(object.schema.target().name().to_owned()).or_default();
            paths.insert(object.path.to_string());
        }
        Ok(true)
    });
    assert!(end.expect("it is whole").is_some());
    (targets, samples)
}

/// Records the demo's guest for a moment, and returns the number of objects of each target.
#[track_caller]
fn recorded(place: &Place, args: &[&str]) -> BTreeMap<String, usize> {
    let output = place.file("targets.arrows");
    let fixed = ["record", "--demo", "-o", &output, "--overwrite", "--no-control", "-d", "300ms"];
    says(&vmstrobe(&[&fixed, args].concat()), 0, &["wrote "]);
    targets(&output).0.into_iter().map(|(target, paths)| (target, paths.len())).collect()
}

fn of<const N: usize>(targets: [(&str, usize); N]) -> BTreeMap<String, usize> {
    targets.into_iter().map(|(target, objects)| (target.to_owned(), objects)).collect()
}

#[test]
fn all_targets_are_recorded_or_those_that_are_named() {
    let Some(place) = Place::new() else { return };
    let all = of([("cryptodev", 1), ("vcpu", 4), ("vm", 1)]);
    assert_eq!(recorded(&place, &[]), all);
    let both = of([("vcpu", 4), ("vm", 1)]);
    assert_eq!(recorded(&place, &["--target", "vm", "--target", "vcpu"]), both);
    assert_eq!(recorded(&place, &["--provider", "kvm"]), both);
    let names = ["--names", "exits,pages_4k"];
    assert_eq!(recorded(&place, &names), both);
    assert_eq!(recorded(&place, &["--names", "exits"]), of([("vcpu", 4)]));
    assert_eq!(recorded(&place, &["--vcpu", "1"]), of([("vcpu", 1)]));
    let chosen = ["--vcpu", "1", "--target", "vcpu", "--target", "vm"];
    assert_eq!(recorded(&place, &chosen), of([("vcpu", 1), ("vm", 1)]));
    let with_own = ["--target", "vm", "--target", "sampler"];
    assert_eq!(recorded(&place, &with_own), of([("sampler", 1), ("vm", 1)]));

    let output = place.file("none.arrows");
    let record = |args: &[&str]| {
        let fixed = ["record", "--demo", "-o", &output, "--no-control", "-d", "300ms"];
        vmstrobe(&[&fixed, args].concat())
    };
    let named = ["--target", "vm", "--target", "vcpu", "--names", "exits"];
    says(&record(&named), 1, &["no statistic named 'exits'"]);
    says(&record(&["--target", "vm", "--target", "disk"]), 1, &["no objects of target 'disk'"]);
    says(&record(&["--target", "vm", "--vcpu", "0"]), 2, &["leave it out for target vm"]);
    says(&record(&["--names", "exits,nope"]), 0, &["'nope'"]);
}

#[test]
fn a_condition_is_about_what_is_recorded() {
    let Some(place) = Place::new() else { return };
    let output = place.file("x.arrows");
    let with = |args: &[&str]| {
        let when = ["--when", "exits.rate > 1 and pages_4k.value >= 0"];
        let fixed = ["record", "--demo", "--last", "5s", "--no-control", "-d", "500ms"];
        vmstrobe(&[&fixed, &when[..], &["-o", &output], args].concat())
    };
    says(&with(&[]), 0, &["dumped "]);
    for left_out in [&["--names", "exits"][..], &["--target", "vcpu"]] {
        says(&with(left_out), 2, &["compares statistics that are not recorded: let --names"]);
    }
}

#[test]
fn every_format_has_every_target() {
    let Some(place) = Place::new() else { return };
    let run = place.file("run.arrows");
    let line = ["record", "--demo", "-o", &run, "--no-control", "-d", "1s"];
    says(&vmstrobe(&line), 0, &["wrote "]);
    let (all, samples) = targets(&run);
    assert_eq!(all.keys().collect::<Vec<_>>(), ["cryptodev", "vcpu", "vm"]);
    let convert = |name: &str, args: &[&str]| {
        let path = place.file(name);
        let done = vmstrobe(&[&["convert", &run, &path], args].concat());
        says(&done, 0, &["wrote "]);
        assert_eq!(number_before(&done.stderr, "samples"), samples as u64, "{done:?}");
        path
    };
    for (name, via) in [("a.parquet", "b.arrows"), ("c.arrows", "d.parquet")] {
        let path = convert(name, &[]);
        assert_eq!(targets(&path), (all.clone(), samples), "{name}");
        let other = place.file(via);
        says(&vmstrobe(&["convert", &path, &other]), 0, &["wrote "]);
        assert_eq!(targets(&other), (all.clone(), samples), "{via}");
    }
    let of_two = convert("e.arrows", &["--target", "vm", "--target", "cryptodev"]);
    let (two, _) = targets(&of_two);
    assert_eq!(two.keys().collect::<Vec<_>>(), ["cryptodev", "vm"]);

    let csv = fs::read_to_string(convert("a.csv", &[])).expect("it is text");
    let of_kind = |kind: &str| csv.lines().filter(|line| line.contains(kind)).count();
    let counts = [",kvm/vm,", ",kvm/vcpu,", ",cryptodev/cryptodev,"].map(of_kind);
    assert_eq!(counts, [samples, 4 * samples, samples]);
    let lines = fs::read_to_string(convert("a.jsonl", &[])).expect("it is text");
    let of_vm = lines.lines().skip(1).map(json).filter(|row| row["target"] == "vm");
    assert_eq!(of_vm.filter(|row| row["stats"]["pages_4k"].is_u64()).count(), samples);

    // What reads recordings chooses one of them, as of a running machine.
    for (args, want) in [
        (&[][..], "exits"),
        (&["--target", "vm", "-z"], "pages_4k"),
        (&["--target", "cryptodev"], "sym-encrypt-ops"),
    ] {
        let line = [&["stat", "--replay", &run, "--json"], args].concat();
        let done = vmstrobe(&line);
        assert_eq!(done.code, Some(0), "{done:?}");
        let report = json(done.stdout.trim_end());
        assert_eq!(report["ticks"], samples - 1, "{line:?}");
        let stats = report["stats"].as_array().expect("it is a list");
        assert!(stats.iter().any(|stat| stat["name"] == want), "{line:?}: {report}");
    }
}

#[test]
fn others_read_every_target() {
    let Some(place) = Place::new() else { return };
    if !require_readers() {
        return;
    }
    let run = place.file("run.arrows");
    let line = ["record", "--demo", "-o", &run, "--no-control", "-d", "1s"];
    says(&vmstrobe(&line), 0, &["wrote "]);
    let (_, samples) = targets(&run);
    let files = ["run.parquet", "wide.parquet", "run.pftrace"].map(|name| place.file(name));
    for path in &files {
        let layout = if path.contains("wide") { &["--layout", "wide"][..] } else { &[] };
        let names: &[&str] = if path.contains("pftrace") {
            &["--names", "exits,pages_4k,sym-encrypt-ops"]
        } else {
            &[]
        };
        let done = vmstrobe(&[&["convert", &run, path], layout, names].concat());
        says(&done, 0, &["wrote "]);
    }
    let script = "import sys, zlib, pyarrow as pa, pyarrow.parquet as pq
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace
run, rows, wide, trace, samples = *sys.argv[1:5], int(sys.argv[5])
kinds = {'kvm/vm': 1, 'kvm/vcpu': 4, 'cryptodev/cryptodev': 1}
want = {kind: objects * samples for kind, objects in kinds.items()}
for table in pa.ipc.open_stream(run).read_all(), pq.read_table(rows):
    found = {}
    columns = (table[name].to_pylist() for name in ('schema', 'pages_4k', 'exits'))
    for kind, pages, exits in zip(*columns):
        found[kind] = found.get(kind, 0) + 1
        assert (pages is not None) == (kind == 'kvm/vm'), kind
        assert (exits is not None) == (kind == 'kvm/vcpu'), kind
    assert found == want, found
table = pq.read_table(wide)
assert table.num_rows == samples, table.num_rows
for name in 'pages_4k@/vm/demo', 'exits@/vm/demo/vcpu[3]':
    assert table[name].null_count == 0, name
packets = Trace.FromString(open(trace, 'rb').read()).packet
inner = [zlib.decompress(outer.compressed_packets) for outer in packets]
packets = [packet for batch in inner for packet in Trace.FromString(batch).packet]
names = {p.track_descriptor.description for p in packets}
for name in 'exits of /vm/demo/vcpu[0]', 'pages_4k of /vm/demo':
    assert name in names, names
print(samples)";
    let [rows, wide, trace] = &files;
    let args = ["-c", script, &run, rows, wide, trace, &samples.to_string()];
    let done = run_within(Duration::from_secs(60), python_program("python3"), &args);
    assert_eq!(done.code, Some(0), "{done:?}");
}
