//! Recordings in the place of sources: every value is the one that was recorded, whichever command
//! shows it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use vmstrobe::export::{
    ArrowsWriter, BatchLimits, Batcher, Columns, Compression, Exporter, Metadata, Outcome,
};
use vmstrobe::json::{IntervalReport, Results, text};
use vmstrobe::{
    Filter, Moment, Options, Order, Replay, Replayed, StatType, Tally, Target, Timing, demo,
};
use vmstrobe_tests::command::spawn;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::serve::Serve;

use crate::{LIMIT, fine, json, says, vmstrobe};

mod marks;

/// A recording that the command made of the demo.
struct Recorded {
    directory: TempDir,
    path: String,
}

impl Recorded {
    /// Records the vCPUs of the demo for that time.
    #[track_caller]
    fn new(time: &str) -> Option<Self> {
        if !require_kvm() {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("run.arrows").display().to_string();
        let line = ["record", "--demo", "--target", "vcpu", "-o", &path, "-d", time];
        let output = vmstrobe(&line);
        assert_eq!(output.code, Some(0), "{output:?}");
        Some(Self { directory, path })
    }

    fn file(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    /// Returns what `query-stats` would return of the sample of a moment.
    fn results(&self, moment: Moment) -> Json {
        let replay = Replay::open(Path::new(&self.path)).expect("it is a recording");
        let (sample, _) = replay.find(moment).expect("it has samples");
        json(&Results::new(sample.layout(), Order::Schema).text(&sample))
    }
}

/// Both are given the same samples: the totals of `stat` are computed while they are recorded, and
/// then from the recording.
#[test]
fn stat_of_a_recording_is_stat_beside_it() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("run.arrows");
    let guest = demo::start(demo::VCPUS, &Options::default()).expect("KVM can be used");
    let timing = Timing::hz(1000.0).expect("it is a rate");
    let session = guest.start(vec![Filter::all(Target::Vcpu)], timing).expect("it can be read");
    let columns = Columns::of(session.first().layout()).expect("they are few");
    let metadata = Metadata { hz: Some(1000.0), ..Metadata::default() };
    let file = File::create(&path).expect("there is room");
    let mut writer =
        ArrowsWriter::new(file, columns, &metadata, Compression::Zstd).expect("there is room");
    let mut batcher = Batcher::new(BatchLimits { ticks: 100, ..BatchLimits::default() });
    let mut write = |batch| assert_eq!(writer.write(&batch).ok(), Some(Outcome::Written));
    let mut tally = Tally::new(session.first());
    batcher.push(session.first()).expect("it is the first").into_iter().for_each(&mut write);
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        let Some(sample) = session.recv(Duration::from_millis(50)) else { continue };
        tally.add(&sample);
        batcher.push(&sample).expect("it is small").into_iter().for_each(&mut write);
    }
    batcher.take().into_iter().for_each(&mut write);
    writer.finish().expect("there is room");
    assert!(tally.samples() > 500, "{tally:?}");
    let path = path.display().to_string();
    for (per_object, options) in
        [(false, &[][..]), (true, &["--per-vcpu"]), (true, &["--per-vcpu", "--speed", "20"])]
    {
        let beside =
            IntervalReport { tally: &tally, lost_samples: 0, read: None, per_object, events: &[] };
        let output = vmstrobe(&[&["stat", "--json", "--replay", &path], options].concat());
        fine(&output);
        assert_eq!(json(&output.stdout), json(&text(&beside)), "{options:?}");
    }
}

/// Returns how much each counter of each object grew, by path and name.
fn growth(path: &str) -> BTreeMap<(String, String), u64> {
    let replay = Replay::open(Path::new(path)).expect("it is a recording");
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    let read = replay.run(|replayed| {
        let Replayed::Sample(sample) = replayed else { return Ok(true) };
        for view in sample.objects() {
            let counters =
                view.stats().filter(|value| value.desc().stat_type == StatType::Cumulative);
            for counter in counters {
                let key = (view.object().path.to_string(), counter.desc().name.to_string());
                let word = counter.words()[0];
                first.entry(key.clone()).or_insert(word);
                last.insert(key, word);
            }
        }
        Ok(true)
    });
    read.expect("it is whole");
    last.into_iter().map(|(key, word)| (key.clone(), word - first[&key])).collect()
}

