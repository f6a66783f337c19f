//! Tests of writing and reading: what was written comes back, and damage is told.

use fastrand::Rng;
use vmstrobe_core::{Layout, Snapshot};
use vmstrobe_testing::random;

use super::super::{ArrowsWriter, Compression};
use super::*;
use crate::batcher::{BatchLimits, Batcher};
use crate::exporter::{Event, EventKind, Exporter, Outcome};

/// A recording of random snapshots.
struct Recording {
    bytes: Vec<u8>,
    snapshots: Vec<Snapshot>,
    events: Vec<Event>,
    /// The end of each message that holds a batch, and the number of snapshots up to it.
    ends: Vec<(u64, usize)>,
}

fn event(number: u64) -> Event {
    let text = format!("event {number}\n");
    Event { monotonic_ns: number, wall_offset_ns: 77, kind: EventKind::Mark, text }
}

fn metadata() -> Metadata {
    Metadata { hz: Some(1000.0), vm: Some("web".into()), ..Metadata::default() }
}

fn record(seed: u64) -> Recording {
    let mut rng = Rng::with_seed(seed);
    let schemas = random::schemas(&mut rng);
    let layouts: Vec<_> = (0..3).map(|n| random::layout(&mut rng, &schemas, n)).collect();
    let columns = layouts
        .iter()
        .fold(Columns::default(), |columns, layout| columns.joined(layout).expect("few columns"));
    let compression = if rng.bool() { Compression::Zstd } else { Compression::Lz4 };
    let mut recording = Recording {
        bytes: Vec::new(),
        snapshots: Vec::new(),
        events: Vec::new(),
        ends: Vec::new(),
    };
    let mut writer = ArrowsWriter::new(&mut recording.bytes, columns, &metadata(), compression)
        .expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits { ticks: 7, changes: usize::MAX });
    let mut written = 0;
    let mut write = |writer: &mut ArrowsWriter<_>, batch: &Batch| {
        assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
        written += batch.ticks().len();
        (writer.whole_bytes(), written)
    };
    for layout in &layouts {
        // Without objects there are no rows, and what has no rows is not read back.
        if layout.rows() == 0 {
            continue;
        }
        let count = rng.usize(1..30);
        for snapshot in random::snapshots(&mut rng, layout, count) {
            let batch = batcher.push(&snapshot).expect("few columns");
            recording.ends.extend(batch.map(|batch| write(&mut writer, &batch)));
            recording.snapshots.push(snapshot);
            if rng.u8(..9) == 0 {
                let event = event(recording.events.len() as u64);
                writer.event(&event).expect("memory takes all");
                recording.events.push(event);
            }
            if rng.u8(..19) == 0 {
                writer.flush().expect("memory takes all");
            }
        }
    }
    recording.ends.extend(batcher.take().map(|batch| write(&mut writer, &batch)));
    writer.finish().expect("memory takes all");
    assert!(matches!(writer.flush(), Err(Error::Ended)));
    recording
}

/// Reads all that can be read: the snapshots, the events, and the end.
fn read(bytes: &[u8]) -> (Vec<Snapshot>, Vec<Event>, Result<End>) {
    let (mut snapshots, mut events) = (Vec::new(), Vec::new());
    let mut reader = ArrowsReader::new(bytes).expect("the schema is whole");
    loop {
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
            Ok(None) => return (snapshots, events, Ok(reader.end().expect("there are no items"))),
            Err(error) => return (snapshots, events, Err(error)),
        }
    }
}

fn assert_all_same(one: &[Snapshot], other: &[Snapshot]) {
    assert_eq!(one.len(), other.len());
    one.iter().zip(other).for_each(|(one, other)| random::assert_same(one, other));
}

#[test]
fn recordings_survive_the_way_there_and_back() {
    for seed in 0..60 {
        let recording = record(seed);
        let (snapshots, events, end) = read(&recording.bytes);
        assert_all_same(&recording.snapshots, &snapshots);
        assert_eq!(events, recording.events, "seed {seed}");
        assert_eq!(end.expect("nothing is damaged"), End::Finished);
        let reader = ArrowsReader::new(&*recording.bytes).expect("the schema is whole");
        assert_eq!(*reader.metadata(), metadata());
    }
}

