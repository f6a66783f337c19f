//! The socket itself: it is made, accepts clients, and is removed.
//!
//! Invariant: nothing here waits longer than [`LOCK_LIMIT`](crate::lock::LOCK_LIMIT). The socket
//! listens only after its file has its final group and mode, so every accepted client was allowed
//! to connect.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::fchmod;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use vmstrobe_core::{Error, ErrorKind, Result};

use crate::Access;
use crate::lock::ReplaceLock;
use crate::place::{Place, SocketFile, cannot_listen, look, remove_stale};

/// The backlog of `listen(2)`: the clients that may wait to be accepted.
const BACKLOG: i32 = 16;
/// The most tries to bind a path that was taken at the first look and free at the second.
const BIND_TRIES: u32 = 8;

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream of bytes (`SOCK_STREAM`), which QMP uses.
    Stream,
    /// Packets, each received whole (`SOCK_SEQPACKET`), which the hand-over of descriptors uses.
    SeqPacket,
}

/// A socket that listens. Dropping it removes its file, unless another file has taken its place.
#[derive(Debug)]
pub struct Listening {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

impl Listening {
    /// Listens at a path, for the users that `access` allows. A socket there that no process has
    /// any more is replaced.
    ///
    /// # Errors
    /// `Busy` if a process has a socket there, `Unsupported` if another kind of file is there,
    /// `TooLarge` if the path is too long for a socket (108 bytes), `NotFound` if its directory
    /// does not exist, `Denied` if this user may not write the directory or give the group, `Io` if
    /// the system has no socket.
    pub fn at(path: &Path, kind: Kind, access: &Access) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |errno| cannot_listen(errno, &shown);
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        // An absolute path, because the working directory may change before the file is removed.
        let path = std::path::absolute(path).map_err(|error| {
            Error::caused(ErrorKind::NotFound, format!("{shown} is no path: give another"), error)
        })?;
        let socket = unconnected(kind).map_err(failed)?;
        // Before it is bound, because the file is made with the socket's mode.
        fchmod(&socket, access.mode_at_first()).map_err(failed)?;
        bind_at(&socket, &path, &address)?;
        // From here on dropping it removes the file, also if a later step fails.
        let listening = Self { socket, file: SocketFile::at(&path) };
        access.give_to(&path)?;
        listen(&listening.socket, BACKLOG).map_err(failed)?;
        Ok(listening)
    }

    /// Returns the socket, which is readable when a client waits to be accepted, and never blocks.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Accepts the client that waits longest. Its socket blocks, and is closed on exec.
    ///
    /// # Errors
    /// The error of `accept4(2)`: `AGAIN` if no client waits; `INTR` and `CONNABORTED`, after which
    /// a second call may succeed; `MFILE`, `NFILE`, `NOBUFS` or `NOMEM` if there is no room for the
    /// client: it goes on waiting, and [`Listening::socket`] stays readable.
    pub fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.socket, SocketFlags::CLOEXEC)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.file.iter().for_each(SocketFile::remove);
    }
}

/// Binds the socket, and replaces a socket that no process has any more.
///
/// Binding is exclusive by itself: of all processes that bind at a free path, one succeeds. A lock
/// is needed only to replace a stale socket, so that no socket is removed that was made since.
fn bind_at(socket: &OwnedFd, path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let failed = |errno| cannot_listen(errno, &path.display().to_string());
    for _ in 0..BIND_TRIES {
        match bind(socket, address) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map_err(failed),
        }
        if let Place::Free = look(path, address)? {
            continue;
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let _lock = ReplaceLock::take(directory);
        // Look again: the process that had the lock before may have replaced the socket.
        if let Place::Stale(file) = look(path, address)? {
            remove_stale(path, file)?;
        }
        match bind(socket, address) {
            Err(Errno::ADDRINUSE) => {}
            bound => return bound.map_err(failed),
        }
    }
    Err(failed(Errno::ADDRINUSE))
}

/// Removes the socket at a path if no process has it any more. Returns true if it was removed.
///
/// # Errors
/// `Unsupported` if another kind of file is there, `TooLarge` if the path is too long for a socket;
/// else the error for which it cannot be examined or removed.
pub fn remove_if_stale(path: &Path) -> Result<bool> {
    let address = SocketAddrUnix::new(path)
        .map_err(|errno| cannot_listen(errno, &path.display().to_string()))?;
    let is_stale = || match look(path, &address) {
        Ok(Place::Stale(file)) => Ok(Some(file)),
        Ok(Place::Free) => Ok(None),
        Err(error) if error.kind() == ErrorKind::Busy => Ok(None),
        Err(error) => Err(error),
    };
    // The lock is a file that is made and removed, which a socket in use should not cause.
    if is_stale()?.is_none() {
        return Ok(false);
    }
    let _lock = ReplaceLock::take(path.parent().unwrap_or(Path::new("/")));
    match is_stale()? {
        Some(file) => remove_stale(path, file).map(|()| true),
        None => Ok(false),
    }
}

fn unconnected(kind: Kind) -> rustix::io::Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::SeqPacket => SocketType::SEQPACKET,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

#[cfg(test)]
mod tests;
