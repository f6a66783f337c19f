//! A client at one end of a pair of sockets, with the real replies of a session.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send};
use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::{
    Desc, Object, Order, Provider, ReadPlan, Registry, RowState, Rows, Schema, Source, Target,
};

use super::*;
use crate::qmp::Config;
use crate::qmp::budget::Budget;
use crate::qmp::counts::Counts;
use crate::qmp::server::answers;
use crate::qmp::shared::Shared;

const GREETED: &[u8] = br#"{"execute": "qmp_capabilities"}"#;
const VERSION: &[u8] = br#"{"execute": "query-version"}"#;
/// A request whose reply has some 10 KB.
const SCHEMA: &[u8] = br#"{"execute": "query-qmp-schema"}"#;

/// A client's thread.
struct Running {
    shared: Arc<Shared>,
    /// Returns how it ended, and how long it ran on a CPU.
    thread: thread::JoinHandle<(End, Duration)>,
}

fn shared() -> Arc<Shared> {
    Arc::new(
        Shared::new(
            &Registry::default(),
            Config { order: Order::Schema, budget: Budget::new(), ..Config::default() },
        )
        .unwrap(),
    )
}

fn running(socket: OwnedFd, shared: Arc<Shared>) -> Running {
    let of_thread = Arc::clone(&shared);
    let thread = thread::spawn(move || {
        let stop = AtomicBool::new(false);
        let session = Session::new(Arc::clone(&of_thread));
        let end = Client::new(socket.as_fd(), session, &of_thread.counts, &stop).serve();
        (end, Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap())
    });
    Running { shared, thread }
}

/// Makes a client, and returns the other end of its socket.
fn pair() -> (Running, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (running(ours.into(), shared()), theirs)
}

impl Running {
    fn counts(&self) -> Counts {
        self.shared.counts.counts()
    }

    /// Returns how it ended.
    fn end(self) -> End {
        self.thread.join().unwrap().0
    }
}

/// Returns all that a server sends to a client with these requests, the greeting included.
fn expected(requests: &[u8]) -> Vec<u8> {
    answers(&Registry::default(), Order::Schema, [requests])
}

fn asked(request: &[u8], times: usize) -> Vec<u8> {
    [GREETED, &request.repeat(times)].concat()
}

/// Returns the number of bytes of the reply.
fn reply_bytes(request: &[u8]) -> usize {
    expected(&asked(request, 1)).len() - expected(GREETED).len()
}

fn taken(socket: &mut UnixStream, count: usize) -> Vec<u8> {
    let mut taken = vec![0; count];
    socket.read_exact(&mut taken).unwrap();
    taken
}