#[test]
fn a_torn_tail_gives_all_whole_batches_and_tells_what_was_cut() {
    let recording = record(11);
    let bytes = &recording.bytes;
    let schema = 8 + header_bytes(&bytes[..8]).expect("it was written here");
    assert!(recording.ends.len() > 2, "{}", recording.ends.len());
    // Every byte around the ends of messages, and some between.
    let is_near = |cut: &usize| {
        let mut ends = recording.ends.iter().map(|(end, _)| *end as usize).chain([bytes.len()]);
        cut.is_multiple_of(331) || ends.any(|end| cut.abs_diff(end) < 12)
    };
    for cut in (schema..bytes.len()).filter(is_near) {
        let whole = recording.ends.iter().take_while(|(end, _)| *end <= cut as u64);
        let count = whole.last().map_or(0, |(_, count)| *count);
        let (snapshots, _, end) = read(&bytes[..cut]);
        assert_all_same(&recording.snapshots[..count], &snapshots);
        match end.expect("a cut is no damage") {
            End::Unfinished => {}
            End::Torn { whole_bytes, cut_bytes } => {
                assert_eq!(whole_bytes + cut_bytes, cut as u64);
                let (again, _, end) = read(&bytes[..whole_bytes as usize]);
                assert_eq!(end.expect("it was cut at a boundary"), End::Unfinished);
                assert_all_same(&snapshots, &again);
            }
            other => panic!("{other:?}"),
        }
    }
    for cut in (0..schema).step_by(61) {
        let error = ArrowsReader::new(&bytes[..cut]).map(drop);
        assert!(matches!(error, Err(Error::NotARecording { .. })));
    }
}

#[test]
fn zeros_and_bytes_behind_the_end_are_told() {
    let recording = record(12);
    let bytes = &recording.bytes;
    let all = bytes.len() as u64;
    let (_, _, end) = read(&[bytes, &[7; 5][..]].concat());
    let want = End::Trailing { whole_bytes: all, cut_bytes: 5 };
    assert_eq!(end.expect("nothing is damaged"), want);
    let unfinished = &bytes[..bytes.len() - 8];
    let (snapshots, _, end) = read(&[unfinished, &[0; 4096][..]].concat());
    assert_all_same(&recording.snapshots, &snapshots);
    let want = End::Torn { whole_bytes: all - 8, cut_bytes: 4096 };
    assert_eq!(end.expect("zeros are no damage"), want);
}

/// Every byte that differs gives an error, another end or other values; nothing panics.
#[test]
fn damage_is_an_error_or_other_values() {
    let recording = record(13);
    let mut errors = 0;
    let mut rng = Rng::with_seed(13);
    for _ in 0..400 {
        let at = rng.usize(..recording.bytes.len());
        for flip in [1, 0x80, 0xff] {
            let mut bytes = recording.bytes.clone();
            bytes[at] ^= flip;
            let Ok(mut reader) = ArrowsReader::new(&*bytes) else { continue };
            let before = reader.whole_bytes();
            let error = loop {
                match reader.next_item() {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            };
            assert!(reader.whole_bytes() >= before && reader.end().is_some());
            if let Some(error) = error {
                errors += 1;
                let whole_bytes = reader.whole_bytes();
                assert_eq!(reader.end(), Some(End::Damaged { whole_bytes }), "{error}");
                assert!(matches!(reader.next_item(), Ok(None)));
            }
        }
    }
    assert!(errors > 100, "{errors}");
}

#[test]
fn other_columns_are_another_part() {
    let mut rng = Rng::with_seed(3);
    let layouts = std::iter::repeat_with(|| {
        let schemas = random::schemas(&mut rng);
        random::layout(&mut rng, &schemas, 0)
    });
    let mut layouts = layouts.filter(|layout| layout.words() > 3);
    let mut next = || -> (std::sync::Arc<Layout>, Batch) {
        let layout = layouts.next().expect("the random layouts do not end");
        let mut batcher = Batcher::new(BatchLimits::default());
        batcher.push(&Snapshot::new(&layout)).expect("few columns");
        (layout, batcher.take().expect("a snapshot was pushed"))
    };
    let ((first, one), (second, other)) = (next(), next());
    let columns = Columns::of(&first).expect("few columns");
    let mut bytes = Vec::new();
    let mut writer = ArrowsWriter::new(&mut bytes, columns, &metadata(), Compression::Zstd)
        .expect("memory takes all");
    let whole_bytes = writer.whole_bytes();
    assert_eq!(writer.write(&other).expect("memory takes all"), Outcome::OtherColumns);
    assert_eq!(writer.whole_bytes(), whole_bytes);
    assert_eq!(writer.write(&one).expect("memory takes all"), Outcome::Written);
    writer.finish().expect("memory takes all");
    let joined = Columns::of(&first).and_then(|columns| columns.joined(&second));
    assert!(joined.expect("few columns").fit(&second));
    assert!(matches!(read(&bytes).2, Ok(End::Finished)));
}

#[test]
fn a_full_disk_leaves_whole_messages() {
    /// Takes that many bytes.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
    }
    impl io::Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.bytes.len());
            self.bytes.extend(&bytes[..taken]);
            if taken == 0 { Err(io::Error::from_raw_os_error(28)) } else { Ok(taken) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut rng = Rng::with_seed(5);
    let schemas = random::schemas(&mut rng);
    let layout = random::layout(&mut rng, &schemas, 0);
    let columns = Columns::of(&layout).expect("few columns");
    let mut disk = Disk { bytes: Vec::new(), room: 30_000 };
    let mut writer = ArrowsWriter::new(&mut disk, columns, &metadata(), Compression::Zstd)
        .expect("the schema fits");
    let mut batcher = Batcher::new(BatchLimits { ticks: 20, changes: usize::MAX });
    let failed = random::snapshots(&mut rng, &layout, 5000).iter().find_map(|snapshot| {
        let batch = batcher.push(snapshot).expect("few columns")?;
        writer.write(&batch).err()
    });
    let Some(Error::Write { whole_bytes, .. }) = failed else { panic!("{failed:?}") };
    assert!(matches!(writer.finish(), Err(Error::Ended)));
    assert_eq!(writer.whole_bytes(), whole_bytes);
    let (snapshots, _, end) = read(&disk.bytes[..whole_bytes as usize]);
    assert_eq!(end.expect("it was cut at a boundary"), End::Unfinished);
    assert!(!snapshots.is_empty());
}

