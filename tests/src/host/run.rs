//! A run of `vmstrobe` that must end within a limit, and the report if it does not.
//!
//! Invariant: every wait has a limit. A process that not even SIGKILL ends is left to the test's
//! namespace, which ends it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

use super::descriptors;
use crate::command::{Output, binary};
use crate::process::Reaped;

/// A `vmstrobe` process. Dropping it kills the process.
#[derive(Debug)]
pub struct Run {
    // In this order: the process ends before its directory is removed.
    child: Reaped,
    directory: TempDir,
    began: Instant,
    line: String,
}

impl Run {
    /// Starts `vmstrobe` with these arguments.
    pub fn start<S: AsRef<OsStr>>(args: &[S]) -> Run {
        let mut command = Command::new(binary());
        command.args(args);
        Run::spawn(command, args)
    }

    /// Starts a run as [`Run::start`] does, with a soft and a hard limit of this many descriptors.
    pub fn start_with_descriptors<S: AsRef<OsStr>>(descriptors: u64, args: &[S]) -> Run {
        let mut command = Command::new("sh");
        // Without -S or -H, ulimit sets both limits.
        let script = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        command.arg("-c").arg(script).arg(binary()).args(args);
        Run::spawn(command, args)
    }

    fn spawn<S: AsRef<OsStr>>(mut command: Command, args: &[S]) -> Run {
        let directory =
            TempDir::with_prefix("vmstrobe-run-").expect("a temporary directory can be made");
        // The output goes to files, not pipes, so that the process never waits for a reader.
        let file = |name| File::create(directory.path().join(name)).expect("a file for its words");
        command.stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let began = Instant::now();
        let child = Reaped(command.spawn().expect("vmstrobe starts"));
        let words: Vec<_> = args.iter().map(|arg| arg.as_ref().to_string_lossy()).collect();
        Run { child, directory, began, line: words.join(" ") }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns its output so far, on standard output and standard error.
    pub fn said(&self) -> String {
        self.read("stdout") + &self.read("stderr")
    }

    /// Returns the end of [`Run::said`], for a report.
    pub fn said_last(&self) -> String {
        const LINES: usize = 4;
        const CHARS: usize = 160;
        let said = self.said();
        let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).collect();
        let last = lines.iter().skip(lines.len().saturating_sub(LINES));
        let cut = last.map(|line| line.chars().take(CHARS).collect::<String>());
        format!("{:?}", cut.collect::<Vec<_>>())
    }

    /// Counts the descriptors that it has open.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn descriptors(&self) -> Result<usize, String> {
        descriptors::count(self.pid())
            .map_err(|error| format!("{error}; {} said: {}", self.line, self.said_last()))
    }

    /// Waits until it ends.
    ///
    /// # Errors
    ///
    /// If it still runs after the limit: with the state of each thread.
    pub fn ends_within(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        self.child.wait_within(limit).ok_or_else(|| {
            let threads = threads(self.pid());
            let (line, said) = (&self.line, self.said_last());
            format!("`vmstrobe {line}` has not ended within {limit:?} ({threads}); it said: {said}")
        })
    }

    /// Waits until it ends, and returns its output.
    ///
    /// # Errors
    ///
    /// If it still runs at that time after its start, or panicked.
    pub fn output_within(mut self, limit: Duration) -> Result<Output, String> {
        let status = self.ends_within(limit.saturating_sub(self.began.elapsed()))?;
        let (stdout, stderr) = (self.read("stdout"), self.read("stderr"));
        if stderr.contains("panicked") {
            return Err(format!("`vmstrobe {}` panicked: {stderr}", self.line));
        }
        Ok(Output { code: status.code(), stdout, stderr })
    }

    /// Sends SIGTERM, after which the process must end with success within the limit.
    ///
    /// # Errors
    ///
    /// If it does not.
    pub fn terminate_within(&mut self, limit: Duration) -> Result<(), String> {
        // The process has not been reaped, so the number is still its own.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).map_err(|error| format!("SIGTERM: {error}"))?;
        let status = self.ends_within(limit).map_err(|why| format!("SIGTERM: {why}"))?;
        if status.success() {
            return Ok(());
        }
        Err(format!("`vmstrobe {}` ends with {status} and says: {}", self.line, self.said_last()))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }
}

/// Runs `vmstrobe` with these arguments and returns its output.
///
/// # Errors
///
/// If it does not end within the limit.
pub fn vmstrobe<S: AsRef<OsStr>>(limit: Duration, args: &[S]) -> Result<Output, String> {
    Run::start(args).output_within(limit)
}

/// Runs `vmstrobe` with these arguments and returns the JSON that it prints.
///
/// # Errors
///
/// If it does not end within the limit, or fails.
pub fn json<S: AsRef<OsStr>>(limit: Duration, args: &[S]) -> Result<Json, String> {
    let output = vmstrobe(limit, args)?;
    if output.code != Some(0) {
        let first = output.stderr.lines().next().unwrap_or_default();
        return Err(format!("it ends with {:?} and says: {first}", output.code));
    }
    serde_json::from_str(&output.stdout).map_err(|error| format!("{error}: {}", output.stdout))
}

/// Runs `vmstrobe list` and returns the pid and the number of vCPUs of each VM, in order of pids.
///
/// # Errors
///
/// If it does not end within the limit.
pub fn listed_vms(limit: Duration) -> Result<Vec<(u32, u64)>, String> {
    let list = json(limit, &["list", "--json"])?;
    let entries = list.as_array().ok_or_else(|| format!("not a list: {list}"))?;
    let vms = entries.iter().filter(|entry| entry["kind"] == "vm");
    let mut vms: Vec<(u32, u64)> = vms
        .map(|vm| {
            let pid = vm["pid"].as_u64().and_then(|pid| pid.try_into().ok());
            (pid.unwrap_or_default(), vm["vcpus"].as_u64().unwrap_or_default())
        })
        .collect();
    vms.sort_unstable();
    Ok(vms)
}

/// Describes each thread of a process: its name, its state, and where it waits in the kernel.
fn threads(pid: u32) -> String {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return "gone".to_owned() };
    let of = |task: fs::DirEntry| {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stat = read("stat");
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
        format!("{}: {state} {}", read("comm").trim(), read("wchan"))
    };
    tasks.flatten().map(of).collect::<Vec<_>>().join(", ")
}
