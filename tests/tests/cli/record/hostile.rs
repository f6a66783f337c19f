//! Recordings with hostile names: what is made of them has the names as they are, and does nothing
//! to who looks at it. No name makes a file anywhere else.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vmstrobe::{Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Snapshot, StatType};
use vmstrobe::{Target, Window};
use vmstrobe_export::{
    ArrowsWriter, BatchLimits, Batcher, Columns, Compression, Event, EventKind, Exporter, Metadata,
    Outcome,
};
use vmstrobe_tests::command::run_within;
use vmstrobe_tests::python::{python_program, require_readers};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::require_lending_qemu;

use super::Place;
use crate::{json, says, vmstrobe};

const TICKS: u64 = 50;
/// A name that is a path, a formula, a quotation, two lines, and an order to a terminal.
const HOSTILE: &str = "=../../x,\"'y\"\r\nvmstrobe: fake\u{1b}[2J\u{202e};{vm}\u{2028}";
/// The length of a long name.
const LONG_BYTES: usize = 1 << 20;

/// Names of a recording: of the objects' paths, the statistics, the rest.
struct Names {
    paths: [String; 2],
    stats: [String; 3],
    vm: String,
    mark: String,
}

impl Names {
    fn new() -> Self {
        Self {
            paths: [format!("/vm/{HOSTILE}/{HOSTILE}"), "/x,\"".repeat(LONG_BYTES / 4)],
            stats: [HOSTILE.to_owned(), format!("{HOSTILE}_hist"), "e".repeat(LONG_BYTES)],
            vm: HOSTILE.repeat(10),
            mark: HOSTILE.repeat(100),
        }
    }
}

/// Writes a recording of two objects that count, with these names.
fn write(path: &str, names: &Names) {
    let [plain, hist, long] = &names.stats;
    let hist = Desc { size: 4, stat_type: StatType::Log2Histogram, ..Desc::counter(hist, 8) };
    let descs = vec![Desc::counter(plain, 0), hist, Desc::counter(long, 40)];
    let schema = Schema::new(HOSTILE, Target::from_name(HOSTILE), descs);
    let objects = names.paths.iter().zip(0..).map(|(path, key)| Object {
        path: path.as_str().into(),
        index: None,
        schema: Arc::clone(&schema),
        key,
    });
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let layout = Layout::new(0, vec![(plan, objects.collect())]);
    let metadata = Metadata {
        host: Some(HOSTILE.to_owned()),
        filter: Some(HOSTILE.to_owned()),
        vm: Some(names.vm.clone()),
        labels: vec![(HOSTILE.to_owned(), HOSTILE.to_owned())],
        hz: Some(1000.0),
        ..Metadata::default()
    };
    let file = File::create(path).expect("there is room");
    let columns = Columns::of(&layout).expect("they are few");
    let mut writer =
        ArrowsWriter::new(file, columns, &metadata, Compression::Zstd).expect("there is room");
    let mut batcher = Batcher::new(BatchLimits { ticks: 20, ..BatchLimits::default() });
    let mut write = |batch| assert_eq!(writer.write(&batch).ok(), Some(Outcome::Written));
    for tick in 1..=TICKS {
        let mut sample = Snapshot::new(&layout);
        let (words, states) = sample.begin(tick);
        words.iter_mut().zip(0..).for_each(|(word, at)| *word = tick * (at + 1));
        states.fill(RowState::Good);
        let (begin_ns, wall_offset_ns) = (tick * 1_000_000, 1_700_000_000_000_000_000);
        sample.stamp(Window { begin_ns, end_ns: begin_ns + 1000, wall_offset_ns });
        batcher.push(&sample).expect("it is small").into_iter().for_each(&mut write);
    }
    batcher.take().into_iter().for_each(&mut write);
    let kind = EventKind::Other(HOSTILE.to_owned());
    let event = Event { monotonic_ns: 7, wall_offset_ns: 0, kind, text: names.mark.clone() };
    writer.event(&event).expect("there is room");
    writer.finish().expect("there is room");
}

/// Returns the names of all files below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        if entry.path().is_dir() {
            names.extend(files(&entry.path()));
        }
        names.insert(entry.path().display().to_string());
    }
    names
}

