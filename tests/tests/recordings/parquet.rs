//! Parquet files, of rows and wide, read by programs that nobody here wrote.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;
use vmstrobe_core::{Layout, Snapshot, StatType};
use vmstrobe_export::{
    ArrowsReader, ArrowsWriter, Batch, BatchLimits, Batcher, Columns, Compression, Exporter, Item,
    Metadata, Outcome, ParquetReader, ParquetWriter, WideParquetWriter,
};
use vmstrobe_testing::random;
use vmstrobe_tests::python::{require_readers, run_reader};

use super::{LIMIT, event, expected};

fn metadata() -> Metadata {
    let labels = vec![("run".into(), "\"1\"\n".into())];
    Metadata { hz: Some(1000.0), vm: Some("web".into()), labels, ..Metadata::default() }
}

/// Returns the batches of snapshots.
fn batches(snapshots: &[Snapshot]) -> Vec<Batch> {
    let mut batcher = Batcher::new(BatchLimits { ticks: 40, ..BatchLimits::default() });
    let mut batches: Vec<Batch> = snapshots
        .iter()
        .filter_map(|snapshot| batcher.push(snapshot).expect("few columns"))
        .collect();
    batches.extend(batcher.take());
    batches
}

/// Writes batches and an event to a file.
fn write(mut writer: impl Exporter, batches: &[Batch]) {
    for batch in batches {
        assert_eq!(writer.write(batch).expect("the disk has room"), Outcome::Written);
    }
    writer.event(&event(7)).expect("the disk has room");
    writer.finish().expect("the disk has room");
}

/// Checks a file, and that it is the same recording as a stream, if there is one.
fn check(file: &Path, columns: Map<String, Json>, fields: Json, stream: Option<&Path>) {
    let event = event(7);
    let events = json!([[event.wall_ns(), event.text]]);
    let wanted = json!({"columns": columns, "events": events, "fields": fields});
    let path = file.with_extension("json");
    fs::write(&path, wanted.to_string()).expect("the directory is writable");
    let paths = [Some(file), Some(&path), stream];
    let paths: Vec<&str> =
        paths.into_iter().flatten().map(|path| path.to_str().expect("it is text")).collect();
    let output = run_reader("parquet.py", &paths, LIMIT);
    assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
}

/// Returns the columns of rows: for each layout all ticks of its first object, and so on.
fn rows(snapshots: &[Snapshot], columns: &Columns) -> Map<String, Json> {
    let mut all: Map<String, Json> = Map::new();
    let same = |one: &Snapshot, other: &Snapshot| Arc::ptr_eq(one.layout(), other.layout());
    for of_layout in snapshots.chunk_by(same) {
        let Json::Object(mut of) = expected(of_layout, columns, &[]) else {
            unreachable!("it is an object")
        };
        let Json::Object(of) = of["columns"].take() else { unreachable!("it is an object") };
        for (name, mut values) in of {
            let values = values.as_array_mut().expect("each column is a list");
            let entry = all.entry(name).or_insert_with(|| json!([]));
            entry.as_array_mut().expect("each column is a list").append(values);
        }
    }
    all
}

#[test]
fn rows_are_read_by_others() {
    if !require_readers() {
        return;
    }
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = |name: &str| directory.path().join(name);
    let create = |path: &Path| fs::File::create(path).expect("the directory is writable");
    for seed in 0..8 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let layouts: Vec<_> = (0..4).map(|n| random::layout(&mut rng, &schemas, n)).collect();
        let columns = layouts.iter().fold(Columns::default(), |columns, layout| {
            columns.joined(layout).expect("few columns")
        });
        let snapshots: Vec<Snapshot> = layouts
            .iter()
            .flat_map(|layout| {
                let count = rng.usize(1..200);
                random::snapshots(&mut rng, layout, count)
            })
            .collect();
        let batches = batches(&snapshots);
        let (file, stream) = (path("a.parquet"), path("a.arrows"));
        let writer = ParquetWriter::new(create(&file), columns.clone(), &metadata());
        write(writer.expect("the disk has room"), &batches);
        let writer =
            ArrowsWriter::new(create(&stream), columns.clone(), &metadata(), Compression::Zstd);
        write(writer.expect("the disk has room"), &batches);
        let fields: Map<String, Json> = columns
            .iter()
            .map(|column| {
                let texts = json!({"statistic": column.desc.name, "provider": column.provider});
                (column.name.to_string(), texts)
            })
            .collect();
        check(&file, rows(&snapshots, &columns), fields.into(), Some(&stream));
    }
}

