//! A QEMU that is asked by a provider: when the provider asks, and how long anybody waits for it.
//!
//! These bounds of time can be broken by other work on the machine, so the tests have a binary of
//! their own: cargo runs test binaries one after the other.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe_core::{Error, ErrorKind, Object, Provider, RowState, Schema, Source, Target};
use vmstrobe_host::STALE_AFTER;
use vmstrobe_qmp::{Qmp, QmpShare};
use vmstrobe_testing::{open_all, soon, states, tick};

use fake::{Fake, Manner, device, own_dir, schema};

#[path = "asked/connect.rs"]
mod connect;
#[path = "asked/fake.rs"]
mod fake;
#[path = "asked/refresh.rs"]
mod refresh;

/// The time from the start of one round of queries to the start of the next.
const QMP_PERIOD: Duration = Duration::from_millis(100);
/// The period in which schemas and vCPUs are asked for, and a lost connection is tried again.
const RENEW_PERIOD: Duration = Duration::from_secs(1);
/// The longest that a greeting is waited for.
const GREETING_LIMIT: Duration = Duration::from_secs(2);
/// The longest that a reply is waited for, and so a refresh.
const REPLY_LIMIT: Duration = Duration::from_secs(1);
/// The longest that connecting takes, with all its queries.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The longest reply.
const MAX_REPLY_BYTES: usize = 10 << 20;
/// More than anything takes here that does not wait, on a machine with other things to do.
const AT_ONCE: Duration = Duration::from_millis(500);

/// One device of a provider, opened.
struct Row {
    object: Object,
    source: Box<dyn Source>,
}

impl Row {
    fn first(qmp: &Qmp) -> Self {
        let objects = qmp.objects().unwrap();
        Self { object: objects[0].clone(), source: open_all(qmp, &objects[..1]).remove(0) }
    }

    /// Returns its state in a tick, which must not take long.
    fn state(&mut self) -> RowState {
        let before = Instant::now();
        let state = states(&mut *self.source, &self.object)[0];
        assert!(before.elapsed() < AT_ONCE, "a tick took {:?}", before.elapsed());
        state
    }

    fn words(&mut self) -> Vec<u64> {
        tick(&mut *self.source, self.object.schema.data_bytes() / 8).1
    }

    /// Ticks until it is so; how long that took. False states are not to be seen on the way.
    fn becomes(&mut self, want: RowState, limit: Duration) -> Duration {
        let before = Instant::now();
        let mut last = RowState::Missing;
        let so = soon(limit, || {
            last = self.state();
            last == want
        });
        assert!(so, "{last:?} instead of {want:?} after {limit:?}");
        before.elapsed()
    }
}

fn refused(socket: &Path) -> Error {
    Qmp::connect(socket, QmpShare::All).unwrap_err()
}

#[test]
fn an_answer_is_good_once_and_then_ages() {
    let fake = Fake::start();
    let qmp = fake.connect();
    assert_eq!((qmp.name(), qmp.vm_name()), ("qmp", "fake"));
    if fs::metadata("/proc/self/ns/pid").is_ok() {
        assert!([None, Some(std::process::id())].contains(&qmp.peer_pid()), "{:?}", qmp.peer_pid());
    }
    assert_eq!(&*qmp.cpu_names().get(44).unwrap().path, "/cpu4");
    let mut row = Row::first(&qmp);
    assert_eq!(row.state(), RowState::Good);
    assert_eq!(row.words(), [7]);
    fake.model().stats = device("/objects/a", "8");
    let asked = fake.model().queries.len();

    let (mut good, mut aged_ms) = (0, Vec::new());
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        match row.state() {
            RowState::Good => good += 1,
            RowState::Aged(ms) => aged_ms.push(ms),
            // The poller was interrupted while it wrote.
            RowState::Torn => {}
            other => panic!("{other:?}"),
        }
        thread::sleep(Duration::from_millis(1));
    }
    let asked = fake.model().queries.len() - asked;
    assert!((1..=asked).contains(&good) && good + 1 >= asked, "{good} of {asked} were good");
    assert!(aged_ms.iter().any(|&ms| ms > 50), "{aged_ms:?}");
    assert_eq!(row.words(), [8]);
    assert_eq!(qmp.objects().unwrap()[0], row.object, "the same all along");
    // Begun 100 ms apart, or later.
    assert!((2..=16).contains(&asked), "{asked} queries in 1.5 s");
}

