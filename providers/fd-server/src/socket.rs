//! Both ends of the socket: one that listens at a path, and one that is connected to it.
//!
//! Invariant: who may connect is decided here, and it is this user and root. All waits are bounded.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with,
};
use vmstrobe_core::{Error, ErrorKind, Result};
use vmstrobe_host::{Broker, Relay, refusal, refusal::path::Use};
use vmstrobe_listen::{Access, Kind, Listening};

/// The pause before a server whose queue is full is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// The longest that a server may take until all that it has now has arrived.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// A connection that ends when nothing holds it any more: its descriptors and their readers hold
/// it.
#[derive(Debug)]
pub(super) struct Connection {
    socket: Arc<Relay>,
}

impl Connection {
    pub(super) fn new(socket: &Arc<Relay>) -> Self {
        Self { socket: Arc::clone(socket) }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The reader finds it ended, and ends. If the server was quicker there is nothing to do.
        let _ = shutdown(&*self.socket, Shutdown::Both);
    }
}

/// Listens at that path, for this user and root.
///
/// # Errors
/// As [`Listening::at`].
pub(super) fn listening(path: &Path) -> Result<Listening> {
    Listening::at(path, Kind::SeqPacket, &Access::default())
}

/// Connects to the server that listens at that path, by that broker.
///
/// # Errors
/// `NotFound` if nobody listens there, `Denied` if we may not connect, `Malformed` if it is another
/// kind of socket, `Busy` if it lets nobody in until the deadline, `Io` if the system has no
/// socket.
pub(super) fn connected(path: &Path, broker: &Broker, deadline: Instant) -> Result<OwnedFd> {
    let shown = path.display();
    let address = SocketAddrUnix::new(path).map_err(|errno| {
        failed(
            errno,
            format!("{shown} cannot be the path of a socket: give one of at most 107 bytes"),
        )
    })?;
    let file = path.to_owned();
    let meant = broker.run_apart(move || fs::metadata(file))?;
    if meant.is_ok_and(|file| !file.file_type().is_socket()) {
        let text = format!("{shown} is no socket: give one at which a program offers descriptors");
        return Err(Error::new(ErrorKind::NotFound, text));
    }
    loop {
        let socket =
            unconnected().map_err(|errno| failed(errno, "cannot make a socket".to_owned()))?;
        let address = address.clone();
        match broker.run_apart(move || connect(&socket, &address).map(|()| socket))? {
            Ok(socket) => return Ok(socket),
            Err(Errno::INTR) => {}
            // Its queue is full.
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
            Err(errno) => return Err(cannot_connect(broker, path, errno)),
        }
    }
}

/// Returns the error for a socket that cannot be connected to, with what to do about it.
fn cannot_connect(broker: &Broker, path: &Path, errno: Errno) -> Error {
    let shown = path.display();
    let (kind, text) = match errno {
        Errno::ACCESS | Errno::PERM => {
            let why = refusal::path::reason(broker, path, Use::Connect);
            return Error::new(ErrorKind::Denied, format!("cannot connect to {shown}: {why}"));
        }
        Errno::NOENT | Errno::NOTDIR => (
            ErrorKind::NotFound,
            format!(
                "there is no {shown}: start the program that makes this socket, or check the path"
            ),
        ),
        Errno::CONNREFUSED => (
            ErrorKind::NotFound,
            format!("nobody listens on {shown}: start the program that made this socket again"),
        ),
        Errno::AGAIN => (
            ErrorKind::Busy,
            format!(
                "{shown} accepts no connection: the program that listens there is too busy or \
                 stopped"
            ),
        ),
        Errno::PROTOTYPE => (
            ErrorKind::Malformed,
            format!(
                "{shown} is a socket of another kind: give one at which a program offers \
                 descriptors"
            ),
        ),
        _ => return failed(errno, format!("cannot connect to {shown}")),
    };
    Error::caused(kind, text, errno)
}

fn unconnected() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

fn failed(errno: Errno, text: String) -> Error {
    let kind = match io::Error::from(errno).kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Denied,
        _ if errno == Errno::NAMETOOLONG => ErrorKind::TooLarge,
        _ => ErrorKind::Io,
    };
    Error::caused(kind, text, errno)
}

#[cfg(test)]
mod tests;
