//! The lock under which a stale socket is replaced: a file in its directory, for that moment.
//!
//! Invariant: no other user can hold it, nor keep us from going on. The file is ours and of mode
//! 0600, so no other user can open it, which a lock takes. Another user who may write in that
//! directory can put a file of its own at the name: then we go on without a lock, and do not wait.
//! We do so too if a FIFO, a link or a directory is there.
//!
//! Without the lock, two of our servers may replace one stale socket in the same µs, and the later
//! might remove the earlier's socket. Only a user who may write in the directory can bring that
//! about, and such a user can remove or shadow a socket anyway, or, if the directory is sticky,
//! take a socket's name before us.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::place::{FileId, file_at};

/// The longest wait for another process of ours that replaces a socket in the same directory,
/// which takes less than 1 ms. After it we go on without the lock.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_millis(500);
/// The pause before a lock that is held is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(2);
/// The bits of a mode by which other users could open the file.
const OTHERS: u32 = 0o077;

/// The lock, until it is dropped. Then its file goes too.
#[derive(Debug)]
pub(crate) struct ReplaceLock {
    /// Dropped behind the removal of the path, so that nobody locks a file that is about to go
    /// without noticing: see [`ReplaceLock::take`].
    _file: File,
    path: PathBuf,
}

impl ReplaceLock {
    /// Keeps other processes of this user from replacing a socket in that directory; `None` if
    /// there can be no such lock, or it is held for longer than [`LOCK_LIMIT`].
    pub(crate) fn take(directory: &Path) -> Option<Self> {
        let path = lock_path(directory);
        let deadline = Instant::now() + LOCK_LIMIT;
        loop {
            let file = open_own(&path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // The holder before removed the file: then another may hold a newer one.
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
        // If it cannot be removed, the next to take the lock uses the file and removes it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The file's path: one for each user, because no user can open another's.
fn lock_path(directory: &Path) -> PathBuf {
    directory.join(format!(".vmstrobe-{}.lock", geteuid().as_raw()))
}

/// Opens or makes the file; `None` if what is there is not a plain file of ours alone.
fn open_own(path: &Path) -> Option<File> {
    // NONBLOCK: of a FIFO, opening would wait for its other end.
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
    fn nothing_is_left_and_no_other_user_can_open_it() {
        let place = tempfile::tempdir().unwrap();
        let lock = ReplaceLock::take(place.path()).unwrap();
        let file = fs::symlink_metadata(lock_path(place.path())).unwrap();
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        drop(lock);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }

    #[test]
    fn one_at_a_time_has_it() {
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

    /// A lock on the directory, which anyone can take who may read it, is none of ours.
    #[test]
    fn a_locked_directory_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(&place).unwrap();
        flock(&directory, FlockOperation::LockExclusive).unwrap();
        assert!(ReplaceLock::take(place.path()).is_some());
    }

    #[test]
    fn what_is_not_a_file_of_ours_alone_is_no_lock() {
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
