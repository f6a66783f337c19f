//! The bare server: it greets, and answers each receive with the same prepared reply.
//!
//! Invariant: it resembles the real server: a process of its own, a Unix socket, one blocking
//! thread for each client. Beside receive and send it does nothing, or it only runs the bare loop
//! of pread over the statistics of as many vCPUs as the real server reads.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use tempfile::TempDir;
use vmstrobe_sampler::Fanout;
use vmstrobe_tests::process::Reaped;

use crate::qmp_client::Client;
use crate::qmp_rig::VCPUS;
use crate::rig::{Rig, rig};

/// The argument that makes this program the bare server; the reply follows.
pub(crate) const ECHO: &str = "--echo";
/// The argument for a bare server that also reads statistics; the reply follows.
pub(crate) const READ_AND_ECHO: &str = "--read-and-echo";

/// The statistics that the real server reads for the filtered query.
const FILTER: &str = "vcpu: exits, halt_exits";

/// The greeting that a client waits for before it sends anything.
const GREETING: &[u8] = b"{\"QMP\": {}}\r\n";
/// The size of the receive buffer.
const BUFFER_BYTES: usize = 1 << 16;

/// A running bare server.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Reaped,
    dir: TempDir,
}

impl Echo {
    /// Starts this program once more, as a server of this reply; `how` is one of the arguments
    /// above.
    pub(crate) fn start(how: &str, reply: &str) -> io::Result<Self> {
        let dir = TempDir::with_prefix("vmstrobe-echo-")?;
        // It listens before its process is there: nobody has to wait for it.
        let listener = UnixListener::bind(socket_in(&dir))?;
        let child = Command::new(std::env::current_exe()?)
            .args([how, reply])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child: Reaped(child), dir })
    }

    /// Returns its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns a client of it.
    pub(crate) fn client(&self) -> io::Result<Client> {
        Client::negotiated(&socket_in(&self.dir))
    }
}

fn socket_in(dir: &TempDir) -> PathBuf {
    dir.path().join("echo")
}

/// Serves the listening socket at standard input until the process is killed.
pub(crate) fn serve(how: &str, reply: &str) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let reply: &'static str = reply.to_owned().leak();
    let rig = if how == READ_AND_ECHO { Some(rig(VCPUS, FILTER, Fanout::Inline)?) } else { None };
    // Taken by one thread at a time, but known to all.
    let bare: &'static Mutex<Option<Rig>> = Box::leak(Box::new(Mutex::new(rig)));
    for client in listener.incoming() {
        let client = client?;
        thread::spawn(move || answer(client, reply.as_bytes(), bare));
    }
    Ok(())
}

fn answer(mut client: UnixStream, reply: &[u8], rig: &Mutex<Option<Rig>>) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut rig = rig.lock().expect("no thread panics");
    // Clients find what they find at the real one: what they then run on is the scheduler's choice,
    // and depends on how they came there.
    client.write_all(GREETING)?;
    while client.read(&mut buffer)? > 0 {
        if let Some(rig) = rig.as_mut() {
            rig.bare.read();
        }
        client.write_all(reply)?;
    }
    Ok(())
}
