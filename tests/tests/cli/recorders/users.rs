//! Recorders of a user: how they are found, what they leave behind, and who is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;
use vmstrobe_tests::command::Output;
use vmstrobe_tests::process::Reaped;
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::wait_for;

use super::{Recorder, end, text};
use crate::{LIMIT, Nobody, fine, require_root, says, vmstrobe};

/// A user with a directory for sockets: user 65534 if the tests run as root, whose own directory
/// has the recorders of this machine.
struct User {
    nobody: Nobody,
    runtime: TempDir,
}

impl User {
    const WRAPPER: [&str; 6] = Nobody::WRAPPER;

    fn new() -> Self {
        let runtime = tempfile::tempdir().expect("a temporary directory can be made");
        if geteuid().is_root() {
            chown(runtime.path(), Some(65534), Some(65534)).expect("root may");
        }
        Self { nobody: Nobody::new(), runtime }
    }

    fn wrapper(&self) -> Vec<String> {
        let user = if geteuid().is_root() { &Self::WRAPPER[..] } else { &[] };
        let runtime = format!("XDG_RUNTIME_DIR={}", self.runtime.path().display());
        user.iter().copied().chain(["env", &runtime]).map(str::to_owned).collect()
    }

    #[track_caller]
    fn vmstrobe(&self, args: &[&str]) -> Output {
        let wrapper = self.wrapper();
        self.nobody.by(&wrapper.iter().map(String::as_str).collect::<Vec<_>>(), args)
    }

