//! Recorders of this process's own statistics, asked by clients of this process.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::mpsc::channel;
use std::time::SystemTime;

use tempfile::TempDir;
use vmstrobe_core::Registry;
use vmstrobe_export::{ArrowsReader, Compression, Event, Item, Metadata};

use super::*;
use crate::control::{ControlError, RunningRecorder};
use crate::{Attachment, FileOptions, FlightOptions, Recording, Session};

/// The longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A recorder with a control socket. Its fields are dropped in this order.
struct Recorded {
    control: ControlSocket,
    recording: Recording,
    recorder: RunningRecorder,
    directory: TempDir,
}

impl Recorded {
    fn start(record: impl FnOnce(Session, &Path) -> Recording) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("control");
        let attachment = Attachment::of(Registry::default()).with_own_statistics();
        let registry = attachment.registry().clone();
        let session = attachment.sample("sampler: ticks", 1000.0).expect("it can be read");
        let recording = record(session, directory.path());
        let place = ControlPlace::At(path.clone());
        let listener = ControlListener::bind(&place, Broker::default()).expect("the path is free");
        let control = listener.serve(registry, recording.handle(), ThreadStart::default());
        let control = control.expect("there are threads");
        assert_eq!(control.path(), path);
        Self { control, recording, recorder: RunningRecorder::at(path), directory }
    }

    fn flight() -> Self {
        Self::flight_by(Broker::default())
    }

    /// Starts a flight recorder whose files that broker makes.
    fn flight_by(broker: Broker) -> Self {
        let flight = Self::start(|session, directory| {
            let options = FlightOptions {
                last: Duration::from_secs(2),
                memory_bytes: 1 << 20,
                template: directory.join("{vm}-{trigger}.arrows"),
                compression: Compression::Zstd,
                trigger: None,
                after: Duration::ZERO,
                metadata: Metadata::default(),
                broker,
            };
            session.fly(options).expect("there is memory")
        });
        let deadline = Instant::now() + PATIENCE;
        while flight.recording.progress().samples < 100 {
            assert!(Instant::now() < deadline, "no samples");
            std::thread::sleep(Duration::from_millis(2));
        }
        flight
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn dump(&self, path: &Path) -> std::result::Result<Vec<DumpedFile>, String> {
        let arguments = DumpArguments { last: None, path: Some(path.to_owned()) };
        let dumped = self.recorder.dump(&arguments, &Broker::default());
        dumped.map_err(|error| error.to_string())
    }
}

/// Returns the ticks and the events of a file.
fn read(path: &Path) -> (BTreeSet<u64>, Vec<Event>) {
    let file = File::open(path).expect("it was written");
    let mut reader = ArrowsReader::new(file).expect("it is a recording");
    let (mut ticks, mut events) = (BTreeSet::new(), Vec::new());
    while let Some(item) = reader.next_item().expect("it is whole") {
        match item {
            Item::Event(event) => events.push(event),
            Item::Batch(batch) => {
                let mut rows = batch.by_tick();
                while let Some(row) = rows.next() {
                    ticks.insert(row.tick);
                }
            }
        }
    }
    (ticks, events)
}

#[test]
fn a_dump_is_what_the_reply_and_the_event_say() {
    let flight = Recorded::flight();
    let marked_ns = flight.recorder.mark("a\n\"b\u{1b}", &Broker::default()).expect("it runs");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later");
    assert!(u128::from(marked_ns).abs_diff(now.as_nanos()) < PATIENCE.as_nanos());
    let files = flight.recorder.dump(&DumpArguments::default(), &Broker::default());
    let files = files.expect("the directory is ours");
    assert_eq!(files.len(), 1);
    let file = &files[0];
    assert_eq!(file.path, flight.path("vm-command.arrows"));
    let (ticks, events) = read(&file.path);
    assert_eq!(ticks.len() as u64, file.samples);
    assert_eq!(std::fs::metadata(&file.path).expect("it is there").len(), file.bytes);
    assert!(file.begin_wall_ns < file.end_wall_ns && file.end_wall_ns >= marked_ns);
    assert_eq!((events[0].wall_ns(), &*events[0].text), (marked_ns, "a\n\"b\u{1b}"));
    let events = flight.control.events();
    assert!(matches!(&events[0], ControlEvent::Marked { text, wall_ns } if text == "a\n\"b\u{1b}"
            && *wall_ns == marked_ns));
    let ControlEvent::Dumped(dump) = &events[1] else { panic!("{events:?}") };
    let told: Vec<_> = dump.result.as_ref().expect("it was written").iter().collect();
    assert_eq!(told.iter().map(|file| dumped_file(file)).collect::<Vec<_>>(), files);
    assert!(flight.control.events().is_empty() && flight.recording.dumps().is_empty());
}

