//! Both ends of the socket: one that listens at a path, and one that is connected to it.
//!
//! Invariant: a path at which somebody listens is never taken from him. A socket's file is removed
//! by whoever made it, or when nobody listens there any more; another kind of file never is. All
//! waits are bounded.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use vmstrobe_core::{Error, ErrorKind, Result};

/// How many may wait to be let in.
const BACKLOG: i32 = 16;
/// How long to wait for another who is about to listen in the same directory: that takes him less
/// than a ms.
pub(super) const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// How often what is taken is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// A socket that listens. Its file is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Listening {
    pub(super) socket: OwnedFd,
    path: PathBuf,
    /// Device and inode.
    file: Option<(u64, u64)>,
}

impl Listening {
    /// Listens at that path, for this user and root.
    ///
    /// # Errors
    /// `Busy` if somebody listens there, `Unsupported` if another kind of file is there, `TooLarge`
    /// if the path is too long for a socket, `NotFound` or `Denied` if its directory is not there
    /// or not ours, `Io` if the system has no socket.
    pub(super) fn at(path: &Path) -> Result<Self> {
        let shown = path.display();
        let failed = |errno| failed(errno, format!("cannot listen at {shown}"));
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        // For removing it, wherever this process will be by then.
        let path = std::path::absolute(path).map_err(|error| {
            Error::caused(ErrorKind::NotFound, format!("{shown} is no path"), error)
        })?;
        // Between looking and listening nobody else looks.
        let _lock = lock(path.parent().unwrap_or(Path::new("/")))?;
        make_room(&path, &address)?;
        let socket = unconnected().map_err(failed)?;
        // Before it is bound: the file is made with the socket's mode.
        fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        bind(&socket, &address).map_err(failed)?;
        let listening = Self { socket, file: file_at(&path), path };
        listen(&listening.socket, BACKLOG).map_err(failed)?;
        Ok(listening)
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

/// Connects to whoever listens at that path.
///
/// # Errors
/// `NotFound` if nobody listens there, `Denied` if we may not connect, `Malformed` if it is another
/// kind of socket, `Busy` if it lets nobody in until the deadline, `Io` if the system has no
/// socket.
pub(super) fn connected(path: &Path, deadline: Instant) -> Result<OwnedFd> {
    let shown = path.display();
    let address = SocketAddrUnix::new(path)
        .map_err(|errno| failed(errno, format!("{shown} is no path of a socket")))?;
    let socket = unconnected().map_err(|errno| failed(errno, "cannot make a socket".to_owned()))?;
    loop {
        match connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            // Its queue is full.
            Err(Errno::AGAIN) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
            Err(Errno::AGAIN) => {
                let text = format!("{shown} lets nobody in: its process is overrun or stopped");
                return Err(Error::new(ErrorKind::Busy, text));
            }
            Err(Errno::CONNREFUSED) => {
                let text = format!("nobody hands anything over at {shown} (any more)");
                return Err(Error::caused(ErrorKind::NotFound, text, Errno::CONNREFUSED));
            }
            Err(Errno::PROTOTYPE) => {
                let text = format!("{shown} is a socket of another kind, and no hand-over");
                return Err(Error::caused(ErrorKind::Malformed, text, Errno::PROTOTYPE));
            }
            Err(errno) => return Err(failed(errno, format!("cannot connect to {shown}"))),
        }
    }
}

fn unconnected() -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// Removes a socket at which nobody listens any more.
fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let shown = path.display();
    let failed = |errno| failed(errno, format!("cannot listen at {shown}"));
    match connect(&unconnected().map_err(failed)?, address) {
        Err(Errno::NOENT) => Ok(()),
        Err(Errno::CONNREFUSED) => {
            let is_socket =
                fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
            if !is_socket {
                let text = format!("{shown} is there and no socket: give another path");
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
            fs::remove_file(path).map_err(|error| {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                failed(errno)
            })
        }
        // Also if his queue is full, or his socket of another kind.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => {
            let text = format!("somebody listens at {shown} already: give another path");
            Err(Error::new(ErrorKind::Busy, text))
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Keeps everyone who does the same out of that directory until it is dropped.
fn lock(directory: &Path) -> Result<OwnedFd> {
    let shown = directory.display();
    let failed = |errno| failed(errno, format!("cannot listen in {shown}"));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let lock = open(directory, flags, Mode::empty()).map_err(failed)?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => thread::sleep(RETRY_PAUSE),
            Err(Errno::WOULDBLOCK) => {
                let text = format!("somebody keeps {shown} locked: give a path in another one");
                return Err(Error::new(ErrorKind::Busy, text));
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.st_dev(), file.st_ino()))
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
