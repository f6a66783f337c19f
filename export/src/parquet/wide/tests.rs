//! Tests of wide files, read by the parquet crate: every value, and what stands beside it.

use bytes::Bytes;
use fastrand::Rng;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field as Value;
use vmstrobe_core::{Desc, Mask, Object, ReadPlan, RowState, Schema, Snapshot, StatType, Target};
use vmstrobe_testing::random;

use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::EventKind;

fn metadata() -> Metadata {
    let labels = vec![("run".into(), "1".into())];
    Metadata { hz: Some(1000.0), labels, ..Metadata::default() }
}

/// Writes snapshots of one layout.
fn written(snapshots: &[Snapshot], ticks: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = WideParquetWriter::new(&mut bytes, &metadata());
    let mut batcher = Batcher::new(BatchLimits { ticks, changes: usize::MAX });
    let mut batches = Vec::new();
    for snapshot in snapshots {
        batches.extend(batcher.push(snapshot).expect("few columns"));
    }
    batches.extend(batcher.take());
    for batch in &batches {
        assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
    }
    let kind = EventKind::Trigger;
    let event = Event { monotonic_ns: 5, wall_offset_ns: 7, kind, text: "\"x\"".into() };
    writer.event(&event).expect("there are few events");
    writer.flush().expect("memory takes all");
    writer.finish().expect("memory takes all");
    assert!(matches!(writer.finish(), Err(Error::Ended)));
    assert!(matches!(writer.event(&event), Err(Error::Ended)));
    let whole_bytes = writer.whole_bytes();
    drop(writer);
    assert_eq!(whole_bytes, bytes.len() as u64);
    bytes
}

fn open(bytes: Vec<u8>) -> SerializedFileReader<Bytes> {
    SerializedFileReader::new(Bytes::from(bytes)).expect("the file is Parquet")
}

/// Returns whether a value is that of a series in a snapshot.
fn is_value(value: &Value, snapshot: &Snapshot, series: &Series) -> bool {
    let (group, object, word) = series.place;
    let row = snapshot.layout().groups()[group].first_row + object;
    let view = snapshot.objects().nth(row).expect("the row is in the layout");
    if !view.state().has_values() {
        return *value == Value::Null;
    }
    let words = &view.words()[word..];
    match series.kind {
        Kind::Counter => *value == Value::ULong(words[0]),
        Kind::Gauge => *value == i64::try_from(words[0]).map_or(Value::Null, Value::Long),
        Kind::Histogram(buckets) => {
            let values = words[..usize::from(buckets)].iter().map(|&word| Value::ULong(word));
            let values: Vec<Value> = values.collect();
            matches!(value, Value::ListInternal(list) if list.elements() == values)
        }
    }
}

/// Checks that a file of these snapshots has their values.
fn check(snapshots: &[Snapshot], ticks: usize) {
    let file = open(written(snapshots, ticks));
    let series = series::of(snapshots[0].layout(), None);
    let rows = file.get_row_iter(None).expect("the columns are known");
    let mut read = 0;
    for (row, snapshot) in rows.zip(snapshots) {
        let row = row.expect("the pages are whole");
        let mut values = row.get_column_iter();
        let window = snapshot.window();
        let (time, width, offset) = window_columns(window);
        let begin = window.begin_ns.wrapping_sub(window.middle_ns()) as i64;
        let heads = [
            ("timestamp", Value::ULong(time)),
            ("duration", Value::ULong(width)),
            (":window_begin", Value::Long(begin)),
            (":window_width", Value::ULong(width)),
            (":wall_offset", Value::Long(offset as i64)),
        ];
        for (name, want) in heads {
            let (found, value) = values.next().expect("the heads are there");
            assert_eq!((&**found, value), (name, &want));
        }
        for series in &series {
            let (found, value) = values.next().expect("every series is there");
            assert_eq!(*found, series.name);
            let is_same = is_value(value, snapshot, series);
            assert!(is_same, "{found} in row {read} is {value}");
        }
        assert!(values.next().is_none());
        read += 1;
    }
    assert_eq!(read, snapshots.len());
}

#[test]
fn every_value_is_there() {
    for seed in 0..100 {
        let mut rng = Rng::with_seed(seed);
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        let count = rng.usize(1..300);
        check(&random::snapshots(&mut rng, &layout, count), rng.usize(1..100));
    }
}

#[test]
fn histograms_of_32_buckets_have_their_values() {
    let layout = with_histogram("/vm/web/vcpu[0]", Some(0));
    for seed in 0..10 {
        let mut rng = Rng::with_seed(seed);
        let snapshots = random::snapshots(&mut rng, &layout, 200);
        check(&snapshots, 77);
        // One that never moves, and one without a value.
        let still = |state| {
            let snapshots = (0..9).map(|tick| {
                let mut snapshot = Snapshot::new(&layout);
                let (words, states) = snapshot.begin(tick);
                words.fill(seed);
                states.fill(state);
                snapshot
            });
            snapshots.collect::<Vec<_>>()
        };
        check(&still(RowState::Good), 5);
        check(&still(RowState::Gone), 5);
    }
}

