//! `serve --all --qmp-dir DIR`: a socket for each virtual machine of this host, as they come and
//! go. The virtual machines of other tests do so too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use tempfile::TempDir;
use vmstrobe_sampler::LOOK_PAUSE_MAX;
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::qmp::Qmp;
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::rig::wait_for;
use vmstrobe_tests::serve::Serve;

use crate::count;

/// The longest time for which a VM that came or went may stay unseen. On a busy machine a look at
/// the host is slow, and a slow one is followed by a pause of up to [`LOOK_PAUSE_MAX`].
const SEEN_LIMIT: Duration = LOOK_PAUSE_MAX.saturating_add(Duration::from_secs(5));

/// Starts a QEMU with `vcpus` vCPUs, under a name that no other has.
fn start(directory: &TempDir, name: &str, vcpus: u32) -> (Qemu, PathBuf) {
    let name = format!("{name}-{}", process::id());
    let socket = directory.path().join(format!("{name}.sock"));
    (Qemu::start(&Config { name: &name, vcpus, paused: true, ..Config::default() }), socket)
}

#[test]
fn each_vm_has_a_socket_as_long_as_it_runs() {
    if !require_lending_qemu() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let (first, first_socket) = start(&directory, "first", 1);
    let (_second, second_socket) = start(&directory, "second", 2);
    let path = directory.path().to_str().expect("the path is text");
    let mut serve = Serve::spawn(&["--all", "--qmp-dir", path]);
    for (socket, vcpus) in [(&first_socket, 1), (&second_socket, 2)] {
        serve.wait_for_socket(socket);
        let mut client = Qmp::connect(socket).expect("the server accepts the client");
        assert_eq!(count(&mut client, "vcpu"), vcpus);
        let mode = fs::metadata(socket).expect("the file exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mut second = Qmp::connect(&second_socket).expect("the server accepts the client");
    drop(first);
    wait_for("the socket is removed", SEEN_LIMIT, || !first_socket.exists());
    assert_eq!(count(&mut second, "vcpu"), 2);

    let (_third, third_socket) = start(&directory, "third", 3);
    wait_for("the later VM has its socket", SEEN_LIMIT, || third_socket.exists());
    let mut third = Qmp::connect(&third_socket).expect("the server accepts the client");
    assert_eq!(count(&mut third, "vcpu"), 3);
    assert_eq!(count(&mut second, "vcpu"), 2);
    assert!(!first_socket.exists());
}

/// A VM that is started again has the same name and another process.
#[test]
fn a_vm_that_was_started_again_is_served_again() {
    if !require_lending_qemu() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let (before, socket) = start(&directory, "again", 1);
    let path = directory.path().to_str().expect("the path is text");
    let mut serve = Serve::spawn(&["--all", "--qmp-dir", path]);
    serve.wait_for_socket(&socket);
    drop(before);
    let (_after, _) = start(&directory, "again", 3);
    let request = r#"{"execute": "query-stats", "arguments": {"target": "vcpu"}}"#;
    wait_for("the new one is served", SEEN_LIMIT, || {
        // A client that still reaches the server of the old VM may be disconnected.
        let reply = Qmp::connect(&socket).and_then(|mut client| client.exchange(request));
        reply.is_ok_and(|reply| reply["return"].as_array().is_some_and(|all| all.len() == 3))
    });
}