#[test]
fn intervals_of_a_recording_add_up_to_its_totals() {
    let Some(recorded) = Recorded::new("1200ms") else { return };
    let growth = growth(&recorded.path);
    assert!(growth.values().any(|&grown| grown > 0));
    for options in [&[][..], &["-i", "100"], &["-i", "7ms", "--speed", "5"]] {
        let line = ["stat", "--json", "--per-vcpu", "--replay", &recorded.path];
        let output = vmstrobe(&[&line, options].concat());
        fine(&output);
        let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
        for interval in output.stdout.lines().map(json) {
            for stat in interval["stats"].as_array().expect("it is a list") {
                let Some(delta) = stat["delta"].as_u64() else { continue };
                let [path, name] = ["qom-path", "name"].map(|key| stat[key].as_str());
                let key = path.zip(name).map(|(path, name)| (path.to_owned(), name.to_owned()));
                *sums.entry(key.expect("it has both")).or_default() += delta;
            }
        }
        assert_eq!(sums, growth, "{options:?}");
    }
    // An end of recorded time is the same at any pace.
    let line = ["stat", "--json", "--replay", &recorded.path, "-d", "300ms"];
    let [soon, slowly] = [&[][..], &["--speed", "2"]].map(|more| vmstrobe(&[&line, more].concat()));
    assert_eq!(json(&soon.stdout), json(&slowly.stdout));
    let seconds = json(&soon.stdout)["seconds"].as_f64().expect("it is a number");
    assert!((0.3..1.1).contains(&seconds), "{seconds}");
}

#[test]
fn a_signal_ends_a_slow_replay() {
    let Some(recorded) = Recorded::new("300ms") else { return };
    let line = ["stat", "--json", "--replay", &recorded.path, "--speed", "0.001"];
    let mut child = spawn(&line);
    // It listens for signals before it starts this thread.
    let pid = child.id();
    wait_for("the replay runs", LIMIT, || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name == "vmstrobe-replay\n")
    });
    let pid = Pid::from_raw(pid as i32).expect("it is a process id");
    kill_process(pid, Signal::TERM).expect("it runs");
    let status = child.wait_within(LIMIT).expect("it ends although the next sample is not due");
    assert_eq!(status.code(), Some(0));
}

#[test]
fn the_last_sample_is_read_by_every_command() {
    let Some(recorded) = Recorded::new("300ms") else { return };
    let path = &*recorded.path;
    for (options, moment) in [
        (&[][..], Moment::Last),
        (&["--at", "0"], Moment::After(Duration::ZERO)),
        (&["--at", "100ms"], Moment::After(Duration::from_millis(100))),
    ] {
        let output = vmstrobe(&[&["query", "--json", "--replay", path], options].concat());
        fine(&output);
        assert_eq!(json(&output.stdout), recorded.results(moment), "{options:?}");
    }
    let schema = vmstrobe(&["schema", "--json", "--replay", path]);
    fine(&schema);
    let info = vmstrobe(&["info", "stats", "--replay", path, "vcpu", "exits", "kvm"]);
    fine(&info);
    let want = recorded.results(Moment::Last);
    let exits = want[0]["stats"].as_array().expect("it is a list");
    let exits = exits.iter().find(|stat| stat["name"] == "exits").expect("KVM counts them");
    assert!(info.stdout.contains(&format!("exits (cumulative): {}", exits["value"])), "{info:?}");
    // The same over QMP, once the last sample is due; it stays.
    let serve = Serve::start(&["--replay", path, "--speed", "max", "--on-exit", "wait"]);
    let mut qmp = Qmp::connect_within(LIMIT, serve.socket()).expect("it listens");
    let deadline = Instant::now() + LIMIT;
    while qmp.execute("query-stats", json!({"target": "vcpu"})) != want {
        assert!(Instant::now() < deadline, "the last sample is not shown");
    }
    assert_eq!(qmp.execute("query-stats-schemas", json!({})), json(&schema.stdout));
}

#[test]
fn a_server_of_a_recording_ends_with_it() {
    let Some(recorded) = Recorded::new("200ms") else { return };
    let socket = recorded.file("sock");
    let output = vmstrobe(&["serve", "--replay", &recorded.path, "--speed", "2", "--qmp", &socket]);
    assert_eq!((output.code, &*output.stdout), (Some(0), ""), "{output:?}");
    let title = format!("the recording {} ", recorded.path);
    for part in [&*format!("serving {title}(4 vCPUs)"), &format!("{title}has ended")] {
        assert!(output.stderr.contains(part), "{output:?}");
    }
    assert!(!Path::new(&socket).exists());
}

