//! Full directories: of objects that differ, that are all equal, or that do not exist.

use std::time::Duration;

use vmstrobe::table::MAX_PROCESS_TABLES;
use vmstrobe_core::{ErrorKind, RowState};
use vmstrobe_tests::hostile::images::{OBJECTS, SCHEMAS, SLOTS_MAX, named};
use vmstrobe_tests::hostile::judge::must_be_read;
use vmstrobe_tests::hostile::layout::GENERATION;
use vmstrobe_tests::hostile::reader::{Reader, Spent};

use crate::{Place, report, start};

/// The bound of a look at the largest directories.
const LOOK: Spent = Spent { cpu: Duration::from_secs(8), wall: Duration::from_secs(16) };
/// The bound of one source's part of a tick over them: 64 rows.
const TICK: Spent = Spent { cpu: Duration::from_millis(5), wall: Duration::from_secs(1) };

fn attach_error(image: &str) -> ErrorKind {
    let hostile = start("commands", &Place::Sealed, image);
    let mut reader = Reader::new();
    let error = reader.attach(hostile.pid()).expect_err("it must be refused");
    assert!(reader.look().is_empty());
    report(image, &reader);
    error.kind()
}

#[test]
fn a_million_objects_are_refused() {
    assert_eq!(attach_error("million-places"), ErrorKind::TooLarge);
    assert_eq!(attach_error("million-used"), ErrorKind::Malformed);
}

#[test]
fn overlapping_objects_are_refused() {
    assert_eq!(attach_error("one-block"), ErrorKind::Malformed);
    assert_eq!(attach_error("one-data"), ErrorKind::Malformed);
}

/// A process has more tables than are read, and another has tables that all delay a look.
#[test]
fn of_very_many_tables_some_are_read() {
    let hostile = start("many", &Place::Sealed, "sample");
    let mut reader = Reader::new();
    assert_eq!(reader.attach(hostile.pid()).unwrap(), MAX_PROCESS_TABLES);
    // Of equal paths there are two, and then those with a number behind.
    let objects = reader.look();
    assert_eq!(objects.len(), OBJECTS * MAX_PROCESS_TABLES);
    reader.open(&objects);
    assert!(reader.tick().iter().all(|row| row.state == RowState::Good));
    report("many tables", &reader);

    let hostile = start("many", &Place::Sealed, "busy");
    let mut reader = Reader::new();
    assert_eq!(reader.attach(hostile.pid()).unwrap_err().kind(), ErrorKind::Busy);
    assert!(reader.look().is_empty());
    report("many tables that are busy", &reader);
}

/// The most objects are read, and again after all of them have changed.
#[test]
fn the_most_objects_are_read_in_time() {
    for (image, listed) in [("crowd", SLOTS_MAX), ("one-path", 2), ("schemas", SCHEMAS)] {
        let mut hostile = start("commands", &Place::Sealed, image);
        let mut reader = Reader::new();
        reader.look_bound = LOOK;
        reader.tick_bound = TICK;
        assert_eq!(reader.attach(hostile.pid()).unwrap(), 1);
        let objects = reader.look();
        assert_eq!(objects.len(), listed);
        hostile.set(GENERATION, 2);
        assert_eq!(reader.look(), objects);
        reader.open(&objects);
        let rows = reader.tick();
        assert!(rows.iter().all(|row| row.state == RowState::Good));
        if image == "crowd" {
            must_be_read(&rows[..64], &named(image).words);
        }
        report(image, &reader);
    }
}

/// The most that locks can cost a tick: all locks of the largest directory are held.
#[test]
fn held_locks_cost_a_bounded_number_of_looks() {
    for place in [Place::Sealed, Place::Unsealed] {
        let hostile = start("commands", &place, "crowd-held");
        let mut reader = Reader::new();
        reader.look_bound = LOOK;
        reader.tick_bound = TICK;
        reader.attach(hostile.pid()).unwrap();
        let objects = reader.look();
        reader.open(&objects);
        let rows = reader.tick();
        assert_eq!(rows.len(), SLOTS_MAX);
        assert!(rows.iter().all(|row| row.state == RowState::Torn));
        report(&format!("crowd-held, {place:?}"), &reader);
    }
}
