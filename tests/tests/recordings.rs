//! Recordings, read by programs that nobody here wrote: pyarrow, polars, pandas and DuckDB. Every
//! value is compared with the snapshots that were recorded.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;
use vmstrobe_core::{Desc, ObjectView, RowState, Snapshot};
use vmstrobe_export::{
    ArrowsWriter, Batch, BatchLimits, Batcher, Columns, Compression, CsvWriter, Event, EventKind,
    Exporter, JsonLinesWriter, Metadata, Outcome,
};
use vmstrobe_testing::random;
use vmstrobe_tests::python::{require_readers, run_reader};

#[path = "recordings/parquet.rs"]
mod parquet;

const LIMIT: Duration = Duration::from_secs(120);

/// The columns before the statistics, as docs/recordings.md lists them.
const HEADS: [&str; 12] = [
    "time",
    "tick",
    "window_ns",
    "wall_offset_ns",
    "vm",
    "vcpu",
    "path",
    "schema",
    "object",
    "state",
    "age_ms",
    "errno",
];

/// A recording, and what readers must find in it.
struct Recording {
    bytes: Vec<u8>,
    /// One entry for each batch.
    expected: Vec<Json>,
    /// The end of each batch in the file.
    ends: Vec<usize>,
}

/// Records random snapshots whose objects come and go, with an event now and then.
fn record(seed: u64, compression: Compression) -> Recording {
    let mut rng = Rng::with_seed(seed);
    let schemas = random::schemas(&mut rng);
    let layouts: Vec<_> = (0..4).map(|n| random::layout(&mut rng, &schemas, n)).collect();
    let columns = layouts
        .iter()
        .fold(Columns::default(), |columns, layout| columns.joined(layout).expect("few columns"));
    let metadata = Metadata { vm: Some("web".into()), ..Metadata::default() };
    let mut recording = Recording { bytes: Vec::new(), expected: Vec::new(), ends: Vec::new() };
    let mut bytes = Vec::new();
    let mut writer = ArrowsWriter::new(&mut bytes, columns.clone(), &metadata, compression)
        .expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits { ticks: 40, ..BatchLimits::default() });
    let mut pushed: Vec<Snapshot> = Vec::new();
    let mut write = |writer: &mut ArrowsWriter<_>, batch: Batch, pushed: &mut Vec<Snapshot>| {
        let events = if rng.bool() { vec![event(rng.u64(..))] } else { Vec::new() };
        events.iter().for_each(|event| writer.event(event).expect("memory takes all"));
        assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
        let snapshots: Vec<Snapshot> = pushed.drain(..batch.ticks().len()).collect();
        recording.expected.push(expected(&snapshots, &columns, &events));
        recording.ends.push(writer.whole_bytes() as usize);
    };
    let mut rng = Rng::with_seed(seed + 1);
    for layout in &layouts {
        let count = rng.usize(1..200);
        for snapshot in random::snapshots(&mut rng, layout, count) {
            let batch = batcher.push(&snapshot).expect("few columns");
            if let Some(batch) = batch {
                write(&mut writer, batch, &mut pushed);
            }
            pushed.push(snapshot);
        }
    }
    if let Some(batch) = batcher.take() {
        write(&mut writer, batch, &mut pushed);
    }
    assert!(pushed.is_empty());
    writer.finish().expect("memory takes all");
    recording.bytes = bytes;
    recording
}

fn event(seed: u64) -> Event {
    let kind = if seed.is_multiple_of(2) { EventKind::Mark } else { EventKind::Trigger };
    Event { monotonic_ns: seed / 4, wall_offset_ns: 5, kind, text: format!("\"{seed}\"\n") }
}