#[test]
fn a_slow_qemu_is_asked_less_and_delays_nobody() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    fake.set(Manner::Late(200));
    assert!(soon(Duration::from_secs(20), || {
        assert_ne!(row.state(), RowState::Gone);
        let before = Instant::now();
        assert_eq!(qmp.objects().unwrap().len(), 1);
        assert!(before.elapsed() < AT_ONCE);
        let queries = fake.model().queries.clone().into_iter();
        queries.filter(|(read, sent)| *sent - *read >= Duration::from_millis(150)).count() > 4
    }));
    let queries = fake.model().queries.clone();
    for pair in queries.windows(2) {
        let (took, rest) = (pair[0].1 - pair[0].0, pair[1].0 - pair[0].1);
        // Renewing the schemas happens in between, which only makes it longer.
        assert!(rest + Duration::from_millis(30) >= took, "{took:?}, then a rest of {rest:?}");
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn a_silent_qemu_turns_stale_and_comes_back() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    fake.set(Manner::Silent);
    let took = row.becomes(RowState::Stale, STALE_AFTER + QMP_PERIOD * 2 + AT_ONCE);
    assert!(took >= STALE_AFTER - AT_ONCE, "stale after {took:?}");
    let end = Instant::now() + REPLY_LIMIT * 3;
    while Instant::now() < end {
        assert_eq!(row.state(), RowState::Stale);
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(qmp.objects().unwrap()[0], row.object);
    fake.set(Manner::Answers);
    row.becomes(RowState::Good, REPLY_LIMIT * 2 + AT_ONCE);
    assert_eq!(fake.connections(), 1, "the same connection");
}

#[test]
fn events_between_answers_change_nothing() {
    let fake = Fake::start();
    fake.set(Manner::AmongEvents);
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    for _ in 0..3 {
        row.becomes(RowState::Good, Duration::from_secs(2));
    }
    assert_eq!(fake.connections(), 1);
}

#[test]
fn one_that_refuses_to_answer_turns_stale() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    fake.set(Manner::Refuses);
    row.becomes(RowState::Stale, STALE_AFTER * 2);
    fake.set(Manner::Answers);
    row.becomes(RowState::Good, STALE_AFTER);
    assert_eq!(fake.connections(), 1);

    fake.set(Manner::Refuses);
    drop((qmp, row));
    assert_eq!(fake.connect().objects().unwrap().len(), 0, "it has schemas all the same");
}

#[test]
fn a_peer_that_answers_wrongly_is_gone_until_it_answers_well() {
    for manner in [Manner::CutsOff, Manner::WrongId, Manner::NoJson, Manner::TooLong] {
        let fake = Fake::start();
        let qmp = fake.connect();
        let mut row = Row::first(&qmp);
        fake.set(manner);
        let took = row.becomes(RowState::Gone, Duration::from_secs(3));
        println!("{manner:?}: gone after {took:?}");
        assert!(soon(AT_ONCE, || qmp.objects().unwrap().is_empty()), "{manner:?}");
        assert_eq!(qmp.schemas().unwrap().len(), 1);
        fake.set(Manner::Answers);
        assert!(soon(Duration::from_secs(4), || !qmp.objects().unwrap().is_empty()), "{manner:?}");
        let mut back = Row::first(&qmp);
        assert_eq!(back.object.path, row.object.path);
        assert_ne!(back.object.key, row.object.key);
        back.becomes(RowState::Good, STALE_AFTER);
        assert_eq!(row.state(), RowState::Gone, "the old row stays so");
    }
}

