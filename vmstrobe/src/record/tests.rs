//! Recordings of a program's own table, read back and compared with what a subscriber saw.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vmstrobe_core::{Snapshot, Target};
use vmstrobe_export::{ArrowsReader, Compression, End, Event, EventKind, Item, Metadata};
use vmstrobe_sampler::Subscriber;
use vmstrobe_table::{TableSchema, TableWriter};

use super::*;
use crate::condition::{Trigger, TriggerRule};
use crate::error::Error;
use crate::{Attachment, Sources};

/// The longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program with a table of two objects whose counters grow all the time.
struct Program {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    session: Option<Session>,
    samples: Subscriber,
    schemas: Vec<Arc<vmstrobe_core::Schema>>,
}

impl Program {
    fn start(hz: f64) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // The tables of other tests are in this process too: a target of its own tells them apart.
        let target = format!("recorded-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut schema = TableSchema::new(Target::from_name(&target));
        let requests = schema.counter("requests");
        let table = TableWriter::new("app").expect("there is memory");
        let objects = ["/a", "/b"].map(|path| table.add(path, &schema).expect("there is room"));
        let sources = Sources::pid(std::process::id());
        let attachment = Attachment::open(&sources, &crate::Options::default()).expect("a table");
        let schemas = attachment.schemas().expect("it has schemas");
        let session = attachment.sample(&format!("{target}: *"), hz).expect("it can be read");
        let samples = session.control().subscribe(60_000).expect("it runs");
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let counters = objects.each_ref().map(|object| object.get(requests));
            while !is_over.load(Ordering::Relaxed) {
                counters.iter().for_each(|counter| counter.add(3));
                thread::sleep(Duration::from_micros(300));
            }
            drop((objects, table));
        });
        Self { stop, thread: Some(thread), session: Some(session), samples, schemas }
    }

    fn session(&mut self) -> Session {
        self.session.take().expect("it is taken once")
    }

    /// Returns the words and states of every sample that came, by tick.
    fn seen(&self) -> BTreeMap<u64, Vec<u64>> {
        std::iter::from_fn(|| self.samples.try_recv()).map(|sample| row(&sample)).collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn row(sample: &Snapshot) -> (u64, Vec<u64>) {
    (sample.tick(), sample.objects().flat_map(|view| view.words().to_vec()).collect())
}

/// A recording that was read: the words of every sample by tick, the events, and the end.
struct Read {
    samples: BTreeMap<u64, Vec<u64>>,
    events: Vec<Event>,
    end: Option<End>,
    metadata: Metadata,
}

fn read(path: &Path) -> Read {
    let file = File::open(path).expect("it was written");
    let mut reader = ArrowsReader::new(file).expect("it is a recording");
    let (mut samples, mut events) = (BTreeMap::new(), Vec::new());
    while let Some(item) = reader.next_item().expect("it is whole") {
        match item {
            Item::Event(event) => events.push(event),
            Item::Batch(batch) => {
                let mut rows = batch.by_tick();
                while let Some(tick) = rows.next() {
                    assert!(samples.insert(tick.tick, tick.words.to_vec()).is_none());
                }
            }
        }
    }
    Read { samples, events, end: reader.end(), metadata: reader.metadata().clone() }
}

/// Compares samples from the first one on that the subscriber saw.
fn assert_same(mut recorded: BTreeMap<u64, Vec<u64>>, seen: BTreeMap<u64, Vec<u64>>) {
    let (&first, _) = seen.first_key_value().expect("there were samples");
    recorded.retain(|tick, _| *tick >= first);
    let other = recorded.iter().zip(&seen).find(|(recorded, seen)| recorded != seen);
    assert_eq!((other, recorded.len()), (None, seen.len()));
}

fn wait(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn names(files: &[RecordedFile]) -> Vec<String> {
    let name =
        |file: &RecordedFile| file.path.file_name().map(|name| name.to_string_lossy().into());
    files.iter().filter_map(name).collect()
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

#[test]
fn every_sample_is_recorded() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let session = program.session();
    let first = row(session.first());
    let path = directory.path().join("run.arrows");
    let metadata = Metadata { labels: vec![("a".into(), "b".into())], ..Metadata::default() };
    let options = FileOptions { metadata, ..FileOptions::default() };
    let recording = session.record_to(&path, options).expect("it can be written");
    wait("700 samples", || recording.progress().samples > 700);
    recording.mark("half of it").expect("it is short");
    wait("1400 samples", || recording.progress().samples > 1400);
    let recorded = recording.stop().expect("nothing fails");
    let (progress, read) = (recorded.progress, read(&path));
    assert_eq!(progress.lost_samples, 0);
    assert_eq!(read.samples.len() as u64, progress.samples);
    assert_eq!(progress.rows, 2 * progress.samples);
    let files: Vec<_> = recorded.files.iter().map(|file| (&file.path, file.bytes)).collect();
    assert_eq!(files, [(&path, progress.bytes)]);
    assert_eq!(std::fs::metadata(&path).expect("it is there").len(), progress.bytes);
    // The first samples came before the subscriber of this test.
    assert_eq!(read.samples.get(&first.0), Some(&first.1));
    assert_same(read.samples, program.seen());
    assert_eq!(read.end, Some(End::Finished));
    let marks: Vec<_> = read.events.iter().map(|e| (e.kind.clone(), e.text.as_str())).collect();
    assert_eq!(marks, [(EventKind::Mark, "half of it")]);
    assert_eq!((read.metadata.hz, read.metadata.labels.len()), (Some(1000.0), 1));
    assert!(read.metadata.kernel.is_some() && read.metadata.host.is_some());
    assert_eq!(read.metadata.method, None, "of tables there is no choice of methods");
}

#[test]
fn files_are_split_and_the_oldest_removed() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let path = directory.path().join("run.arrows");
    std::fs::write(directory.path().join("run-0000.arrows"), "not ours").expect("there is room");
    let options = FileOptions {
        split: Some(Split::Bytes(1)),
        keep_bytes: Some(50_000),
        flush: Duration::from_millis(20),
        ..FileOptions::default()
    };
    let recording = program.session().record_to(&path, options).expect("it can be written");
    wait("samples", || recording.progress().samples > 1000);
    let recorded = recording.stop().expect("nothing fails");
    let files = names(&recorded.files);
    assert!(files.len() > 2 && files.is_sorted() && files[0] != "run-0001.arrows", "{files:?}");
    assert!(recorded.files.iter().map(|file| file.bytes).sum::<u64>() <= 50_000);
    let first = format!("run-{:04}.arrows", recorded.progress.removed_files + 1);
    assert_eq!(files[0], first);
    let there = std::fs::read_dir(directory.path()).expect("it is there").count();
    assert_eq!(there, files.len() + 1);
    // What is left has no gap, and every file is whole.
    let all = recorded.files.iter().map(|file| read(&file.path));
    let all: Vec<Read> = all.inspect(|read| assert_eq!(read.end, Some(End::Finished))).collect();
    let mut ticks: Vec<u64> = all.iter().flat_map(|read| read.samples.keys().copied()).collect();
    let mut seen: Vec<u64> = program.seen().into_keys().collect();
    seen.retain(|tick| *tick >= ticks[0]);
    ticks.sort_unstable();
    assert_eq!(ticks, seen);
}

#[test]
fn a_full_disk_ends_the_recording_with_an_error() {
    let mut program = Program::start(1000.0);
    let path = Path::new("/dev/full");
    let options = FileOptions { format: Some(Format::Arrows), ..FileOptions::default() };
    let recording = program.session().record_to(path, options).expect("it is made later");
    wait("the error", || recording.is_finished());
    let error = recording.stop().expect_err("nothing can be written there");
    let text = error.to_string();
    assert!(text.starts_with("/dev/full: the recording cannot be written beyond byte 0"), "{text}");
    let Error::Recording { source: vmstrobe_export::Error::Write { source, .. }, .. } = error
    else {
        panic!("{error:?}");
    };
    assert_eq!(source.kind(), ErrorKind::StorageFull);
}

#[test]
fn a_name_must_tell_the_format_and_be_free() {
    let (mut program, directory) = (Program::start(100.0), directory());
    let path = directory.path().join("run.arrow");
    let error = program.session().record_to(&path, FileOptions::default()).expect_err("unknown");
    assert!(error.to_string().contains(".arrows, .parquet, .pftrace, .csv, .jsonl"), "{error}");
    let mut program = Program::start(100.0);
    let path = directory.path().join("run.arrows");
    std::fs::write(&path, "precious").expect("there is room");
    let recording = program.session().record_to(&path, FileOptions::default());
    let recording = recording.expect("the name tells the format");
    wait("the error", || recording.is_finished());
    let error = recording.stop().expect_err("it is there already");
    assert!(
        matches!(&error, Error::RecordFile { source, .. }
        if source.kind() == ErrorKind::AlreadyExists),
        "{error:?}"
    );
    assert_eq!(std::fs::read(&path).expect("it is there"), b"precious");
}

fn flight(directory: &TempDir, trigger: Option<Trigger>) -> FlightOptions {
    FlightOptions {
        last: Duration::from_secs(2),
        memory_bytes: 1 << 20,
        template: directory.path().join("{vm}-{trigger}.arrows"),
        compression: Compression::Zstd,
        trigger,
        after: Duration::from_millis(100),
        metadata: Metadata { vm: Some("../web".into()), ..Metadata::default() },
        broker: vmstrobe_host::Broker::default(),
    }
}

fn dumped(dump: Dump) -> (String, DumpFile) {
    let mut files = dump.result.expect("it was written");
    assert_eq!(files.len(), 1);
    (dump.cause, files.remove(0))
}

#[test]
fn dumps_lose_nothing_between_them() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let flight = flight(&directory, None);
    let recording = program.session().fly(flight).expect("there is memory");
    wait("samples", || recording.progress().samples > 100);
    let (reply, replies) = channel();
    let mut all = BTreeMap::new();
    for number in 0..50 {
        let path: Option<PathBuf> =
            (number % 2 == 0).then(|| directory.path().join(format!("dump-{number}.arrows")));
        let request = DumpRequest { cause: "command".into(), last: None, path };
        recording.dump(request, Some(reply.clone()));
        let dump = replies.recv_timeout(PATIENCE).expect("it is written");
        let (cause, file) = dumped(dump);
        let read = read(&file.path);
        assert_eq!((cause.as_str(), read.end), ("command", Some(End::Finished)));
        assert_eq!(read.samples.len() as u64, file.span.samples);
        all.extend(read.samples);
        thread::sleep(Duration::from_millis(number % 7 * 5));
    }
    let last = *all.keys().last().expect("there were samples");
    let recorded = recording.stop().expect("nothing fails");
    assert_eq!(recorded.progress.lost_samples, 0);
    let mut seen = program.seen();
    seen.retain(|tick, _| *tick <= last);
    assert_same(all, seen);
    // The names of the VM and the cause are the template's, in the template's directory.
    let path = directory.path().join("_._web-command.arrows");
    assert!(path.exists() && numbered(&path, 25).exists() && !numbered(&path, 26).exists());
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    super::place::numbered(path, &number.to_string())
}