#[test]
fn a_condition_is_evaluated_over_a_recording() {
    let Some(recorded) = Recorded::new("600ms") else { return };
    let line = ["record", "--dry-run", &recorded.path, "--hold-off", "100ms", "--when"];
    let dry_run = |when: &str| vmstrobe(&[&line[..], &[when]].concat());
    let output = dry_run("exits.value >= 0 and halt_wait_ns.value >= 0");
    fine(&output);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let (last, triggers) = lines.split_last().expect("it says how often");
    assert!((2..=7).contains(&triggers.len()), "{output:?}");
    assert!(last.starts_with(&format!("triggered {} times in ", triggers.len())), "{last}");
    for (number, line) in (1..).zip(triggers) {
        assert!(line.starts_with(&format!("{number:>3}  ")) && line.contains(" s  20"), "{line}");
        assert!(line.contains("Z  exits.value >= 0: ") && line.contains(" at /vm/demo/vcpu["));
        assert!(line.contains(" s at ") || line.contains("s at "), "a time has a unit: {line}");
    }
    let never = dry_run("exits.value < 0");
    fine(&never);
    assert!(never.stdout.starts_with("triggered 0 times in "), "{never:?}");
    says(&dry_run("exit > 1"), 1, &["no statistic named 'exit': did you mean 'exits'"]);
}

#[test]
fn a_torn_or_damaged_recording_is_replayed_up_to_there() {
    let Some(recorded) = Recorded::new("1600ms") else { return };
    let bytes = fs::read(&recorded.path).expect("it is there");
    let whole = json(&vmstrobe(&["stat", "--json", "--replay", &recorded.path]).stdout);
    let torn = recorded.file("torn.arrows");
    fs::write(&torn, &bytes[..bytes.len() - 1000]).expect("there is room");
    let output = vmstrobe(&["stat", "--json", "--replay", &torn]);
    says(&output, 0, &["torn.arrows is torn: it was read up to byte "]);
    let ticks = |report: &Json| report["ticks"].as_u64().expect("it is a number");
    assert!((100..ticks(&whole)).contains(&ticks(&json(&output.stdout))), "{output:?}");
    says(&vmstrobe(&["query", "--replay", &torn]), 0, &["is torn"]);
    let socket = recorded.file("sock");
    let served = vmstrobe(&["serve", "--replay", &torn, "--speed", "max", "--qmp", &socket]);
    says(&served, 0, &["is torn: it was read up to byte", "torn.arrows has ended"]);
    // What stands before damage is reported, and the status says that it is not all.
    let mut damaged = bytes.clone();
    let markers = (0..bytes.len() - 4).filter(|at| bytes[*at..at + 4] == [0xff; 4]);
    let markers: Vec<usize> = markers.collect();
    // The last is the mark of the end, the one before it begins the last batch.
    let at = markers[markers.len() - 2] + 8;
    damaged[at..at + 16].fill(0x7f);
    let path = recorded.file("damaged.arrows");
    fs::write(&path, &damaged).expect("there is room");
    let output = vmstrobe(&["stat", "--json", "--replay", &path]);
    says(&output, 1, &["damaged.arrows: the recording is damaged in the message at byte "]);
    assert!((1..ticks(&whole)).contains(&ticks(&json(&output.stdout))), "{output:?}");
    let served = vmstrobe(&["serve", "--replay", &path, "--speed", "max", "--qmp", &socket]);
    says(&served, 0, &["the recording is damaged", "what is behind that is lost"]);
    says(&vmstrobe(&["query", "--replay", &path]), 1, &["the recording is damaged"]);
    fine(&vmstrobe(&["query", "--replay", &path, "--at", "0"]));
}

#[test]
fn hostile_bytes_are_an_error() {
    let Some(recorded) = Recorded::new("100ms") else { return };
    let bytes = fs::read(&recorded.path).expect("it is there");
    let path = recorded.file("hostile.arrows");
    let mut random = fastrand::Rng::with_seed(14);
    for round in 0..40 {
        let mut hostile = bytes.clone();
        match round {
            0 => hostile.clear(),
            1 => hostile = (0..4096).map(|_| random.u8(..)).collect(),
            _ => {
                for _ in 0..random.usize(1..20) {
                    let at = random.usize(..hostile.len());
                    hostile[at] = random.u8(..);
                }
            }
        }
        fs::write(&path, &hostile).expect("there is room");
        for line in ["query -z --replay", "stat --replay", "record --when exits>1 --dry-run"] {
            let args: Vec<&str> = line.split(' ').chain([&*path]).collect();
            let output = vmstrobe(&args);
            assert!(matches!(output.code, Some(0 | 1)), "{round} {line}: {output:?}");
        }
    }
    for (line, part) in [
        ("query --replay", "this is no recording of vmstrobe"),
        ("stat --replay", "this is no recording of vmstrobe"),
    ] {
        fs::write(&path, "PAR1").expect("there is room");
        let args: Vec<&str> = line.split(' ').chain([&*path]).collect();
        says(&vmstrobe(&args), 1, &[part, "hostile.arrows"]);
    }
    let missing = recorded.file("missing.arrows");
    says(&vmstrobe(&["stat", "--replay", &missing]), 1, &["missing.arrows: there is no such file"]);
    let late = vmstrobe(&["query", "--replay", &recorded.path, "--at", "1h"]);
    says(&late, 1, &["has no sample then: it begins at 20", "give a time within"]);
}
