//! `record` and `convert`: what was sampled is in the file, however the recording ends.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use vmstrobe_export::{ArrowsReader, End, EventKind, Item};
use vmstrobe_tests::command::binary;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;

use crate::{LIMIT, says, vmstrobe};

mod full;
mod hostile;
mod page;
mod readers;
mod targets;

/// The rate of these recordings.
const HZ: u64 = 1000;

/// A directory for recordings.
struct Place(TempDir);

impl Place {
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        require_kvm().then_some(Self(directory))
    }

    fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("the path is text").to_owned()
    }

    /// Starts to record the vCPUs of the demo's guest, with these further arguments.
    fn start(&self, name: &str, args: &[&str]) -> Recorder {
        self.start_all(name, &[&["--target", "vcpu"], args].concat())
    }

    /// Starts to record all of the demo's guest, with these further arguments.
    fn start_all(&self, name: &str, args: &[&str]) -> Recorder {
        let output = self.file(name);
        let log = File::create(self.file("log")).expect("there is room");
        let line = [&["record", "--demo", "-o", &output], args].concat();
        let child = Command::new(binary())
            .args(line)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("vmstrobe starts");
        Recorder { child: Reaped(child), log: self.file("log") }
    }
}

/// A recorder that runs.
struct Recorder {
    child: Reaped,
    log: String,
}

impl Recorder {
    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child.0);
        kill_process(pid, signal).expect("it runs");
    }

    /// Waits for its end; returns its exit status and what it said.
    fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait_within(LIMIT).expect("it ends");
        (status.code(), fs::read_to_string(&self.log).expect("the log is there"))
    }
}

/// A recording that was read.
struct Read {
    /// The paths of the objects of each tick.
    ticks: BTreeMap<u64, BTreeSet<String>>,
    /// The time of the last reading, in ns of CLOCK_MONOTONIC.
    last_ns: u64,
    events: Vec<(EventKind, String)>,
    end: Option<End>,
}

fn read(path: impl AsRef<Path>) -> Read {
    let file = File::open(path).expect("the recording is there");
    let mut reader = ArrowsReader::new(file).expect("its head is whole");
    let mut read = Read { ticks: BTreeMap::new(), last_ns: 0, events: Vec::new(), end: None };
    while let Some(item) = reader.next_item().expect("what there is, is good") {
        match item {
            Item::Event(event) => read.events.push((event.kind, event.text)),
            Item::Batch(batch) => {
                let groups = batch.layout().groups().iter().flat_map(|group| &group.objects);
                let paths: BTreeSet<String> =
                    groups.map(|object| object.path.to_string()).collect();
                read.ticks.extend(batch.ticks().iter().map(|tick| (*tick, paths.clone())));
                read.last_ns = batch.windows().last().map_or(read.last_ns, |last| last.end_ns);
            }
        }
    }
    read.end = reader.end();
    read
}

/// Returns the number before a word of a text: `1,234 samples`.
fn number_before(text: &str, word: &str) -> u64 {
    let at = text.find(word).unwrap_or_else(|| panic!("no {word} in {text}"));
    let digits = text[..at].trim_end().rsplit([' ', '(']).next().expect("there is a part");
    digits.replace(',', "").parse().unwrap_or_else(|_| panic!("no number before {word} in {text}"))
}

#[test]
fn a_recording_says_what_is_in_it() {
    let Some(place) = Place::new() else { return };
    let (status, log) = place.start("my run.arrows", &["-d", "1s", "--label", "run=1"]).end();
    assert_eq!(status, Some(0), "{log}");
    let read = read(place.file("my run.arrows"));
    assert_eq!(read.ticks.len() as u64, number_before(&log, "samples"), "{log}");
    assert_eq!(read.end, Some(End::Finished));
    let (first, last) = (read.ticks.first_key_value(), read.ticks.last_key_value());
    let span = last.map_or(0, |(tick, _)| *tick) - first.map_or(0, |(tick, _)| *tick) + 1;
    let missing = number_before(&log, "lost") + number_before(&log, "missed");
    assert_eq!(span, read.ticks.len() as u64 + missing, "{log}");
    assert!(read.ticks.values().all(|paths| paths.len() == 4), "every vCPU is in every tick");
    // It can be typed as it stands.
    let line =
        format!("convert '{}' '{}'", place.file("my run.arrows"), place.file("my run.parquet"));
    assert!(log.contains(&format!("for Parquet: vmstrobe {line}")), "{log}");
}

/// Kills a recorder that has recorded for that time, and returns how many ms before its end are
/// lost. What is there is whole.
fn kill_after(place: &Place, name: &str, wait_ms: u64) -> u64 {
    let mut recorder = place.start(name, &["-d", "60s", "--overwrite"]);
    wait_for("the file", LIMIT, || fs::metadata(place.file(name)).is_ok_and(|it| it.len() > 0));
    thread::sleep(Duration::from_millis(wait_ms));
    recorder.signal(Signal::KILL);
    let killed_ns = vmstrobe::now_ns();
    recorder.end();
    let read = read(place.file(name));
    assert!(matches!(read.end, Some(End::Unfinished | End::Torn { .. })), "{:?}", read.end);
    assert!(read.ticks.values().all(|paths| paths.len() == 4), "every vCPU is in every tick");
    killed_ns.saturating_sub(read.last_ns) / 1_000_000
}

