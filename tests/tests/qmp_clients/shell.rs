//! The shell: commands on its standard input, and its output.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::python::{python_program, require_qmp_library};

use crate::both;

const LIMIT: Duration = Duration::from_secs(30);

const COMMANDS: &str = r#"query-stats target=vm
query-stats target=vcpu providers=[{"provider":"kvm","names":["exits","halt_exits"]}]
query-stats target=nowhere
query-stats-schemas provider=kvm
human-monitor-command command-line="info stats vm" cpu-index=7
no-such-command
"#;

const HMP_COMMANDS: &str = "info stats vcpu exits\ninfo stats vm\ninfo stats vcpu exits,\
                            halt_exits kvm\ninfo stats nowhere\nno such command\n";

/// Runs `qmp-shell` with these lines as its standard input, and returns its standard output.
#[track_caller]
fn typed(socket: &Path, flags: &[&str], lines: &str) -> String {
    // The shell keeps its history in the home directory.
    let home = TempDir::new().expect("a temporary directory can be made");
    let path = |name| home.path().join(name);
    fs::write(path("lines"), lines).expect("the directory is writable");
    let create = |name| File::create(path(name)).expect("the directory is writable");
    let child = Command::new(python_program("qmp-shell"))
        .args(flags)
        .arg(socket)
        .env("HOME", home.path())
        .stdin(File::open(path("lines")).expect("the file has been written"))
        .stdout(create("stdout"))
        .stderr(create("stderr"))
        .spawn()
        .expect("the program can be executed");
    let status = Reaped(child).wait_within(LIMIT);
    let read = |name| fs::read_to_string(path(name)).expect("the output is text");
    let (stdout, stderr) = (read("stdout"), read("stderr"));
    let ended_well = status.is_some_and(|status| status.success()) && stderr.is_empty();
    assert!(ended_well, "{status:?}: {stdout}{stderr}");
    stdout
}

#[test]
fn the_shell_prints_what_it_prints_of_qemu() {
    if !require_qmp_library() {
        return;
    }
    let Some((observed, serve)) = both("shell") else { return };
    let theirs = typed(observed.socket(0), &[], COMMANDS);
    assert!(theirs.starts_with("Welcome to the QMP low-level shell!\nConnected to QEMU "));
    assert_eq!(theirs.matches("\"return\": ").count(), 3, "{theirs}");
    assert_eq!(theirs.matches("\"error\": ").count(), 3, "{theirs}");
    assert_eq!(typed(serve.socket(), &[], COMMANDS), theirs);
    let pretty = ["--pretty", "--verbose"];
    let theirs = typed(observed.socket(0), &pretty, COMMANDS);
    assert_eq!(typed(serve.socket(), &pretty, COMMANDS), theirs);
}

/// It asks for `help` and `info` first, to complete words, and does not show the answers.
#[test]
fn the_human_shell_prints_what_it_prints_of_qemu() {
    if !require_qmp_library() {
        return;
    }
    let Some((observed, serve)) = both("human") else { return };
    let theirs = typed(observed.socket(0), &["--hmp"], HMP_COMMANDS);
    assert!(theirs.contains("provider: kvm\r\n    exits (cumulative): "), "{theirs}");
    assert!(theirs.contains("invalid stats target nowhere"), "{theirs}");
    assert_eq!(typed(serve.socket(), &["--hmp"], HMP_COMMANDS), theirs);
}