#[test]
fn the_last_time_is_held_and_dumped() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let flight = FlightOptions { last: Duration::from_millis(700), ..flight(&directory, None) };
    let recording = program.session().fly(flight).expect("there is memory");
    wait("samples", || recording.progress().samples > 2500);
    for (last, least_ms, most_ms) in [(None, 700, 1900), (Some(100), 100, 1200)] {
        let last = last.map(Duration::from_millis);
        let request = DumpRequest { cause: "x".into(), last, path: None };
        recording.dump(request, None);
        let mut dumps = Vec::new();
        wait("the dump", || {
            dumps.extend(recording.dumps());
            !dumps.is_empty()
        });
        let (_, file) = dumped(dumps.remove(0));
        let span_ms = (file.span.end_wall_ns - file.span.begin_wall_ns) / 1_000_000;
        assert!((least_ms..most_ms).contains(&span_ms), "{last:?}: {span_ms} ms");
    }
    recording.stop().expect("nothing fails");
}

#[test]
fn a_condition_dumps_by_itself() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let rule = TriggerRule {
        condition: "sum requests.rate > 10".parse().expect("it is a condition"),
        hold_for: Duration::from_millis(5),
        hold_off: Duration::from_secs(600),
        triggers_max: None,
    };
    let trigger = Trigger::new(rule, &program.schemas).expect("there is such a counter");
    let flight = flight(&directory, Some(trigger));
    let recording = program.session().fly(flight).expect("there is memory");
    let mut dumps = Vec::new();
    wait("the dump", || {
        dumps.extend(recording.dumps());
        !dumps.is_empty()
    });
    let dump = dumps.remove(0);
    let triggered = dump.triggered.clone().expect("a condition caused it");
    assert!(triggered.hits[0].value > 10.0 && triggered.hits[0].path.is_none());
    let (cause, file) = dumped(dump);
    assert_eq!(cause, "sum requests.rate > 10");
    let read = read(&file.path);
    let events: Vec<_> = read.events.iter().map(|e| (&e.kind, &*e.text, e.monotonic_ns)).collect();
    assert_eq!(events, [(&EventKind::Trigger, &*cause, triggered.at_ns)]);
    // The time after it is there too.
    let event_wall_ns = read.events[0].wall_ns();
    assert!(file.span.end_wall_ns >= event_wall_ns + 99_000_000, "{:?}", file.span);
    assert!(recording.dumps().is_empty());
    recording.stop().expect("nothing fails");
}