#[test]
fn a_killed_recorder_leaves_all_but_the_last_second_of_every_vcpu() {
    let Some(place) = Place::new() else { return };
    for (round, wait_ms) in [1300, 1735, 2110, 1002].into_iter().enumerate() {
        // A batch is half a second. A busy machine may keep the recorder itself from running.
        let mut tries = (0..3).map(|_| kill_after(&place, &format!("{round}.arrows"), wait_ms));
        assert!(tries.any(|lost_ms| lost_ms < 1000), "a second and more is lost each time");
    }
}

#[test]
fn a_stopped_recorder_has_a_gap_and_no_values_in_it() {
    let Some(place) = Place::new() else { return };
    let mut recorder = place.start("run.arrows", &["-d", "60s"]);
    wait_for("the file", LIMIT, || fs::metadata(place.file("run.arrows")).is_ok());
    recorder.signal(Signal::STOP);
    thread::sleep(Duration::from_secs(5));
    recorder.signal(Signal::CONT);
    thread::sleep(Duration::from_millis(300));
    recorder.signal(Signal::TERM);
    let (status, log) = recorder.end();
    assert_eq!(status, Some(0), "{log}");
    let ticks: Vec<u64> = read(place.file("run.arrows")).ticks.into_keys().collect();
    let gap = ticks.windows(2).map(|pair| pair[1] - pair[0]).max().expect("there are ticks");
    assert!((5 * HZ - 100..8 * HZ).contains(&gap), "a gap of {gap} ticks");
    assert!(number_before(&log, "missed") >= gap - 1, "{log}");
}

#[test]
fn a_recording_in_files_says_which_are_left() {
    let Some(place) = Place::new() else { return };
    let args = ["--split", "500ms", "--keep", "1KB", "-d", "3s"];
    let (status, log) = place.start("run.arrows", &args).end();
    assert_eq!(status, Some(0), "{log}");
    let left = fs::read_dir(place.0.path()).expect("it is there").flatten();
    let left = left.filter(|file| file.file_name().to_string_lossy().ends_with(".arrows")).count();
    let removed = number_before(&log, "older file");
    assert!(left >= 1 && removed >= 1, "{left} files: {log}");
    assert!(log.contains("with their samples were removed (--keep)"), "{log}");
}

#[test]
fn the_command_is_recorded_and_gives_its_status() {
    let Some(place) = Place::new() else { return };
    let output = place.file("run.arrows");
    let line = ["record", "--demo", "-o", &output, "--", "sh", "-c", "sleep 0.3; exit 3"];
    let done = vmstrobe(&line);
    says(&done, 3, &["wrote ", "samples"]);
    assert!(read(&output).ticks.len() > 100);
}

#[test]
fn a_signal_dumps_the_newest_samples() {
    let Some(place) = Place::new() else { return };
    let mut recorder = place.start("{vm}-{trigger}.arrows", &["--last", "1s", "-d", "60s"]);
    thread::sleep(Duration::from_millis(1500));
    for name in ["demo-signal.arrows", "demo-signal-2.arrows", "demo-signal-3.arrows"] {
        recorder.signal(Signal::USR2);
        wait_for("the dump", LIMIT, || fs::metadata(place.file(name)).is_ok());
        thread::sleep(Duration::from_millis(300));
    }
    recorder.signal(Signal::TERM);
    let (status, log) = recorder.end();
    assert_eq!((status, log.matches("on signal").count()), (Some(0), 3), "{log}");
    let mut all = BTreeSet::new();
    for name in ["demo-signal.arrows", "demo-signal-2.arrows", "demo-signal-3.arrows"] {
        let read = read(place.file(name));
        assert_eq!(read.end, Some(End::Finished));
        all.extend(read.ticks.into_keys());
    }
    // The dumps overlap, and nothing is missing between them but what was not sampled.
    let span = all.last().zip(all.first()).map_or(0, |(last, first)| last - first + 1);
    let missed = number_before(&log, "missed");
    assert_eq!(number_before(&log, "lost"), 0, "{log}");
    assert!(span - all.len() as u64 <= missed, "{span} {} {log}", all.len());
}

