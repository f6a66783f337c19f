//! The bare server: for whatever one receive gives, it sends one prepared reply.
//!
//! Invariant: it is such a peer as the real server is: a process of its own, a Unix socket, one
//! blocking thread a client. Beside receive and send it does nothing.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use tempfile::TempDir;
use vmstrobe_tests::process::Reaped;

use crate::qmp_client::Client;

/// The argument that makes this program the bare server; the reply follows.
pub(crate) const ARGUMENT: &str = "--echo";

/// Room for a request.
const BUFFER_BYTES: usize = 1 << 16;

/// A running bare server.
#[derive(Debug)]
pub(crate) struct Echo {
    child: Reaped,
    dir: TempDir,
}

impl Echo {
    /// Starts this program once more, as a server of this reply.
    pub(crate) fn start(reply: &str) -> io::Result<Self> {
        let dir = TempDir::with_prefix("vmstrobe-echo-")?;
        // It listens before its process is there: nobody has to wait for it.
        let listener = UnixListener::bind(socket_in(&dir))?;
        let child = Command::new(std::env::current_exe()?)
            .args([ARGUMENT, reply])
            .stdin(OwnedFd::from(listener))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self { child: Reaped(child), dir })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A client of it.
    pub(crate) fn client(&self) -> io::Result<Client> {
        Client::connect(&socket_in(&self.dir))
    }
}

fn socket_in(dir: &TempDir) -> PathBuf {
    dir.path().join("echo")
}

/// Serves the listening socket that is our standard input, until we are killed.
pub(crate) fn serve(reply: &str) -> Result<(), Box<dyn Error>> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    let reply: &'static str = reply.to_owned().leak();
    for client in listener.incoming() {
        let client = client?;
        thread::spawn(move || answer(client, reply.as_bytes()));
    }
    Ok(())
}

fn answer(mut client: UnixStream, reply: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    while client.read(&mut buffer)? > 0 {
        client.write_all(reply)?;
    }
    Ok(())
}
