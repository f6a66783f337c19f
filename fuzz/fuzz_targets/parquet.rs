//! Bytes as a Parquet file: they are refused, or what is read keeps its promises and can be written
//! and read again.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use vmstrobe_export::limits::{MAX_BATCH_CHANGES, MAX_BATCH_ROWS, MAX_TICK_WORDS};
use vmstrobe_export::{
    Batch, Columns, End, Exporter, Item, Metadata, Outcome, ParquetReader, ParquetWriter,
    WideParquetWriter,
};

/// The most values of a batch that is written again, so that a run is short.
const AGAIN_VALUES_MAX: usize = 10_000;

fuzz_target!(|input: &[u8]| {
    let Ok(mut reader) = ParquetReader::new(Cursor::new(input)) else { return };
    let (columns, metadata) = (reader.columns().clone(), reader.metadata().clone());
    loop {
        let item = reader.next_item();
        match item {
            Ok(Some(Item::Batch(batch))) => {
                check(&batch, &columns);
                if batch.rows() * (columns.len() + 1) <= AGAIN_VALUES_MAX {
                    again(&batch, &columns, &metadata);
                }
            }
            Ok(Some(Item::Event(event))) => {
                assert!(event.text.len() <= input.len());
            }
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
}

/// Writes a batch and reads it again: it is the same.
fn again(batch: &Batch, columns: &Columns, metadata: &Metadata) {
    let mut bytes = Vec::new();
    let mut writer = ParquetWriter::new(&mut bytes, columns.clone(), metadata).expect("memory");
    assert_eq!(writer.write(batch).expect("memory takes all"), Outcome::Written);
    writer.finish().expect("memory takes all");
    drop(writer);
    let mut reader = ParquetReader::new(Cursor::new(&bytes)).expect("it was written here");
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
    let mut wide = WideParquetWriter::new(Vec::new(), metadata);
    assert_eq!(wide.write(batch).expect("memory takes all"), Outcome::Written);
    wide.finish().expect("memory takes all");
}