#[test]
fn a_dump_that_fails_is_reported_and_the_next_succeeds() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    let recording = program.session().fly(flight(&directory, None)).expect("there is memory");
    wait("samples", || recording.progress().samples > 100);
    let (reply, replies) = channel();
    let ask = |path: &Path| {
        let path = Some(path.to_owned());
        let request = DumpRequest { cause: "command".into(), last: None, path };
        recording.dump(request, Some(reply.clone()));
        replies.recv_timeout(PATIENCE).expect("there is an answer").result
    };
    let error = ask(&directory.path().join("nowhere/x.arrows")).expect_err("no such directory");
    assert!(matches!(error, Error::RecordFile { .. }), "{error:?}");
    assert!(ask(Path::new("/dev/null/x.arrows")).is_err());
    assert!(ask(&directory.path().join("x.arrows")).is_ok());
    recording.stop().expect("nothing fails");
}

#[test]
fn a_flood_of_marks_is_refused_and_ends_nothing() {
    for is_flight in [false, true] {
        let (mut program, directory) = (Program::start(1000.0), directory());
        let mut path = directory.path().join("run.arrows");
        let recording = match is_flight {
            true => program.session().fly(flight(&directory, None)).expect("there is memory"),
            false => program.session().record_to(&path, FileOptions::default()).expect("it works"),
        };
        wait("samples", || recording.progress().samples > 10);
        let handle = recording.handle();
        let long = "ü".repeat(MAX_MARK_BYTES / 2);
        let mut marks: Vec<String> =
            ["", "a\n\u{1b}[2J\u{202e}\"b", &long].map(String::from).into();
        marks.iter().for_each(|text| assert!(handle.mark(text).expect("it is short enough") > 0));
        let error = handle.mark(&format!("{long}xx")).expect_err("it is too long");
        assert!(matches!(error, Error::Export(_)), "{error:?}");
        let deadline = Instant::now() + PATIENCE;
        let refused = loop {
            match handle.mark("again") {
                Ok(_) => marks.push("again".to_owned()),
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "{} marks", marks.len());
        };
        assert!(matches!(refused, Error::TooManyMarks) && marks.len() >= MAX_WAITING_MARKS);
        wait("room for one more", || handle.mark("the last").is_ok());
        marks.push("the last".to_owned());
        if is_flight {
            let (reply, replies) = channel();
            recording.dump(DumpRequest::default(), Some(reply));
            path = dumped(replies.recv_timeout(PATIENCE).expect("it is written")).1.path;
        }
        recording.stop().expect("nothing failed");
        let read: Vec<String> = read(&path).events.into_iter().map(|event| event.text).collect();
        assert_eq!(read, marks);
        assert!(matches!(handle.mark("late"), Err(Error::RecordingEnded)));
    }
}