/// Returns a layout of one object with a histogram.
fn with_histogram(path: &str, index: Option<u32>) -> Arc<Layout> {
    let hist = Desc { size: 32, stat_type: StatType::Log2Histogram, ..Desc::counter("hist", 16) };
    let now = Desc { stat_type: StatType::Instant, ..Desc::counter("now", 8) };
    let linear = Desc { size: 2, stat_type: StatType::LinearHistogram, ..Desc::counter("l", 280) };
    let descs = vec![Desc::counter("exits", 0), now, hist, linear];
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let object = Object { path: path.into(), index, schema: Arc::clone(&schema), key: 0 };
    Layout::new(0, vec![(ReadPlan::new(&schema, &Mask::all(&schema)), vec![object])])
}

#[test]
fn series_have_the_names_and_labels_that_readers_take() {
    let layout = with_histogram("/vm/web/vcpu[3]", Some(3));
    let series = series::of(&layout, None);
    let names: Vec<&str> = series.iter().map(|series| &*series.name).collect();
    let at = |name: &str| format!("{name}@/vm/web/vcpu[3]");
    let want = [at("exits"), at("now"), at("hist") + ":buckets", at("l_0"), at("l_1")];
    assert_eq!(names, want);
    let text = |pairs: Vec<(String, String)>| -> String {
        pairs.iter().map(|(key, text)| format!("{key}={text} ")).collect()
    };
    assert_eq!(
        text(series[0].field_pairs()),
        "metric=exits metric_type=counter vm=web vcpu=3 provider=kvm "
    );
    assert_eq!(
        text(series[2].field_pairs()),
        "metric=hist metric_type=histogram grouping_power=0 max_value_power=31 vm=web vcpu=3 \
         provider=kvm "
    );
    assert_eq!(
        text(series[4].field_pairs()),
        "metric=l metric_type=counter vm=web vcpu=3 provider=kvm bucket=1 "
    );
    let device = series::of(&with_histogram("/machine/x", None), Some("web"));
    assert_eq!(
        text(device[0].field_pairs()),
        "metric=exits metric_type=counter vm=web path=/machine/x provider=kvm "
    );
}

#[test]
fn the_footer_has_what_readers_ask_for() {
    let layout = with_histogram("/vm/web/vcpu[0]", Some(0));
    let file = open(written(&[Snapshot::new(&layout)], 1));
    let parsed = file.metadata();
    let pairs = parsed.file_metadata().key_value_metadata().expect("the footer has keys");
    let text = |wanted: &str| {
        let pair = pairs.iter().find(|pair| pair.key == wanted);
        pair.and_then(|pair| pair.value.as_deref())
    };
    assert_eq!(text("source"), Some("vmstrobe"));
    assert_eq!(text("version"), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(text("sampling_interval_ms"), Some("1"));
    assert_eq!(text("label.run"), Some("1"));
    let events = text("events").expect("the footer has events");
    let want = r#"{"events":[{"description":"\"x\"","kind":"trigger","#;
    assert!(events.starts_with(want) && events.ends_with(r#""timestamp":12}]}"#), "{events}");
    let descriptions = text("descriptions").expect("the footer has descriptions");
    assert!(descriptions.contains(r#""exits":"cumulative of kvm""#), "{descriptions}");
    // Without these, readers find no time.
    assert!(
        parsed.row_group(0).column(0).statistics().is_some_and(|of| of.min_bytes_opt().is_some())
    );
    let hz = |hz| series::pairs(&Metadata { hz, ..metadata() }, &[]).len();
    assert_eq!([hz(Some(10_000.0)), hz(Some(400.0)), hz(Some(250.0)), hz(None)], [3, 3, 4, 3]);
}

#[test]
fn other_objects_are_another_part() {
    let batch = |layout: &Arc<Layout>| {
        let mut batcher = Batcher::new(BatchLimits::default());
        batcher.push(&Snapshot::new(layout)).expect("few columns");
        batcher.take().expect("a snapshot was pushed")
    };
    let mut bytes = Vec::new();
    let mut writer = WideParquetWriter::new(&mut bytes, &metadata());
    let (one, same) = (with_histogram("/vm/a", None), with_histogram("/vm/a", None));
    let other = with_histogram("/vm/b", None);
    let mut write = |layout| writer.write(&batch(layout)).expect("memory takes all");
    assert_eq!(
        [&one, &same, &other, &one].map(&mut write),
        [Outcome::Written, Outcome::Written, Outcome::OtherColumns, Outcome::Written]
    );
    writer.finish().expect("memory takes all");
    drop(writer);
    assert_eq!(open(bytes).metadata().file_metadata().num_rows(), 3);
}

#[test]
fn a_recording_of_nothing_is_a_file() {
    let file = open(written(&[], 1));
    assert_eq!(file.metadata().file_metadata().schema_descr().num_columns(), HEADS.len());
    assert_eq!(file.metadata().file_metadata().num_rows(), 0);
}