/// Returns the columns and events of one batch, object-major, from the snapshots alone.
fn expected(snapshots: &[Snapshot], columns: &Columns, events: &[Event]) -> Json {
    let names = HEADS.into_iter().chain(columns.iter().map(|column| &*column.name));
    let mut of: Map<String, Json> = names.map(|name| (name.to_owned(), json!([]))).collect();
    let mut push = |name: &str, value: Json| {
        of[name].as_array_mut().expect("each column is a list").push(value);
    };
    let objects = snapshots[0].layout().rows();
    for object in 0..objects {
        for snapshot in snapshots {
            let view = snapshot.objects().nth(object).expect("the layout has the object");
            heads(snapshot, view, &mut push);
            let values = statistics(view, columns);
            columns.iter().zip(values).for_each(|(column, value)| push(&column.name, value));
        }
    }
    let names = schema_names(&snapshots[0], columns);
    of["schema"] =
        names.iter().flat_map(|name| std::iter::repeat_n(&**name, snapshots.len())).collect();
    let events = events.iter().enumerate().flat_map(|(number, event)| {
        [
            ("time_ns", event.wall_ns().to_string()),
            ("wall_offset_ns", event.wall_offset_ns.to_string()),
            ("kind", event.kind.name().to_owned()),
            ("text", event.text.clone()),
        ]
        .map(|(key, text)| (format!("event.{number}.{key}"), Json::from(text)))
    });
    json!({"columns": of, "events": events.collect::<Map<String, Json>>()})
}

fn heads(snapshot: &Snapshot, view: ObjectView<'_>, push: &mut impl FnMut(&str, Json)) {
    let (window, object, state) = (snapshot.window(), view.object(), view.state());
    push("time", window.wall_ns().into());
    push("tick", snapshot.tick().into());
    push("window_ns", (window.end_ns - window.begin_ns).into());
    push("wall_offset_ns", window.wall_offset_ns.into());
    let vm = object.path.strip_prefix("/vm/").and_then(|rest| rest.split('/').next());
    push("vm", vm.unwrap_or("web").into());
    push("vcpu", object.index.into());
    push("path", (*object.path).into());
    push("object", object.key.into());
    let (number, age_ms, errno) = match state {
        RowState::Good => (0, None, None),
        RowState::Aged(age_ms) => (1, Some(age_ms), None),
        RowState::Missing => (2, None, None),
        RowState::Stale => (3, None, None),
        RowState::Torn => (4, None, None),
        RowState::Gone => (5, None, None),
        RowState::Io(errno) => (6, None, Some(errno)),
        other => panic!("{other:?}"),
    };
    push("state", number.into());
    push("age_ms", age_ms.into());
    push("errno", errno.into());
}

/// Returns the value of each column of one object: the n-th of equal statistics is in the n-th of
/// equal columns.
fn statistics(view: ObjectView<'_>, columns: &Columns) -> Vec<Json> {
    let mut values = vec![Json::Null; columns.len()];
    let plain = |desc: &Desc| Desc { offset: 0, ..desc.clone() };
    let mut is_taken = vec![false; columns.len()];
    for value in view.stats() {
        for (bucket, &word) in value.words().iter().enumerate() {
            let is_its = |(index, column): (usize, &vmstrobe_export::Column)| {
                !is_taken[index]
                    && *column.provider == *view.object().schema.provider()
                    && plain(&column.desc) == plain(value.desc())
                    && usize::from(column.bucket.unwrap_or(0)) == bucket
            };
            let index = columns.iter().enumerate().position(is_its);
            let index = index.expect("each statistic has a column");
            is_taken[index] = true;
            values[index] = word.into();
        }
    }
    values
}

/// Returns the name of each object's schema: the one of its provider, target and kept statistics.
fn schema_names(snapshot: &Snapshot, columns: &Columns) -> Vec<String> {
    let plain = |desc: &Desc| Desc { offset: 0, ..desc.clone() };
    let mut names = Vec::new();
    for group in snapshot.layout().groups() {
        let own = group.plan.schema();
        let kept: Vec<Desc> =
            group.plan.columns().iter().map(|column| plain(&own.descs()[column.desc])).collect();
        let mut schemas = columns.schemas().iter().filter(|other| {
            let schema = &other.schema;
            schema.provider() == own.provider()
                && schema.target() == own.target()
                && schema.descs().iter().map(plain).eq(kept.iter().cloned())
        });
        let name = &schemas.next().expect("each object has a schema").name;
        assert!(schemas.next().is_none(), "a schema is described once");
        names.extend(group.objects.iter().map(|_| name.to_string()));
    }
    names
}

