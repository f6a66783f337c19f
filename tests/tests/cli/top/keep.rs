//! The keys that keep something: marks, files, a baseline; the sampling rate; the end.

use std::fs;

use vmstrobe_tests::command::vmstrobe;

use super::demo;

/// The keys of the help that are tested here.
pub(super) const KEYS: &[&str] = &["m", "D", "r", "s", "q"];

#[test]
fn a_moment_is_marked() {
    let Some(tmux) = demo("") else { return };
    tmux.text("m");
    tmux.wait_for("a text or none; Enter marks");
    tmux.keys(&["Escape"]);
    tmux.wait_for("? help");
    tmux.text("m");
    tmux.wait_for("mark:");
    tmux.text("benchmark begins");
    tmux.keys(&["Enter"]);
    tmux.wait_for("marked ");
    // It is in the chart, with its text on the left of its line, and later on the right.
    tmux.wait("the mark in the chart", |screen| {
        let is_label = |line: &String| {
            line.contains("benchmark begins m") || line.contains("m benchmark begins")
        };
        screen.iter().any(is_label)
    });
}

#[test]
fn the_last_samples_are_written_to_a_file() {
    let Some(tmux) = demo("") else { return };
    tmux.text("m");
    tmux.text("before");
    tmux.keys(&["Enter"]);
    tmux.wait_for("marked ");
    tmux.text("D");
    let screen = tmux.wait_for(" written to demo-");
    let line = screen.last().expect("a screen has lines");
    let (_, rest) = line.split_once(" written to ").expect("the message");
    let name = rest.split([',', ' ']).next().expect("the name of the file");
    let path = tmux.directory().join(name);
    assert!(name.ends_with(".arrows") && !name.contains('/'), "{line}");
    let read = vmstrobe(&["stat", "--replay", &path.display().to_string(), "--names", "exits"]);
    assert_eq!(read.code, Some(0), "{read:?}");
    assert!(read.stdout.contains("exits"), "{read:?}");
    // Another one gets another name.
    tmux.text("D");
    tmux.wait("a second file", |_| {
        let files = fs::read_dir(tmux.directory()).expect("the directory can be read");
        let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".arrows")).count() == 2
    });
}

#[test]
fn changes_are_counted_from_now_on() {
    let Some(tmux) = demo("") else { return };
    tmux.text("r");
    tmux.wait_for("d shows the changes from now on");
    tmux.text("d");
    let screen = tmux.wait_for("changes since the baseline");
    assert!(screen[0].contains("vmstrobe top"), "{screen:?}");
    let exits = |screen: &[String]| {
        let row = screen.iter().find(|line| line.contains("demo")).expect("the VM has a row");
        let words: Vec<&str> = row.split_whitespace().collect();
        let number: f64 = words[2].parse().expect("a number");
        if words[3] == "k" { number * 1000.0 } else { number }
    };
    tmux.wait("they grow", |screen| exits(screen) > 20_000.0);
    tmux.text("r");
    tmux.wait("they begin anew", |screen| exits(screen) < 15_000.0);
    tmux.text("d");
    tmux.wait("totals", |screen| screen[0].contains("totals") && exits(screen) > 20_000.0);
    tmux.text("d");
    tmux.wait("rates", |screen| !screen[0].contains("totals"));
}

#[test]
fn the_rate_of_sampling_is_changed() {
    let Some(tmux) = demo("") else { return };
    tmux.wait_for("at 250 Hz");
    tmux.text("s");
    tmux.wait_for("samples a second:");
    tmux.text("fast");
    tmux.keys(&["Enter"]);
    tmux.wait_for("'fast' is not a rate");
    tmux.keys(&["C-u"]);
    tmux.text("200");
    tmux.keys(&["Enter"]);
    tmux.wait_for("sampling at 200 Hz from now on");
    tmux.wait_for("at 200 Hz");
}

#[test]
fn it_ends() {
    for key in ["q", "C-c"] {
        let Some(tmux) = demo("; echo status $?; read x") else { return };
        tmux.keys(&[key]);
        tmux.wait_for("status 0");
    }
}
