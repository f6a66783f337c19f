//! The command as its users meet it: exit statuses, what goes where, and what it says when
//! something is not as it should be. The real binary, real virtual machines, real tables.

mod cli {
    mod bpf;
    mod attach;
    mod container;
    mod demo;
    mod endings;
    mod extremes;
    mod foreign;
    mod json_fields;
    mod output;
    mod privileges;
    mod qmp;
    mod record;
    mod recorders;
    mod refusals;
    mod replay;
    mod report;
    mod rights;
    mod same;
    mod sched;
    mod signals;
    mod stat;
    mod tables;
    mod top;
    mod usage;
}

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::geteuid;
use serde_json::Value as Json;
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, RUN_LIMIT, binary, run_within};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require, require_lending_qemu};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs vmstrobe with these arguments, and checks that it does not panic.
#[track_caller]
fn vmstrobe(args: &[&str]) -> Output {
    under(&[], args)
}

/// Runs another program that runs vmstrobe: `setpriv`, `unshare`, a shell.
#[track_caller]
fn under(wrapper: &[&str], args: &[&str]) -> Output {
    let path = binary().to_str().expect("the path is text");
    let line = [wrapper, &[path], args].concat();
    let output = run_within(RUN_LIMIT, line[0], &line[1..]);
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains("panicked"), "{line:?}: {output:?}");
    }
    output
}

/// Checks that the command ended with that status and printed these parts on standard error, each
/// message in a line of its own.
#[track_caller]
fn says(output: &Output, code: i32, parts: &[&str]) {
    assert_eq!(output.code, Some(code), "{output:?}");
    for part in parts {
        assert!(output.stderr.contains(part), "`{part}` is not in: {output:?}");
    }
    if !parts.is_empty() {
        assert!(output.stderr.starts_with("vmstrobe: "), "{output:?}");
    }
}

/// Checks that the command ended with success and printed no message.
#[track_caller]
fn fine(output: &Output) {
    assert_eq!((output.code, &*output.stderr), (Some(0), ""), "{output:?}");
}

#[track_caller]
fn json(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Starts a stopped QEMU that can be read, and returns it with its process id as an argument;
/// `None` if there is none.
fn paused_qemu(name: &str, vcpus: u32) -> Option<(Qemu, String)> {
    if !require_lending_qemu() {
        return None;
    }
    let qemu = Qemu::start(&Config { name, vcpus, paused: true, ..Config::default() });
    let pid = qemu.pid().to_string();
    Some((qemu, pid))
}

/// Requires root, for tests that become another user or change what they can see.
fn require_root() -> bool {
    let root = geteuid().is_root();
    require("root", if root { Ok(()) } else { Err("this takes user id 0".to_owned()) })
}

/// A copy of vmstrobe that any user may run, to be run as user 65534 without capabilities.
struct Nobody {
    _directory: TempDir,
    binary: PathBuf,
}

impl Nobody {
    const WRAPPER: [&str; 6] =
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"];

    fn new() -> Nobody {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let all_may = fs::Permissions::from_mode(0o755);
        fs::set_permissions(directory.path(), all_may).expect("this user owns the file");
        let binary = directory.path().join("vmstrobe");
        fs::copy(vmstrobe_tests::command::binary(), &binary).expect("the directory is writable");
        Nobody { _directory: directory, binary }
    }

    #[track_caller]
    fn vmstrobe(&self, args: &[&str]) -> Output {
        self.by(&Self::WRAPPER, args)
    }

    /// Runs vmstrobe with these capabilities, in the syntax of `setpriv`: `+sys_ptrace,+bpf`.
    #[track_caller]
    fn vmstrobe_with(&self, capabilities: &str, args: &[&str]) -> Output {
        let [inheritable, ambient] =
            ["inh", "ambient"].map(|set| format!("--{set}-caps=-all,{capabilities}"));
        let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        self.by(&[&user[..], &[&inheritable, &ambient, "--"]].concat(), args)
    }

    /// Runs another program that runs the copy.
    #[track_caller]
    fn by(&self, wrapper: &[&str], args: &[&str]) -> Output {
        let path = self.binary.to_str().expect("the path is text");
        let line = [wrapper, &[path], args].concat();
        let output = run_within(RUN_LIMIT, line[0], &line[1..]);
        assert!(!output.stderr.contains("panicked"), "{output:?}");
        output
    }
}