#[test]
fn dumps_that_cannot_be_written_yet_wait_and_the_rest_is_refused() {
    let (mut program, directory) = (Program::start(1000.0), directory());
    // Files are made by a broker, which does something else until it is told to go on.
    let broker = vmstrobe_host::Broker::start().expect("there are threads");
    let (go_on, told) = channel::<()>();
    let (began, begun) = channel::<()>();
    let busy = broker.clone();
    let flight = FlightOptions { broker, ..flight(&directory, None) };
    // The broker looks at the directory first.
    let recording = program.session().fly(flight).expect("there is memory");
    let wait_until_told = move || began.send(()).is_ok() && told.recv().is_ok();
    let busy = thread::spawn(move || busy.run(wait_until_told));
    begun.recv_timeout(PATIENCE).expect("the broker has nothing else to do");
    wait("samples", || recording.progress().samples > 100);
    let (reply, replies) = channel();
    let asked = MAX_WRITING_DUMPS + MAX_WAITING_DUMPS;
    for _ in 0..asked + 3 {
        recording.dump(DumpRequest::default(), Some(reply.clone()));
        // One that came before is written, or waits, by then.
        thread::sleep(Duration::from_millis(15));
    }
    for _ in 0..3 {
        let dump = replies.recv_timeout(PATIENCE).expect("there is an answer");
        assert!(matches!(dump.result, Err(Error::TooManyDumps)), "{dump:?}");
    }
    assert!(replies.try_recv().is_err(), "the others wait");
    go_on.send(()).expect("the broker waits");
    assert!(busy.join().expect("it does not panic"));
    for _ in 0..asked {
        let dump = replies.recv_timeout(PATIENCE).expect("there is an answer");
        dump.result.expect("there is room");
    }
    recording.stop().expect("nothing failed");
}
