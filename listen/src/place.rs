//! The place in the directory: looked at, made free, kept from others meanwhile.
//!
//! Invariant: what is removed is a socket that no process has. Nobody notices that it was looked
//! at: no connection is made.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::linux::fs::MetadataExt;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use vmstrobe_core::{Error, ErrorKind, Result};

use crate::listening::cannot_listen;

/// How long to wait for another who is about to listen in the same directory: that takes him less
/// than a ms.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(1);
/// How often what is locked is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// What tells a file from every other that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

/// What stands at that path itself, be it a link.
pub(crate) fn file_at(path: &Path) -> Option<FileId> {
    let file = fs::symlink_metadata(path).ok()?;
    Some(FileId { device: file.st_dev(), inode: file.st_ino() })
}

/// Removes a socket that nobody has any more.
pub(crate) fn make_room(path: &Path, address: &SocketAddrUnix) -> Result<()> {
    let shown = path.display().to_string();
    let failed = |errno| cannot_listen(errno, &shown);
    // Datagrams: whoever listens there for connections is of another kind, which the kernel says
    // (unix_find_bsd in net/unix/af_unix.c) before he would have to let us in and see us leave.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).map_err(failed)?;
    match connect(&probe, address) {
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
        Ok(()) | Err(Errno::PROTOTYPE) => {
            let text = format!("somebody listens at {shown} already: give another path");
            Err(Error::new(ErrorKind::Busy, text))
        }
        Err(errno) => Err(failed(errno)),
    }
}

/// Keeps everyone who does the same out of that directory until it is dropped.
pub(crate) fn lock(directory: &Path) -> Result<OwnedFd> {
    let shown = directory.display().to_string();
    let failed = |errno| cannot_listen(errno, &format!("a path in {shown}"));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_directory_is_not_waited_for_for_ever() {
        let place = tempfile::tempdir().unwrap();
        let directory = fs::File::open(&place).unwrap();
        flock(&directory, FlockOperation::LockExclusive).unwrap();
        let before = Instant::now();
        let error = lock(place.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("locked: give a path in another one"), "{error}");
        assert!((LOCK_LIMIT..3 * LOCK_LIMIT).contains(&before.elapsed()), "{:?}", before.elapsed());
        drop(directory);
        lock(place.path()).unwrap();
    }

    #[test]
    fn one_at_a_time_has_the_directory() {
        let place = tempfile::tempdir().unwrap();
        let held = lock(place.path()).unwrap();
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                let before = Instant::now();
                lock(place.path()).unwrap();
                before.elapsed()
            });
            thread::sleep(Duration::from_millis(50));
            drop(held);
            assert!(other.join().unwrap() >= Duration::from_millis(20));
        });
    }
}
