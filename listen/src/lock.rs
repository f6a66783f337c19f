//! The lock under which a stale socket is replaced: a file in the socket's directory, which exists
//! only for that moment.
//!
//! Invariant: no other user can hold the lock, or make a process of this user wait for it. The file
//! belongs to this user and has mode 0600, so no other user can open it, which locking requires.
//! Another user that may write in the directory can put a file of its own at the lock's name: then
//! the socket is replaced without a lock, and without a wait. The same happens if a FIFO, a link or
//! a directory is there.
//!
//! Without the lock, two servers may replace one stale socket in the same µs, and the later might
//! remove the earlier's socket. Only a user that may write in the directory can cause that. Such a
//! user can remove or shadow a socket anyway, or, if the directory is sticky, take a socket's name
//! first.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::place::{FileId, file_at};

/// The longest wait for another process of this user that replaces a socket in the same directory,
/// which takes less than 1 ms. After this time the socket is replaced without the lock.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_millis(500);
/// The pause between two tries at a lock that is held.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// The bits of a mode by which other users could open the file.
const OTHERS: u32 = 0o077;

/// The lock. Dropping it removes its file and frees it.
#[derive(Debug)]
pub(crate) struct ReplaceLock {
    /// The locked file. It is closed after its path is removed, so that a process that locks it
    /// then notices that it is gone: see [`ReplaceLock::take`].
    _file: File,
    path: PathBuf,
}

impl ReplaceLock {
    /// Takes the lock, which keeps other processes of this user from replacing a socket in that
    /// directory; `None` if there can be no lock, or it is held for longer than [`LOCK_LIMIT`].
    pub(crate) fn take(directory: &Path) -> Option<Self> {
        let path = lock_path(directory);
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            let file = open_own(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // If the last holder removed the file, another process may hold a newer one.
                Ok(()) if file_at(&path) == id(&file) => return Some(Self { _file: file, path }),
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => thread::sleep(RETRY_PAUSE),
                Err(_) => return None,
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }
}

impl Drop for ReplaceLock {
    fn drop(&mut self) {
        // If it cannot be removed, the next holder uses the file and removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the path of the lock's file, which has the user in its name, because no user can open
/// the file of another.
fn lock_path(directory: &Path) -> PathBuf {
    directory.join(format!(".vmstrobe-{}.lock", geteuid().as_raw()))
}

/// Opens or makes the file; `None` if there is anything but a plain file for this user alone.
fn open_own(path: &Path) -> Option<File> {
    // NONBLOCK, because opening a FIFO would wait for its other end.
    let flags = OFlags::RDWR
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let file = File::from(open(path, flags, Mode::RUSR | Mode::WUSR).ok()?);
    let found = file.metadata().ok()?;
    let is_ours = found.uid() == geteuid().as_raw() && found.mode() & OTHERS == 0;
    (found.is_file() && is_ours).then_some(file)
}

fn id(file: &File) -> Option<FileId> {
    file.metadata().ok().as_ref().map(FileId::from)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    /// Checks that no lock is taken, and that the file at its name stays.
    #[track_caller]
    fn goes_without(directory: &Path) {
        assert!(ReplaceLock::take(directory).is_none());
        assert!(fs::symlink_metadata(lock_path(directory)).is_ok());
    }

    #[test]
    fn the_file_is_removed_and_no_other_user_can_open_it() {
        let place = tempfile::tempdir().unwrap();
        let lock = ReplaceLock::take(place.path()).unwrap();
        let file = fs::symlink_metadata(lock_path(place.path())).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        drop(lock);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn one_thread_at_a_time_has_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let holders = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let Some(_lock) = ReplaceLock::take(place.path()) else { continue };
                        let others = holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others, 0);
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_that_stays_held_is_not_taken() {
        let place = tempfile::tempdir().unwrap();
        let _held = ReplaceLock::take(place.path()).unwrap();
        assert!(ReplaceLock::take(place.path()).is_none());
    }

    /// Any user that may read the directory can lock it.
    #[test]
    fn a_lock_on_the_directory_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(&place).unwrap();
        flock(&directory, FlockOperation::LockExclusive).unwrap();
        assert!(ReplaceLock::take(place.path()).is_some());
    }

    #[test]
    fn only_a_file_for_this_user_alone_is_locked() {
        type Make = fn(&Path);
        let at_the_name: [(&str, Make); 5] = [
            ("directory", |path| fs::create_dir(path).unwrap()),
            ("link", |path| symlink("elsewhere", path).unwrap()),
            ("socket", |path| drop(UnixListener::bind(path).unwrap())),
            ("fifo", |path| {
                mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            }),
            ("open to others", |path| {
                fs::write(path, "").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            }),
        ];
        for (what, make) in at_the_name {
            let place = tempfile::tempdir().unwrap();
            make(&lock_path(place.path()));
            goes_without(place.path());
            assert!(!place.path().join("elsewhere").exists(), "{what}");
        }
        if geteuid().is_root() {
            let place = tempfile::tempdir().unwrap();
            let path = lock_path(place.path());
            drop(open_own(&path).unwrap());
            chown(&path, Some(65534), None).unwrap();
            goes_without(place.path());
        }
        assert!(ReplaceLock::take(Path::new("/no/such/directory")).is_none());
    }
}
