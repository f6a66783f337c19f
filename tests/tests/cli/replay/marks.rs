//! Marks of a recording, as commands show them.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use vmstrobe_tests::command::spawn;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;

use crate::{LIMIT, fine, json, says, vmstrobe};

/// A mark is where it was made, and in what a recording is converted to.
#[test]
fn stat_shows_each_mark_at_its_time() {
    if !require_kvm() {
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let [run, control, parquet] = ["run.arrows", "control", "run.parquet"]
        .map(|name| directory.path().join(name).display().to_string());
    let line = ["record", "--demo", "-o", &run, "-d", "2s", "--control", &control];
    let mut recorder = spawn(&line);
    wait_for("it listens", LIMIT, || Qmp::connect(Path::new(&control)).is_ok());
    let mut times = Vec::new();
    for text in ["begin", "a\nb\u{1b}[2J"] {
        let marked = vmstrobe(&["mark", "--control", &control, "--json", text]);
        fine(&marked);
        times.push(json(&marked.stdout)["wall_ns"].as_u64().expect("it is a time"));
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(recorder.wait_within(LIMIT).is_some_and(|status| status.success()));
    says(&vmstrobe(&["convert", &run, &parquet]), 0, &["samples and 2 events"]);
    for path in [&run, &parquet] {
        let output = vmstrobe(&["stat", "--replay", path, "-i", "100", "--names", "exits"]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let lines: Vec<&str> = output.stdout.lines().collect();
        let at = |line: &str| line.split_whitespace().next().and_then(|at| at.parse::<f64>().ok());
        let marks = [0, 1].map(|mark| {
            let text = ["  mark: begin", "  mark: a\u{fffd}b\u{fffd}[2J"][mark];
            let index = lines
                .iter()
                .position(|line| line.ends_with(text))
                .unwrap_or_else(|| panic!("no {text} in {lines:#?}"));
            let time = at(lines[index]).expect("the line begins with a time");
            // It stands between the interval that ended before it and its own.
            let later = lines[index + 1..].iter().find_map(|line| at(line));
            let before = lines[..index].iter().rev().find_map(|line| at(line));
            assert!(later.is_none_or(|end| end >= time), "{time}: {lines:#?}");
            assert!(before.is_none_or(|end| end <= time), "{time}: {lines:#?}");
            time
        });
        let apart = (times[1] - times[0]) as f64 * 1e-9;
        assert!((marks[1] - marks[0] - apart).abs() < 0.002, "{marks:?} {times:?}");
        let whole = vmstrobe(&["stat", "--replay", path]).stdout;
        assert!(whole.contains(&format!("mark at {:.3} s: begin", marks[0])), "{whole}");
        let report = json(vmstrobe(&["stat", "--replay", path, "--json"]).stdout.trim_end());
        let seen = |field: &str| {
            report["events"]
                .as_array()
                .map(|all| all.iter().map(|event| event[field].clone()).collect::<Vec<_>>())
        };
        assert_eq!(seen("text"), Some(vec![json!("begin"), json!("a\nb\u{1b}[2J")]));
        assert_eq!(seen("wall_ns"), Some(times.iter().map(|time| json!(time)).collect()));
    }
}