fn check(recording: &Path, expected: &Json) {
    let wanted = recording.with_extension("json");
    fs::write(&wanted, expected.to_string()).expect("the directory is writable");
    let text = |path: &Path| path.to_str().expect("the path is text").to_owned();
    let output = run_reader("arrows.py", &[&text(recording), &text(&wanted)], LIMIT);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

#[test]
fn every_value_is_read_by_others() {
    if !require_readers() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    for seed in 0..8 {
        let compression = if seed % 2 == 0 { Compression::Zstd } else { Compression::Lz4 };
        let recording = record(seed, compression);
        let path = directory.path().join(format!("{seed}.arrows"));
        fs::write(&path, &recording.bytes).expect("the directory is writable");
        check(&path, &json!({"finished": true, "batches": recording.expected}));
    }
}

/// Returns the rows of snapshots, tick after tick.
fn text_rows(snapshots: &[Snapshot], columns: &Columns) -> Vec<Json> {
    let mut rows = Vec::new();
    for snapshot in snapshots {
        for view in snapshot.objects() {
            let object = view.object();
            let names = columns.iter().map(|column| column.name.to_string());
            let values: Map<String, Json> = names.zip(statistics(view, columns)).collect();
            let vm = object.path.strip_prefix("/vm/").and_then(|rest| rest.split('/').next());
            let state = match view.state() {
                RowState::Good => "good",
                RowState::Aged(_) => "aged",
                RowState::Missing => "missing",
                RowState::Stale => "stale",
                RowState::Torn => "torn",
                RowState::Gone => "gone",
                RowState::Io(_) => "failed",
                other => panic!("{other:?}"),
            };
            rows.push(json!({
                "tick": snapshot.tick(),
                "path": *object.path,
                "vm": vm.unwrap_or("web"),
                "vcpu": object.index,
                "state": state,
                "values": values,
                "stats": view.stats().count(),
            }));
        }
    }
    rows
}

#[test]
fn text_is_read_by_others() {
    if !require_readers() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = |name: &str| directory.path().join(name).to_str().expect("it is text").to_owned();
    for seed in 0..4 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        let columns = Columns::of(&layout).expect("few columns");
        let snapshots = random::snapshots(&mut rng, &layout, 300);
        let metadata = Metadata { vm: Some("web".into()), ..Metadata::default() };
        let files = [path("a.csv"), path("a.jsonl"), path("a.json")];
        let create = |path: &str| fs::File::create(path).expect("the directory is writable");
        let mut csv = CsvWriter::new(create(&files[0]), columns.clone(), &metadata, None)
            .expect("the disk has room");
        let mut json =
            JsonLinesWriter::new(create(&files[1]), &metadata, None).expect("the disk has room");
        let mut batcher = Batcher::new(BatchLimits { ticks: 70, ..BatchLimits::default() });
        let mut batches: Vec<Batch> = snapshots
            .iter()
            .filter_map(|snapshot| batcher.push(snapshot).expect("few columns"))
            .collect();
        batches.extend(batcher.take());
        let writers: [&mut dyn Exporter; 2] = [&mut csv, &mut json];
        for writer in writers {
            for batch in &batches {
                assert_eq!(writer.write(batch).expect("the disk has room"), Outcome::Written);
            }
            writer.finish().expect("the disk has room");
        }
        let rows = Json::from(text_rows(&snapshots, &columns));
        fs::write(&files[2], rows.to_string()).expect("the directory is writable");
        let [csv, json, expected] = &files;
        let output = run_reader("text.py", &[csv, json, expected], LIMIT);
        assert_eq!(output.code, Some(0), "seed {seed}: {}{}", output.stdout, output.stderr);
    }
}

/// Of a file whose tail is torn, the loop of the script gives every whole batch.
#[test]
fn whole_batches_of_a_torn_file_are_read_by_others() {
    if !require_readers() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let recording = record(100, Compression::Zstd);
    let ends = &recording.ends;
    assert!(ends.len() > 4, "{}", ends.len());
    for (whole, cut) in [(ends.len() - 1, 1), (ends.len() - 1, 100), (3, 40)] {
        let end = ends.get(whole).map_or(recording.bytes.len(), |&end| end - cut);
        let path = directory.path().join(format!("{whole}-{cut}.arrows"));
        fs::write(&path, &recording.bytes[..end]).expect("the directory is writable");
        check(&path, &json!({"finished": false, "batches": recording.expected[..whole]}));
    }
}
