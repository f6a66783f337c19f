//! `vmstrobe dump` and `vmstrobe mark` with recorders that run, and QMP clients of a recorder's
//! socket.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use vmstrobe::export::{ArrowsReader, Event, Item};
use vmstrobe_tests::command::spawn_unread;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;

use crate::{LIMIT, fine, says, vmstrobe};

mod users;

/// Dumps of a recorder in a row.
const DUMPS: usize = 200;
/// A text that a terminal would obey.
const HOSTILE: &str = "a\nvmstrobe: b\u{1b}[2J\u{202e}'\"{}";

/// A recorder of the demo's guest, with a control socket in a directory of the test.
struct Recorder {
    child: Reaped,
    directory: TempDir,
}

impl Recorder {
    fn start(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = |name: &str| text(&directory.path().join(name));
        let (control, output) = (path("control"), path("{vm}-{trigger}.arrows"));
        let line = ["record", "--demo", "--control", &control, "-o", &output];
        let child = spawn_unread(&[&line, args].concat());
        let recorder = Self { child, directory };
        wait_for("it listens", LIMIT, || Qmp::connect(&recorder.path("control")).is_ok());
        recorder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn control(&self) -> String {
        text(&self.path("control"))
    }

    /// Ends the recording, and returns what was said.
    #[track_caller]
    fn end(&mut self) -> String {
        end(&mut self.child, Signal::TERM)
    }
}

#[track_caller]
fn end(child: &mut Reaped, signal: Signal) -> String {
    kill_process(Pid::from_child(child), signal).expect("it has not been reaped");
    let status = child.wait_within(LIMIT).expect("it ends in time");
    assert_eq!(status.success(), signal == Signal::TERM, "{status}");
    let mut said = String::new();
    let stderr = child.stderr.as_mut().expect("the stream is a pipe");
    stderr.read_to_string(&mut said).expect("the output is text");
    said
}

fn text(path: &Path) -> String {
    path.to_str().expect("the path is text").to_owned()
}

/// Returns the ticks and the events of a file.
fn read(path: &Path) -> (BTreeSet<u64>, Vec<Event>) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut reader = ArrowsReader::new(file).expect("it is a recording");
    let (mut ticks, mut events) = (BTreeSet::new(), Vec::new());
    while let Some(item) = reader.next_item().expect("it is whole") {
        match item {
            Item::Event(event) => events.push(event),
            Item::Batch(batch) => {
                let mut rows = batch.by_tick();
                while let Some(row) = rows.next() {
                    assert!(ticks.insert(row.tick), "tick {} twice", row.tick);
                }
            }
        }
    }
    (ticks, events)
}

#[test]
fn dumps_in_a_row_overlap_and_lose_nothing() {
    if !require_kvm() {
        return;
    }
    let mut recorder = Recorder::start(&["--last", "2s", "--names", "exits"]);
    let (control, output) = (recorder.control(), text(&recorder.path("dump.arrows")));
    let mut before: Option<BTreeSet<u64>> = None;
    for number in 1..=DUMPS {
        let dumped = vmstrobe(&["dump", "--control", &control, "--last", "1s", "-o", &output]);
        fine(&dumped);
        // Files of one name are numbered.
        let name = if number == 1 { "dump.arrows".into() } else { format!("dump-{number}.arrows") };
        let path = recorder.path(&name);
        assert!(dumped.stdout.starts_with(&format!("{}: ", path.display())), "{dumped:?}");
        let (ticks, _) = read(&path);
        if let Some(before) = before {
            let first = *ticks.first().expect("a dump has samples");
            let last = *before.last().expect("a dump has samples");
            assert!(first <= last, "dump {number} begins at {first}, behind {last}");
            assert!(ticks.range(..=last).eq(before.range(first..)), "dump {number}");
        }
        before = Some(ticks);
    }
    let said = recorder.end();
    assert!(said.contains(" at 1 kHz (0 lost, "), "{said}");
    assert_eq!(said.matches(" on command: ").count(), DUMPS, "{said}");
    assert!(!recorder.path("control").exists());
}

#[test]
fn a_mark_is_in_the_file_and_in_the_log() {
    if !require_kvm() {
        return;
    }
    let mut recorder = Recorder::start(&[]);
    let control = recorder.control();
    for mark in ["begin", HOSTILE] {
        let marked = vmstrobe(&["mark", "--control", &control, mark]);
        fine(&marked);
        assert!(marked.stdout.starts_with("marked the recording at "), "{marked:?}");
    }
    let long = "x".repeat(66_000);
    let refused = vmstrobe(&["mark", "--control", &control, &long]);
    says(&refused, 1, &["is not marked: the number of bytes of a mark is 66000"]);
    let refused = vmstrobe(&["dump", "--control", &control]);
    says(&refused, 1, &["only a flight recorder can dump"]);
    let said = recorder.end();
    assert!(said.contains(": begin\n"), "{said}");
    let shown = "Z: a\u{fffd}vmstrobe: b\u{fffd}[2J\u{fffd}'\"{}\n";
    assert!(said.contains(shown), "{said}");
    let (_, events) = read(&recorder.path("{vm}-{trigger}.arrows"));
    assert_eq!(events.iter().map(|event| &*event.text).collect::<Vec<_>>(), ["begin", HOSTILE]);
}

#[test]
fn a_qmp_client_dumps_marks_and_queries() {
    if !require_kvm() {
        return;
    }
    let mut recorder = Recorder::start(&["--last", "10s"]);
    let mut qmp = Qmp::connect(&recorder.path("control")).expect("it listens");
    let commands = qmp.execute("query-commands", json!({}));
    assert_eq!(commands[0]["name"], "stats-mark");
    assert_eq!(commands[1]["name"], "stats-dump");
    let vcpus = qmp.execute("query-stats", json!({"target": "vcpu"}));
    assert_eq!(vcpus.as_array().map(Vec::len), Some(4));
    let marked = qmp.execute("stats-mark", json!({"text": HOSTILE}));
    let path = recorder.path("by-hand.arrows");
    let asked = json!({"last-ns": 1_000_000_000, "filename": path});
    let dumped = qmp.execute("stats-dump", asked);
    let file = &dumped["files"][0];
    assert_eq!(file["filename"], text(&path));
    let (ticks, events) = read(&path);
    assert_eq!(file["samples"], ticks.len());
    assert_eq!(file["bytes"], fs::metadata(&path).expect("it is there").len());
    assert_eq!((&*events[0].text, &json!(events[0].wall_ns())), (HOSTILE, &marked["wall-ns"]));
    let relative = r#"{"execute": "stats-dump", "arguments": {"filename": "a.arrows"}}"#;
    let refused = qmp.exchange(relative).expect("it answers");
    let want = "Parameter 'filename' expects an absolute path";
    assert_eq!(refused["error"]["desc"], want);
    recorder.end();
}
