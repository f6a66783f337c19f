//! The socket itself: made, let in by, removed.
//!
//! Invariant: nothing here waits beyond [`LOCK_LIMIT`](crate::place::LOCK_LIMIT). Whoever is let in
//! came when the file had its final group and mode, for only then does it listen.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::fchmod;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};
use vmstrobe_core::{Error, ErrorKind, Result};

use crate::Access;
use crate::place::{FileId, file_at, lock, make_room};

/// How many may wait to be let in.
const BACKLOG: i32 = 16;

/// What a socket carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes in a row (`SOCK_STREAM`): QMP.
    Stream,
    /// Packets, each whole (`SOCK_SEQPACKET`): the hand-over.
    SeqPacket,
}

/// A socket that listens. Its file is removed when this is dropped, unless another has taken its
/// place by then.
#[derive(Debug)]
pub struct Listening {
    socket: OwnedFd,
    path: PathBuf,
    file: Option<FileId>,
}

impl Listening {
    /// Listens at that path, for those whom `access` lets connect. A socket that nobody has any
    /// more is replaced.
    ///
    /// # Errors
    /// `Busy` if somebody has a socket there or keeps its directory locked, `Unsupported` if
    /// another kind of file is there, `TooLarge` if the path is too long for a socket (108 bytes),
    /// `NotFound` or `Denied` if its directory is not there or not ours to write, `Denied` if the
    /// group is not ours to give, `Io` if the system has no socket.
    pub fn at(path: &Path, kind: Kind, access: &Access) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |errno| cannot_listen(errno, &shown);
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        // For removing it, wherever this process will be by then.
        let path = std::path::absolute(path).map_err(|error| {
            Error::caused(ErrorKind::NotFound, format!("{shown} is no path: give another"), error)
        })?;
        // Between looking and listening nobody else looks.
        let _lock = lock(path.parent().unwrap_or(Path::new("/")))?;
        make_room(&path, &address)?;
        let socket = unconnected(kind).map_err(failed)?;
        // Before it is bound: the file is made with the socket's mode.
        fchmod(&socket, access.mode_at_first()).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        // From here on the file goes with it, also if what follows fails.
        let listening = Self { socket, file: file_at(&path), path };
        access.give_to(&listening.path)?;
        listen(&listening.socket, BACKLOG).map_err(failed)?;
        Ok(listening)
    }

    /// Readable when somebody waits to be let in. It never blocks.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Lets in who waits longest. His socket blocks, and is closed on exec.
    ///
    /// # Errors
    /// As `accept4(2)`: `AGAIN` if nobody waits; `INTR` and `CONNABORTED` pass; `MFILE`, `NFILE`,
    /// `NOBUFS` or `NOMEM` if there is no room for him: he goes on waiting, and
    /// [`Listening::socket`] stays readable.
    pub fn accept(&self) -> rustix::io::Result<OwnedFd> {
        accept_with(&self.socket, SocketFlags::CLOEXEC)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Unless another has it now: then somebody removed ours.
        if self.file.is_some() && file_at(&self.path) == self.file {
            // If it cannot be removed, whoever comes next finds that nobody listens there.
            let _ = fs::remove_file(&self.path);
        }
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

/// What keeps us from listening there, and what to do about it.
pub(crate) fn cannot_listen(errno: Errno, shown: &str) -> Error {
    let (kind, advice) = match errno {
        Errno::NOENT | Errno::NOTDIR => {
            (ErrorKind::NotFound, ": make its directory first, or give another path")
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => {
            (ErrorKind::Denied, ": give a path in a directory that is yours to write")
        }
        Errno::NAMETOOLONG => (ErrorKind::TooLarge, ": give a shorter path"),
        // By somebody who looks for no lock.
        Errno::ADDRINUSE => (ErrorKind::Busy, ": somebody took it just now: give another path"),
        _ => (ErrorKind::Io, ""),
    };
    Error::caused(kind, format!("cannot listen at {shown}{advice}"), errno)
}

#[cfg(test)]
mod tests;
