//! The socket's file: its access, its owner and its replacement.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::process::getegid;
use tempfile::TempDir;
use vmstrobe_tests::command::{Output, vmstrobe};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::serve::Serve;

use crate::{END_LIMIT, count};

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is text")
}

/// Starts a server on a socket that it cannot listen at, and returns its output.
#[track_caller]
fn refused(socket: &Path) -> Output {
    let output = vmstrobe(&["serve", "--demo", "--qmp", text(socket)]);
    assert_eq!(output.code, Some(1), "{output:?}");
    assert!(output.stderr.starts_with("vmstrobe: "), "{output:?}");
    let directory = socket.parent().expect("the path has a directory");
    assert!(output.stderr.contains(text(directory)), "{output:?}");
    output
}

#[test]
fn only_its_owner_may_use_a_socket_unless_told_otherwise() {
    if !require_kvm() {
        return;
    }
    let group = getegid().as_raw().to_string();
    let cases: [(&[&str], u32); 4] = [
        (&[], 0o600),
        (&["--mode", "0660"], 0o660),
        (&["--mode", "0640", "--group", &group], 0o640),
        (&["--group", &group], 0o660),
    ];
    for (widened, mode) in cases {
        let serve = Serve::start(&[&["--demo"], widened].concat());
        let file = fs::metadata(serve.socket()).expect("the file exists");
        assert!(file.file_type().is_socket());
        assert_eq!(file.mode() & 0o7777, mode, "{widened:?}");
        assert_eq!(file.gid(), getegid().as_raw(), "{widened:?}");
    }
}

#[test]
fn a_socket_can_be_given_to_a_group() {
    if !require_kvm() || !crate::require_root() {
        return;
    }
    let serve = Serve::start(&["--demo", "--group", "65534"]);
    let file = fs::metadata(serve.socket()).expect("the file exists");
    assert_eq!((file.mode() & 0o7777, file.gid()), (0o660, 65534));
}

#[test]
fn a_live_socket_is_not_stolen() {
    if !require_kvm() {
        return;
    }
    let serve = Serve::start(&["--demo"]);
    let mut client = Qmp::connect(serve.socket()).expect("the server accepts the client");
    let vcpus = count(&mut client, "vcpu");
    assert!(vcpus > 0);
    let output = refused(serve.socket());
    assert!(output.stderr.contains("listens"), "it does not say why: {output:?}");
    assert_eq!(count(&mut client, "vcpu"), vcpus);
    let mut other =
        Qmp::connect(serve.socket()).expect("the server still accepts clients at its path");
    assert_eq!(count(&mut other, "vcpu"), vcpus);
}

#[test]
fn a_stale_socket_is_replaced() {
    if !require_kvm() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let socket = directory.path().join("stale");
    drop(UnixListener::bind(&socket).expect("no other process has it"));
    assert!(socket.exists(), "no process removes the file");
    let mut serve = Serve::spawn(&["--demo", "--qmp", text(&socket)]);
    serve.wait_for_socket(&socket);
    assert!(count(&mut Qmp::connect(&socket).expect("the server accepts the client"), "vcpu") > 0);
}

/// Any user that may read a directory can lock it.
#[test]
fn a_lock_on_the_directory_does_not_delay_a_server() {
    if !require_kvm() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let held = fs::File::open(&directory).expect("the directory is readable");
    flock(&held, FlockOperation::LockExclusive).expect("no other process has it");
    let socket = directory.path().join("stale");
    drop(UnixListener::bind(&socket).expect("no other process has it"));
    let mut serve = Serve::spawn(&["--demo", "--qmp", text(&socket)]);
    serve.wait_for_socket(&socket);
    assert!(count(&mut Qmp::connect(&socket).expect("the server accepts the client"), "vcpu") > 0);
    let files = fs::read_dir(&directory).expect("the directory is readable");
    assert_eq!(files.count(), 1, "the directory has only the socket");
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    if !require_kvm() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let file = directory.path().join("file");
    fs::write(&file, "a user's").expect("the directory is writable");
    refused(&file);
    assert_eq!(fs::read_to_string(&file).expect("the file is readable text"), "a user's");
    refused(&directory.path().join("none/socket"));
}

/// A signal ends the server and removes its socket, so that the next server can listen there.
#[test]
fn a_signal_ends_the_server_and_removes_its_socket() {
    if !require_kvm() {
        return;
    }
    let mut serve = Serve::start(&["--demo"]);
    let _client = Qmp::connect(serve.socket()).expect("the server accepts the client");
    let pid = rustix::process::Pid::from_raw(serve.pid().cast_signed()).expect("a pid is not 0");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .expect("the process has not been reaped");
    let status = serve.wait_within(END_LIMIT).expect("the process ends in time");
    assert_eq!(status.code(), Some(0), "{}", serve.said());
    assert!(!serve.socket().exists());
}

/// The lists of our server are not in QEMU's order, and its values come from another process.
#[test]
fn vmstrobes_own_server_is_refused_as_a_qemu() {
    if !require_kvm() {
        return;
    }
    let serve = Serve::start(&["--demo"]);
    let output = vmstrobe(&["query", "--from-qmp", text(serve.socket())]);
    assert_eq!((output.code, &*output.stdout), (Some(1), ""), "{output:?}");
    let why = format!("{}: a vmstrobe listens there, not a QEMU", serve.socket().display());
    assert!(output.stderr.contains(&why), "{output:?}");
}
