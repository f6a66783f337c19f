//! Tests of the socket's file: its access, its replacement and its removal.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;

use super::*;

/// Makes a directory, and returns it with the path of a socket in it.
fn place() -> (TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    (place, path)
}

fn listening(path: &Path) -> Result<Listening> {
    Listening::at(path, Kind::Stream, &Access::default())
}

/// Returns the kind and the text of the error with which listening at a path fails.
#[track_caller]
fn refused(path: &Path) -> (ErrorKind, String) {
    let error = listening(path).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn a_socket_is_for_its_user_alone_and_dropping_it_removes_the_file() {
    for kind in [Kind::Stream, Kind::SeqPacket] {
        let (place, path) = place();
        let listening = Listening::at(&path, kind, &Access::default()).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        drop(listening);
        assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    }
}

#[test]
fn a_waiting_client_is_accepted_and_its_socket_blocks() {
    let (_place, path) = place();
    let listening = listening(&path).unwrap();
    assert_eq!(listening.accept().unwrap_err(), Errno::AGAIN);
    let mut client = UnixStream::connect(&path).unwrap();
    let mut ours = UnixStream::from(listening.accept().unwrap());
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        client.write_all(b"x").unwrap();
    });
    assert_eq!(ours.read(&mut [0; 2]).unwrap(), 1);
    writer.join().unwrap();
}

#[test]
fn a_socket_of_packets_refuses_a_stream() {
    let (_place, path) = place();
    let _listening = Listening::at(&path, Kind::SeqPacket, &Access::default()).unwrap();
    let error = UnixStream::connect(&path).unwrap_err();
    assert_eq!(Errno::from_io_error(&error), Some(Errno::PROTOTYPE));
}

#[test]
fn group_and_mode_are_as_asked() {
    let own = getegid().as_raw();
    for (mode, group) in [(0o660, Some(own)), (0o666, None), (0o770, None), (0o400, Some(own))] {
        let (_place, path) = place();
        let access = Access { mode, group };
        let _listening = Listening::at(&path, Kind::Stream, &access).unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.gid()), (mode, own), "{access:?}");
    }
}

#[test]
fn only_root_gives_a_group_that_it_is_not_in() {
    let (_place, path) = place();
    let foreign = 0x7EAD_BEEF;
    let access = Access { mode: 0o660, group: Some(foreign) };
    let listening = Listening::at(&path, Kind::Stream, &access);
    if geteuid().is_root() {
        let _listening = listening.unwrap();
        let file = fs::symlink_metadata(&path).unwrap();
        assert_eq!((file.mode() & 0o7777, file.gid()), (0o660, foreign));
    } else {
        let error = listening.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("give one that this user is in"), "{error}");
        assert!(!path.exists());
    }
}

#[test]
fn a_live_socket_is_never_taken_nor_disturbed() {
    let (_place, path) = place();
    let first = listening(&path).unwrap();
    let (kind, text) = refused(&path);
    assert_eq!(kind, ErrorKind::Busy);
    assert!(text.contains("already: give another path"), "{text}");
    // The refused server has not connected.
    assert_eq!(first.accept().unwrap_err(), Errno::AGAIN);
    drop(first);
    // Sockets of other programs are not taken either, whatever their type.
    let listener = UnixListener::bind(&path).unwrap();
    assert_eq!(refused(&path).0, ErrorKind::Busy);
    UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    fs::remove_file(&path).unwrap();
    let _datagrams = UnixDatagram::bind(&path).unwrap();
    assert_eq!(refused(&path).0, ErrorKind::Busy);
}

#[test]
fn a_socket_with_a_full_queue_is_not_taken_either() {
    let (_place, path) = place();
    let _first = listening(&path).unwrap();
    let waiting: Vec<_> = (0..=BACKLOG).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert_eq!(refused(&path).0, ErrorKind::Busy);
    drop(waiting);
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let (_place, path) = place();
    drop(UnixListener::bind(&path).unwrap());
    drop(listening(&path).unwrap());
    fs::write(&path, "precious").unwrap();
    let (kind, text) = refused(&path);
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.contains("no socket: give another path"), "{text}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // A link is no socket, even if it leads to a stale one.
    let stale = path.with_extension("stale");
    drop(UnixListener::bind(&stale).unwrap());
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&stale, &path).unwrap();
    assert_eq!(refused(&path).0, ErrorKind::Unsupported);
    assert!(stale.exists() && fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_file_that_took_the_place_stays() {
    let (_place, path) = place();
    let first = listening(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let other = listening(&path).unwrap();
    let inode = fs::symlink_metadata(&path).unwrap().ino();
    drop(first);
    assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), inode);
    UnixStream::connect(&path).unwrap();
    drop(other);
    assert!(!path.exists());
}

#[test]
fn one_of_many_threads_replaces_a_stale_socket() {
    for _ in 0..20 {
        let (_place, path) = place();
        drop(UnixListener::bind(&path).unwrap());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| listening(&path))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let refused: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
        assert_eq!(refused.len(), 7);
        assert!(refused.iter().all(|error| error.kind() == ErrorKind::Busy), "{refused:?}");
        UnixStream::connect(&path).unwrap();
    }
}

#[test]
fn a_stale_socket_is_replaced_although_the_name_of_the_lock_is_taken() {
    let (place, path) = place();
    let lock = place.path().join(format!(".vmstrobe-{}.lock", geteuid().as_raw()));
    fs::create_dir(&lock).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let _listening = listening(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    assert!(lock.is_dir());
}

#[test]
fn a_link_to_nowhere_is_left_alone() {
    let (place, path) = place();
    let nowhere = place.path().join("nowhere");
    std::os::unix::fs::symlink(&nowhere, &path).unwrap();
    assert_eq!(refused(&path).0, ErrorKind::Unsupported);
    assert!(!nowhere.exists() && fs::symlink_metadata(&path).unwrap().is_symlink());
}

#[test]
fn a_path_that_cannot_be_listened_at_is_an_error() {
    let (place, path) = place();
    fs::write(&path, "").unwrap();
    let (kind, text) = refused(&place.path().join("no/where"));
    assert_eq!(kind, ErrorKind::NotFound);
    assert!(text.contains("make its directory first"), "{text}");
    assert_eq!(refused(&path.join("below-a-file")).0, ErrorKind::NotFound);
    let (kind, text) = refused(&place.path().join("x".repeat(200)));
    assert_eq!(kind, ErrorKind::TooLarge);
    assert!(text.contains("give a shorter path"), "{text}");
    assert_eq!(refused(Path::new("")).0, ErrorKind::NotFound);
}

#[test]
fn only_a_stale_socket_is_removed_on_request() {
    let (place, path) = place();
    assert!(!remove_if_stale(&path).unwrap());
    drop(UnixListener::bind(&path).unwrap());
    assert!(remove_if_stale(&path).unwrap());
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
    let live = listening(&path).unwrap();
    assert!(!remove_if_stale(&path).unwrap());
    UnixStream::connect(&path).unwrap();
    drop(live);
    fs::write(&path, "precious").unwrap();
    assert_eq!(remove_if_stale(&path).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}
