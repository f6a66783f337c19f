//! The socket's file as a server and a client meet it. What the crate that listens keeps of it,
//! its own tests show.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;

use super::*;
use crate::FdServer;
use crate::tests::{Place, connect};

#[test]
fn the_socket_is_private_to_its_user_and_is_removed() {
    let place = Place::new();
    let hand_over = FdServer::listen(&place.socket()).unwrap();
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
    let first = FdServer::listen(&place.socket()).unwrap();
    let error = FdServer::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("already: give another path"), "{error}");
    connect(&place.socket()).unwrap();
    drop(first);
    // Of another kind, it is somebody's too.
    let _listener = UnixListener::bind(place.socket()).unwrap();
    let error = FdServer::listen(&place.socket()).unwrap_err();
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
    assert!(error.to_string().contains("nobody listens on"), "{error}");
    drop(FdServer::listen(&place.socket()).unwrap());
    fs::write(place.socket(), "precious").unwrap();
    let error = FdServer::listen(&place.socket()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "precious");
    assert_eq!(connect(&place.socket()).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_path_that_cannot_be_is_said_to_be_none() {
    let place = Place::new();
    let nowhere = place.0.join("no/where");
    let error = FdServer::listen(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = connect(&nowhere).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let long = place.0.join("x".repeat(200));
    assert_eq!(FdServer::listen(&long).unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(connect(&long).unwrap_err().kind(), ErrorKind::TooLarge);
}