#[test]
fn one_send_answers_all_that_one_receive_brought() {
    let flags = SocketFlags::CLOEXEC;
    let (kind, family) = (SocketType::SEQPACKET, AddressFamily::UNIX);
    // With packets, each send can be seen.
    let (ours, theirs) = rustix::net::socketpair(family, kind, flags, None).unwrap();
    let running = running(ours, shared());
    let mut buffer = vec![0; 1 << 20];
    let mut next = || recv(&theirs, &mut buffer[..], RecvFlags::empty()).unwrap().0;
    let greeting = expected(b"").len();
    assert_eq!(next(), greeting);
    send(&theirs, &asked(VERSION, 16), SendFlags::NOSIGNAL).unwrap();
    assert_eq!(next() + greeting, expected(&asked(VERSION, 16)).len());
    // Many replies are not kept until all of them are written.
    let reply = reply_bytes(SCHEMA);
    let at_once = FLUSH_BYTES / reply + 1;
    send(&theirs, &SCHEMA.repeat(2 * at_once + 1), SendFlags::NOSIGNAL).unwrap();
    assert_eq!([next(), next(), next()], [at_once * reply, at_once * reply, reply]);
    drop(theirs);
    let counts = running.counts();
    assert_eq!(counts.requests as usize, 1 + 16 + 2 * at_once + 1);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn requests_may_come_in_any_pieces() {
    let requests = [GREETED, VERSION, b"{] [", VERSION].concat();
    let expected = expected(&requests);
    for size in [1, 2, 7, 50] {
        let (running, mut theirs) = pair();
        for piece in requests.chunks(size) {
            theirs.write_all(piece).unwrap();
            thread::sleep(Duration::from_micros(200));
        }
        assert!(taken(&mut theirs, expected.len()) == expected, "pieces of {size}");
        drop(theirs);
        // The counts are read after the end, because bytes are counted when they are sent.
        let shared = Arc::clone(&running.shared);
        assert_eq!(running.end(), End::Left);
        let counts = shared.counts.counts();
        assert_eq!(counts.bytes_sent as usize, expected.len());
        assert_eq!(counts.bytes_received as usize, requests.len());
    }
}

#[test]
fn a_client_that_shuts_down_writing_gets_its_replies_and_the_end() {
    let (running, mut theirs) = pair();
    // The replies are more than a socket holds, so some are sent after the shutdown.
    let requests = [&asked(SCHEMA, 250), &b"{\"execute\""[..]].concat();
    theirs.write_all(&requests).unwrap();
    theirs.shutdown(Shutdown::Write).unwrap();
    thread::sleep(Duration::from_millis(50));
    let mut all = Vec::new();
    let expected = expected(&requests);
    while all.len() < expected.len() {
        let mut some = [0; 50_000];
        let count = theirs.read(&mut some).unwrap();
        assert!(count > 0, "the end after {} of {} bytes", all.len(), expected.len());
        all.extend_from_slice(&some[..count]);
    }
    assert!(all == expected);
    assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn whoever_never_reads_is_dropped_in_time_and_costs_little() {
    let (running, theirs) = pair();
    theirs.set_nonblocking(true).unwrap();
    let before = Instant::now();
    let mut requests = asked(SCHEMA, 100_000);
    while !running.thread.is_finished() {
        assert!(before.elapsed() < 10 * UNREAD_LIMIT, "the client is still served");
        match send(&theirs, &requests, SendFlags::NOSIGNAL) {
            Ok(count) => drop(requests.drain(..count)),
            Err(Errno::AGAIN) => thread::sleep(Duration::from_millis(1)),
            Err(errno) => assert_eq!(errno, Errno::PIPE),
        }
    }
    assert!(before.elapsed() >= UNREAD_LIMIT, "{:?}", before.elapsed());
    let counts = running.counts();
    let reply = reply_bytes(SCHEMA);
    let kept = (counts.requests - 1) as usize * reply - counts.bytes_sent as usize;
    assert!((MAX_UNSENT_BYTES - reply..=MAX_UNSENT_BYTES + reply).contains(&kept), "{kept}");
    assert_eq!(running.end(), End::Unread);
}

#[test]
fn whoever_reads_slowly_is_kept_and_gets_everything() {
    let (running, mut theirs) = pair();
    let requests = asked(SCHEMA, (MAX_UNSENT_BYTES + (2 << 20)) / reply_bytes(SCHEMA));
    let expected = expected(&requests);
    let mut writer = theirs.try_clone().unwrap();
    let writer = thread::spawn(move || writer.write_all(&requests).unwrap());
    let (mut all, began) = (Vec::new(), Instant::now());
    // More than MAX_UNSENT_BYTES waits for the client for longer than UNREAD_LIMIT.
    while began.elapsed() < UNREAD_LIMIT * 5 / 2 {
        thread::sleep(UNREAD_LIMIT / 4);
        all.extend(taken(&mut theirs, 60_000));
    }
    let still_unsent = expected.len() - running.counts().bytes_sent as usize;
    assert!(still_unsent > MAX_UNSENT_BYTES, "{still_unsent}");
    all.extend(taken(&mut theirs, expected.len() - all.len()));
    assert!(all == expected);
    writer.join().unwrap();
    drop(theirs);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn a_client_with_few_unread_bytes_is_kept() {
    let (running, mut theirs) = pair();
    let requests = asked(SCHEMA, (1 << 20) / reply_bytes(SCHEMA));
    theirs.write_all(&requests).unwrap();
    thread::sleep(UNREAD_LIMIT * 3 / 2);
    // The client's requests are still read.
    theirs.write_all(VERSION).unwrap();
    let all = [requests, VERSION.to_vec()].concat();
    let expected = expected(&all);
    let heard = || running.counts().bytes_received as usize == all.len();
    let before = Instant::now();
    while !heard() && before.elapsed() < 10 * UNREAD_LIMIT {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(heard() && running.counts().bytes_sent < expected.len() as u64);
    assert!(taken(&mut theirs, expected.len()) == expected);
    drop(theirs);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn a_client_that_leaves_is_noticed_wherever_it_is_waited_for() {
    let small = VERSION.to_vec();
    let large = asked(SCHEMA, (1 << 20) / reply_bytes(SCHEMA));
    let huge = asked(SCHEMA, 2 * MAX_UNSENT_BYTES / reply_bytes(SCHEMA));
    for (what, requests) in [("nothing", Vec::new()), ("a reply", small), ("1 MiB", large)] {
        for half in [None, Some(Shutdown::Write)] {
            let (running, mut theirs) = pair();
            theirs.write_all(&requests).unwrap();
            half.into_iter().for_each(|half| theirs.shutdown(half).unwrap());
            thread::sleep(Duration::from_millis(30));
            let before = Instant::now();
            drop(theirs);
            // The client left, and was not dropped for not reading.
            assert_eq!(running.end(), End::Left, "{what}, {half:?}");
            assert!(before.elapsed() < 5 * UNREAD_LIMIT, "{what}, {half:?}");
        }
    }
    // This holds also while the client's requests wait.
    let (running, mut theirs) = pair();
    theirs.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
    let _ = theirs.write_all(&huge);
    drop(theirs);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn an_end_of_the_server_is_noticed_wherever_a_client_is_waited_for() {
    for mib in [0, 1, 8] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (shared, stop) = (shared(), AtomicBool::new(false));
        thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let session = Session::new(Arc::clone(&shared));
                Client::new(ours.as_fd(), session, &shared.counts, &stop).serve()
            });
            theirs.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            let _ = theirs.write_all(&asked(SCHEMA, (mib << 20) / reply_bytes(SCHEMA)));
            thread::sleep(Duration::from_millis(30));
            let before = Instant::now();
            stop.store(true, Ordering::Relaxed);
            ours.shutdown(Shutdown::Both).unwrap();
            assert_ne!(serving.join().unwrap(), End::Unread, "{mib} MiB");
            assert!(before.elapsed() < 5 * UNREAD_LIMIT, "{mib} MiB: {:?}", before.elapsed());
        });
    }
}

#[test]
fn no_request_is_answered_once_the_server_ends() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (shared, stop) = (shared(), AtomicBool::new(true));
    theirs.write_all(GREETED).unwrap();
    let session = Session::new(Arc::clone(&shared));
    assert_eq!(Client::new(ours.as_fd(), session, &shared.counts, &stop).serve(), End::Stopped);
    assert_eq!(shared.counts.counts().requests, 0);
}