#[test]
fn a_condition_is_checked_before_anything_is_recorded() {
    let Some(place) = Place::new() else { return };
    let output = place.file("x.arrows");
    let with = |when: &str| {
        vmstrobe(&["record", "--demo", "-o", &output, "--last", "5s", "--when", when, "-d", "1s"])
    };
    says(&with("exit.rate > 5"), 1, &["no statistic named 'exit': did you mean 'exits'"]);
    says(&with("exits.rate > 5ms"), 1, &["'exits.rate' is a plain number: compare it with 50k/s"]);
    says(&with("exits.rate"), 2, &["an operator is missing here"]);
    let done = with("exits.rate > 1 or exits.value >= 0");
    says(&done, 0, &["dumped ", "samples of"]);
    assert_eq!(read(&output).events.len(), 1);
    // The command of a dump has its path, and the condition.
    let (told, path) = (place.file("told"), place.file("y.arrows"));
    let command = format!("echo \"$VMSTROBE_DUMP $VMSTROBE_CAUSE\" > {told}");
    let when = ["--when", "exits.value >= 0", "--on-trigger", &command, "-d", "1s"];
    let line = [&["record", "--demo", "-o", &path, "--last", "5s"], &when[..]].concat();
    says(&vmstrobe(&line), 0, &["dumped "]);
    wait_for("the command", LIMIT, || fs::read(&told).is_ok_and(|told| !told.is_empty()));
    let told = fs::read_to_string(&told).expect("it is text");
    assert_eq!(told, format!("{path} exits.value >= 0\n"));
}

#[test]
fn what_cannot_be_written_is_refused_with_advice() {
    let Some(place) = Place::new() else { return };
    let output = place.file("run.arrows");
    fs::write(&output, "precious").expect("there is room");
    let record = |output: &str, args: &[&str]| {
        vmstrobe(&[&["record", "--demo", "-d", "200ms", "-o", output], args].concat())
    };
    says(&record(&output, &[]), 1, &["is there already", "--overwrite"]);
    assert_eq!(fs::read(&output).expect("it is there"), b"precious");
    says(&record(&output, &["--overwrite"]), 0, &["wrote "]);
    says(&record(&place.file("run.xyz"), &[]), 1, &["does not tell a format", ".arrows"]);
    says(&record(&place.file("no/run.arrows"), &[]), 1, &["there is no such file or directory"]);
    says(&vmstrobe(&["record", "--demo"]), 2, &["--output <FILE>"]);
    says(&record("x.csv", &["--last", "5s"]), 2, &["a flight recorder writes .arrows"]);
    // A flight recorder would find out when it is too late.
    for (name, why) in [("no/x.arrows", "No such file"), ("run.arrows/x.arrows", "a directory")] {
        let refused = record(&place.file(name), &["--last", "5s"]);
        says(&refused, 1, &["no dump can be written into the directory", why, "with -o"]);
    }
    for args in [&["--every", "1s"][..], &["--every", "1s", "--last", "5s"]] {
        says(&record(&place.file("e.arrows"), args), 2, &["--every thins .csv and .jsonl"]);
    }
}

#[test]
fn files_are_converted_and_repaired() {
    let Some(place) = Place::new() else { return };
    let (status, log) = place.start("run.arrows", &["-d", "1s"]).end();
    assert_eq!(status, Some(0), "{log}");
    let whole = fs::read(place.file("run.arrows")).expect("it is there");
    let samples = read(place.file("run.arrows")).ticks.len();
    let convert = |from: &str, to: &str, args: &[&str]| {
        let (from, to) = (place.file(from), place.file(to));
        vmstrobe(&[&["convert", &from, &to], args].concat())
    };
    for name in ["a.arrows", "a.csv", "a.jsonl", "a.pftrace"] {
        let done = convert("run.arrows", name, &[]);
        says(&done, 0, &["wrote "]);
        assert_eq!(number_before(&done.stderr, "samples"), samples as u64, "{done:?}");
    }
    let lines = fs::read_to_string(place.file("a.csv")).expect("it is text").lines().count();
    assert_eq!(lines, 1 + 4 * samples);
    says(&convert("run.arrows", "b.arrows", &["--names", "exits", "--vcpu", "2"]), 0, &[]);
    assert!(read(place.file("b.arrows")).ticks.values().all(|paths| paths.len() == 1));
    // Of 1 s, one sample of each 100 ms, in every format.
    for name in ["thin.arrows", "thin.csv", "thin.jsonl", "thin.parquet", "thin.pftrace"] {
        let done = convert("run.arrows", name, &["--every", "100ms"]);
        says(&done, 0, &["wrote "]);
        let written = number_before(&done.stderr, "samples");
        assert!((9..=12).contains(&written), "{done:?}");
        if name == "thin.arrows" {
            assert_eq!(read(place.file(name)).ticks.len() as u64, written);
        }
    }
    says(&convert("run.arrows", "c.arrows", &["--names", "exit"]), 1, &["did you mean 'exits'"]);
    // Torn within its last batch.
    fs::write(place.file("torn.arrows"), &whole[..whole.len() - 2000]).expect("there is room");
    let done = convert("torn.arrows", "good.arrows", &[]);
    says(&done, 0, &["is torn", "were cut off"]);
    let good = read(place.file("good.arrows"));
    assert!(
        good.end == Some(End::Finished) && good.ticks.len() < samples && !good.ticks.is_empty()
    );
    says(&convert("good.arrows", "good.arrows", &["--overwrite"]), 1, &["is the recording itself"]);
    says(&convert("none.arrows", "d.arrows", &[]), 1, &["there is no such file"]);
    fs::write(place.file("text.arrows"), "hello").expect("there is room");
    says(&convert("text.arrows", "d.arrows", &[]), 1, &["this is no recording"]);
}
