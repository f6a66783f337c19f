//! The time that replacing a stale socket takes if something stands in its way. A test binary of
//! its own, because cargo runs one binary after the other: nothing else of the workspace's tests
//! runs beside what is timed.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, flock, mknodat};
use rustix::process::geteuid;
use tempfile::TempDir;
use vmstrobe_listen::{Access, Kind, Listening};

/// The longest wait for another process of this user that replaces a socket.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// Makes a directory with a stale socket, and returns it with the paths of socket and lock.
fn stale_socket() -> (TempDir, PathBuf, PathBuf) {
    let place = tempfile::tempdir().expect("a temporary directory can be made");
    let socket = place.path().join("socket");
    drop(UnixListener::bind(&socket).expect("the path is free"));
    let lock = place.path().join(format!(".vmstrobe-{}.lock", geteuid().as_raw()));
    (place, socket, lock)
}

/// Listens at that path, where a stale socket is, and returns the time that it took.
fn time_to_listen(path: &Path) -> Duration {
    let before = Instant::now();
    let listening = Listening::at(path, Kind::Stream, &Access::default());
    let took = before.elapsed();
    drop(listening.expect("a stale socket is replaced"));
    took
}

#[test]
fn a_process_of_this_user_that_hangs_is_waited_for_within_the_limit() {
    let (_place, socket, lock) = stale_socket();
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&lock);
    let held = options.expect("the directory is writable");
    flock(&held, FlockOperation::LockExclusive).expect("the lock is free");
    let took = time_to_listen(&socket);
    assert!((LOCK_LIMIT..2 * LOCK_LIMIT).contains(&took), "{took:?}");
}

/// Any user who may read a directory can lock it.
#[test]
fn a_lock_on_the_directory_keeps_no_server_waiting() {
    let (place, socket, _) = stale_socket();
    let directory = File::open(&place).expect("the directory is readable");
    flock(&directory, FlockOperation::LockExclusive).expect("the lock is free");
    let took = time_to_listen(&socket);
    assert!(took < LOCK_LIMIT, "{took:?}");
    assert_eq!(fs::read_dir(&place).expect("the directory is readable").count(), 0);
}

#[test]
fn a_file_that_cannot_be_the_lock_keeps_no_server_waiting() {
    type Make = fn(&Path);
    let makes: [Make; 3] = [
        |lock| fs::create_dir(lock).expect("the directory is writable"),
        |lock| drop(UnixListener::bind(lock).expect("the directory is writable")),
        |lock| {
            mknodat(CWD, lock, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
                .expect("the directory is writable");
        },
    ];
    for make in makes {
        let (_place, socket, lock) = stale_socket();
        make(&lock);
        let took = time_to_listen(&socket);
        assert!(took < LOCK_LIMIT, "{took:?}");
    }
}
