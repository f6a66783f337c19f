//! The socket's file: whose it is, who replaces it, who removes it.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use super::*;
use crate::handover::HandOver;
use crate::handover::tests::{Place, connect};

#[test]
fn the_socket_is_its_users_alone_and_goes_with_him() {
    let place = Place::new();
    let hand_over = HandOver::listen(&place.socket()).unwrap();
    let file = fs::symlink_metadata(place.socket()).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    drop(hand_over);
    assert!(!place.socket().exists());
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn a_live_socket_is_never_taken() {
    let place = Place::new();
    let first = HandOver::listen(&place.socket()).unwrap();
    let error = HandOver::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("already: give another path"), "{error}");
    connect(&place.socket()).unwrap();
    drop(first);
    // Of another kind, it is somebody's too.
    let _listener = UnixListener::bind(place.socket()).unwrap();
    let error = HandOver::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    let error = connect(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains("a socket of another kind"), "{error}");
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let place = Place::new();
    drop(UnixListener::bind(place.socket()).unwrap());
    let error = connect(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("nobody hands anything over at"), "{error}");
    drop(HandOver::listen(&place.socket()).unwrap());
    fs::write(place.socket(), "precious").unwrap();
    let error = HandOver::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
    assert_eq!(connect(&place.socket()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_file_that_took_its_place_stays() {
    let place = Place::new();
    let hand_over = HandOver::listen(&place.socket()).unwrap();
    fs::remove_file(place.socket()).unwrap();
    let other = HandOver::listen(&place.socket()).unwrap();
    let file = fs::symlink_metadata(place.socket()).unwrap().st_ino();
    drop(hand_over);
    assert_eq!(fs::symlink_metadata(place.socket()).unwrap().st_ino(), file);
    connect(&place.socket()).unwrap();
    drop(other);
}

#[test]
fn of_many_who_want_a_stale_socket_one_gets_it() {
    for _ in 0..20 {
        let place = Place::new();
        drop(UnixListener::bind(place.socket()).unwrap());
        let outcomes: Vec<_> = thread::scope(|scope| {
            let listen = || HandOver::listen(&place.socket());
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(listen)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let refused: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().err()).collect();
        assert_eq!(refused.len(), 7);
        assert!(refused.iter().all(|error| error.kind() == ErrorKind::Busy), "{refused:?}");
        connect(&place.socket()).unwrap();
    }
}

#[test]
fn a_path_that_cannot_be_is_said_to_be_none() {
    let place = Place::new();
    let nowhere = place.0.join("no/where");
    let error = HandOver::listen(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = connect(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let long = place.0.join("x".repeat(200));
    assert_eq!(HandOver::listen(&long).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(connect(&long).unwrap_err().kind(), ErrorKind::TooLarge);
}

#[test]
fn a_locked_directory_is_not_waited_for_for_ever() {
    let place = Place::new();
    let directory = fs::File::open(&place.0).unwrap();
    flock(&directory, FlockOperation::LockExclusive).unwrap();
    let before = Instant::now();
    let error = HandOver::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(before.elapsed() < 3 * LOCK_LIMIT, "{:?}", before.elapsed());
    drop(directory);
    HandOver::listen(&place.socket()).unwrap();
}
