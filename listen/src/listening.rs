//! The socket itself: made, let in by, removed.
//!
//! Invariant: nothing here waits beyond [`LOCK_LIMIT`](crate::lock::LOCK_LIMIT). A client that is
//! let in came when the file had its final group and mode, for only then does the socket listen.

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
use crate::place::{Place, SocketFile, look, remove_stale};

/// The backlog of `listen(2)`: the clients that may wait to be accepted.
const BACKLOG: i32 = 16;
/// The most tries to bind a path that was taken at the first look and free at the second.
const BIND_TRIES: u32 = 8;

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A stream of bytes (`SOCK_STREAM`), as QMP uses it.
    Stream,
    /// Packets, each received whole (`SOCK_SEQPACKET`), as the hand-over of descriptors uses it.
    SeqPacket,
}

/// A socket that listens. Its file is removed when this is dropped, unless another has taken its
/// place by then.
#[derive(Debug)]
pub struct Listening {
    socket: OwnedFd,
    file: Option<SocketFile>,
}

impl Listening {
    /// Listens at that path, for those whom `access` lets connect. A socket that nobody has any
    /// more is replaced.
    ///
    /// # Errors
    /// `Busy` if a process has a socket there, `Unsupported` if another kind of file is there,
    /// `TooLarge` if the path is too long for a socket (108 bytes), `NotFound` or `Denied` if its
    /// directory is not there or not ours to write, `Denied` if the group is not ours to give, `Io`
    /// if the system has no socket.
    pub fn at(path: &Path, kind: Kind, access: &Access) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |errno| cannot_listen(errno, &shown);
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        // For removing it, wherever this process will be by then.
        let path = std::path::absolute(path).map_err(|error| {
            Error::caused(ErrorKind::NotFound, format!("{shown} is no path: give another"), error)
        })?;
        let socket = unconnected(kind).map_err(failed)?;
        // Before it is bound: the file is made with the socket's mode.
        fchmod(&socket, access.mode_at_first()).map_err(failed)?;
        bind_at(&socket, &path, &address)?;
        // From here on the file goes with it, also if what follows fails.
        let listening = Self { socket, file: SocketFile::at(&path) };
        access.give_to(&path)?;
        listen(&listening.socket, BACKLOG).map_err(failed)?;
        Ok(listening)
    }

    /// Readable when somebody waits to be let in. It never blocks.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Lets in the client that waits longest. Its socket blocks, and is closed on exec.
    ///
    /// # Errors
    /// As `accept4(2)`: `AGAIN` if nobody waits; `INTR` and `CONNABORTED` pass; `MFILE`, `NFILE`,
    /// `NOBUFS` or `NOMEM` if there is no room for it: it goes on waiting, and
    /// [`Listening::socket`] stays readable.
    pub fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.socket, SocketFlags::CLOEXEC)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.file.iter().for_each(SocketFile::remove);
    }
}

/// Binds, and replaces a socket that no process has any more.
///
/// Binding is exclusive by itself: of all that bind at a free path, the kernel lets one. A lock is
/// needed only to replace a stale socket, so that what is removed is not another's, made since.
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
        // Again: whoever had the lock before may have replaced it.
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

fn unconnected(kind: Kind) -> rustix::io::Result<OwnedFd> {
    let kind = match kind {
        Kind::Stream => SocketType::STREAM,
        Kind::SeqPacket => SocketType::SEQPACKET,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// Returns the error that says why the path cannot be listened at, and what to do about it.
pub(crate) fn cannot_listen(errno: Errno, shown: &str) -> Error {
    let (kind, advice) = match errno {
        Errno::NOENT | Errno::NOTDIR => {
            (ErrorKind::NotFound, ": make its directory first, or give another path")
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (ErrorKind::Denied, ": give a path in a directory that is yours to write")
        }
        Errno::NAMETOOLONG => (ErrorKind::TooLarge, ": give a shorter path"),
        // It came and went at each look.
        Errno::ADDRINUSE => {
            (ErrorKind::Busy, ": others take it again and again: give another path")
        }
        _ => (ErrorKind::Io, ""),
    };
    Error::caused(kind, format!("cannot listen at {shown}{advice}"), errno)
}

#[cfg(test)]
mod tests;
