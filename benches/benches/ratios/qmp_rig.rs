//! A real QEMU whose guest runs, and our server of the same guest.
//!
//! Invariant: QEMU has a socket for the client that measures it alone, because it serves one client
//! a socket; our server asks it through another.

use std::error::Error;
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmstrobe_tests::command;
use vmstrobe_tests::process::{POLL, Reaped};
use vmstrobe_tests::qemu::{Config, Qemu, version};

use crate::qmp_client::Client;

/// vCPUs of the guest.
pub(crate) const VCPUS: usize = 4;

/// The longest time from the start of our server to its greeting.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The time in which the firmware looks for something to boot, and comes to rest.
const SETTLING: Duration = Duration::from_secs(2);

/// QEMU and our server.
#[derive(Debug)]
pub(crate) struct Rig {
    // In this order: who asks ends before who is asked.
    server: Reaped,
    qemu: Qemu,
    dir: TempDir,
}

impl Rig {
    /// Starts both; says why if that cannot be.
    pub(crate) fn start() -> Result<Self, Box<dyn Error>> {
        let (major, minor) = version()?;
        if (major, minor) < (8, 1) {
            let found = format!("QEMU {major}.{minor} keeps no stats fds open");
            return Err(format!("{found}: 8.1 or later is needed").into());
        }
        vmstrobe_tests::require::kvm()?;
        let dir = TempDir::with_prefix("vmstrobe-ratios-")?;
        let served = |name| format!("unix:{},server=on,wait=off", dir.path().join(name).display());
        let (measured, asked) = (served(MEASURED), served(ASKED));
        let extra = ["-qmp", measured.as_str(), "-qmp", asked.as_str()];
        let config = Config { vcpus: VCPUS as u32, extra: &extra, ..Config::default() };
        let qemu = Qemu::try_start(&config)?;
        thread::sleep(SETTLING);
        let server = serve(qemu.pid(), &dir.path().join(ASKED), &dir.path().join(OURS))?;
        Ok(Self { server, qemu, dir })
    }

    /// A client of our server.
    pub(crate) fn ours(&self) -> io::Result<Client> {
        Client::negotiated(&self.dir.path().join(OURS))
    }

    /// The client of QEMU: there can be one.
    pub(crate) fn peer(&self) -> io::Result<Client> {
        Client::negotiated(&self.dir.path().join(MEASURED))
    }

    /// Our server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.id()
    }

    /// QEMU's.
    pub(crate) fn qemu_pid(&self) -> u32 {
        self.qemu.pid()
    }
}

/// Our server's socket, ...
const OURS: &str = "ours";
/// ... QEMU's for the client that measures, ...
const MEASURED: &str = "measured";
/// ... and QEMU's for our server.
const ASKED: &str = "asked";

/// Starts our server of that process, and waits until it greets.
fn serve(pid: u32, asked: &Path, ours: &Path) -> Result<Reaped, Box<dyn Error>> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("its path is no text");
    let (pid, asked, socket) = (pid.to_string(), text(asked)?, text(ours)?);
    let mut server = command::spawn(&["serve", "--qmp", &socket, "-p", &pid, "--from-qmp", &asked]);
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let error = match Client::negotiated(ours) {
            Ok(_) => return Ok(server),
            Err(error) => error,
        };
        if let Some(status) = server.wait_within(POLL) {
            let mut said = String::new();
            if let Some(stderr) = &mut server.stderr {
                stderr.read_to_string(&mut said)?;
            }
            return Err(format!("vmstrobe serve: {status}: {}", said.trim_end()).into());
        }
        if Instant::now() >= deadline {
            let text = format!("vmstrobe serve does not greet within {START_LIMIT:?}: {error}");
            return Err(text.into());
        }
    }
}
