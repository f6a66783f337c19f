//! Tables that would cost their reader memory: by pages that were never written, by names without
//! end, by directories that change with each look.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use vmstrobe::table::{MAX_OWNER_HELD_BYTES, MAX_OWNER_READ_BYTES};
use vmstrobe_core::{ErrorKind, RowState};
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::images::{HOLE_OBJECTS, HOLE_SHARDS, HOLE_WORDS, OBJECTS, named};
use vmstrobe_tests::hostile::layout::{BLOCK_HEADER_BYTES, DESC_BYTES, GENERATION, WORD_BYTES};
use vmstrobe_tests::hostile::reader::{Reader, Spent};

use crate::{Place, report, start};

/// The most that tables of holes may grow by being read; without a limit it would be 144 MiB.
const GROWTH_BYTES_MAX: u64 = 128 << 10;
/// The bound of a look at the most statistics of a table with long names.
const HEAVY: Spent = Spent { cpu: Duration::from_secs(8), wall: Duration::from_secs(16) };
/// The bound of a look at tables that were refused before.
const AGAIN: Spent = Spent { cpu: Duration::from_millis(20), wall: Duration::from_secs(1) };

/// Returns the bytes of memory that a process's tables take.
fn allocated(hostile: &Hostile) -> u64 {
    let fds = std::fs::read_dir(format!("/proc/{}/fd", hostile.pid()))
        .expect("the process has not been reaped");
    let paths = fds.map(|entry| entry.expect("the process has not been reaped").path());
    let is_table = |path: &std::path::PathBuf| {
        let link = std::fs::read_link(path).expect("the process has not been reaped");
        link.to_string_lossy().starts_with("/memfd:vmstrobe-table:")
    };
    let blocks = paths.filter(is_table).map(|path| path.metadata().expect("it lives").blocks());
    blocks.map(|blocks| blocks * 512).sum()
}

/// Pages that were never written are read as 0 and stay holes; words that are written later are
/// seen in the next tick. Objects are opened only up to the limit on the bytes that a tick reads of
/// one process.
#[test]
fn holes_are_read_and_not_filled() {
    let row_bytes = (HOLE_SHARDS * HOLE_WORDS * WORD_BYTES) as u64;
    let opened = (MAX_OWNER_READ_BYTES / row_bytes) as usize;
    assert!(opened < HOLE_OBJECTS);
    let mut hostile = start("commands", &Place::Sealed, "holes");
    let before = allocated(&hostile);
    assert!(before < GROWTH_BYTES_MAX, "{before} bytes: they are no holes");
    let mut reader = Reader::new();
    // 128 MiB are copied, in a build that may be slow.
    reader.tick_bound = HEAVY;
    reader.look_bound = HEAVY;
    reader.attach(hostile.pid()).unwrap();
    let objects = reader.look();
    assert_eq!((objects.len(), reader.warnings().len()), (HOLE_OBJECTS, 0));
    reader.open(&objects);
    let warnings = reader.warnings();
    assert_eq!(warnings.iter().map(|w| w.kind()).collect::<Vec<_>>(), [ErrorKind::TooLarge]);
    let text = warnings[0].to_string();
    assert!(text.contains(&MAX_OWNER_READ_BYTES.to_string()), "{text}");
    let subject = format!("an object of a table of pid {} cannot be read: ", hostile.pid());
    assert!(text.starts_with(&subject), "{text}");
    let rows = reader.tick();
    for (at, row) in rows.iter().enumerate() {
        let want = if at < opened { RowState::Good } else { RowState::Gone };
        assert_eq!(row.state, want, "{}", row.path);
        assert!(row.values.iter().all(|(_, words)| words.iter().all(|&word| word == 0)));
    }
    // The words of a page in the middle of the last shard, and of one in the first.
    let entry = named("holes").entry(0);
    let words = [entry.data().start + 7, entry.data().start + 5000 + 254 * entry.shard_words];
    words.into_iter().for_each(|word| hostile.set(word, 5));
    let values = &reader.tick()[0].values[0].1;
    assert_eq!((values[7], values[5000], values.iter().sum::<u64>()), (5, 5, 10));
    reader.look();
    report("holes", &reader);
    let growth = allocated(&hostile) - before;
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes");
}

/// A directory that leads into holes is refused without filling them.
#[test]
fn a_look_fills_no_holes() {
    let mut hostile = start("commands", &Place::Sealed, "holes");
    let entry = named("holes").entry(0);
    let hole = (entry.data().start + 1000) * WORD_BYTES;
    hostile.set(entry.slot_word + 1, hole as u64);
    let before = allocated(&hostile);
    assert!(before < GROWTH_BYTES_MAX, "{before} bytes: they are no holes");
    let mut reader = Reader::new();
    let error = reader.attach(hostile.pid()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Malformed);
    assert!(error.to_string().contains(&format!("pid {}", hostile.pid())), "{error}");
    assert_eq!(allocated(&hostile), before);
}

/// Of tables that are too much together, some are read. The others are refused at no cost as long
/// as they do not change.
#[test]
fn a_table_that_is_too_much_is_refused_once() {
    let hostile = start("three", &Place::Sealed, "heavy");
    let mut reader = Reader::new();
    reader.look_bound = HEAVY;
    assert_eq!(reader.attach(hostile.pid()).unwrap(), 1);
    let warnings = reader.warnings();
    assert_eq!(warnings.iter().map(|w| w.kind()).collect::<Vec<_>>(), [ErrorKind::TooLarge]);
    let text = warnings[0].to_string();
    assert!(text.contains(&MAX_OWNER_HELD_BYTES.to_string()), "{text}");
    let subject = format!("a table of pid {} cannot be read: ", hostile.pid());
    assert!(text.starts_with(&subject), "{text}");
    reader.look_bound = AGAIN;
    let objects = reader.look();
    assert!(!objects.is_empty());
    (0..3).for_each(|_| assert_eq!(reader.look(), objects));
    report("heavy", &reader);
}

/// Names and paths of tables are UTF-8, unlike a kernel's.
#[test]
fn names_that_are_not_utf8_are_refused() {
    let entry = named("sample").entry(0);
    let block = entry.block_word * WORD_BYTES + BLOCK_HEADER_BYTES;
    let (provider, target) = (8, entry.slot_word + 8);
    let (path, name) = (block / WORD_BYTES, (block + 48 + DESC_BYTES) / WORD_BYTES);
    for word in [provider, target, path, name] {
        let mut hostile = start("commands", &Place::Sealed, "sample");
        hostile.set(word, u64::from_ne_bytes(*b"ab\xff\0\0\0\0\0"));
        let mut reader = Reader::new();
        let error = reader.attach(hostile.pid()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Malformed);
        assert!(error.to_string().contains("UTF-8"), "{error}");
        // A table that changes is read again, except for its header.
        if word != provider {
            hostile.tell("restore 2");
            assert_eq!(reader.attach(hostile.pid()).unwrap(), 1);
            assert_eq!(reader.look().len(), OBJECTS);
        }
        hostile.set(GENERATION, 4);
    }
}