#[test]
fn the_room_for_a_large_reply_is_given_back() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let (shared, stop) = (shared(), AtomicBool::new(false));
    let session = Session::new(Arc::clone(&shared));
    let mut client = Client::new(ours.as_fd(), session, &shared.counts, &stop);
    client.outbox.bytes.reserve(9 << 20);
    let before = Instant::now();
    assert!(client.outbox.shrinks_at().is_some());
    // The first turn waits for bytes that do not come; the second finds that the time is over.
    client.turn().unwrap();
    theirs.write_all(b" ").unwrap();
    client.turn().unwrap();
    assert!(client.outbox.shrinks_at().is_none() && client.outbox.bytes.capacity() < 9 << 20);
    assert!(before.elapsed() >= Duration::from_millis(900), "{:?}", before.elapsed());
}

/// A provider of one vCPU with one statistic, the number of readings.
#[derive(Debug)]
struct Readings(Arc<Schema>);

struct Reading(u64);

impl Provider for Readings {
    fn name(&self) -> &str {
        "readings"
    }

    fn schemas(&self) -> vmstrobe_core::Result<Vec<Arc<Schema>>> {
        Ok(vec![Arc::clone(&self.0)])
    }

    fn objects(&self) -> vmstrobe_core::Result<Vec<Object>> {
        let schema = Arc::clone(&self.0);
        Ok(vec![Object { path: "/vcpu[0]".into(), index: Some(0), schema, key: 0 }])
    }

    fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> vmstrobe_core::Result<Vec<Box<dyn Source>>> {
        Ok(vec![Box::new(Reading(0))])
    }
}

impl Source for Reading {
    fn rows(&self) -> usize {
        1
    }

    fn read(&mut self, rows: Rows<'_>) {
        self.0 += 1;
        rows.fill(|_, words| {
            words.fill(self.0);
            RowState::Good
        });
    }
}

/// Makes a client with a subscription of this rate and batch.
fn subscriber(rate_hz: u32, batch: u32) -> (Running, UnixStream) {
    let registry = Registry::default();
    let descs = vec![Desc::counter("readings", 0)];
    registry.add(Arc::new(Readings(Schema::new("readings", Target::Vcpu, descs))));
    let shared = Arc::new(
        Shared::new(
            &registry,
            Config { order: Order::Schema, budget: Budget::new(), ..Config::default() },
        )
        .unwrap(),
    );
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let running = running(ours.into(), shared);
    let arguments = format!(r#"{{"target": "vcpu", "rate": {rate_hz}, "batch": {batch}}}"#);
    let subscribe = format!(r#"{{"execute": "stats-subscribe", "arguments": {arguments}}}"#);
    theirs.write_all(&[GREETED, subscribe.as_bytes()].concat()).unwrap();
    (running, theirs)
}

#[test]
fn events_come_unasked_and_requests_are_answered_between_them() {
    let (running, theirs) = subscriber(1000, 20);
    let mut writer = theirs.try_clone().unwrap();
    let lines = BufReader::new(theirs).lines().map(|line| line.unwrap());
    let (mut events, mut replies) = (0, 0);
    for line in lines {
        events += usize::from(line.contains("STATS_SAMPLES"));
        replies += usize::from(line.contains(r#""return": {"qemu""#));
        // The replies arrive only if requests are read between events.
        if line.contains("STATS_SAMPLES") && events <= 5 {
            writer.write_all(VERSION).unwrap();
        }
        if events > 5 && replies == 5 {
            break;
        }
    }
    writer.shutdown(Shutdown::Both).unwrap();
    assert_eq!(running.counts().requests, 2 + 5);
    assert_eq!(running.end(), End::Left);
}

#[test]
fn a_client_that_waits_for_events_costs_no_time_and_gets_none_after_its_end() {
    let (running, mut theirs) = subscriber(1, 1000);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(running.counts().requests, 2);
    theirs.shutdown(Shutdown::Write).unwrap();
    // The events end with the client, although the subscription has no end.
    let mut all = String::new();
    theirs.read_to_string(&mut all).unwrap();
    assert!(all.ends_with("}\r\n") && all.lines().count() == 3, "{all}");
    let (end, cpu_time) = running.thread.join().unwrap();
    assert!(end == End::Left && cpu_time < Duration::from_millis(60), "{end:?} {cpu_time:?}");
}

#[test]
fn whoever_takes_no_events_is_dropped_and_costs_little() {
    let (running, theirs) = subscriber(10_000, 1);
    let before = Instant::now();
    while !running.thread.is_finished() {
        assert!(before.elapsed() < 20 * UNREAD_LIMIT, "{:?}", running.counts());
        thread::sleep(Duration::from_millis(10));
    }
    let counts = running.counts();
    assert!(counts.bytes_sent < MAX_UNSENT_BYTES as u64, "{counts:?}");
    assert_eq!(running.end(), End::Unread);
    drop(theirs);
}
