//! `stat`: over a command, over an interval, and beyond the end of the measured process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::time::Instant;

use vmstrobe_tests::command::spawn;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_kvm, require_lending_qemu};
use vmstrobe_tests::rig::show;

use crate::{LIMIT, fine, json, says, vmstrobe};

#[test]
fn stat_measures_for_as_long_as_the_command_runs() {
    if !require_kvm() {
        return;
    }
    let output = vmstrobe(&["stat", "--demo", "--json", "--", "sleep", "0.3"]);
    fine(&output);
    let lines: Vec<&str> = output.stdout.lines().collect();
    let [line] = lines[..] else { panic!("one line: {output:?}") };
    let report = json(line);
    let seconds = report["seconds"].as_f64().expect("the value is a number");
    assert!((0.3..15.0).contains(&seconds), "{seconds} s");
    let stats = report["stats"].as_array().expect("the value is a list");
    let exits = stats.iter().find(|stat| stat["name"] == "exits").expect("the list has the entry");
    assert!(exits["delta"].as_u64() > Some(100), "{exits}");
    let figure = |key: &str| exits[key].as_f64().expect("the value is a number");
    let (low, rate, high) = (figure("rate_low"), figure("rate"), figure("rate_high"));
    assert!(0.0 < low && low <= rate && rate <= high, "{exits}");
    let expected = figure("delta") / seconds;
    assert!((rate / expected - 1.0).abs() < 0.05, "{rate} is not {expected}");
}

#[test]
fn the_commands_status_is_passed_on() {
    if !require_kvm() {
        return;
    }
    let run = |command: &[&str]| {
        // Zeros are shown, because during so short a command the guest may do nothing.
        let args = ["stat", "--demo", "-z", "--names", "exits", "--"];
        vmstrobe(&[&args, command].concat())
    };
    for (command, code) in [
        (&["true"][..], 0),
        (&["false"], 1),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -9 $$"], 137),
    ] {
        let output = run(command);
        assert_eq!((output.code, &*output.stderr), (Some(code), ""), "{command:?}");
        assert!(output.stdout.contains("exits"), "{command:?}: {output:?}");
    }
    says(&run(&["vmstrobe-no-such-command"]), 127, &["cannot run 'vmstrobe-no-such-command'"]);
    says(&run(&["/dev/null"]), 126, &["cannot run '/dev/null'"]);
    // The output of the command comes first.
    let output = run(&["echo", "hello"]);
    assert!(output.stdout.starts_with("hello\n"), "{output:?}");
}

#[test]
fn intervals_are_a_line_each() {
    if !require_kvm() {
        return;
    }
    let args = ["stat", "--demo", "--json", "--names", "exits", "-i", "100", "-d", "1s"];
    let output = vmstrobe(&args);
    fine(&output);
    let reports: Vec<_> = output.stdout.lines().map(json).collect();
    assert!((3..=11).contains(&reports.len()), "{} lines", reports.len());
    let number = |at: usize, key: &str| reports[at][key].as_u64().expect("the value is an integer");
    for at in 1..reports.len() {
        // The sample that ends an interval begins the next one, so nothing is between them.
        let (begin, last_end) = (number(at, "begin_ns"), number(at - 1, "end_ns"));
        assert!(number(at - 1, "begin_ns") < begin && begin <= last_end, "{output:?}");
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let path = file.path().to_str().expect("the path is text");
    let output = vmstrobe(&["stat", "--demo", "-d", "200ms", "-o", path]);
    fine(&output);
    let written = fs::read_to_string(path).expect("the file has been written");
    assert!(output.stdout.is_empty() && written.contains("exits"), "{output:?}: {written}");
}

#[test]
fn a_vm_that_ends_is_reported_and_ends_the_run() {
    if !require_lending_qemu() {
        return;
    }
    let qemu = Qemu::start(&Config { name: "dying", vcpus: 2, ..Config::default() });
    let pid = qemu.pid().to_string();
    let mut child = spawn(&["stat", "-p", &pid, "-i", "50", "--json", "--names", "exits"]);
    let mut stdout = BufReader::new(child.stdout.take().expect("the child's stream is a pipe"));
    let mut line = String::new();
    for _ in 0..3 {
        line.clear();
        stdout.read_line(&mut line).expect("the child prints lines");
        assert_eq!(json(&line)["stats"][0]["name"], "exits", "{line}");
    }
    let killed = Instant::now();
    drop(qemu);
    let status = child.wait_within(LIMIT).expect("the process ends in time");
    let ended_after = killed.elapsed();
    let (mut rest, mut stderr) = (String::new(), String::new());
    stdout.read_to_string(&mut rest).expect("the output is text");
    let mut pipe = child.stderr.take().expect("the child's stream is a pipe");
    pipe.read_to_string(&mut stderr).expect("the output is text");
    show(&format!("stat of a QEMU that is killed ends {ended_after:?} later"));
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr, format!("vmstrobe: VM dying (pid {pid}) has ended\n"));
    rest.lines().for_each(|line| drop(json(line)));
}
