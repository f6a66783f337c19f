//! Tests of writing and reading: what was written comes back, and damage is told.

use std::io::Cursor;

use fastrand::Rng;
use vmstrobe_core::{
    Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Snapshot, Target, Window,
};
use vmstrobe_testing::random;

use super::super::ParquetWriter;
use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::{EventKind, Exporter, Outcome};

/// A recording of random snapshots.
struct Recording {
    bytes: Vec<u8>,
    snapshots: Vec<Snapshot>,
    events: Vec<Event>,
}

fn event(number: u64) -> Event {
    let text = format!("event {number}\n\"\u{202e}");
    Event { monotonic_ns: number, wall_offset_ns: 77, kind: EventKind::Mark, text }
}

fn metadata() -> Metadata {
    let labels = vec![("run".into(), "a\n\"".into())];
    Metadata { hz: Some(1000.0), vm: Some("web".into()), labels, ..Metadata::default() }
}

fn record(seed: u64) -> Recording {
    let mut rng = Rng::with_seed(seed);
    let schemas = random::schemas(&mut rng);
    let layouts: Vec<_> = (0..3).map(|n| random::layout(&mut rng, &schemas, n)).collect();
    let columns = layouts
        .iter()
        .fold(Columns::default(), |columns, layout| columns.joined(layout).expect("few columns"));
    let (mut bytes, mut snapshots, mut events) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer =
        ParquetWriter::new(&mut bytes, columns, &metadata()).expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits { ticks: 7, changes: usize::MAX });
    let write = |batch: Option<Batch>, writer: &mut ParquetWriter<_>| {
        if let Some(batch) = batch {
            assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
        }
    };
    for layout in &layouts {
        let count = rng.usize(1..40);
        for snapshot in random::snapshots(&mut rng, layout, count) {
            write(batcher.push(&snapshot).expect("few columns"), &mut writer);
            // Without objects there are no rows, and what has no rows is not read back.
            if layout.rows() > 0 {
                snapshots.push(snapshot);
            }
            if rng.u8(..9) == 0 {
                let event = event(events.len() as u64);
                writer.event(&event).expect("there are few events");
                events.push(event);
            }
            if rng.u8(..19) == 0 {
                writer.flush().expect("memory takes all");
            }
        }
    }
    write(batcher.take(), &mut writer);
    writer.finish().expect("memory takes all");
    assert!(matches!(writer.flush(), Err(Error::Ended)));
    assert!(matches!(writer.finish(), Err(Error::Ended)));
    let whole_bytes = writer.whole_bytes();
    drop(writer);
    assert_eq!(whole_bytes, bytes.len() as u64);
    Recording { bytes, snapshots, events }
}

