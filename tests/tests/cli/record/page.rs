//! docs/recordings.md: each of its snippets is run on a recording of the command, and gives all
//! that was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};
use vmstrobe::{Replay, Replayed};
use vmstrobe_tests::command::{binary, run_within};
use vmstrobe_tests::python::{python_program, require_readers};
use vmstrobe_tests::rig::wait_for;

use super::Place;
use crate::{LIMIT, fine, vmstrobe};

/// The longest time for all snippets.
const SNIPPETS_LIMIT: Duration = Duration::from_secs(180);
/// The text of a mark in the recording.
const MARK: &str = "migration begins";

/// Returns the code of the page that is in these languages, each block with its language.
fn blocks(languages: &[&str]) -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recordings.md");
    let text = fs::read_to_string(path).expect("the page can be read");
    // What stands before the first fence and between two blocks has even numbers.
    let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| {
        let (language, code) = block.split_once('\n')?;
        languages.contains(&language).then(|| (language.to_owned(), code.to_owned()))
    });
    blocks.collect()
}

/// Runs a line of the page in a directory.
#[track_caller]
fn run_line(line: &str, directory: &Path) {
    let command = line.split('#').next().unwrap_or_default();
    let command = command.strip_prefix("vmstrobe ").expect("the line runs vmstrobe");
    let script = format!("cd \"$0\" && \"$1\" {command}");
    let paths = [directory, binary()].map(|path| path.to_str().expect("the path is text"));
    let done = run_within(LIMIT, "sh", &["-c", &script, paths[0], paths[1]]);
    assert_eq!(done.code, Some(0), "{line}: {done:?}");
}

/// Returns the number of samples, the number of rows, and the values of `exits` by their path.
fn recorded(path: &Path) -> (usize, usize, BTreeMap<String, Vec<u64>>) {
    let (mut samples, mut rows, mut exits) = (0, 0, BTreeMap::<String, Vec<u64>>::new());
    let replay = Replay::open(path).expect("it is a recording");
    let end = replay.run(|replayed| {
        let Replayed::Sample(sample) = replayed else { return Ok(true) };
        samples += 1;
        rows += sample.objects().count();
        for (view, value) in sample.stat("exits") {
            let number = value.number().expect("it is a number");
            exits.entry(view.object().path.to_string()).or_default().push(number);
        }
        Ok(true)
    });
    assert!(end.expect("it is whole").is_some());
    (samples, rows, exits)
}

#[test]
fn each_snippet_of_the_page_gives_all_that_was_recorded() {
    let Some(place) = Place::new() else { return };
    if !require_readers() {
        return;
    }
    let directory = place.0.path();
    let [run, control, log] = ["run.arrows", "control", "run.hlog"].map(|name| place.file(name));
    let recorder = ["--control", &control, "--histlog", &log, "-d", "2s"];
    let mut recorder = place.start_all("run.arrows", &recorder);
    wait_for("it listens", LIMIT, || fs::metadata(&control).is_ok());
    fine(&vmstrobe(&["mark", "--control", &control, MARK]));
    let (status, said) = recorder.end();
    assert_eq!(status, Some(0), "{said}");

    let mut converted = 0;
    for line in blocks(&["sh"]).iter().flat_map(|(_, code)| code.lines()) {
        if line.contains(" record ") {
            let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
            let line = line.replace("-p PID", "--demo").replace("--all", "--demo");
            run_line(&line.replace("-d 10s", "-d 300ms"), elsewhere.path());
        } else {
            run_line(line, directory);
            converted += 1;
        }
    }
    assert!(converted >= 5, "{converted} conversions");
    let (samples, rows, exits) = recorded(Path::new(&run));
    let csv = fs::read_to_string(place.file("run.csv")).expect("it is text");
    let ticks = csv.lines().skip(1).filter(|line| line.contains("/vcpu[0],")).count();
    assert!((15..=25).contains(&ticks), "{ticks} samples of 2 s, one each 100 ms");
    let snippets: Vec<Json> = blocks(&["python", "sql"])
        .into_iter()
        .map(|(language, code)| json!([language, code]))
        .collect();
    let facts = json!({
        "snippets": snippets,
        "samples": samples,
        "rows": rows,
        "every": ticks,
        "marks": [MARK],
        "exits": exits,
    });
    fs::write(place.file("facts.json"), facts.to_string()).expect("there is room");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/page.py");
    let python = python_program("python3");
    let paths = [directory, &python, &script].map(|path| path.to_str().expect("it is text"));
    let line = "cd \"$0\" && \"$1\" \"$2\" facts.json";
    let done = run_within(SNIPPETS_LIMIT, "sh", &["-c", line, paths[0], paths[1], paths[2]]);
    assert_eq!(done.code, Some(0), "{done:?}");
    println!("{}", done.stdout);
}

#[test]
fn every_fence_of_the_page_is_code_that_is_known() {
    let known = ["python", "sql", "sh", ""];
    let all = blocks(&known).len();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/recordings.md");
    let text = fs::read_to_string(path).expect("the page can be read");
    assert_eq!(all, text.lines().filter(|line| line.starts_with("```")).count() / 2);
    // Queries of metriken-query, which tests/metriken runs.
    assert_eq!(blocks(&[""]).len(), 1);
}
