//! Signals of a terminal: of its keys, of its loss, and while it is stopped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use vmstrobe_tests::command::binary;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::terminal::terminal;

use super::{DEFAULT, SIGNALLED, SOON, Source, command, ready, runs};
use crate::LIMIT;

/// A run as the leader of a session whose terminal this is.
fn on(terminal: OwnedFd, args: &[&str]) -> Reaped {
    let side = || Stdio::from(terminal.try_clone().expect("there is a free descriptor"));
    let child = Command::new("setsid")
        .args([&["--ctty"][..], DEFAULT].concat())
        .arg(binary())
        .args(args)
        .env("TERM", "xterm")
        .stdin(side())
        .stdout(side())
        .stderr(side())
        .spawn();
    Reaped(child.expect("there is setsid(1)"))
}

/// Starts `stat` of this command in a terminal of its own, whose keyboard is its standard input.
///
/// The command takes the place of script(1)'s shell: a shell would receive Ctrl-C as well, and dash
/// would end by it whatever its child did.
fn in_a_terminal(source: &Source, command: &str) -> Reaped {
    let stat = format!("exec {} stat --table {} -z --", binary().display(), source.path);
    let script = ["script", "-qec", &format!("{stat} {command}"), "/dev/null"];
    let child = Command::new(DEFAULT[0])
        .args([&DEFAULT[1..], &script].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    Reaped(child.expect("there is env(1)"))
}

/// Ctrl-C in a terminal goes to all of its processes: vmstrobe does not pass it on to one that has
/// left the terminal.
#[test]
fn a_signal_of_the_terminal_is_not_passed_on_again() {
    let source = Source::new();
    for (command, status) in [("exec sleep 60", SIGNALLED + 2), ("exec setsid sleep 1", 0)] {
        let file = source.file("pid");
        let command = format!("sh -c 'echo $$ > {file}.new; mv {file}.new {file}; {command}'");
        let mut child = in_a_terminal(&source, &command);
        // A shell loses a signal that comes while it becomes the program.
        let name = format!("/proc/{}/comm", ready(&file));
        let is_program = || fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n");
        wait_for("the shell has become the program", LIMIT, is_program);
        let mut keyboard = child.stdin.take().expect("the child's stream is a pipe");
        keyboard.write_all(b"\x03").expect("the peer reads");
        let ended = child.wait_within(LIMIT).expect("the process ends in time");
        let mut said = String::new();
        let mut screen = child.stdout.take().expect("the child's stream is a pipe");
        screen.read_to_string(&mut said).expect("the output is text");
        assert_eq!(ended.code(), Some(status), "{command}: {said}");
        assert!(said.contains("1 queue over "), "{command}: {said}");
        fs::remove_file(file).expect("the file exists");
    }
}

/// The command may continue after Ctrl-C, as a shell or a debugger does.
#[test]
fn two_ctrl_c_of_a_terminal_do_not_kill_the_command() {
    let source = Source::new();
    let file = source.file("pid");
    let then = command(&file, "trap : INT");
    let command = format!("sh -c \"{then}; sleep 2; sleep 2; sleep 2; exit 7\"");
    let mut child = in_a_terminal(&source, &command);
    ready(&file);
    let mut keyboard = child.stdin.take().expect("the child's stream is a pipe");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(250));
        keyboard.write_all(b"\x03").expect("the peer reads");
    }
    let ended = child.wait_within(LIMIT).expect("the process ends in time");
    assert_eq!(ended.code(), Some(7), "the command ends by itself");
}

/// The kernel sends SIGHUP for a lost terminal to the leader of the session alone.
#[test]
fn a_lost_terminal_ends_the_command_and_the_report_is_in_the_file() {
    let source = Source::new();
    let [file, hung_up, report] = ["pid", "hung-up", "report"].map(|name| source.file(name));
    let then = format!("trap 'echo > {hung_up}; exit 7' HUP");
    let script = command(&file, &then) + "; while :; do sleep 0.05; done";
    let (ours, terminal) = terminal();
    let table = ["stat", "--table", &source.path, "-z", "-o", &report];
    let mut child = on(terminal, &[&table[..], &["--", "sh", "-c", &script]].concat());
    let pid = ready(&file);
    thread::sleep(Duration::from_millis(100));
    drop(ours);
    let ended = child.wait_within(SOON).expect("the process ends in time");
    assert_eq!(ended.code(), Some(7));
    assert!(Path::new(&hung_up).exists() && !runs(&pid));
    let report = fs::read_to_string(report).expect("the file is readable text");
    assert!(report.contains("1 queue over ") && report.contains("requests"), "{report}");
}

/// A stopped terminal (Ctrl-S) keeps the demo from handling the first signal.
#[test]
fn a_second_signal_ends_a_demo_whose_terminal_is_stopped() {
    let (ours, terminal) = terminal();
    let mut child = on(terminal, &["demo", "--vcpus", "1"]);
    let mut screen = File::from(ours);
    screen.read_exact(&mut [0]).expect("the terminal prints");
    screen.write_all(b"\x13").expect("the terminal takes input");
    thread::sleep(Duration::from_millis(600));
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("the process has not been reaped");
    assert_eq!(
        child.wait_within(Duration::from_millis(500)),
        None,
        "vmstrobe waits for the terminal"
    );
    kill_process(pid, Signal::TERM).expect("the process has not been reaped");
    let ended = child.wait_within(SOON).expect("the process ends in time");
    assert_eq!(ended.code(), Some(SIGNALLED + Signal::TERM.as_raw()));
}
