//! Runs of the real `vmstrobe`, as a shell would start it, and builds of other programs of the
//! workspace.
//!
//! A program is built before its first use in a test process, in the same profile as the tests,
//! because an existing binary could be an older one. Each run has a limit.

use std::env;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::Reaped;

/// The longest time for which [`vmstrobe()`] lets the command run.
pub const RUN_LIMIT: Duration = Duration::from_secs(60);

/// The exit status and the output of a finished run.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The text of standard output.
    pub stdout: String,
    /// The text of standard error.
    pub stderr: String,
}

/// Runs `vmstrobe` with these arguments to its end, for at most [`RUN_LIMIT`].
///
/// # Panics
///
/// If it cannot be built or started, or does not end in time.
pub fn vmstrobe(args: &[&str]) -> Output {
    vmstrobe_within(RUN_LIMIT, args)
}

/// Runs `vmstrobe` as [`vmstrobe()`] does, with another limit.
///
/// # Panics
///
/// As [`vmstrobe()`] does.
pub fn vmstrobe_within(limit: Duration, args: &[&str]) -> Output {
    run_within(limit, binary(), args)
}

/// Runs any program to its end, as [`vmstrobe_within`] does: a program that runs `vmstrobe` in
/// another way, for example.
///
/// # Panics
///
/// If it cannot be started, or does not end in time.
pub fn run_within(limit: Duration, program: impl AsRef<Path>, args: &[&str]) -> Output {
    let program = program.as_ref();
    // The output goes to files, not pipes: it needs no reader while the program runs, and a
    // grandchild that keeps them open does not delay the end.
    let mut stdout = tempfile::tempfile().expect("a temporary file can be made");
    let mut stderr = tempfile::tempfile().expect("a temporary file can be made");
    let mut child = start(program, args, sink(&stdout), sink(&stderr));
    let status = child.wait_within(limit);
    let (stdout, stderr) = (read(&mut stdout), read(&mut stderr));
    let Some(status) = status else {
        panic!("{program:?} {args:?} runs longer than {limit:?}; it said: {stdout}{stderr}");
    };
    Output { code: status.code(), stdout, stderr }
}

/// Starts `vmstrobe` with pipes for standard output and error, and leaves it running.
///
/// # Panics
///
/// If it cannot be built or started.
pub fn spawn(args: &[&str]) -> Reaped {
    start(binary(), args, Stdio::piped(), Stdio::piped())
}

/// Starts the command as [`spawn`] does, but drops what it prints on standard output: a test that
/// does not read it would keep the command waiting, if it is long.
///
/// # Panics
///
/// If it cannot be built or started.
pub fn spawn_unread(args: &[&str]) -> Reaped {
    start(binary(), args, Stdio::null(), Stdio::piped())
}

/// Returns the command's path. The first call builds it.
///
/// # Panics
///
/// If it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| build(&["--package", "vmstrobe-cli"]).join("vmstrobe"))
}

/// Builds an example of the workspace and returns its path.
///
/// # Panics
///
/// If it cannot be built.
pub fn example(name: &str) -> PathBuf {
    build(&["--package", "vmstrobe-examples", "--example", name]).join("examples").join(name)
}

/// Builds a program of the tests (`tests/programs`) and returns its path.
///
/// # Panics
///
/// If it cannot be built.
pub fn program(name: &str) -> String {
    let examples = build(&["--package", "vmstrobe-tests", "--example", name]).join("examples");
    examples.join(name).into_os_string().into_string().expect("the path is text")
}

fn start(program: &Path, args: &[&str], stdout: Stdio, stderr: Stdio) -> Reaped {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap_or_else(|error| panic!("{program:?} does not start: {error}"));
    Reaped(child)
}

fn sink(file: &File) -> Stdio {
    file.try_clone().expect("a second handle of a temporary file").into()
}

fn read(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().expect("a temporary file rewinds");
    file.read_to_end(&mut bytes).expect("a temporary file reads");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Builds something beside the tests and returns the profile's directory: tests are in
/// `target/<profile>/deps`. Cargo takes its own lock, so several test processes may do so at once.
fn build(what: &[&str]) -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let out = test.ancestors().nth(2).expect("a test lies in target/<profile>/deps");
    let target = out.parent().expect("a profile's directory lies in target");
    let name = out.file_name().and_then(|name| name.to_str()).expect("a profile's name is text");
    let profile = if name == "debug" { "dev" } else { name };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--profile", profile])
        .args(what)
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .status()
        .expect("cargo starts");
    assert!(status.success(), "cargo cannot build {what:?}: {status}");
    out.to_owned()
}
