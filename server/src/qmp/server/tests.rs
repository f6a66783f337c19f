//! Whole servers with many clients: accepting them, refusing them, and ending.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind as IoErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use super::accepting::{MAX_CLIENTS, RETRY_PAUSE, SHORTAGE_LIMIT};
use super::*;
use crate::qmp::client::{MAX_UNSENT_BYTES, UNREAD_LIMIT};
use crate::qmp::{Access, Budget, Peers};
use vmstrobe_core::ErrorKind;

/// The longest wait for something that happens soon.
const LIMIT: Duration = Duration::from_secs(10);
const GREETED: &[u8] = br#"{"execute": "qmp_capabilities"}"#;
const VERSION: &[u8] = br#"{"execute": "query-version"}"#;
const SCHEMA: &[u8] = br#"{"execute": "query-qmp-schema"}"#;

struct Place {
    server: Option<Server>,
    path: PathBuf,
    _directory: TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let server = Server::listen(&path, Registry::default(), Config::default()).unwrap();
        Self { server: Some(server), path, _directory: directory }
    }

    /// Connects a client that has not read anything yet.
    fn client(&self) -> UnixStream {
        let client = UnixStream::connect(&self.path).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client
    }

    fn counts(&self) -> Counts {
        self.server.as_ref().unwrap().counts()
    }

    /// Waits until a condition on the counts holds.
    #[track_caller]
    fn until(&self, is_so: impl Fn(Counts) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !is_so(self.counts()) {
            assert!(Instant::now() < deadline, "{:?}", self.counts());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(&mut self) {
        drop(self.server.take());
    }
}

fn expected(requests: &[u8]) -> Vec<u8> {
    answers(&Registry::default(), Order::Schema, [requests])
}

/// Sends requests from a client, and checks its replies.
#[track_caller]
fn talks(client: &mut UnixStream, requests: &[u8]) {
    client.write_all(requests).unwrap();
    let expected = expected(requests);
    let mut got = vec![0; expected.len()];
    client.read_exact(&mut got).unwrap();
    assert!(got == expected, "{}", String::from_utf8_lossy(&got));
}

/// Connects from a thread that has become another user, and returns the first line.
fn greeting_of_another_user(path: &Path) -> String {
    let path = path.to_owned();
    let another = move || {
        // The calling thread alone becomes the user, and stays so.
        rustix::thread::set_thread_uid(rustix::process::Uid::from_raw(65534)).unwrap();
        let mut line = String::new();
        BufReader::new(UnixStream::connect(path).unwrap()).read_line(&mut line).unwrap();
        line
    };
    thread::spawn(another).join().unwrap()
}

#[test]
fn another_user_is_refused_whatever_the_mode_is() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (peers, want) in [(Peers::All, "{\"QMP\": "), (Peers::SameUser, "{\"error\": ")] {
        let path = directory.path().join("qmp");
        let access = Access { mode: 0o666, group: None };
        let config = Config { access, peers, ..Config::default() };
        let server = Server::listen(&path, Registry::default(), config).unwrap();
        let line = greeting_of_another_user(&path);
        assert!(line.starts_with(want), "{line}");
        assert_eq!(line.contains("only the user of the process"), peers == Peers::SameUser);
        let mut own = UnixStream::connect(&path).unwrap();
        talks(&mut own, GREETED);
        assert_eq!(server.counts().clients_refused, u64::from(peers == Peers::SameUser));
    }
}

/// Reads the rest, up to the end of the connection.
fn rest(client: &mut UnixStream) -> Vec<u8> {
    let mut rest = Vec::new();
    match client.read_to_end(&mut rest) {
        Ok(_) => {}
        // The server did not read the client's last bytes.
        Err(error) => assert_eq!(error.kind(), IoErrorKind::ConnectionReset),
    }
    rest
}

#[test]
fn whoever_comes_is_greeted_and_answered() {
    let mut place = Place::new();
    let mut first = place.client();
    talks(&mut first, &[GREETED, VERSION].concat());
    let mut second = place.client();
    talks(&mut second, GREETED);
    let counts = place.counts();
    assert_eq!((counts.clients, counts.clients_served, counts.requests), (2, 2, 3));
    assert_eq!((counts.clients_refused, counts.clients_dropped, counts.events), (0, 0, 0));
    drop(first);
    place.until(|counts| counts.clients == 1);
    place.stop();
    assert_eq!(rest(&mut second), b"");
    assert!(!place.path.exists());
}