/// Columns that are constant within each batch change from one batch to the next, lose a row, and
/// return: what was kept of the last batch is used only where it is the same.
#[test]
fn a_kept_column_is_that_of_the_same_values() {
    use vmstrobe_core::{Desc, Mask, Object, ReadPlan, RowState, Schema, Target};
    let descs = vec![Desc::counter("a", 0), Desc::counter("b", 8)];
    let schema = Schema::new("kvm", Target::Vcpu, descs);
    let object = |key| Object { path: "x".into(), index: None, schema: schema.clone(), key };
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let layout = Layout::new(0, vec![(plan, vec![object(1), object(2)])]);
    // The words of both objects, and whether the second was read, in each batch of two ticks.
    let batches = [
        ([1, 2, 3, 4], true),
        ([1, 2, 3, 4], true),
        ([1, 5, 3, 4], true),
        ([1, 5, 3, 4], false),
        ([1, 5, 3, 4], false),
        ([1, 5, 3, 4], true),
        ([1, 2, 3, 4], true),
    ];
    let columns = Columns::of(&layout).expect("few columns");
    let (mut bytes, mut snapshots) = (Vec::new(), Vec::new());
    let mut writer = ArrowsWriter::new(&mut bytes, columns, &metadata(), Compression::Zstd)
        .expect("memory takes all");
    let mut batcher = Batcher::new(BatchLimits::default());
    for (values, is_read) in batches {
        for _ in 0..2 {
            let mut snapshot = Snapshot::new(&layout);
            let (words, states) = snapshot.begin(snapshots.len() as u64);
            words.copy_from_slice(&values);
            states[0] = RowState::Good;
            states[1] = if is_read { RowState::Good } else { RowState::Gone };
            batcher.push(&snapshot).expect("few columns");
            snapshots.push(snapshot);
        }
        let batch = batcher.take().expect("two snapshots were pushed");
        assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
    }
    writer.finish().expect("memory takes all");
    assert_all_same(&snapshots, &read(&bytes).0);
}

#[test]
fn a_constant_column_has_the_values_of_its_own_batch() {
    use vmstrobe_core::RowState::{Good, Torn};
    // The words of two objects in each batch; of the third, one row cannot be read.
    let batches = [
        ([5, 7], 4, Good),
        ([5, 7], 4, Good),
        ([5, 7], 4, Torn),
        ([6, 7], 4, Good),
        ([5, 7], 3, Good),
        ([5, 7], 4, Good),
    ];
    let first = vmstrobe_testing::snapshots::laid_out(
        1,
        0,
        0,
        &[0, 1].map(|n| (vmstrobe_testing::snapshots::vcpu(n), Some([0; 6]))),
    );
    let layout = first.layout();
    let mut bytes = Vec::new();
    let columns = Columns::of(layout).expect("few columns");
    let mut writer = ArrowsWriter::new(&mut bytes, columns, &metadata(), Compression::Zstd)
        .expect("memory takes all");
    let (mut tick, mut want) = (0, Vec::new());
    for (words, ticks, state) in batches {
        let mut batcher = Batcher::new(BatchLimits::default());
        for at in 0..ticks {
            tick += 1;
            let mut snapshot = Snapshot::new(layout);
            let (to, states) = snapshot.begin(tick);
            to.chunks_mut(6).zip(words).for_each(|(row, word)| row.fill(word));
            states.fill(Good);
            if at == 2 {
                states[1] = state;
            }
            batcher.push(&snapshot).expect("few columns");
            want.push(snapshot);
        }
        let batch = batcher.take().expect("it has ticks");
        assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
    }
    writer.finish().expect("memory takes all");
    let (read, _, end) = read(&bytes);
    assert!(matches!(end, Ok(End::Finished)) && read.len() == want.len());
    for (read, want) in read.iter().zip(&want) {
        for (read, want) in read.objects().zip(want.objects()) {
            assert_eq!((read.state(), read.words()), (want.state(), want.words()));
        }
    }
}
