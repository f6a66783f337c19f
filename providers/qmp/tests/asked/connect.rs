//! Connecting to what is not there, does not answer, or is no QEMU: an error, in bounded time.

use super::*;

#[test]
fn who_does_not_greet_is_busy() {
    let fake = Fake::start();
    // The first client has it to itself.
    let first = fake.connect();
    let before = Instant::now();
    let error = refused(&fake.socket());
    assert_eq!(error.kind(), ErrorKind::Busy);
    let text = error.to_string();
    let both = ["another client has the socket", "or QEMU hangs", "second -qmp socket"];
    assert!(both.iter().all(|part| text.contains(part)), "{text}");
    let took = before.elapsed();
    assert!(took >= GREETING_LIMIT && took < GREETING_LIMIT + AT_ONCE, "{took:?}");
    drop(first);

    // Nobody accepts, until no more clients fit into the queue.
    let dir = own_dir();
    let _listener = UnixListener::bind(dir.join("s")).unwrap();
    let address = rustix::net::SocketAddrUnix::new(dir.join("s")).unwrap();
    let mut queued = Vec::new();
    loop {
        let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => queued.push(socket),
            Err(errno) => break assert_eq!(errno, rustix::io::Errno::AGAIN),
        }
    }
    let before = Instant::now();
    assert_eq!(refused(&dir.join("s")).kind(), ErrorKind::Busy);
    assert!(before.elapsed() < GREETING_LIMIT + AT_ONCE);
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn who_greets_otherwise_is_not_qmp() {
    let fake = Fake::start();
    for (greeting, words) in [
        ("QEMU 10.0.2 monitor - type 'help' for more information\r\n", "it says \"QEMU 10.0.2"),
        ("{\"hello\": 1}\r\n", "QMP"),
        ("{\"QMP\": ", "sends only a part of a QMP greeting"),
    ] {
        fake.model().greeting = greeting.to_owned();
        let before = Instant::now();
        let error = refused(&fake.socket());
        assert_eq!(error.kind(), ErrorKind::Malformed, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(before.elapsed() < GREETING_LIMIT + AT_ONCE, "{greeting}");
    }
}

#[test]
fn who_is_late_from_the_start_is_busy() {
    let fake = Fake::start();
    fake.set(Manner::Silent);
    let before = Instant::now();
    let error = refused(&fake.socket());
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("does not answer within 1s"), "{error}");
    assert!(before.elapsed() < REPLY_LIMIT + AT_ONCE);
}

#[test]
fn connecting_takes_bounded_time_however_many_targets() {
    let fake = Fake::start();
    let target =
        |at: usize| format!("{{\"provider\": \"p\", \"target\": \"t{at}\", \"stats\": []}}");
    fake.model().schemas = format!("[{}]", (0..32).map(target).collect::<Vec<_>>().join(", "));
    // Each in time by far: it is all of them together that take too long.
    fake.set(Manner::Late(400));
    let before = Instant::now();
    assert_eq!(refused(&fake.socket()).kind(), ErrorKind::Busy);
    let took = before.elapsed();
    assert!(took >= CONNECT_LIMIT / 2 && took < CONNECT_LIMIT + AT_ONCE, "{took:?}");
}

#[test]
fn a_path_that_leads_nowhere_is_said_to() {
    let dir = own_dir();
    let (plain, old) = (dir.join("plain"), dir.join("old"));
    fs::write(&plain, "").unwrap();
    drop(UnixListener::bind(&old).unwrap());
    let long = dir.join("a".repeat(120));
    let _listener = {
        // Bound under a short name, and moved.
        let listener = UnixListener::bind(dir.join("b")).unwrap();
        fs::rename(dir.join("b"), &long).unwrap();
        listener
    };
    for (path, kind, words) in [
        (&dir.join("none"), ErrorKind::NotFound, "start QEMU with -qmp unix:"),
        (&plain, ErrorKind::NotFound, "is no socket"),
        (&dir, ErrorKind::NotFound, "is no socket"),
        (&old, ErrorKind::NotFound, "nobody listens on"),
        (&long, ErrorKind::Unsupported, "is too long"),
    ] {
        let error = refused(path);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
    }
    fs::remove_dir_all(dir).unwrap();
}
