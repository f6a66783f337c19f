//! A command that root runs opens what only root may open, although its threads have no
//! capabilities; and what it executes has them all.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::CapabilitySet;
use tempfile::TempDir;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::{require_kvm, require_lending_qemu};
use vmstrobe_tests::serve::Serve;

use crate::{LIMIT, Nobody, fine, require_root, vmstrobe};

/// The number of the user nobody.
const NOBODY: u32 = 65534;

/// Makes a directory with these files, owned by [`NOBODY`] and closed to all others but root.
fn home(files: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let home = directory.path().join("home");
    fs::create_dir(&home).expect("the directory is writable");
    for (name, text) in files {
        let path = home.join(name);
        fs::write(&path, text).expect("the directory is writable");
        close(&path);
    }
    close(&home);
    (directory, home)
}

/// Gives the path to [`NOBODY`], and closes it to all others but root.
fn close(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o700)).expect("this user owns the file");
    chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

#[test]
fn root_writes_and_runs_where_only_root_may() {
    if !require_root() || !require_kvm() {
        return;
    }
    let (_directory, home) = home(&[("run", "#!/bin/sh\necho ran\n")]);
    let (program, report) = (home.join("run"), home.join("report"));
    let args = ["stat", "--demo", "--names", "exits", "-o", text(&report), "--", text(&program)];
    let output = vmstrobe(&args);
    fine(&output);
    assert_eq!(output.stdout, "ran\n");
    let report = fs::read_to_string(report).expect("the file has been written");
    assert!(report.contains(" exits "), "{report}");
}

#[test]
fn root_asks_at_a_socket_where_only_root_may() {
    if !require_root() || !require_lending_qemu() {
        return;
    }
    let (_directory, home) = home(&[]);
    let socket = home.join("qmp");
    let qmp = format!("unix:{},server=on,wait=off", text(&socket));
    let extra = ["-qmp", &qmp];
    let _qemu = Qemu::start(&Config { name: "asked", paused: true, extra: &extra, vcpus: 1 });
    chown(&socket, Some(NOBODY), Some(NOBODY)).expect("root may");
    let output = vmstrobe(&["query", "--from-qmp", text(&socket), "--names", "exits", "--json"]);
    fine(&output);
    assert!(output.stdout.contains("\"exits\""), "{output:?}");
}

/// A program that prints the sets of capabilities of its process.
const ASK: [&str; 3] = ["grep", "^Cap", "/proc/self/status"];

#[test]
fn a_measured_command_has_the_rights_that_it_would_have_alone() {
    let stat = ["stat", "--target", "sampler", "--names", "ticks", "-o", "/dev/null", "--"];
    let sets = |output: vmstrobe_tests::command::Output| {
        fine(&output);
        output.stdout
    };
    let limit = vmstrobe_tests::command::RUN_LIMIT;
    let plain = vmstrobe_tests::command::run_within(limit, ASK[0], &ASK[1..]);
    assert_eq!(sets(vmstrobe(&[&stat[..], &ASK].concat())), sets(plain));
    if !require_root() {
        return;
    }
    // The user has a right that vmstrobe does not need, which is inherited from program to program.
    let nobody = Nobody::new();
    let rights = ["--inh-caps=+net_raw", "--ambient-caps=+net_raw", "--"];
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let as_user = |program: &[&str]| {
        let line = [&user[..], &rights, program].concat();
        sets(vmstrobe_tests::command::run_within(limit, line[0], &line[1..]))
    };
    let plain = as_user(&ASK);
    let net_raw = format!("CapEff:\t{:016x}\n", CapabilitySet::NET_RAW.bits());
    assert!(plain.contains(&net_raw), "{plain}");
    assert_eq!(as_user(&[&[text(&nobody.binary)], &stat[..], &ASK].concat()), plain);
}

#[test]
fn root_serves_where_only_root_may() {
    if !require_root() || !require_kvm() {
        return;
    }
    let (_directory, home) = home(&[]);
    let socket = home.join("demo.sock");
    let mut serve = Serve::spawn(&["--demo", "--qmp", text(&socket)]);
    serve.wait_for_socket(&socket);
    let pid = Pid::from_raw(serve.pid().cast_signed()).expect("a process has a number");
    kill_process(pid, Signal::TERM).expect("the process has not been reaped");
    let status = serve.wait_within(LIMIT).expect("the process ends in time");
    assert_eq!(status.code(), Some(0), "{}", serve.said());
    assert!(!socket.exists(), "the socket still exists");
}