/// Checks that nothing in a text moves a cursor or begins a line that is not its own.
#[track_caller]
fn does_nothing(text: &str) {
    let does = |c: char| (c.is_control() && c != '\n') || "\u{202e}\u{2028}".contains(c);
    assert!(!text.contains(does), "{:?}", text.chars().filter(|c| does(*c)).collect::<String>());
    assert!(!text.lines().any(|line| line.starts_with("vmstrobe: fake")));
}

#[test]
fn every_format_has_hostile_names_as_they_are() {
    let Some(place) = Place::new() else { return };
    let names = Names::new();
    let run = place.file("run.arrows");
    write(&run, &names);
    let formats = ["a.arrows", "a.parquet", "a.csv", "a.jsonl", "a.pftrace", "wide.parquet"];
    let wanted: BTreeSet<String> =
        formats.iter().chain(&["run.arrows"]).map(|name| place.file(name)).collect();
    for name in formats {
        let layout = if name == "wide.parquet" { &["--layout", "wide"][..] } else { &[] };
        let done = vmstrobe(&[&["convert", &run, &place.file(name)], layout].concat());
        says(&done, 0, &["wrote ", "50 samples and 1 event"]);
        does_nothing(&done.stderr);
    }
    assert_eq!(files(place.0.path()), wanted, "there is a file that nobody asked for");
    // What shows recordings shows the names as text.
    for args in [&["stat", "-i", "10"][..], &["stat", "--per-vcpu"], &["query"], &["schema"]] {
        for path in [&run, &place.file("a.parquet")] {
            let shown = vmstrobe(&[args, &["--replay", path]].concat());
            assert_eq!(shown.code, Some(0), "{args:?}");
            does_nothing(&shown.stdout);
            does_nothing(&shown.stderr);
        }
    }
    let exact = json(&vmstrobe(&["query", "--replay", &run, "--json"]).stdout);
    assert_eq!(
        (&exact[0]["qom-path"], &exact[1]["qom-path"]),
        (&json!(names.paths[0]), &json!(names.paths[1]))
    );
    if !require_readers() {
        return;
    }
    let facts = json!({
        "paths": names.paths, "stats": names.stats, "vm": names.vm, "mark": names.mark,
        "ticks": TICKS,
    });
    fs::write(place.file("facts.json"), facts.to_string()).expect("there is room");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/hostile.py");
    let [python, script] = [&python_program("python3"), &script]
        .map(|path| path.to_str().expect("the path is text").to_owned());
    let line = "cd \"$0\" && \"$1\" \"$2\" facts.json";
    let directory = place.0.path().to_str().expect("the path is text");
    let limit = Duration::from_secs(120);
    let done = run_within(limit, "sh", &["-c", line, directory, &python, &script]);
    assert_eq!(done.code, Some(0), "{} {}", done.stdout, done.stderr);
    println!("{}", done.stdout);
}

/// The name of a VM is whatever its owner has typed.
#[test]
fn dumps_of_a_vm_with_a_hostile_name_are_where_they_belong() {
    let Some(place) = Place::new() else { return };
    if !require_lending_qemu() {
        return;
    }
    let home = place.0.path().join("a/b");
    fs::create_dir_all(&home).expect("there is room");
    for name in ["../../up", "/tmp/vmstrobe-hostile-vm", "\"; touch x\n$(touch y)\u{1b}[2J"] {
        let long = format!("{name}{}", "n".repeat(300));
        for name in [name, &long] {
            let qemu = Qemu::start(&Config { name, paused: true, ..Config::default() });
            let template = home.join("{vm}-{trigger}.arrows").display().to_string();
            let before = files(place.0.path());
            let pid = qemu.pid().to_string();
            let line = ["record", "-p", &pid, "--last", "5s", "--no-control", "-o", &template];
            let when = ["--when", "exits.value >= 0", "-d", "300ms"];
            let done = vmstrobe(&[&line[..], &when].concat());
            says(&done, 0, &["dumped "]);
            does_nothing(&done.stderr);
            let after = files(place.0.path());
            let new: Vec<&String> = after.difference(&before).collect();
            let [dump] = new[..] else { panic!("{name:?}: {new:?}") };
            assert_eq!(Path::new(dump).parent(), Some(&*home), "{dump}");
            does_nothing(dump);
            assert!(!super::read(dump).ticks.is_empty());
        }
    }
    assert!(!Path::new("/tmp/vmstrobe-hostile-vm").exists());
}
