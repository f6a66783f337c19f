//! Bounds on how long a server takes, which other work on the machine can break. Cargo runs test
//! binaries one after the other, and the tests of this one take turns.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmstrobe_core::Registry;
use vmstrobe_server::qmp::{Config, Counts, Server};

/// The longest wait for an event that has no other bound here.
const PATIENCE: Duration = Duration::from_secs(30);
/// A server must end within this time, and drop a client that has not read for as long.
const UNREAD_LIMIT: Duration = Duration::from_secs(1);
const GREETED: &[u8] = br#"{"execute": "qmp_capabilities"}"#;
const VERSION: &[u8] = br#"{"execute": "query-version"}"#;
/// A request whose reply has some 10 KB.
const SCHEMA: &[u8] = br#"{"execute": "query-qmp-schema"}"#;

static TURN: Mutex<()> = Mutex::new(());

/// A server without providers, while no other test of this binary runs.
struct Alone {
    server: Server,
    directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Alone {
    fn new() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("qmp");
        let server = Server::listen(&path, Registry::default(), Config::default());
        Self { server: server.expect("nothing else listens there"), directory, _turn: turn }
    }

    /// Connects a client that has negotiated.
    fn client(&self) -> UnixStream {
        let path = self.directory.path().join("qmp");
        let mut client = UnixStream::connect(path).expect("the server listens");
        client.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        line(&mut client);
        client.write_all(GREETED).expect("the server reads");
        line(&mut client);
        client
    }

    #[track_caller]
    fn until(&self, is_so: impl Fn(Counts) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self.server.counts()) {
            assert!(Instant::now() < deadline, "{:?}", self.server.counts());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the server; returns how long that took.
    fn stop(self) -> Duration {
        let before = Instant::now();
        drop(self.server);
        let took = before.elapsed();
        assert!(!self.directory.path().join("qmp").exists());
        took
    }
}

/// Reads what is left up to the end of the connection.
fn rest(client: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    if let Err(error) = client.read_to_end(&mut rest) {
        // The server did not read the client's last bytes.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    rest
}

/// Reads up to the end of a line.
fn line(client: &mut UnixStream) {
    let mut byte = [0];
    while byte != *b"\n" {
        client.read_exact(&mut byte).expect("the server writes whole lines");
    }
}

#[test]
fn an_idle_server_ends_at_once() {
    let alone = Alone::new();
    let _client = alone.client();
    let took = alone.stop();
    assert!(took < UNREAD_LIMIT, "{took:?}");
}

#[test]
fn a_server_ends_in_time_whatever_its_clients_do() {
    let alone = Alone::new();
    let mut idle = alone.client();
    let mut half = alone.client();
    half.write_all(&VERSION[..9]).expect("the server reads");
    let gone = alone.client();
    let _deaf: Vec<UnixStream> = (0..8)
        .map(|_| {
            let mut deaf = alone.client();
            deaf.set_write_timeout(Some(Duration::from_millis(20)))
                .expect("the timeout is not zero");
            // The socket is full before all is written.
            let _ = deaf.write_all(&SCHEMA.repeat(16_000));
            deaf
        })
        .collect();
    alone.until(|counts| counts.clients_served == 11 && counts.requests > 8 * 20);
    drop(gone);
    let took = alone.stop();
    assert!(took < UNREAD_LIMIT, "{took:?}");
    assert_eq!((rest(&mut idle), rest(&mut half)), (Vec::new(), Vec::new()));
}

#[test]
fn a_client_that_does_not_read_delays_no_other() {
    let alone = Alone::new();
    let mut deaf = alone.client();
    deaf.set_nonblocking(true).expect("a socket can be nonblocking");
    let mut other = alone.client();
    let requests = SCHEMA.repeat(4000);
    let (mut sent, mut slowest, began) = (0, Duration::ZERO, Instant::now());
    while alone.server.counts().clients_dropped == 0 {
        assert!(began.elapsed() < PATIENCE, "{:?}", alone.server.counts());
        sent += deaf.write(&requests[sent..]).unwrap_or(0);
        let before = Instant::now();
        other.write_all(VERSION).expect("the server reads");
        line(&mut other);
        slowest = slowest.max(before.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(slowest < UNREAD_LIMIT / 4, "the other client waited {slowest:?}");
}
