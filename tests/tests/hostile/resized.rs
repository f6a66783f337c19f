//! Tables that become shorter or longer while they are read, or are replaced by others. They are
//! not sealed against it, so they are read by system calls.

use std::collections::BTreeSet;

use vmstrobe_core::{ErrorKind, RowState};
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::judge::must_be_read;
use vmstrobe_tests::hostile::layout::{GENERATION, WORD_BYTES};
use vmstrobe_tests::hostile::reader::{Reader, Row};

use crate::{Place, again_and_again, epoch_in, report, shm, start};

/// The words are always the same, or gone, or zero: no value appears that was not written.
#[test]
fn a_table_that_shrinks_and_grows_does_no_harm() {
    let shm = shm();
    for place in [Place::Unsealed, Place::Path(shm.path().join("table"))] {
        let mut hostile = start("resize", &place, "sample");
        let (mut known, mut others) = (Reader::new(), Reader::new());
        let attach = |reader: &mut Reader, pid: u32| match &place {
            Place::Path(path) => reader.open_file(path),
            _ => reader.attach(pid).map(drop),
        };
        let is_known = again_and_again_until_it_is_so(|| attach(&mut known, hostile.pid()).is_ok());
        assert!(is_known, "the words are never consistent");
        let mut opened = false;
        again_and_again(|| {
            if !opened {
                let objects = known.look();
                opened = objects.len() == OBJECTS;
                known.open(&objects);
            }
            known.tick().iter().for_each(was_there);
            let mut fresh = Reader::new();
            if attach(&mut fresh, hostile.pid()).is_ok() {
                let objects = fresh.look();
                fresh.open(&objects);
                fresh.tick().iter().for_each(was_there);
            }
            others.count(&fresh);
        });
        hostile.must_live();
        known.count(&others);
        report(&format!("resized, {place:?}"), &known);
        let [good, _, gone, _] = known.ends;
        assert!(good > 0 && gone > 0, "{:?}", known.ends);
    }
}

fn again_and_again_until_it_is_so(mut so: impl FnMut() -> bool) -> bool {
    let mut was_so = false;
    again_and_again(|| was_so = was_so || so());
    was_so
}

fn was_there(row: &Row) {
    let image = sample(1);
    let ends = ["/a", "/b", "/c"];
    let object = ends.into_iter().position(|end| row.path.ends_with(end));
    let object = object.expect("the writer gave such a path");
    let want = image.entry(object).values(&image.words).expect("the image is right");
    let words = row.values.iter().flat_map(|(_, words)| words);
    for (word, want) in words.zip(want.iter().flatten()) {
        // Shards are read one by one.
        let parts =
            if object == 1 { vec![0, 1, 2, 3, want - 1, want - 2, want - 3] } else { vec![0] };
        assert!(word == want || parts.contains(word), "{row:x?}");
    }
}

/// Step by step: an object beyond the end is gone, and one that comes back is not the same.
#[test]
fn an_object_beyond_the_end_is_gone() {
    let image = sample(1);
    let ends = |object: usize| (image.entry(object).data().end * WORD_BYTES) as u64;
    let mut hostile = start("commands", &Place::Unsealed, "sample");
    let mut reader = Reader::new();
    reader.attach(hostile.pid()).unwrap();
    let objects = reader.look();
    reader.open(&objects);
    let mut check = |hostile: &mut Hostile, bytes: u64, want: [RowState; OBJECTS]| {
        hostile.tell(&format!("resize {bytes}"));
        let states: Vec<RowState> = reader.tick().iter().map(|row| row.state).collect();
        assert_eq!(states, want, "{bytes} bytes");
    };
    use RowState::{Gone, Good};
    check(&mut hostile, 1 << 40, [Good, Good, Good]);
    check(&mut hostile, ends(2), [Good, Good, Good]);
    check(&mut hostile, ends(2) - 1, [Good, Good, Gone]);
    check(&mut hostile, ends(1), [Good, Good, Gone]);
    check(&mut hostile, ends(1) - 1, [Good, Gone, Gone]);
    check(&mut hostile, ends(0), [Good, Gone, Gone]);
    check(&mut hostile, ends(0) - 1, [Gone, Gone, Gone]);
    check(&mut hostile, 0, [Gone, Gone, Gone]);
    // The words are zeros.
    check(&mut hostile, 4096, [Gone, Gone, Gone]);
    hostile.tell("resize 100");
    assert!(reader.look().is_empty());
    // The table has its old length and content: the objects are the same.
    hostile.tell("resize 4096");
    hostile.tell("restore 2");
    assert_eq!(reader.look(), objects);
    must_be_read(&reader.tick(), &image.words);
    // This look begins before the table shrinks, and ends after it.
    hostile.set(GENERATION, 4);
    hostile.tell("resize 600");
    assert!(reader.look().is_empty());
}

/// An open table stays the same until its writer closes it; opened again, the path has the new one.
#[test]
fn a_table_that_is_replaced_is_another() {
    let shm = shm();
    let path = shm.path().join("table");
    for place in [Place::Path(path), Place::Sealed, Place::Unsealed] {
        let mut hostile = start("replace", &place, "sample");
        let mut reader = Reader::new();
        let (mut epochs, mut most) = (BTreeSet::new(), 0);
        again_and_again(|| {
            let refused = match &place {
                Place::Path(path) => reader.open_file(path).err(),
                _ => reader.attach(hostile.pid()).err(),
            };
            // The table was replaced in between.
            let kind = refused.map_or(ErrorKind::NotFound, |error| error.kind());
            assert_eq!(kind, ErrorKind::NotFound);
            let objects = reader.look();
            most = most.max(objects.len());
            reader.open(&objects);
            for row in reader.tick().iter().filter(|row| row.state == RowState::Good) {
                let epoch = epoch_in(&row.path);
                must_be_read(std::slice::from_ref(row), &sample(epoch).words);
                epochs.insert(epoch);
            }
        });
        hostile.must_live();
        let tables = epochs.len();
        report(&format!("replaced, {place:?}, {tables} tables, {most} objects at most"), &reader);
        assert!(tables > 10 && most >= OBJECTS, "{tables} tables, {most} objects");
        // The closed tables are not held any more.
        hostile.stop();
        assert!(reader.look().len() <= 2 * OBJECTS);
    }
}
