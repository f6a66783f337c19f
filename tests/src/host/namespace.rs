//! Runs a test again, in a pid and mount namespace of its own: it sees only the processes that it
//! starts, and all of them end with it.
//!
//! Invariant: the test ends within its limit. If it does not, its namespace is destroyed, and with
//! it every process that waits for one of that namespace, in any state.

use std::env;
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::command::binary;
use crate::process::Reaped;

/// The variable that is set for the run inside the namespaces.
const INSIDE_ENV: &str = "VMSTROBE_TESTS_INSIDE";

/// The program that makes the namespaces, and its arguments.
const UNSHARE: [&str; 6] =
    ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];

/// Checks that a process may make these namespaces and become another user in them.
///
/// # Errors
///
/// If it may not: with the reason.
pub fn available() -> Result<(), String> {
    let output = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .args(["--", "setpriv", "--reuid=65534", "--clear-groups", "--", "true"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("unshare: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// Runs the test of this name, `body`, in namespaces of its own, for at most `limit`.
///
/// # Panics
///
/// If it fails there, does not end in time, or is not the name of a test.
#[track_caller]
pub fn run_in_namespaces(test: &str, limit: Duration, body: impl FnOnce()) {
    if env::var_os(INSIDE_ENV).is_some() {
        return body();
    }
    // The program is built before the time is taken.
    binary();
    let exe = env::current_exe().expect("a test knows its own path");
    // This directory has the temporary files, so that those of a killed run are removed with it.
    // Other users may pass through it.
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755))
        .expect("chmod of our directory");
    let mut said = tempfile::tempfile().expect("a temporary file can be made");
    let sink = |file: &File| Stdio::from(file.try_clone().expect("there is a free descriptor"));
    let child = Command::new(UNSHARE[0])
        .args(&UNSHARE[1..])
        .arg("--")
        .arg(exe)
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE_ENV, "1")
        // The report of the inner run is part of ours.
        .env("RUST_BACKTRACE", "0")
        .env("TMPDIR", directory.path())
        .stdin(Stdio::null())
        .stdout(sink(&said))
        .stderr(sink(&said))
        .spawn()
        .expect("unshare starts");
    let mut child = Reaped(child);
    let status = child.wait_within(limit);
    drop(child);
    let mut text = String::new();
    said.rewind().expect("a temporary file rewinds");
    said.read_to_string(&mut text).expect("the output is text");
    match status {
        None => panic!("{test} runs longer than {limit:?}; it said:\n{text}"),
        Some(status) => assert!(status.success(), "{test}: {status}; it said:\n{text}"),
    }
    assert!(text.contains("test result: ok. 1 passed"), "no test has the name {test}:\n{text}");
    text.lines().filter(|line| line.starts_with("measured: ")).for_each(crate::rig::show_again);
}
