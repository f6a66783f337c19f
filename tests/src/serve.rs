//! A running `vmstrobe serve`: started, waited for, ended with its handle.
//!
//! Invariant: when it does not come up, what it said is part of the report; and none of it is
//! left behind.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::command::binary;
use crate::process::{POLL, Reaped};
use crate::wire::Wire;

/// The longest time from its start until it listens.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A server. Dropping it kills the process and removes its directory.
#[derive(Debug)]
pub struct Serve {
    // In this order: the process ends before its directory is removed.
    child: Reaped,
    socket: PathBuf,
    dir: TempDir,
}

impl Serve {
    /// Starts `vmstrobe serve --qmp SOCKET` with these further arguments, and waits until it
    /// listens.
    ///
    /// # Panics
    ///
    /// If it does not start, ends, or does not listen in time.
    #[track_caller]
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Serve {
        let dir =
            TempDir::with_prefix("vmstrobe-serve-").expect("a temporary directory can be made");
        let socket = dir.path().join("ours");
        let mut line = vec![OsStr::new("--qmp"), socket.as_os_str()];
        line.extend(args.iter().map(AsRef::as_ref));
        let child = spawn_in(&dir, &line);
        let mut serve = Serve { child, socket: socket.clone(), dir };
        serve.wait_for_socket(&socket);
        serve
    }

    /// Starts `vmstrobe serve` with these arguments, and waits for nothing.
    pub fn spawn<S: AsRef<OsStr>>(args: &[S]) -> Serve {
        let dir =
            TempDir::with_prefix("vmstrobe-serve-").expect("a temporary directory can be made");
        let line: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
        let child = spawn_in(&dir, &line);
        Serve { child, socket: PathBuf::new(), dir }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The socket that [`Serve::start`] named.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A connection past its handshake.
    ///
    /// # Panics
    ///
    /// If it cannot be had; it shows what the server said.
    #[track_caller]
    pub fn connect(&self) -> Wire {
        Wire::negotiated(&self.socket)
            .unwrap_or_else(|error| panic!("no connection: {error}; it said: {}", self.said()))
    }

    /// Waits for its end, at most this long.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        self.child.wait_within(limit)
    }

    /// Returns its output so far: standard output, then standard error.
    pub fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    /// Waits until its output has this text in it. A client can be served before the line about its
    /// socket is written.
    ///
    /// # Panics
    ///
    /// If it takes too long.
    #[track_caller]
    pub fn wait_for_text(&self, text: &str) {
        let deadline = Instant::now() + START_LIMIT;
        while !self.said().contains(text) {
            let late = Instant::now() >= deadline;
            assert!(!late, "no {text:?} in {START_LIMIT:?}; it said: {}", self.said());
            thread::sleep(POLL);
        }
    }

    /// Waits until somebody listens there.
    ///
    /// # Panics
    ///
    /// If it ends before, or it takes too long.
    #[track_caller]
    pub fn wait_for_socket(&mut self, socket: &Path) {
        let deadline = Instant::now() + START_LIMIT;
        while let Err(error) = UnixStream::connect(socket) {
            if let Some(status) = self.child.wait_within(POLL) {
                panic!("vmstrobe serve ends early, {status}; it said: {}", self.said());
            }
            let late = Instant::now() >= deadline;
            assert!(!late, "{socket:?} in {START_LIMIT:?}: {error}; it said: {}", self.said());
        }
    }
}

fn spawn_in(dir: &TempDir, args: &[&OsStr]) -> Reaped {
    // Files, not pipes: whatever it says, it waits for nobody to read it.
    let file = |name| File::create(dir.path().join(name)).expect("a file for what it says");
    let child = Command::new(binary())
        .arg("serve")
        .args(args)
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .expect("vmstrobe starts");
    Reaped(child)
}