#[test]
fn access_is_as_asked_and_a_live_path_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("qmp");
    let access = Access { mode: 0o660, group: None };
    let config = Config { access, ..Config::default() };
    let _server = Server::listen(&path, Registry::default(), config.clone()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let error = Server::listen(&path, Registry::default(), config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains("give another path"), "{error}");
}

#[test]
fn one_more_than_may_be_is_told_so_and_nobody_else_notices() {
    let place = Place::new();
    let mut clients: Vec<_> = (0..MAX_CLIENTS).map(|_| place.client()).collect();
    clients.iter_mut().for_each(|client| talks(client, GREETED));
    for _ in 0..3 {
        let text = String::from_utf8(rest(&mut place.client())).unwrap();
        let line = text.strip_suffix("\r\n").unwrap();
        let told: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(told["error"]["class"], "GenericError");
        let desc = "64 clients are connected, and the server takes no more: try again later";
        assert_eq!(told["error"]["desc"], desc);
    }
    let counts = place.counts();
    assert_eq!((counts.clients, counts.clients_refused), (MAX_CLIENTS as u64, 3));
    for client in &mut clients {
        client.write_all(VERSION).unwrap();
        let mut got = [0; 12];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, br#"{"return": {"#);
    }
    clients.pop();
    place.until(|counts| counts.clients < MAX_CLIENTS as u64);
    // The client's thread has ended, but is joined a moment later.
    let is_in = || place.client().read(&mut [0; 7]).is_ok_and(|_| place.counts().clients > 63);
    assert!((0..100).any(|_| is_in()));
}

#[test]
fn a_connection_may_end_at_any_byte() {
    let place = Place::new();
    let said =
        [GREETED, b"{\"execute\": \"nonsense\", \"id\": [1, \"\xC3\xA4\"]}", VERSION].concat();
    for length in 0..=said.len() {
        for reads in [false, true] {
            let mut client = place.client();
            client.write_all(&said[..length]).unwrap();
            if reads {
                client.read_exact(&mut [0; 20]).unwrap();
            }
        }
    }
    place.until(|counts| counts.clients == 0);
    assert_eq!(place.counts().clients_dropped, 0);
    talks(&mut place.client(), &[GREETED, VERSION].concat());
}

#[test]
fn half_a_request_is_waited_for_and_keeps_nobody() {
    let place = Place::new();
    let (half, other_half) = VERSION.split_at(9);
    let mut slow = place.client();
    talks(&mut slow, GREETED);
    slow.write_all(half).unwrap();
    talks(&mut place.client(), &[GREETED, VERSION].concat());
    assert_eq!(place.counts().requests, 3);
    slow.write_all(other_half).unwrap();
    place.until(|counts| counts.requests == 4);
}

#[test]
fn whoever_never_reads_is_dropped_and_others_are_served_meanwhile() {
    let place = Place::new();
    let mut deaf = place.client();
    deaf.set_nonblocking(true).unwrap();
    let mut other = place.client();
    talks(&mut other, GREETED);
    let requests = [GREETED, &SCHEMA.repeat(4000)].concat();
    let (mut sent, began) = (0, Instant::now());
    let reply = expected(&[GREETED, VERSION].concat()).len() - expected(GREETED).len();
    while place.counts().clients_dropped == 0 {
        assert!(began.elapsed() < LIMIT, "{:?}", place.counts());
        sent += deaf.write(&requests[sent..]).unwrap_or(0);
        other.write_all(VERSION).unwrap();
        other.read_exact(&mut vec![0; reply]).unwrap();
        thread::sleep(Duration::from_millis(1));
    }
    assert!(began.elapsed() >= UNREAD_LIMIT, "{:?}", began.elapsed());
    place.until(|counts| counts.clients == 1);
    // The client still finds unread replies, at most as many as a socket holds.
    deaf.set_nonblocking(false).unwrap();
    assert!(rest(&mut deaf).len() < MAX_UNSENT_BYTES);
}