    /// Starts a recorder of its own statistics, and waits until it listens.
    fn record(&self, args: &[&str]) -> Reaped {
        let wrapper = self.wrapper();
        let child = Command::new(&wrapper[0])
            .args(&wrapper[1..])
            .arg(&self.nobody.binary)
            .args(["record", "--target", "sampler", "--last", "5s"])
            .args(args)
            .current_dir(self.runtime.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be executed");
        let child = Reaped(child);
        if args.is_empty() {
            let socket = self.socket(&child);
            wait_for("it listens", LIMIT, || Qmp::connect(&socket).is_ok());
        }
        child
    }

    fn directory(&self) -> PathBuf {
        self.runtime.path().join("vmstrobe-record")
    }

    fn socket(&self, child: &Reaped) -> PathBuf {
        self.directory().join(format!("record-{}.sock", child.id()))
    }
}

#[test]
fn recorders_are_found_by_their_user() {
    let user = User::new();
    let none = user.vmstrobe(&["dump"]);
    says(&none, 1, &["no recorder of this user runs: start one with `vmstrobe record`"]);
    says(&user.vmstrobe(&["mark", "x"]), 1, &["no recorder of this user runs"]);
    let mut first = user.record(&[]);
    let mode = fs::metadata(user.directory()).expect("it was made").permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let dumped = user.vmstrobe(&["dump", "--last", "1s"]);
    fine(&dumped);
    assert!(dumped.stdout.contains("vm-") && dumped.stdout.contains(" samples of "), "{dumped:?}");
    let mut second = user.record(&[]);
    let [one, two] = [&first, &second].map(|child| child.id().to_string());
    let several = user.vmstrobe(&["dump"]);
    let list = ["several recorders run: choose one of these with -p\n", &one, &two, "sampler"];
    says(&several, 1, &list);
    let output = text(&user.runtime.path().join("second.arrows"));
    fine(&user.vmstrobe(&["dump", "-p", &two, "-o", &output]));
    says(&user.vmstrobe(&["dump", "-p", "1"]), 1, &["pid 1 is no recorder of this user: these"]);
    let marked = user.vmstrobe(&["mark", "both"]);
    fine(&marked);
    for pid in [&one, &two] {
        let line = format!("marked the recording of pid {pid} at 2");
        assert!(marked.stdout.contains(&line), "{marked:?}");
    }
    assert!(end(&mut second, Signal::TERM).contains(&format!("dumped {output} on command: ")));
    fine(&user.vmstrobe(&["dump"]));
    assert!(end(&mut first, Signal::TERM).contains(": both\n"));
    let left = fs::read_dir(user.directory()).expect("it stays").count();
    assert_eq!(left, 0);
}

#[test]
fn a_socket_of_a_killed_recorder_is_replaced_by_the_next() {
    let user = User::new();
    let mut killed = user.record(&[]);
    let stale = user.socket(&killed);
    end(&mut killed, Signal::KILL);
    assert!(stale.exists());
    let mut next = user.record(&[]);
    assert!(!stale.exists());
    fine(&user.vmstrobe(&["mark", "x"]));
    let stale = user.socket(&next);
    end(&mut next, Signal::KILL);
    says(&user.vmstrobe(&["mark", "x"]), 1, &["no recorder of this user runs"]);
    assert!(!stale.exists());
    // At a path that was named, too.
    let path = user.runtime.path().join("control");
    let line = ["--control", path.to_str().expect("the path is text")];
    for signal in [Signal::KILL, Signal::TERM] {
        let mut named = user.record(&line);
        wait_for("it listens", LIMIT, || Qmp::connect(&path).is_ok());
        end(&mut named, signal);
        assert_eq!(path.exists(), signal == Signal::KILL);
    }
}

#[test]
fn a_recorder_that_cannot_listen_records_and_says_so() {
    let user = User::new();
    fs::write(user.directory(), "").expect("the path is free");
    let deaf = "`vmstrobe mark` cannot reach this recorder, which records all the same: ";
    let dump = user.runtime.path().join("x.arrows").display().to_string();
    let record = |args: &[&str]| {
        let line = ["record", "--target", "sampler", "--last", "5s", "-d", "200ms", "-o", &dump];
        user.vmstrobe(&[&line, args].concat())
    };
    says(&record(&[]), 0, &[deaf, "vmstrobe-record is not a directory: remove it", "ended after"]);
    let silent = record(&["--no-control"]);
    says(&silent, 0, &["ended after"]);
    assert!(!silent.stderr.contains("cannot reach"), "{silent:?}");
    says(&user.vmstrobe(&["mark", "x"]), 1, &["vmstrobe-record is not a directory: remove it"]);
    fs::remove_file(user.directory()).expect("it is ours");
    fs::create_dir(user.directory()).expect("the path is free");
    fs::set_permissions(user.directory(), Permissions::from_mode(0o777)).expect("it is ours");
    if geteuid().is_root() {
        says(&record(&[]), 0, &[deaf, "belongs to user 0: remove it", "ended after"]);
        chown(user.directory(), Some(65534), None).expect("root may");
    }
    says(&record(&[]), 0, &[deaf, "may be written by other users (mode 777)", "ended after"]);
    // A path that was named is meant.
    let taken = text(&user.directory());
    let named = record(&["--control", &taken]);
    says(&named, 1, &["is there and no socket: give another path"]);
}

#[test]
fn another_user_is_refused_and_root_is_not() {
    if !require_root() || !require_kvm() {
        return;
    }
    let nobody = Nobody::new();
    let mut recorder = Recorder::start(&["--last", "5s"]);
    let control = recorder.control();
    let refused = |why: &str| {
        for line in [&["dump", "--control", &control][..], &["mark", "--control", &control, "x"]] {
            says(&nobody.vmstrobe(line), 1, &[why]);
        }
    };
    refused("Permission denied");
    // Whatever the file says.
    fs::set_permissions(recorder.directory.path(), Permissions::from_mode(0o755)).expect("ours");
    fs::set_permissions(&control, Permissions::from_mode(0o666)).expect("it is ours");
    refused("only the user of the process that listens here, and root, may ask it");
    assert!(!recorder.end().contains("marked"));

    let user = User::new();
    let mut theirs = user.record(&[]);
    let socket = text(&user.socket(&theirs));
    fine(&vmstrobe(&["mark", "--control", &socket, "by root"]));
    let output = text(&user.runtime.path().join("asked.arrows"));
    fine(&vmstrobe(&["dump", "--control", &socket, "-o", &output]));
    // With the recorder's rights.
    let forbidden = tempfile::tempdir().expect("a temporary directory can be made");
    let output = text(&forbidden.path().join("asked.arrows"));
    let denied = vmstrobe(&["dump", "--control", &socket, "-o", &output]);
    says(&denied, 1, &["asked.arrows: Permission denied"]);
    assert!(end(&mut theirs, Signal::TERM).contains(": by root\n"));
}
