//! Bytes as a recording: they are refused, or what is read keeps its promises and can be written
//! and read again.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use vmstrobe_export::limits::{MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_TICK_WORDS};
use vmstrobe_export::{
    ArrowsReader, ArrowsWriter, Batch, Columns, Compression, End, Event, Exporter, Item, Metadata,
    Outcome,
};

/// The most values of a batch that is written again, so that a run is short.
const AGAIN_VALUES_MAX: usize = 10_000;

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = ArrowsReader::new(input) else { return };
    let (columns, metadata) = (reader.columns().clone(), reader.metadata().clone());
    let mut last_whole = reader.whole_bytes();
    loop {
        let item = reader.next_item();
        let whole = reader.whole_bytes();
        assert!(last_whole <= whole && whole <= input.len() as u64);
        last_whole = whole;
        match item {
            Ok(Some(Item::Batch(batch))) => {
                check(&batch, &columns);
                again(&batch, &columns, &metadata);
            }
            Ok(Some(Item::Event(event))) => event_again(&event, &columns, &metadata),
            Ok(None) => break,
            Err(error) => {
                assert!(!error.to_string().contains(char::is_control), "{error}");
                assert!(matches!(reader.end(), Some(End::Damaged { .. })));
                break;
            }
        }
    }
    assert!(reader.end().is_some());
    assert!(matches!(reader.next_item(), Ok(None)));
});

fn check(batch: &Batch, columns: &Columns) {
    assert!(columns.fit(batch.layout()));
    assert!(batch.rows() > 0 && batch.rows() <= MAX_BATCH_ROWS);
    assert!(batch.changes() <= MAX_BATCH_CHANGES);
    assert!(batch.layout().words() <= MAX_TICK_WORDS);
    assert_eq!(batch.ticks().len(), batch.windows().len());
    assert_eq!(batch.rows(), batch.layout().rows() * batch.ticks().len());
    let mut rows = batch.by_tick();
    let mut ticks = 0;
    while let Some(tick) = rows.next() {
        assert_eq!(tick.states.len(), batch.layout().rows());
        ticks += 1;
    }
    assert_eq!(ticks, batch.ticks().len());
}

fn write(columns: &Columns, metadata: &Metadata, act: impl FnOnce(&mut dyn Exporter)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = ArrowsWriter::new(&mut bytes, columns.clone(), metadata, Compression::Zstd)
        .expect("memory takes all");
    act(&mut writer);
    writer.finish().expect("memory takes all");
    bytes
}

/// Writes a batch and reads it again: it is the same.
fn again(batch: &Batch, columns: &Columns, metadata: &Metadata) {
    if batch.rows() * (columns.len() + 1) > AGAIN_VALUES_MAX {
        return;
    }
    let bytes = write(columns, metadata, |writer| {
        assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
    });
    let mut reader = ArrowsReader::new(&*bytes).expect("it was written here");
    assert_eq!(reader.columns(), columns);
    let item = reader.next_item().expect("it was written here");
    let Some(Item::Batch(read)) = item else { panic!("{item:?}") };
    assert_eq!((read.ticks(), read.windows()), (batch.ticks(), batch.windows()));
    let (mut one, mut other) = (batch.by_tick(), read.by_tick());
    while let Some(one) = one.next() {
        let other = other.next().expect("there are as many ticks");
        assert_eq!(one.states, other.states);
        for (group, its) in batch.layout().groups().iter().zip(read.layout().groups()) {
            assert_eq!(group.objects, its.objects);
            let words = group.plan.row_words();
            for object in 0..group.objects.len() {
                if one.states[group.first_row + object].has_values() {
                    let first = group.first_word + object * words;
                    assert_eq!(one.words[first..first + words], other.words[first..first + words]);
                }
            }
        }
    }
    assert!(Arc::strong_count(read.layout()) > 0);
}

fn event_again(event: &Event, columns: &Columns, metadata: &Metadata) {
    // A text of a file may be longer than a writer takes.
    let bytes = write(columns, metadata, |writer| drop(writer.event(event)));
    let mut reader = ArrowsReader::new(&*bytes).expect("it was written here");
    if let Some(Item::Event(read)) = reader.next_item().expect("it was written here") {
        assert_eq!((&read.text, read.kind.name()), (&event.text, event.kind.name()));
    }
}
