//! The documentation of the format, as `hostile::layout` states it, is right: the crate's writer
//! follows it, and the crate's reader reads tables that were written by it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use vmstrobe::table::{Stat, TableConfig, TableSchema, TableWriter};
use vmstrobe_core::{RowState, Target};
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::judge::must_be_read;
use vmstrobe_tests::hostile::layout::{WORD_BYTES, entries};
use vmstrobe_tests::hostile::reader::Reader;

use crate::{Place, start};

#[test]
fn the_writer_writes_the_documented_format() {
    let config = TableConfig { capacity_bytes: 16384, max_objects: 4, ..TableConfig::of("xyz") };
    let table = TableWriter::with(config).unwrap();
    let mut schema = TableSchema::new(Target::from_name("queue"));
    let requests = schema.counter("requests");
    let sharded = schema.sharded_counter(Stat::bytes("bytes"));
    let latency = schema.log2_histogram(Stat::ns("latency"), 4);
    let first = table.add("/xyz/a", &schema).unwrap();
    schema.group();
    let second = table.add_indexed("/xyz/b", 7, &schema).unwrap();
    for (object, count) in [(&first, 5), (&second, 6)] {
        object.get(requests).add(count);
        let sharded = object.get(sharded);
        (0..10).for_each(|_| sharded.clone().add(count));
        object.get(latency).record(2);
    }
    let words = words_of(table.descriptor().unwrap().into());
    let found = entries(&words);
    assert_eq!(found.iter().map(|entry| &*entry.path).collect::<Vec<_>>(), [b"/xyz/a", b"/xyz/b"]);
    for (entry, count) in found.iter().zip([5, 6]) {
        let names: Vec<&[u8]> = entry.stats.iter().map(|(name, _)| &**name).collect();
        assert_eq!(names, [&b"requests"[..], b"bytes", b"latency"]);
        let want = [vec![count], vec![10 * count], vec![0, 0, 1, 0]];
        assert_eq!(entry.values(&words).unwrap(), want);
        assert_eq!((entry.is_whole(&words), entry.is_grouped), (Some(true), count == 6));
    }
    drop((first, second));
    let words = words_of(table.descriptor().unwrap().into());
    assert_eq!(entries(&words), []);
    assert!(found.iter().all(|entry| entry.is_whole(&words) == Some(false)));
}

fn words_of(file: File) -> Vec<u64> {
    let mut bytes = vec![0; file.metadata().expect("a memfd has a length").len() as usize];
    file.read_exact_at(&mut bytes, 0).expect("the file has so many bytes");
    bytes.as_chunks::<WORD_BYTES>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

#[test]
fn the_reader_reads_the_documented_format() {
    let image = sample(1);
    for place in [Place::Sealed, Place::Unsealed] {
        let hostile = start("commands", &place, "sample");
        let mut reader = Reader::new();
        assert_eq!(reader.attach(hostile.pid()).unwrap(), 1);
        let objects = reader.look();
        reader.open(&objects);
        let rows = reader.tick();
        assert_eq!(rows.len(), OBJECTS);
        assert!(rows.iter().all(|row| row.state == RowState::Good), "{rows:?}");
        assert_eq!(rows.iter().map(|row| row.values.len()).collect::<Vec<_>>(), [4, 2, 3]);
        must_be_read(&rows, &image.words);
        for object in &objects {
            assert_eq!((object.schema.provider(), object.index), ("evil", None));
            assert_eq!(object.schema.target().name(), "queue");
        }
    }
}