/// Returns the columns of a wide file, and properties of one of each kind.
fn wide(snapshots: &[Snapshot], layout: &Layout) -> (Map<String, Json>, Json) {
    let each =
        |value: &dyn Fn(&Snapshot) -> Json| -> Json { snapshots.iter().map(value).collect() };
    let mut columns = Map::new();
    let mut fields = Map::new();
    let width = |snapshot: &Snapshot| snapshot.window().end_ns - snapshot.window().begin_ns;
    columns.insert("timestamp".into(), each(&|snapshot| snapshot.window().wall_ns().into()));
    columns.insert("duration".into(), each(&|snapshot| width(snapshot).into()));
    let begin = |snapshot: &Snapshot| json!(-((width(snapshot) / 2) as i64));
    columns.insert(":window_begin".into(), each(&begin));
    columns.insert(":window_width".into(), each(&|snapshot| width(snapshot).into()));
    let offset = |snapshot: &Snapshot| snapshot.window().wall_offset_ns.into();
    columns.insert(":wall_offset".into(), each(&offset));
    for (row, object) in layout.groups().iter().flat_map(|group| &group.objects).enumerate() {
        let view = |snapshot: &'_ Snapshot| -> Vec<Vec<u64>> {
            let view = snapshot.objects().nth(row).expect("the layout has the object");
            view.stats().map(|value| value.words().to_vec()).collect()
        };
        for (stat, desc) in object.schema.descs().iter().enumerate() {
            let is_histogram = desc.stat_type == StatType::Log2Histogram;
            let of = |snapshot: &Snapshot| match view(snapshot).get(stat) {
                None => Json::Null,
                Some(words) if is_histogram => json!(words),
                Some(words) => json!(words[0]),
            };
            let suffix = if is_histogram { ":buckets" } else { "" };
            let name = format!("{}@{}{suffix}", desc.name, object.path);
            let mut texts = json!({"metric": desc.name, "vm": "web", "provider": "kvm"});
            if is_histogram {
                texts["grouping_power"] = "0".into();
                texts["max_value_power"] = (desc.size - 1).to_string().into();
            }
            fields.insert(name.clone(), texts);
            columns.insert(name, each(&of));
        }
    }
    (columns, fields.into())
}

#[test]
fn wide_files_are_read_by_others() {
    use vmstrobe_core::{Desc, Mask, Object, ReadPlan, Schema, Target};
    if !require_readers() {
        return;
    }
    let hist = |size, offset| {
        let desc = Desc::counter("halt_wait_hist", offset);
        Desc { size, stat_type: StatType::Log2Histogram, ..desc }
    };
    let short = Desc { name: "short".into(), ..hist(5, 264) };
    let descs = vec![Desc::counter("exits", 0), hist(32, 8), short];
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let objects = (0..3).map(|index| Object {
        path: format!("/vm/web/vcpu[{index}]").into(),
        index: Some(index),
        schema: Arc::clone(&schema),
        key: index.into(),
    });
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let layout = Layout::new(0, vec![(plan, objects.collect())]);
    let directory = TempDir::new().expect("a temporary directory can be made");
    let path = directory.path().join("a.parquet");
    for seed in 0..3 {
        let mut rng = Rng::with_seed(seed);
        let snapshots = random::snapshots(&mut rng, &layout, 300);
        let file = fs::File::create(&path).expect("the directory is writable");
        write(WideParquetWriter::new(file, &metadata()), &batches(&snapshots));
        let (columns, fields) = wide(&snapshots, &layout);
        check(&path, columns, fields, None);
    }
}

/// A recording converted to Parquet and back is the same, batch by batch or merged.
#[test]
fn parquet_is_read_back_as_the_stream_it_was_made_of() {
    let mut rng = Rng::with_seed(1);
    let layout = loop {
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        if layout.words() > 0 {
            break layout;
        }
    };
    let snapshots = random::snapshots(&mut rng, &layout, 300);
    let columns = Columns::of(&layout).expect("few columns");
    let (mut file, mut stream) = (Vec::new(), Vec::new());
    let writer = ParquetWriter::new(&mut file, columns.clone(), &metadata());
    write(writer.expect("memory takes all"), &batches(&snapshots));
    let writer = ArrowsWriter::new(&mut stream, columns, &metadata(), Compression::Zstd);
    write(writer.expect("memory takes all"), &batches(&snapshots));
    let mut parquet = ParquetReader::new(Cursor::new(file)).expect("the footer is whole");
    let mut arrows = ArrowsReader::new(&*stream).expect("the schema is whole");
    assert_eq!(parquet.columns(), arrows.columns());
    assert_eq!(parquet.metadata(), arrows.metadata());
    let ticks = |item: Option<Item>| match item {
        Some(Item::Batch(batch)) => Some(Ok(batch.ticks().to_vec())),
        Some(Item::Event(event)) => Some(Err(event)),
        None => None,
    };
    let from = |next: &mut dyn FnMut() -> Option<Item>| {
        let (mut all, mut events) = (Vec::new(), Vec::new());
        while let Some(item) = ticks(next()) {
            match item {
                Ok(ticks) => all.extend(ticks),
                Err(event) => events.push(event),
            }
        }
        (all, events)
    };
    let ours = from(&mut || parquet.next_item().expect("nothing is damaged"));
    let theirs = from(&mut || arrows.next_item().expect("nothing is damaged"));
    assert_eq!(ours, theirs);
    assert_eq!(ours.0.len(), 300);
}
