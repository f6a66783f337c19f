//! Writers that never stop: they hold a lock for ever, announce changes all the time, or write
//! random bytes.

use std::collections::BTreeSet;
use std::time::Duration;

use vmstrobe_core::{ErrorKind, Object, RowState};
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::judge::must_be_read;
use vmstrobe_tests::hostile::layout::{GENERATION, SLOTS_USED};
use vmstrobe_tests::hostile::modes::CHECKSUM;
use vmstrobe_tests::hostile::reader::{Reader, Row};
use vmstrobe_tests::rig::wait_for;

use crate::{Place, again_and_again, epoch_in, report, start};

/// The two ways in which the reader loads the words.
const BOTH: [Place; 2] = [Place::Sealed, Place::Unsealed];
/// The time in which random bytes make a table that can be read.
const CHANCE_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_lock_that_is_held_for_ever_opens_nothing() {
    for place in BOTH {
        let mut hostile = start("odd", &place, "sample");
        let mut reader = Reader::new();
        reader.attach(hostile.pid()).unwrap();
        let objects = reader.look();
        assert_eq!(objects.len(), OBJECTS);
        reader.open(&objects[..2]);
        again_and_again(|| {
            let rows = reader.tick();
            assert!(rows.iter().all(|row| row.state == RowState::Torn), "{rows:?}");
        });
        assert_eq!(reader.look(), objects);
        hostile.must_live();
        report(&format!("held for ever, {place:?}"), &reader);
    }
}

/// The directory's lock is held: a new reader sees no objects, and an old one reads on.
#[test]
fn a_directory_that_is_held_for_ever_is_busy() {
    for place in BOTH {
        let mut hostile = start("commands", &place, "sample");
        let image = sample(1);
        let mut known = Reader::new();
        known.attach(hostile.pid()).unwrap();
        let objects = known.look();
        known.open(&objects);
        hostile.set(GENERATION, 1);
        hostile.set(SLOTS_USED, 0);
        let mut fresh = Reader::new();
        again_and_again(|| {
            let refused = fresh.attach(hostile.pid()).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Busy);
            assert!(fresh.look().is_empty() && known.look().is_empty());
            let rows = known.tick();
            assert!(rows.iter().all(|row| row.state == RowState::Good), "{rows:?}");
            must_be_read(&rows, &image.words);
        });
        hostile.tell("restore 2");
        assert_eq!(known.look(), objects);
        fresh.attach(hostile.pid()).unwrap();
        assert_eq!(fresh.look().len(), OBJECTS);
        known.count(&fresh);
        report(&format!("directory held for ever, {place:?}"), &known);
    }
}

#[test]
fn a_directory_that_changes_for_ever_does_not_delay_a_reader() {
    for place in BOTH {
        let mut hostile = start("generation", &place, "sample");
        let image = sample(1);
        let mut reader = Reader::new();
        let (mut busy, mut seen) = (0, 0);
        again_and_again(|| {
            let mut fresh = Reader::new();
            match fresh.attach(hostile.pid()) {
                Ok(count) => assert!(count <= 1),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Busy);
                    busy += 1;
                }
            }
            let objects = fresh.look();
            seen += objects.len();
            fresh.open(&objects);
            must_be_read(&fresh.tick(), &image.words);
            reader.count(&fresh);
        });
        hostile.must_live();
        report(&format!("always another generation, {place:?}, {busy} busy, {seen} seen"), &reader);
        assert!(busy + seen > 0);
    }
}

/// All objects are replaced at once: a look sees those of one epoch, and a row of an object that
/// was replaced is not the one that took its place.
#[test]
fn a_directory_is_seen_whole_or_not_at_all() {
    for place in BOTH {
        let mut hostile = start("directory", &place, "sample");
        let mut reader = Reader::new();
        let (mut epochs, mut looks) = (BTreeSet::new(), 0);
        again_and_again(|| {
            // The table may be busy; then the next look finds the objects.
            let _ = reader.attach(hostile.pid());
            let objects = reader.look();
            looks += 1;
            epochs.extend(objects.iter().map(epoch));
            let Some(first) = objects.first() else { return };
            let is_whole = objects.iter().all(|object| epoch(object) == epoch(first));
            assert!(is_whole && objects.len() == OBJECTS, "parts of directories: {objects:?}");
            reader.open(&objects);
            for _ in 0..8 {
                reader.tick().iter().for_each(is_of_its_epoch);
            }
        });
        hostile.must_live();
        report(&format!("replaced, {place:?}, {} of {looks} looks new", epochs.len()), &reader);
        let [good, _, gone, _] = reader.ends;
        assert!(epochs.len() > 10 && good > 10 && gone > 10, "{:?}", reader.ends);
    }
}

fn epoch(object: &Object) -> u64 {
    epoch_in(&object.path)
}

fn is_of_its_epoch(row: &Row) {
    if row.state == RowState::Good {
        let epoch = epoch_in(&row.path);
        must_be_read(std::slice::from_ref(row), &sample(epoch).words);
    }
}

/// The words of an object satisfy a condition whenever its lock is open.
#[test]
fn a_row_that_is_written_meanwhile_is_not_good() {
    for place in BOTH {
        let mut hostile = start("checksum", &place, "sample");
        let mut reader = Reader::new();
        reader.attach(hostile.pid()).unwrap();
        let objects = reader.look();
        reader.open(&objects[..1]);
        again_and_again(|| {
            for row in reader.tick().iter().filter(|row| row.state == RowState::Good) {
                let words = row.values.iter().flat_map(|(_, words)| words);
                assert_eq!(words.fold(0, |all, word| all ^ word), CHECKSUM, "{row:x?}");
            }
        });
        hostile.must_live();
        report(&format!("a promise kept under the lock, {place:?}"), &reader);
        assert!(reader.ends[0] > 1000 && reader.ends[1] > 0, "{:?}", reader.ends);
    }
}

/// The read values have no meaning; the test is that reading ends in time.
#[test]
fn random_bytes_do_no_harm() {
    for place in BOTH {
        let mut hostile = start("random", &place, "sample");
        let (mut known, mut fresh_ones) = (Reader::new(), Reader::new());
        let (mut attached, mut listed) = (0, 0);
        let mut work = || {
            let _ = known.attach(hostile.pid());
            let objects = known.look();
            known.open(&objects);
            known.tick();
            let mut fresh = Reader::new();
            attached += usize::from(fresh.attach(hostile.pid()).is_ok());
            let objects = fresh.look();
            listed += objects.len();
            fresh.open(&objects);
            (0..4).for_each(|_| drop(fresh.tick()));
            fresh_ones.count(&fresh);
            (attached, listed)
        };
        // The time is longer if no table has been readable by chance: on a busy machine there are
        // few looks.
        wait_for("random bytes make a table", CHANCE_LIMIT, || {
            let mut seen = (0, 0);
            again_and_again(|| seen = work());
            seen.0 > 0 && seen.1 > 0
        });
        hostile.must_live();
        known.count(&fresh_ones);
        report(&format!("random, {place:?}, {attached} attached, {listed} listed"), &known);
    }
}