/// Reads all that can be read: the snapshots, the events, and the error, if there is one.
fn read(bytes: &[u8]) -> Result<(Vec<Snapshot>, Vec<Event>, Option<Error>)> {
    let (mut snapshots, mut events) = (Vec::new(), Vec::new());
    let mut reader = ParquetReader::new(Cursor::new(bytes))?;
    let error = loop {
        match reader.next_item() {
            Ok(Some(Item::Event(event))) => events.push(event),
            Ok(Some(Item::Batch(batch))) => {
                let mut rows = batch.by_tick();
                while let Some(tick) = rows.next() {
                    let mut snapshot = Snapshot::new(batch.layout());
                    let (words, states) = snapshot.begin(tick.tick);
                    words.copy_from_slice(tick.words);
                    states.copy_from_slice(tick.states);
                    snapshot.stamp(tick.window);
                    snapshots.push(snapshot);
                }
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let whole_bytes = reader.whole_bytes();
    let end = if error.is_some() { End::Damaged { whole_bytes } } else { End::Finished };
    assert_eq!(reader.end(), Some(end));
    assert!(matches!(reader.next_item(), Ok(None)));
    Ok((snapshots, events, error))
}

#[test]
fn recordings_survive_the_way_there_and_back() {
    for seed in 0..300 {
        let recording = record(seed);
        let (snapshots, events, error) = read(&recording.bytes).expect("the footer is whole");
        assert!(error.is_none(), "seed {seed}: {error:?}");
        assert_eq!(snapshots.len(), recording.snapshots.len(), "seed {seed}");
        let pairs = recording.snapshots.iter().zip(&snapshots);
        pairs.for_each(|(one, other)| random::assert_same(one, other));
        assert_eq!(events, recording.events, "seed {seed}");
        let reader = ParquetReader::new(Cursor::new(&recording.bytes)).expect("it was read");
        assert_eq!(*reader.metadata(), metadata());
    }
}

/// A byte that differs gives an error or other values; nothing panics.
#[test]
fn damage_is_an_error_or_other_values() {
    let recording = record(13);
    let mut rng = Rng::with_seed(1);
    let (mut refused, mut errors) = (0, 0);
    for _ in 0..1500 {
        let mut bytes = recording.bytes.clone();
        bytes[rng.usize(..recording.bytes.len())] ^= rng.u8(1..);
        match read(&bytes) {
            Ok((_, _, error)) => errors += usize::from(error.is_some()),
            Err(_) => refused += 1,
        }
    }
    assert!(errors > 100 && refused > 100, "{errors} {refused}");
}

#[test]
fn a_file_without_its_footer_is_no_recording() {
    let recording = record(11);
    for cut in 0..recording.bytes.len() {
        let error = ParquetReader::new(Cursor::new(&recording.bytes[..cut])).map(drop);
        assert!(matches!(error, Err(Error::NotARecording { .. })), "{cut}");
    }
    let error = ParquetReader::new(Cursor::new(b"PAR1")).map(drop).map_err(|e| e.to_string());
    let want = "this is no recording of vmstrobe: it does not end as a Parquet file: \
                its writer did not finish it";
    assert_eq!(error, Err(want.to_owned()));
}

/// Makes batches of one vCPU whose only statistic counts ticks.
fn counted(ticks: std::ops::Range<u64>, of_batch: usize) -> Vec<Batch> {
    let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
    let path = "/vm/a/vcpu[0]".into();
    let object = Object { path, index: Some(0), schema: schema.clone(), key: 0 };
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let layout = Layout::new(0, vec![(plan, vec![object])]);
    let mut batcher = Batcher::new(BatchLimits { ticks: of_batch, changes: usize::MAX });
    let mut batches = Vec::new();
    let mut snapshot = Snapshot::new(&layout);
    for tick in ticks {
        let (words, states) = snapshot.begin(tick);
        (words[0], states[0]) = (7 * tick, RowState::Good);
        let begin_ns = 1000 * tick;
        snapshot.stamp(Window { begin_ns, end_ns: begin_ns + 10, wall_offset_ns: 1 << 60 });
        batches.extend(batcher.push(&snapshot).expect("few columns"));
    }
    batches.extend(batcher.take());
    batches
}

#[test]
fn many_rows_become_several_batches_with_events_between_them() {
    let batches = counted(0..700_000, 100_000);
    let columns = Columns::of(batches[0].layout()).expect("few columns");
    let mut bytes = Vec::new();
    let mut writer = ParquetWriter::new(&mut bytes, columns, &metadata()).expect("memory");
    for batch in &batches {
        assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
    }
    let times = [0, 299_999_000, 300_000_000, 900_000_000];
    for monotonic_ns in times {
        let event = Event { monotonic_ns, ..event(0) };
        writer.event(&event).expect("there are few events");
    }
    writer.finish().expect("memory takes all");
    drop(writer);
    assert!(bytes.len() < 4_000_000, "{}", bytes.len());
    let mut reader = ParquetReader::new(Cursor::new(bytes)).expect("the footer is whole");
    let (mut ticks, mut order) = (0, Vec::new());
    while let Some(item) = reader.next_item().expect("nothing is damaged") {
        match item {
            Item::Event(event) => order.push((event.monotonic_ns, 0)),
            Item::Batch(batch) => {
                let mut values = vec![0; batch.ticks().len()];
                batch.fill(0, 0, &mut values);
                let want = (ticks..).step_by(7).take(values.len());
                assert!(values.iter().copied().eq(want));
                ticks += 7 * values.len() as u64;
                order.push((0, values.len()));
            }
        }
    }
    assert_eq!(ticks, 7 * 700_000);
    let event = |at: usize| (times[at], 0);
    let group = |rows| (0, rows);
    let want = [event(0), event(1), group(300_000), event(2), group(300_000), group(100_000)];
    assert_eq!(order, [&want[..], &[event(3)]].concat());
}

#[test]
fn other_columns_are_another_part() {
    let mut rng = Rng::with_seed(3);
    let batch = counted(0..3, 3).remove(0);
    let other = loop {
        let schemas = random::schemas(&mut rng);
        let layout = random::layout(&mut rng, &schemas, 0);
        if layout.words() > 3 {
            break layout;
        }
    };
    let columns = Columns::of(&other).expect("few columns");
    let mut bytes = Vec::new();
    let mut writer = ParquetWriter::new(&mut bytes, columns, &metadata()).expect("memory");
    assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::OtherColumns);
    writer.finish().expect("memory takes all");
    drop(writer);
    let (snapshots, events, error) = read(&bytes).expect("the footer is whole");
    assert!(snapshots.is_empty() && events.is_empty() && error.is_none());
}

#[test]
fn a_full_disk_is_the_error_of_the_disk_and_ends_the_recording() {
    /// Takes that many bytes.
    struct Disk<'a> {
        room: usize,
        failures: &'a mut u32,
    }
    impl io::Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            *self.failures += u32::from(taken == 0);
            if taken == 0 { Err(io::Error::from_raw_os_error(28)) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let batches = counted(0..400_000, 100_000);
    for room in [0, 100, 100_000] {
        let columns = Columns::of(batches[0].layout()).expect("few columns");
        let mut failures = 0;
        let disk = Disk { room, failures: &mut failures };
        let mut writer = ParquetWriter::new(disk, columns, &metadata()).expect("memory");
        let failed = batches.iter().find_map(|batch| writer.write(batch).err());
        let failed = failed.or_else(|| writer.finish().err());
        let Some(Error::Write { whole_bytes: 0, source }) = failed else { panic!("{failed:?}") };
        assert_eq!(source.raw_os_error(), Some(28), "{source}");
        assert_eq!(writer.whole_bytes(), 0);
        assert!(matches!(writer.write(&batches[0]), Err(Error::Ended)));
        assert!(matches!(writer.finish(), Err(Error::Ended)));
        drop(writer);
        assert_eq!(failures, 1, "nothing is written after an error");
    }
}
