//! A running `vmstrobe serve --qmp-dir`: its sockets, and their answers.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::run::Run;
use crate::process::POLL;
use crate::qmp::Qmp;

/// A server with a socket for each VM.
#[derive(Debug)]
pub struct ServeDir {
    // In this order: the process ends before its directory is removed.
    run: Run,
    sockets: PathBuf,
    _own: Option<TempDir>,
}

impl ServeDir {
    /// Starts `vmstrobe serve --all --qmp-dir` and waits for nothing.
    pub fn all() -> ServeDir {
        ServeDir::with(&["--all"])
    }

    /// Starts a server as [`ServeDir::all`] does, with at most this many descriptors.
    pub fn all_with_descriptors(descriptors: u64) -> ServeDir {
        ServeDir::start(&["--all"], |args| Run::start_with_descriptors(descriptors, args))
    }

    /// Starts `vmstrobe serve --qmp-dir` with these further arguments.
    pub fn with(args: &[&str]) -> ServeDir {
        ServeDir::start(args, |args| Run::start(args))
    }

    /// Starts a server as [`ServeDir::with`] does, with its sockets in an existing directory.
    pub fn in_directory(sockets: &Path, args: &[&str]) -> ServeDir {
        let run = Run::start(&line(sockets, args));
        ServeDir { run, sockets: sockets.to_owned(), _own: None }
    }

    fn start(args: &[&str], start: impl FnOnce(&[&OsStr]) -> Run) -> ServeDir {
        let own =
            TempDir::with_prefix("vmstrobe-sockets-").expect("a temporary directory can be made");
        let run = start(&line(own.path(), args));
        ServeDir { run, sockets: own.path().to_owned(), _own: Some(own) }
    }

    /// Returns the directory of its sockets.
    pub fn directory(&self) -> &Path {
        &self.sockets
    }

    /// Returns the names of its sockets, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory()).expect("the directory is there");
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".sock")).collect();
        names.sort_unstable();
        names
    }

    /// Waits until it answers for the VM of this name, with `vcpus` vCPUs.
    ///
    /// # Errors
    ///
    /// If it does not within the limit: with what it said.
    pub fn serves_within(&self, limit: Duration, vm: &str, vcpus: usize) -> Result<(), String> {
        answers_when_there(limit, || self.socket(vm), vcpus).map_err(|why| {
            let (names, said) = (self.names(), self.run.said_last());
            let (count, first) = (names.len(), &names[..names.len().min(4)]);
            format!("VM {vm}: {why}; there are {count} sockets, {first:?}; the server said: {said}")
        })
    }

    /// Returns the path of the socket of the VM of this name. The name of another user's VM is
    /// followed by a dash and more.
    fn socket(&self, vm: &str) -> PathBuf {
        let longer = format!("{vm}-");
        let found = self.names().into_iter().find(|name| name.starts_with(&longer));
        let name = format!("{vm}.sock");
        let exact = self.directory().join(&name);
        if exact.exists() { exact } else { self.directory().join(found.unwrap_or(name)) }
    }
}

/// Waits until a server answers at the socket, with `vcpus` vCPUs: of a VM that is being made, some
/// may be missing at first.
///
/// # Errors
///
/// If nobody does within the limit.
pub fn answers_within(limit: Duration, socket: &Path, vcpus: usize) -> Result<(), String> {
    answers_when_there(limit, || socket.to_owned(), vcpus)
}

fn answers_when_there(
    limit: Duration,
    socket: impl Fn() -> PathBuf,
    vcpus: usize,
) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let mut seen = Err("no socket".to_owned());
    while seen != Ok(vcpus) {
        if Instant::now() >= deadline {
            let seen = seen.map_or_else(|why| why, |seen| format!("{seen} vCPUs, not {vcpus}"));
            return Err(format!("{seen}, within {limit:?}"));
        }
        std::thread::sleep(POLL);
        let socket = socket();
        if socket.exists() {
            // A client may be kept waiting for a moment even if the socket came late.
            let left = deadline.saturating_duration_since(Instant::now());
            seen = ask_vcpus(&socket, left.max(Duration::from_secs(1)));
        }
    }
    Ok(())
}

/// Returns the arguments of `vmstrobe`.
fn line<'a>(sockets: &'a Path, args: &'a [&str]) -> Vec<&'a OsStr> {
    let mut line: Vec<&OsStr> = vec!["serve".as_ref()];
    line.extend(args.iter().map(OsStr::new));
    line.extend(["--qmp-dir".as_ref(), sockets.as_os_str()]);
    line
}

impl Deref for ServeDir {
    type Target = Run;

    fn deref(&self) -> &Run {
        &self.run
    }
}

impl DerefMut for ServeDir {
    fn deref_mut(&mut self) -> &mut Run {
        &mut self.run
    }
}

/// Returns the number of vCPUs that the server at a socket shows. Each reply must come within the
/// limit.
fn ask_vcpus(socket: &Path, limit: Duration) -> Result<usize, String> {
    let fails = |error: std::io::Error| match error.kind() {
        ErrorKind::WouldBlock => format!("no reply within {limit:?}"),
        _ => format!("no reply: {error}"),
    };
    let mut qmp = Qmp::connect_within(limit, socket).map_err(fails)?;
    let filter = json!({"provider": "kvm", "names": ["exits"]});
    let arguments = json!({"target": "vcpu", "providers": [filter]});
    let request = json!({"execute": "query-stats", "arguments": arguments}).to_string();
    let reply = qmp.exchange(&request).map_err(fails)?;
    reply["return"].as_array().map(Vec::len).ok_or_else(|| format!("it answers {reply}"))
}