/// Makes the state of an accepting thread, to be used in this thread.
fn accepting(place: &TempDir) -> Accepting {
    let access = Access::default();
    let listening = Listening::at(&place.path().join("qmp"), Kind::Stream, &access).unwrap();
    let shared = Arc::new(Shared::fixed(&Registry::default(), Order::Schema));
    Accepting::new(listening, shared, Arc::new(Gate::new().unwrap()))
}

#[test]
fn a_thread_that_has_ended_is_joined() {
    let place = tempfile::tempdir().unwrap();
    let mut accepting = accepting(&place);
    for round in 0..50 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        accepting.let_in(ours.into());
        assert_eq!(accepting.served.len(), 1, "round {round}");
        drop(theirs);
        // Only the end of the thread ends the wait.
        accepting.wait();
        accepting.reap();
        assert_eq!(accepting.served.len(), 0, "round {round}");
    }
    let counts = accepting.shared.counts.counts();
    assert_eq!((counts.clients, counts.clients_served), (0, 50));
}

#[test]
fn a_client_has_the_stack_that_the_deepest_request_needs() {
    let place = Place::new();
    let mut client = place.client();
    let deep = format!("{}{}", "[".repeat(1024), "]".repeat(1024));
    let deep = format!(r#"{{"execute": "query-version", "arguments": {{"x": {deep}}}}}"#);
    let one_less = deep.replacen("[[[", "[", 1).replacen("]]]", "]", 1);
    talks(&mut client, &[GREETED, deep.as_bytes(), one_less.as_bytes()].concat());
    assert_eq!(place.counts().requests, 3);
}

/// Runs a test in a process of its own, because it changes limits of all threads. Returns true in
/// that process.
fn is_alone(test: &str) -> bool {
    if env::var_os("VMSTROBE_TEST_ALONE").is_some() {
        return true;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env("VMSTROBE_TEST_ALONE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap()
}

#[test]
fn a_server_without_room_lets_in_later() {
    if !is_alone("qmp::server::tests::a_server_without_room_lets_in_later") {
        return;
    }
    let place = Place::new();
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limits }).unwrap();
    let mut files: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    files.pop();
    let mut client = UnixStream::connect(&place.path).unwrap();
    client.set_read_timeout(Some(5 * RETRY_PAUSE)).unwrap();
    let began = cpu_time();
    let error = client.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), IoErrorKind::WouldBlock);
    let took = cpu_time() - began;
    files.clear();
    talks(&mut client, &[GREETED, VERSION].concat());
    assert!(took < RETRY_PAUSE / 2, "it tried again and again, for {took:?}");
}

#[test]
fn a_server_without_descriptors_says_so() {
    if !is_alone("qmp::server::tests::a_server_without_descriptors_says_so") {
        return;
    }
    let place = Place::new();
    talks(&mut place.client(), &[GREETED, VERSION].concat());
    // Waits until the descriptors of that client are free.
    place.until(|counts| counts.clients == 0);
    let limits = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limits }).unwrap();
    let mut files: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
    for _ in 0..3 {
        // This frees a descriptor for the client's own end.
        files.pop();
        let mut client = UnixStream::connect(&place.path).unwrap();
        client.set_read_timeout(Some(5 * SHORTAGE_LIMIT)).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert!(said.contains("no descriptor for one more client"), "{said}");
        files.push(OwnedFd::from(client).into());
    }
    files.clear();
    talks(&mut place.client(), &[GREETED, VERSION].concat());
}

/// Tests that the clients of one server count for the other.
#[test]
fn clients_of_all_servers_are_limited() {
    let places = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let config = Config { budget: Budget::of(Some(12), 1), ..Config::default() };
    let paths = places.each_ref().map(|place| place.path().join("qmp"));
    let [_one, other] = paths
        .each_ref()
        .map(|path| Server::listen(path, Registry::default(), config.clone()).unwrap());
    let connect = |path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(5 * SHORTAGE_LIMIT)).unwrap();
        let mut first = [0; 8];
        stream.read_exact(&mut first).unwrap();
        (first == *b"{\"QMP\": ").then_some(stream)
    };
    let clients = [&paths[0], &paths[1], &paths[0]].map(|path| connect(path).unwrap());
    assert!(connect(&paths[1]).is_none());
    assert_eq!(other.counts().clients_refused, 1);
    drop(clients);
    let begin = Instant::now();
    while connect(&paths[1]).is_none() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "a client was refused although the others have left"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
