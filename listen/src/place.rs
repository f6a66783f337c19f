//! The path of a socket: the kind of file that is there, and the removal of a stale socket, which
//! is one that no process has any more.
//!
//! Invariant: only a stale socket is removed. The look at a socket makes no connection, so its
//! process does not notice.
//!
//! A socket's file belongs to one socket for good: once no process has that socket any more, no
//! process can listen at the file again, so a stale socket stays stale.

use std::fs;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vmstrobe_core::{Error, ErrorKind, Result};

/// The device and the inode of a file, which tell it from every other file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl From<&fs::Metadata> for FileId {
    fn from(file: &fs::Metadata) -> Self {
        Self { device: file.st_dev(), inode: file.st_ino() }
    }
}

/// The file of a socket that this process made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    id: FileId,
}

impl SocketFile {
    /// Returns the file at a path; `None` if there is none. A later change of the working directory
    /// does not matter.
    pub fn at(path: &Path) -> Option<Self> {
        let path = std::path::absolute(path).ok()?;
        file_at(&path).map(|id| Self { path, id })
    }

    /// Returns the file's path, which is absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the file, unless another file has taken its place.
    pub fn remove(&self) {
        if file_at(&self.path) == Some(self.id) {
            // If it cannot be removed, the next server finds a stale socket.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The state of a path that a socket can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// There is no file.
    Free,
    /// There is a socket that no process has any more.
    Stale(FileId),
}

/// Returns the file at a path: the link itself, if it is one.
pub(crate) fn file_at(path: &Path) -> Option<FileId> {
    fs::symlink_metadata(path).ok().as_ref().map(FileId::from)
}

/// Returns the state of a path.
///
/// # Errors
/// `Busy` if a process has a socket there, `Unsupported` if another kind of file is there; else the
/// error for which the state cannot be found out.
pub(crate) fn look(path: &Path, address: &SocketAddrUnix) -> Result<Place> {
    let shown = path.display();
    let failed = |errno| cannot_listen(errno, &shown.to_string());
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(error) => return Err(failed(errno_of(&error))),
    };
    if !file.file_type().is_socket() {
        let text = format!("{shown} is there and no socket: give another path");
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    // A datagram socket: one that listens for connections has another type, and the kernel refuses
    // that (unix_find_bsd in net/unix/af_unix.c) before the listening process could see a client.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(failed)?;
    match connect(&probe, address) {
        Err(Errno::NOENT) => Ok(Place::Free),
        // Only if the file is the same as before: another may have been made in between.
        Err(Errno::CONNREFUSED) if file_at(path) == Some(FileId::from(&file)) => {
            Ok(Place::Stale(FileId::from(&file)))
        }
        Err(Errno::CONNREFUSED) => Ok(Place::Free),
        Ok(()) | Err(Errno::PROTOTYPE) => {
            let text = format!("another process listens at {shown} already: give another path");
            Err(Error::new(ErrorKind::Busy, text))
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Removes a stale socket, unless another file has taken its place.
///
/// # Errors
/// If the file cannot be removed.
pub(crate) fn remove_stale(path: &Path, stale: FileId) -> Result<()> {
    if file_at(path) != Some(stale) {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(cannot_listen(errno_of(&error), &path.display().to_string()))
        }
        _ => Ok(()),
    }
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
        // A socket was there at each try to bind, and none at the look after it.
        Errno::ADDRINUSE => {
            (ErrorKind::Busy, ": others take it again and again: give another path")
        }
        _ => (ErrorKind::Io, ""),
    };
    Error::caused(kind, format!("cannot listen at {shown}{advice}"), errno)
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_the_socket_that_was_found_stale_is_removed() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("socket");
        let address = SocketAddrUnix::new(&path).unwrap();
        assert_eq!(look(&path, &address).unwrap(), Place::Free);
        drop(UnixListener::bind(&path).unwrap());
        let stale = file_at(&path).unwrap();
        assert_eq!(look(&path, &address).unwrap(), Place::Stale(stale));
        // Another socket takes the path; the old file is kept, so that its inode is not reused.
        let kept = place.path().join("kept");
        fs::rename(&path, &kept).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        remove_stale(&path, stale).unwrap();
        assert_eq!(look(&path, &address).unwrap_err().kind(), ErrorKind::Busy);
        remove_stale(&kept, stale).unwrap();
        assert!(!kept.exists());
        remove_stale(&kept, stale).unwrap();
    }
}