#[test]
fn who_never_ends_holds_nobody() {
    for (manner, want) in
        [(Manner::Endless, RowState::Stale), (Manner::EventsForEver, RowState::Stale)]
    {
        let fake = Fake::start();
        let qmp = fake.connect();
        let mut row = Row::first(&qmp);
        fake.set(manner);
        let ended = |state| state == want || state == RowState::Gone;
        assert!(soon(STALE_AFTER * 2, || ended(row.state())), "{manner:?}: {:?}", row.state());
        let before = Instant::now();
        drop((qmp, row));
        assert!(before.elapsed() < AT_ONCE, "{manner:?}: dropped in {:?}", before.elapsed());

        let before = Instant::now();
        let error = refused(&fake.socket());
        // Either it is late, or it says too much.
        assert!([ErrorKind::Busy, ErrorKind::TooLarge].contains(&error.kind()), "{error}");
        assert!(before.elapsed() < GREETING_LIMIT + REPLY_LIMIT + AT_ONCE, "{manner:?}");
    }
}

#[test]
fn objects_and_buckets_that_come_and_go_are_followed() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    let known = |qmp: &Qmp| {
        let objects = qmp.objects().unwrap();
        objects
            .into_iter()
            .map(|object| (object.path.into(), object.key))
            .collect::<Vec<(String, u64)>>()
    };
    assert_eq!(known(&qmp), [("/objects/a".to_owned(), 0)]);
    for (stats, want) in [
        (device("/objects/b", "1"), ("/objects/b", 1)),
        (device("/objects/a", "1"), ("/objects/a", 2)),
        (device("/objects/a", "[2, 1]"), ("/objects/a", 3)),
    ] {
        fake.model().stats = stats;
        let want = [(want.0.to_owned(), want.1)];
        assert!(soon(STALE_AFTER, || known(&qmp) == want), "{:?}, not {want:?}", known(&qmp));
        row.becomes(RowState::Gone, AT_ONCE);
        row = Row::first(&qmp);
        row.becomes(RowState::Good, STALE_AFTER);
    }
    assert_eq!(row.words(), [1, 2]);
    assert_eq!(qmp.schemas().unwrap()[0].descs()[0].size, 2, "learnt from the answer");

    // A schema that changes is seen within a second, and so is what goes for good.
    fake.model().schemas = schema("\"y\", \"x\"");
    let sees = |count| qmp.schemas().unwrap()[0].descs().len() == count;
    assert!(soon(RENEW_PERIOD + STALE_AFTER, || sees(2)));
    row.becomes(RowState::Gone, STALE_AFTER);
    fake.model().stats = "[]".to_owned();
    assert!(soon(STALE_AFTER, || known(&qmp).is_empty()));
}

#[test]
fn a_source_is_for_its_own_statistics_and_outlives_the_provider() {
    let fake = Fake::start();
    let qmp = fake.connect();
    let mut row = Row::first(&qmp);
    let other = Schema::new("crypto", row.object.schema.target().clone(), Vec::new());
    let mask = vmstrobe_core::Mask::all(&other);
    let plan = vmstrobe_core::ReadPlan::new(&other, &mask);
    let error = qmp.open(std::slice::from_ref(&row.object), &plan).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);

    let unknown = Object { key: 77, ..row.object.clone() };
    let mut none = open_all(&qmp, std::slice::from_ref(&unknown)).remove(0);
    assert_eq!(states(&mut *none, &unknown), [RowState::Gone]);
    drop(none);

    drop(qmp);
    row.becomes(RowState::Good, STALE_AFTER);
    row.becomes(RowState::Good, STALE_AFTER);
    let before = Instant::now();
    drop(row);
    assert!(before.elapsed() < AT_ONCE, "dropped in {:?}", before.elapsed());
    // It has let go of the socket: the next one is served.
    assert_eq!(fake.connect().objects().unwrap().len(), 1);
}

#[test]
fn dropping_does_not_wait_for_qemu() {
    let fake = Fake::start();
    let qmp = fake.connect();
    fake.set(Manner::Silent);
    let asked = fake.model().queries.len();
    thread::sleep(QMP_PERIOD * 3);
    assert!(fake.model().queries.len() <= asked + 1);
    let before = Instant::now();
    drop(qmp);
    assert!(before.elapsed() < AT_ONCE, "dropped in {:?}", before.elapsed());
}
