//! A real QEMU with KVM: started, spoken to by QMP, and ended with its handle.
//!
//! The guest has no disk and no OS: its firmware finds nothing to boot, and idles. That is enough
//! to have vCPUs whose counters move. When QEMU does not come up, what it said on its standard
//! error is part of the report.
//!
//! Two of them may be there: the one on the path, and an older one, which keeps no stats fds open.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{POLL, Reaped};
use crate::qmp::Qmp;

const PROGRAM: &str = "qemu-system-x86_64";

/// Names the older QEMU's program; without it, it is where `ci/install.sh` unpacks one.
pub const OLDER_ENV: &str = "VMSTROBE_QEMU_OLD";

/// The longest time from the start of QEMU to its greeting.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The guest and the command line of a QEMU to start.
#[derive(Debug, Clone)]
pub struct Config<'a> {
    /// The guest's name (`-name`).
    pub name: &'a str,
    /// The number of its vCPUs.
    pub vcpus: u32,
    /// Whether it starts with the vCPUs stopped (`-S`): no counter moves until `cont`.
    pub paused: bool,
    /// Further arguments, at the end of the command line.
    pub extra: &'a [&'a str],
}

impl Default for Config<'_> {
    fn default() -> Self {
        Config { name: "vmstrobe-test", vcpus: 1, paused: false, extra: &[] }
    }
}

/// A running QEMU. Dropping it kills the process and removes its socket.
#[derive(Debug)]
pub struct Qemu {
    // In this order: the process ends before its directory is removed.
    child: Reaped,
    qmp: Qmp,
    dir: TempDir,
}

impl Qemu {
    /// Starts QEMU and waits until it has greeted on its QMP socket.
    ///
    /// # Panics
    ///
    /// If [`Qemu::try_start`] fails.
    pub fn start(config: &Config<'_>) -> Qemu {
        Qemu::try_start(config).unwrap_or_else(|why| panic!("{PROGRAM} {why}"))
    }

    /// Starts the [`older`] QEMU as [`Qemu::start`] does.
    ///
    /// # Panics
    ///
    /// If there is no older QEMU, or it fails as [`Qemu::try_start`] does.
    pub fn start_older(config: &Config<'_>) -> Qemu {
        let program = older().unwrap_or_else(|why| panic!("{why}"));
        Qemu::start_by(&program, config).unwrap_or_else(|why| panic!("{program:?} {why}"))
    }

    /// Starts QEMU as [`Qemu::start`] does. The error says why QEMU does not start, ends early or
    /// does not greet in time.
    pub fn try_start(config: &Config<'_>) -> Result<Qemu, String> {
        Qemu::start_by(Path::new(PROGRAM), config)
    }

    fn start_by(program: &Path, config: &Config<'_>) -> Result<Qemu, String> {
        let dir =
            TempDir::with_prefix("vmstrobe-qemu-").expect("a temporary directory can be made");
        let socket = socket_in(&dir);
        let messages = dir.path().join("stderr");
        let child = Command::new(program)
            .args(["-accel", "kvm", "-machine", "q35", "-m", "64", "-nodefaults"])
            .args(["-no-user-config", "-display", "none", "-name", config.name])
            .args(["-smp", &config.vcpus.to_string()])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", socket.display())])
            .args(config.paused.then_some("-S"))
            .args(config.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&messages).expect("a file for QEMU's messages"))
            .spawn()
            .map_err(|error| format!("does not start: {error}"))?;
        let mut child = Reaped(child);
        match greeted(&mut child, &socket) {
            Ok(qmp) => Ok(Qemu { child, qmp, dir }),
            Err(why) => {
                let said = fs::read_to_string(&messages).unwrap_or_default();
                Err(format!("{why}; it said: {said}"))
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The QMP socket. QEMU serves one client at a time: while this handle lives, it is taken.
    pub fn socket(&self) -> PathBuf {
        socket_in(&self.dir)
    }

    /// The connection, for all that [`Qemu::execute`] does not do.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// Runs a QMP command and returns its `return` value; panics where [`Qmp::execute`] does.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.qmp.execute(command, arguments)
    }
}

/// Returns the major and minor version of the QEMU on the path; the error says why there is none.
pub fn version() -> Result<(u32, u32), String> {
    version_of(OsStr::new(PROGRAM))
}

/// The program of a QEMU that answers `query-stats` (from 7.1 on) and keeps no stats fds open
/// (before 8.1): the one that [`OLDER_ENV`] names, or that was unpacked beside the tests, or the
/// one on the path; else why there is none.
pub fn older() -> Result<PathBuf, String> {
    let test = env::current_exe().expect("a test knows its own path");
    let target = test.ancestors().nth(3).expect("a test lies in target/<profile>/deps");
    let unpacked = target.join("qemu-7.2").join(PROGRAM);
    let named = env::var_os(OLDER_ENV).map(PathBuf::from);
    let program = named.or_else(|| unpacked.exists().then_some(unpacked));
    let program = program.unwrap_or_else(|| PROGRAM.into());
    let (major, minor) = version_of(program.as_os_str())?;
    if ((7, 1)..(8, 1)).contains(&(major, minor)) {
        return Ok(program);
    }
    Err(format!("{} is of version {major}.{minor}", program.display()))
}

fn version_of(program: &OsStr) -> Result<(u32, u32), String> {
    let output = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| format!("{} --version says {text:?}", program.display()))
}

/// Parses a version: `QEMU emulator version 10.0.2 (Debian ...)` is (10, 0).
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let (_, version) = text.lines().next()?.split_once(" version ")?;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn socket_in(dir: &TempDir) -> PathBuf {
    dir.path().join("qmp")
}

/// Connects as soon as the socket is there; else says what went wrong.
fn greeted(child: &mut Reaped, socket: &Path) -> Result<Qmp, String> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let error = match Qmp::connect(socket) {
            Ok(qmp) => return Ok(qmp),
            Err(error) => error,
        };
        if let Some(status) = child.wait_within(POLL) {
            return Err(format!("ended early, {status}"));
        }
        if Instant::now() >= deadline {
            return Err(format!("does not greet within {START_LIMIT:?}: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_parsed() {
        for (text, version) in [
            ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright", Some((10, 0))),
            ("QEMU emulator version 7.2.22\n", Some((7, 2))),
            ("QEMU emulator version 11", None),
            ("QEMU emulator\nversion 7.2", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), version, "{text}");
        }
    }
}
