//! Recordings of two made-up vCPUs, for the tests of what reads recordings.

use std::sync::Arc;

use tempfile::NamedTempFile;
use vmstrobe_core::{Layout, Snapshot};
use vmstrobe_export::{
    ArrowsWriter, BatchLimits, Batcher, Columns, Compression, Event, Exporter, Metadata, Outcome,
};
use vmstrobe_testing::snapshots::{Row, snapshot, vcpu};

/// Returns the words of both vCPUs in a tick.
pub(crate) fn words(tick: u64) -> Vec<u64> {
    [row(tick, 10), row(tick, 3)].concat()
}

fn row(tick: u64, exits: u64) -> [u64; 6] {
    [exits * tick, tick / 2, tick / 3, 7, tick % 2, 100 - tick % 100]
}

/// Returns the words of a sample.
pub(crate) fn words_of(sample: &Snapshot) -> Vec<u64> {
    sample.objects().flat_map(|view| view.words().to_vec()).collect()
}

/// Records so many samples, one each ms from 1 ms on, in batches of so many.
pub(crate) fn recording(samples: u64, batch: usize) -> NamedTempFile {
    recording_with(samples, batch, &[])
}

/// Records so many samples as [`recording`] does, with events before the first batch.
pub(crate) fn recording_with(samples: u64, batch: usize, events: &[Event]) -> NamedTempFile {
    let rows = |tick: u64| [(0, Some(row(tick, 10))), (1, Some(row(tick, 3)))];
    write((1..=samples).map(|tick| sample(tick, &rows(tick))), batch, events)
}

/// Returns a sample of the vCPUs of these numbers, at that ms.
pub(crate) fn sample(tick: u64, rows: &[(u32, Row)]) -> Arc<Snapshot> {
    let rows: Vec<_> = rows.iter().map(|(number, row)| (vcpu(*number), *row)).collect();
    snapshot(tick, tick, &rows)
}

/// Records these samples.
pub(crate) fn recording_of(
    samples: impl Iterator<Item = Arc<Snapshot>>,
    batch: usize,
) -> NamedTempFile {
    write(samples, batch, &[])
}

fn write(
    samples: impl Iterator<Item = Arc<Snapshot>>,
    batch: usize,
    events: &[Event],
) -> NamedTempFile {
    let mut samples = samples.peekable();
    let first = samples.peek().expect("there is a sample");
    let columns = Columns::of(first.layout()).expect("it has few columns");
    let metadata = Metadata { hz: Some(1000.0), vm: Some("web".into()), ..Metadata::default() };
    let file = NamedTempFile::with_suffix(".arrows").expect("a temporary file can be made");
    let mut writer = ArrowsWriter::new(file.as_file(), columns, &metadata, Compression::Zstd)
        .expect("there is room");
    events.iter().for_each(|event| writer.event(event).expect("there is room"));
    let mut batcher = Batcher::new(BatchLimits { ticks: batch, ..BatchLimits::default() });
    let mut write = |batch| assert_eq!(writer.write(&batch).ok(), Some(Outcome::Written));
    let mut layout = Arc::clone(first.layout());
    for sample in samples {
        // Samples of the same objects have one layout, as those of a sampler do.
        let objects = |layout: &Layout| layout.groups()[0].objects.clone();
        if objects(&layout) != objects(sample.layout()) {
            layout = Arc::clone(sample.layout());
        }
        let sample = laid_out(&sample, &layout);
        batcher.push(&sample).expect("it is within the limits").into_iter().for_each(&mut write);
    }
    batcher.take().into_iter().for_each(&mut write);
    writer.finish().expect("there is room");
    file
}

fn laid_out(sample: &Snapshot, layout: &Arc<Layout>) -> Snapshot {
    let mut same = Snapshot::new(layout);
    let (words, states) = same.begin(sample.tick());
    for ((words, state), view) in words.chunks_mut(6).zip(states).zip(sample.objects()) {
        words[..view.words().len()].copy_from_slice(view.words());
        *state = view.state();
    }
    same.stamp(sample.window());
    same
}

/// Records samples, and damages the file in its second half.
pub(crate) fn damaged(samples: u64, batch: usize) -> NamedTempFile {
    let file = recording(samples, batch);
    let mut bytes = std::fs::read(file.path()).expect("it is there");
    let half = bytes.len() / 2;
    // What follows the marker of a message is its length.
    let marker = bytes[half..].windows(4).position(|four| four == [0xff; 4]);
    let at = half + marker.expect("a message begins there");
    bytes[at + 8..at + 24].fill(0x7f);
    std::fs::write(file.path(), bytes).expect("there is room");
    file
}