#[test]
fn a_dump_that_fails_tells_the_client_and_the_recorder() {
    let flight = Recorded::flight();
    for (name, want) in [
        ("nowhere/x.arrows", "No such file or directory"),
        ("x.parquet", "a dump's name ends in .arrows"),
        ("x", "a dump's name ends in .arrows"),
    ] {
        let error = flight.dump(&flight.path(name)).expect_err("it cannot be written");
        assert!(error.contains(want), "{name}: {error}");
    }
    let relative = flight.dump(Path::new("x.arrows")).expect_err("it is relative");
    assert!(relative.contains("absolute path"), "{relative}");
    std::os::unix::fs::symlink(flight.path("target"), flight.path("link.arrows"))
        .expect("the directory is ours");
    let beside = flight.dump(&flight.path("link.arrows")).expect("it has another name");
    assert_eq!(beside[0].path, flight.path("link-2.arrows"));
    assert!(!flight.path("target").exists());
    let events = flight.control.events();
    let is_failure =
        |event: &ControlEvent| matches!(event, ControlEvent::Dumped(dump) if dump.result.is_err());
    assert_eq!(events.iter().filter(|event| is_failure(event)).count(), 1, "{events:?}");
    assert!(flight.dump(&flight.path("x.arrows")).is_ok(), "the samples are kept");
}

#[test]
fn a_recorder_of_files_takes_marks_and_refuses_dumps() {
    let files = Recorded::start(|session, directory| {
        let path = directory.join("run.arrows");
        session.record_to(&path, FileOptions::default()).expect("it can be written")
    });
    let error = files.dump(&files.path("x.arrows")).expect_err("it holds nothing");
    assert!(error.contains("only a flight recorder can dump"), "{error}");
    let marked_ns = files.recorder.mark("now", &Broker::default()).expect("it runs");
    let Recorded { control, recording, directory, .. } = files;
    assert_eq!(control.close().len(), 2, "the refused dump, and the mark");
    recording.stop().expect("nothing failed");
    let (_, events) = read(&directory.path().join("run.arrows"));
    assert_eq!(events.iter().map(Event::wall_ns).collect::<Vec<_>>(), [marked_ns]);
}

#[test]
fn the_end_of_a_recorder_waits_for_no_dump_and_removes_the_socket() {
    let broker = Broker::start().expect("there are threads");
    let flight = Recorded::flight_by(broker.clone());
    // From now on it makes no file until it is told to go on.
    let ((go_on, told), (begins, begun)) = (channel::<()>(), channel());
    let work = move || begins.send(()).is_ok() && told.recv().is_ok();
    let busy = std::thread::spawn(move || broker.run(work));
    begun.recv().expect("the broker begins");
    let recorder = flight.recorder.clone();
    let ask = move || recorder.dump(&DumpArguments::default(), &Broker::default());
    let client = std::thread::spawn(ask);
    // Once a thread writes the dump, or before that: either way it takes until the broker goes on.
    std::thread::sleep(Duration::from_millis(100));
    let Recorded { control, recording, recorder, directory } = flight;
    drop(control);
    assert!(!recorder.path.exists());
    let error = client.join().expect("it does not panic").expect_err("it was not written");
    assert!(matches!(error, Error::Control(ControlError::Unreachable { .. })), "{error}");
    // Lets the dump end, and the recording.
    go_on.send(()).expect("the broker waits");
    assert!(busy.join().expect("it does not panic"));
    recording.stop().expect("nothing failed");
    let (ticks, _) = read(&directory.path().join("vm-command.arrows"));
    assert!(!ticks.is_empty());
}
