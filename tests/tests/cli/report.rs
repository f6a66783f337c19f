//! `report`: its numbers are those of `stat` over the same samples, whatever the form of the text,
//! and what could not be read is said.

use std::fs;

use serde_json::Value as Json;
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, spawn_unread};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::terminal::{COLUMNS, on_terminal};

use super::same::list;
use crate::{LIMIT, fine, json, says, vmstrobe};

/// A recording of the demo with a mark and a label, and two that are not whole.
pub(crate) struct Files {
    directory: TempDir,
    pub(crate) run: String,
    /// Its last batch is cut.
    pub(crate) torn: String,
    /// A message in its second half is damaged.
    pub(crate) damaged: String,
}

impl Files {
    /// Records the demo for a bit more than three seconds, so that a change has an error.
    pub(crate) fn new() -> Option<Self> {
        if !require_kvm() {
            return None;
        }
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let file = |name: &str| directory.path().join(name).display().to_string();
        let [run, torn, damaged] = ["run.arrows", "torn.arrows", "damaged.arrows"].map(file);
        let control = file("control");
        let line = ["record", "--demo", "-o", &run, "-d", "3400ms", "--label", "run=first"];
        let mut recorder = spawn_unread(&[&line[..], &["--control", &control]].concat());
        wait_for("the recorder listens", LIMIT, || fs::metadata(&control).is_ok());
        fine(&vmstrobe(&["mark", "--control", &control, "load | begins"]));
        let status = recorder.wait_within(LIMIT).expect("the recording ends");
        assert!(status.success(), "{status}");
        let mut bytes = fs::read(&run).expect("it is there");
        fs::write(&torn, &bytes[..bytes.len() - 2000]).expect("there is room");
        let half = bytes.len() / 2;
        // What follows the marker of a message is its length.
        let marker = bytes[half..].windows(4).position(|four| four == [0xff; 4]);
        let at = half + marker.expect("a message begins there");
        bytes[at + 8..at + 24].fill(0x7f);
        fs::write(&damaged, bytes).expect("there is room");
        Some(Self { directory, run, torn, damaged })
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

fn report(args: &[&str]) -> Output {
    vmstrobe(&[&["report"], args].concat())
}

fn only_report(output: &Output) -> Json {
    let all = json(&output.stdout);
    assert_eq!(list(&all["reports"]).len(), 1);
    all["reports"][0].clone()
}

#[test]
fn the_totals_are_those_of_stat() {
    let Some(files) = Files::new() else { return };
    let output = report(&[&files.run, "--json"]);
    fine(&output);
    let of_all = only_report(&output);
    let mut targets: Vec<&str> =
        list(&of_all["stats"]).iter().filter_map(|stat| stat["target"].as_str()).collect();
    targets.dedup();
    assert!(targets.len() > 1, "{targets:?}");
    for target in targets {
        let stat = vmstrobe(&["stat", "--replay", &files.run, "--json", "--target", target]);
        fine(&stat);
        let stat = json(&stat.stdout);
        for field in ["begin_ns", "end_ns", "begin_wall_ns", "seconds", "ticks", "missed_ticks"] {
            assert_eq!(stat[field], of_all[field], "{field}");
        }
        let is_its = |stat: &&Json| stat["target"] == target;
        let own: Vec<&Json> = list(&of_all["stats"]).iter().filter(is_its).collect();
        assert_eq!(own.len(), list(&stat["stats"]).len(), "{target}");
        for (own, want) in own.into_iter().zip(list(&stat["stats"])) {
            for (field, value) in want.as_object().expect("a statistic is an object") {
                assert_eq!(&own[field], value, "{field} of {}", want["name"]);
            }
        }
    }
    // A choice of statistics changes none of their numbers.
    let output = report(&[&files.run, "--json", "--names", "exits", "--target", "vcpu"]);
    let exits = only_report(&output)["stats"].clone();
    assert_eq!(list(&exits).len(), 1);
    assert!(list(&of_all["stats"]).contains(&exits[0]));
    // The bins of 10 ms are as many as the time has, and the mean lies within them.
    let bins = &exits[0]["bins"][0];
    let number = |of: &Json, field: &str| of[field].as_f64().expect("it is a number");
    let count = number(bins, "bins") + number(bins, "bins_without");
    let seconds = number(&of_all, "seconds");
    // Each is at least 9.5 ms long; ticks that are late make some longer.
    assert!((seconds / 0.02..=seconds / 0.0095 + 2.0).contains(&count), "{count} in {seconds} s");
    let rates = ["min", "p50", "p99", "max"].map(|field| number(bins, field));
    assert!(rates.is_sorted() && rates[0] <= number(&exits[0], "rate"), "{rates:?}");
}

#[test]
fn a_report_is_a_text_that_fits_the_terminal() {
    let Some(files) = Files::new() else { return };
    let output = report(&[&files.run]);
    fine(&output);
    let shown = on_terminal(LIMIT, &["report", &files.run]);
    assert_eq!(shown.code, Some(0));
    for text in [&output.stdout, &shown.stdout] {
        for part in ["4 vCPUs", "labels: run=first", "mark  load | begins", "over 10 ms", "exits"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.contains("vcpu: counts, per second") && text.contains("≤ "), "{text}");
    }
    let wide = shown.stdout.lines().map(str::trim_end);
    let wide: Vec<&str> =
        { wide }.filter(|line| line.chars().count() > usize::from(COLUMNS)).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    // What there is no room for is in a file.
    assert!(output.stdout.contains("busiest") && output.stdout.contains("vcpu[0]"));
    let markdown = files.path("run.md");
    fine(&report(&[&files.run, "--markdown", "-o", &markdown]));
    let markdown = fs::read_to_string(markdown).expect("it was written");
    assert!(markdown.contains("### vcpu: counts, per second\n\n| statistic | total |"));
    assert!(markdown.contains("load \\| begins"), "{markdown}");
    let zeros = report(&[&files.run, "-z"]).stdout;
    assert!(zeros.lines().count() > output.stdout.lines().count() + 10);
}

#[test]
fn two_recordings_are_compared() {
    let Some(files) = Files::new() else { return };
    let output = report(&[&files.run, &files.run]);
    fine(&output);
    assert!(output.stdout.contains("changes within their error"), "{}", output.stdout);
    assert!(output.stdout.contains("no statistic changed by more than its error"));
    let compared = json(&report(&[&files.run, &files.torn, "--json"]).stdout);
    let changes = list(&compared["comparison"]["changes"]);
    assert!(changes.iter().any(|change| change["name"] == "exits"));
    let order = ["beyond", "within", "unknown"];
    let verdicts: Vec<usize> = changes
        .iter()
        .filter_map(|change| order.iter().position(|verdict| change["verdict"] == *verdict))
        .collect();
    assert!(verdicts.len() == changes.len() && verdicts.is_sorted(), "{verdicts:?}");
    // Too short for an error.
    let short = files.path("short.arrows");
    let recorded = vmstrobe(&["record", "--demo", "-o", &short, "-d", "300ms", "--no-control"]);
    assert_eq!(recorded.code, Some(0), "{recorded:?}");
    let text = report(&[&short, &files.run]).stdout;
    assert!(text.contains("too short for an error: it takes 3 s of each recording"), "{text}");
}

#[test]
fn what_could_not_be_read_is_said() {
    let Some(files) = Files::new() else { return };
    let whole = only_report(&report(&[&files.run, "--json"]));
    let torn = report(&[&files.torn, "--json"]);
    says(&torn, 0, &["is torn", "were cut off"]);
    let damaged = report(&[&files.damaged, "--json"]);
    says(&damaged, 1, &["what stands behind the damage is not in the report"]);
    for (output, end) in [(&torn, "torn"), (&damaged, "damaged")] {
        let cut = only_report(output);
        assert_eq!(cut["end"], end);
        assert!(cut["ticks"].as_u64() < whole["ticks"].as_u64() && cut["ticks"] != 0);
    }
    assert_eq!(whole["end"], "finished");
    says(&report(&["/nonexistent.arrows"]), 1, &["there is no such file"]);
    let text = files.path("text.arrows");
    fs::write(&text, "hello").expect("there is room");
    says(&report(&[&text]), 1, &["this is no recording"]);
    says(&report(&[&files.run, "--names", "exit"]), 1, &["did you mean 'exits'"]);
    says(&report(&[&files.run, "-d", "1s"]), 2, &["cannot be used with"]);
}

#[test]
fn what_runs_is_reported() {
    if !require_kvm() {
        return;
    }
    let output = report(&["--demo", "-d", "500ms", "--json", "--names", "exits,halt_wait_hist"]);
    fine(&output);
    let live = only_report(&output);
    let seconds = live["seconds"].as_f64().expect("it is a number");
    assert!((0.5..5.0).contains(&seconds) && live["read"].is_object(), "{live}");
    assert!(live["file"].is_null() && live["end"].is_null());
    assert!(list(&live["stats"]).iter().any(|stat| stat["delta"].as_u64() > Some(0)), "{live}");
    let failed = report(&["--demo", "--target", "vcpu", "--", "sh", "-c", "sleep 0.3; exit 3"]);
    assert_eq!(failed.code, Some(3), "{failed:?}");
    assert!(failed.stdout.contains("vcpu: counts, per second"), "{failed:?}");
    says(&report(&["--demo", "--", "/nonexistent"]), 127, &["/nonexistent"]);
}
