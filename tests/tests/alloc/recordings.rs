//! The most memory that recording takes, and that foreign bytes can make a reader of recordings
//! hold.

use std::sync::Arc;

use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Snapshot, Target};
use vmstrobe_export::{
    ArrowsReader, ArrowsWriter, BatchLimits, Batcher, Columns, Compression, Exporter, Metadata,
    Outcome,
};
use vmstrobe_tests::rig::show;

use super::count::held_bytes_max;

const MIB: u64 = 1 << 20;

/// Returns a layout of that many objects with that many words each.
fn layout(objects: u32, words: u32) -> Arc<Layout> {
    let descs = (0..words).map(|word| Desc::counter(&format!("n{word}"), 8 * word));
    let schema = Schema::new("kvm", Target::Vcpu, descs.collect());
    let plan = ReadPlan::new(&schema, &Mask::all(&schema));
    let objects = (0..objects).map(|index| Object {
        path: format!("/vm/a/vcpu[{index}]").into(),
        index: Some(index),
        schema: Arc::clone(&schema),
        key: index.into(),
    });
    Layout::new(0, vec![(plan, objects.collect())])
}

/// Records ticks in which every `rare`-th word changes.
fn record(layout: &Arc<Layout>, limits: BatchLimits, ticks: u64, rare: usize) -> Vec<u8> {
    let columns = Columns::of(layout).expect("few columns");
    let mut bytes = Vec::new();
    let mut writer =
        ArrowsWriter::new(&mut bytes, columns, &Metadata::default(), Compression::Zstd)
            .expect("memory takes all");
    let mut batcher = Batcher::new(limits);
    let mut snapshot = Snapshot::new(layout);
    let mut values = vec![0; layout.words()];
    let mut write = |batch: Option<_>| {
        let Some(batch) = batch else { return };
        assert_eq!(writer.write(&batch).expect("memory takes all"), Outcome::Written);
    };
    for tick in 1..=ticks {
        values.iter_mut().step_by(rare).for_each(|value| *value += tick);
        let (words, states) = snapshot.begin(tick);
        words.copy_from_slice(&values);
        states.fill(RowState::Good);
        write(batcher.push(&snapshot).expect("few columns"));
        if batcher.is_full() {
            write(batcher.take());
        }
    }
    write(batcher.take());
    bytes
}

/// Of 64 vCPUs with 138 words, half a second at 1 kHz has 35 MB of values. (The compressor's own
/// memory, which is not counted here, is about 1 MiB.)
#[test]
fn recording_holds_changes_and_one_column() {
    let layout = layout(64, 138);
    let (bytes, held) = held_bytes_max(|| record(&layout, BatchLimits::default(), 1200, 97));
    show(&format!("recording 64 vCPUs held {} KiB, the file included", held / 1024));
    // Changes: 91 a tick, twice 12 bytes each. A column: 250 KiB.
    assert!(held < 8 * MIB + bytes.len() as u64, "{held} bytes");
}

/// A load that changes everything ends batches early, and holds no more than they may have.
#[test]
fn a_batch_holds_no_more_than_its_limit() {
    let layout = layout(64, 138);
    let limits = BatchLimits { ticks: 500, changes: 100_000 };
    let (bytes, held) = held_bytes_max(|| record(&layout, limits, 100, 1));
    assert!(held < 8 * MIB + 2 * bytes.len() as u64, "{held} bytes");
}

/// Numbers of a recording, each made large: no length, count or offset makes a reader hold more
/// than its rows could need.
#[test]
fn a_recording_that_lies_makes_its_reader_hold_little() {
    let whole = record(&layout(3, 4), BatchLimits { ticks: 20, changes: 1000 }, 60, 2);
    let read = |bytes: &[u8]| {
        let Ok(mut reader) = ArrowsReader::new(bytes) else { return };
        while let Ok(Some(_)) = reader.next_item() {}
    };
    let ((), honest) = held_bytes_max(|| read(&whole));
    let mut most = 0;
    for at in (0..whole.len() - 8).step_by(4) {
        for value in [0xffff_ffff_u64, 0x10_0000, 0x01ff_fff0, 0x0fff_fff0, i64::MAX as u64] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let ((), held) = held_bytes_max(|| read(&bytes));
            most = most.max(held);
        }
    }
    show(&format!("a reader of {} bytes held {honest} bytes, and of lies {most}", whole.len()));
    // A batch may claim 2^20 rows, for each of which some columns of 8 bytes are made.
    assert!(most < 64 * MIB, "{most} bytes");
}
