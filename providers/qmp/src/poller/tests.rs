//! A QEMU of ours behind a socket, that answers well, late, wrongly or not at all.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use vmstrobe_core::{Error, ErrorKind, Provider, RowState, Source};
use vmstrobe_host::STALE_AFTER;
use vmstrobe_testing::{open_all, soon, states, tick};

use super::*;
use crate::Qmp;
use crate::ask::{GREETING_LIMIT, REPLY_LIMIT};
use crate::framer::MAX_REPLY_BYTES;

const GREETING: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n";
const EVENT: &str = "{\"timestamp\": {\"seconds\": 1}, \"event\": \"STOP\"}\r\n";
/// More than anything takes here that does not wait, on a machine with other things to do.
const AT_ONCE: Duration = Duration::from_millis(500);

/// The reaction of the QEMU of ours to the next `query-stats`.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    Answers,
    /// Answers a little later, with the number of queries for that target up to this one.
    Counts,
    /// So many ms later.
    Late(u64),
    /// Not before it has another manner.
    Silent,
    /// With events before it.
    AmongEvents,
    /// Closes the connection in the middle of the answer.
    CutsOff,
    WrongId,
    NoJson,
    TooLong,
    /// The answer never ends.
    Endless,
    /// Events, and never an answer.
    EventsForEver,
    Refuses,
}

#[derive(Debug)]
struct Model {
    manner: Manner,
    /// Sent to each client that connects.
    greeting: String,
    schemas: String,
    /// The result of `query-stats`.
    stats: String,
    /// The times at which each `query-stats` was read, and answered.
    queries: Vec<(Instant, Instant)>,
    /// The number of queries for each target, counted before they are answered.
    asked: HashMap<String, u64>,
    /// The number of queries for its schemas.
    renewals: usize,
}

/// The QEMU of ours; dropped, it closes its socket.
struct Fake {
    dir: PathBuf,
    model: Arc<Mutex<Model>>,
    connections: Arc<AtomicUsize>,
}

/// A path for a socket of this test's own, in a directory of this test's own.
fn own_dir() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = env::temp_dir().join(format!("vmstrobe-qmp-{}-{count}", std::process::id()));
    fs::create_dir(&dir).unwrap();
    dir
}

impl Fake {
    fn start() -> Self {
        let dir = own_dir();
        let model = Arc::new(Mutex::new(Model {
            manner: Manner::Answers,
            greeting: GREETING.to_owned(),
            schemas: schema("\"x\""),
            stats: device("/objects/a", "7"),
            queries: Vec::new(),
            asked: HashMap::new(),
            renewals: 0,
        }));
        let (theirs, connections) = (Arc::clone(&model), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        let listener = UnixListener::bind(dir.join("s")).unwrap();
        // As QEMU does: one client after the other. It ends with the tests.
        thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::Relaxed);
                // Whatever happens to a connection is the client's doing.
                let _ = serve(stream.unwrap(), &theirs);
            }
        });
        Self { dir, model, connections }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("s")
    }

    fn connect(&self) -> Qmp {
        Qmp::connect(&self.socket(), QmpShare::All).unwrap()
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    fn set(&self, manner: Manner) {
        self.model().manner = manner;
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.set(Manner::Answers);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn schema(names: &str) -> String {
    let stat = |name: &str| format!("{{\"name\": {name}, \"type\": \"log2-histogram\"}}");
    let stats = names.split(", ").map(stat).collect::<Vec<_>>().join(", ");
    format!("[{{\"provider\": \"crypto\", \"target\": \"device\", \"stats\": [{stats}]}}]")
}

fn device(path: &str, x: &str) -> String {
    format!(
        "[{{\"provider\": \"crypto\", \"qom-path\": \"{path}\", \
           \"stats\": [{{\"name\": \"x\", \"value\": {x}}}]}}]"
    )
}

fn serve(mut stream: UnixStream, model: &Mutex<Model>) -> std::io::Result<()> {
    let greeting = model.lock().unwrap().greeting.clone();
    stream.write_all(greeting.as_bytes())?;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let (read, line) = (Instant::now(), line?);
        let request: serde_json::Value = serde_json::from_str(&line)?;
        let (id, command) = (&request["id"], request["execute"].as_str().unwrap_or_default());
        let ok = |result: &str| format!("{{\"return\": {result}, \"id\": {id}}}\r\n");
        if command != "query-stats" {
            stream.write_all(ok(&other_than_stats(command, model)).as_bytes())?;
            continue;
        }
        let target = request["arguments"]["target"].as_str().unwrap_or_default().to_owned();
        let (manner, stats, asked) = {
            let mut model = model.lock().unwrap();
            let asked = *model.asked.entry(target).and_modify(|asked| *asked += 1).or_insert(1);
            (model.manner, model.stats.clone(), asked)
        };
        let answer = ok(&stats);
        match manner {
            Manner::Answers => stream.write_all(answer.as_bytes())?,
            Manner::Counts => {
                thread::sleep(Duration::from_micros(100));
                let answer = ok(&device("/objects/a", &asked.to_string()));
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Late(ms) => {
                thread::sleep(Duration::from_millis(ms));
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Silent => {
                while model.lock().unwrap().manner == Manner::Silent {
                    thread::sleep(Duration::from_millis(1));
                }
                stream.write_all(answer.as_bytes())?;
            }
            Manner::AmongEvents => stream.write_all((EVENT.repeat(20) + &answer).as_bytes())?,
            Manner::CutsOff => return stream.write_all(&answer.as_bytes()[..answer.len() / 2]),
            Manner::WrongId => {
                let wrong = format!("{{\"return\": {stats}, \"id\": 1000000}}\r\n");
                stream.write_all(wrong.as_bytes())?;
            }
            Manner::NoJson => stream.write_all(b"hello\r\n")?,
            Manner::TooLong => {
                let long = ok(&format!("[{}1]", "1, ".repeat(MAX_REPLY_BYTES / 3)));
                stream.write_all(long.as_bytes())?;
            }
            Manner::Endless => {
                stream.write_all(b"{\"return\": [")?;
                while model.lock().unwrap().manner == Manner::Endless {
                    stream.write_all(b"1, ")?;
                }
            }
            Manner::EventsForEver => {
                while model.lock().unwrap().manner == Manner::EventsForEver {
                    stream.write_all(EVENT.as_bytes())?;
                }
                stream.write_all(answer.as_bytes())?;
            }
            Manner::Refuses => {
                let error = "{\"class\": \"GenericError\", \"desc\": \"not now\"}";
                stream.write_all(format!("{{\"id\": {id}, \"error\": {error}}}\r\n").as_bytes())?;
            }
        }
        model.lock().unwrap().queries.push((read, Instant::now()));
    }
    Ok(())
}

/// Returns the result of a command other than `query-stats`.
fn other_than_stats(command: &str, model: &Mutex<Model>) -> String {
    match command {
        "query-name" => "{\"name\": \"fake\"}".to_owned(),
        "query-stats-schemas" => {
            let mut model = model.lock().unwrap();
            model.renewals += 1;
            model.schemas.clone()
        }
        "query-cpus-fast" => {
            "[{\"cpu-index\": 4, \"qom-path\": \"/cpu4\", \"thread-id\": 44}]".to_owned()
        }
        _ => "{}".to_owned(),
    }
}

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

mod refresh;

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
        ("{\"QMP\": ", "does not finish its greeting"),
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
