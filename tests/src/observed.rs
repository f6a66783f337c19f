//! A real QEMU with QMP sockets of several kinds of users: one asks it itself, others look at it
//! through a server of ours.
//!
//! Invariant: unless it is told to run, it stands still, and so do its counters: whoever reads
//! them reads the same.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::qemu::{Config, Qemu};
use crate::rig::wait_for;
use crate::serve::Serve;

/// The longest time that the guest may take to come to rest.
const REST_LIMIT: Duration = Duration::from_secs(20);

/// The QEMU to start, and its QMP sockets.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The guest's name.
    pub name: &'a str,
    /// The number of its vCPUs.
    pub vcpus: u32,
    /// The names of its crypto devices.
    pub crypto_devices: &'a [&'a str],
    /// The number of its QMP sockets beside that of [`Observed::qemu`].
    pub sockets: usize,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        Plan { name: "observed", vcpus: 4, crypto_devices: &[], sockets: 1 }
    }
}

/// A stopped QEMU, and its sockets that nobody has taken yet.
#[derive(Debug)]
pub struct Observed {
    /// The process, and a connection to it.
    pub qemu: Qemu,
    sockets: Vec<PathBuf>,
    _directory: TempDir,
}

impl Observed {
    /// Starts it with its vCPUs stopped.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start(plan: &Plan<'_>) -> Observed {
        Observed::start_by(plan, Qemu::start)
    }

    /// Starts the [`older`](crate::qemu::older) QEMU with its vCPUs stopped.
    ///
    /// # Panics
    ///
    /// If it does not start.
    pub fn start_older(plan: &Plan<'_>) -> Observed {
        Observed::start_by(plan, Qemu::start_older)
    }

    fn start_by(plan: &Plan<'_>, start: fn(&Config<'_>) -> Qemu) -> Observed {
        let directory =
            TempDir::with_prefix("vmstrobe-sockets-").expect("a temporary directory can be made");
        let sockets: Vec<PathBuf> =
            (0..plan.sockets).map(|i| directory.path().join(format!("qmp{i}"))).collect();
        let mut extra: Vec<String> = Vec::new();
        for socket in &sockets {
            extra.extend([
                "-qmp".to_owned(),
                format!("unix:{},server=on,wait=off", socket.display()),
            ]);
        }
        for id in plan.crypto_devices {
            extra.extend(["-object".to_owned(), format!("cryptodev-backend-builtin,id={id}")]);
        }
        let extra: Vec<&str> = extra.iter().map(String::as_str).collect();
        let (name, vcpus) = (plan.name, plan.vcpus);
        let qemu = start(&Config { name, vcpus, paused: true, extra: &extra });
        Observed { qemu, sockets, _directory: directory }
    }

    /// Returns one of its further sockets, which serves one client at a time.
    pub fn socket(&self, i: usize) -> &Path {
        &self.sockets[i]
    }

    /// A server of ours that looks at it, and has that socket for what only QEMU knows.
    #[track_caller]
    pub fn serve(&self, i: usize, further: &[&str]) -> Serve {
        let pid = self.qemu.pid().to_string();
        let socket = self.sockets[i].to_str().expect("the path is text");
        Serve::start(&[&["-p", &*pid, "--from-qmp", socket], further].concat())
    }

    /// Lets the vCPUs run until each has a past, and stops them.
    pub fn run_a_while(&mut self) {
        self.qemu.execute("cont", Value::Null);
        thread::sleep(Duration::from_millis(500));
        self.qemu.execute("stop", Value::Null);
        // QEMU answers before the last vCPU has come to rest.
        wait_for("the guest has stopped", REST_LIMIT, || {
            let before = self.stats();
            thread::sleep(Duration::from_millis(20));
            before == self.stats()
        });
    }

    /// Returns all statistics of its vCPUs and of its VM.
    fn stats(&mut self) -> [Value; 2] {
        ["vcpu", "vm"].map(|target| self.qemu.execute("query-stats", json!({"target": target})))
    }
}
