//! A real QEMU with a running guest, and our server of the same guest.
//!
//! Invariant: QEMU serves one client per socket, so it has a socket for the measuring client and
//! another for our server.

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

/// The number of vCPUs of the guest.
pub(crate) const VCPUS: usize = 4;

/// The longest time from the start of our server to its greeting.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The time in which the firmware looks for something to boot, and comes to rest.
const SETTLING: Duration = Duration::from_secs(2);

/// A running QEMU and our server of it.
#[derive(Debug)]
pub(crate) struct Rig {
    // In this order: who asks ends before who is asked.
    server: Reaped,
    qemu: Qemu,
    dir: TempDir,
}

impl Rig {
    /// Starts both.
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

    /// Returns a client of our server.
    pub(crate) fn ours(&self) -> io::Result<Client> {
        Client::negotiated(&self.dir.path().join(OURS))
    }

    /// Returns the client of QEMU. There can be one.
    pub(crate) fn peer(&self) -> io::Result<Client> {
        Client::negotiated(&self.dir.path().join(MEASURED))
    }

    /// Returns our server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.id()
    }

    /// Returns QEMU's process id.
    pub(crate) fn qemu_pid(&self) -> u32 {
        self.qemu.pid()
    }
}

/// The name of our server's socket.
const OURS: &str = "ours";
/// The name of QEMU's socket for the measuring client.
const MEASURED: &str = "measured";
/// The name of QEMU's socket for our server.
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
