//! Writers that end in the middle of a change, or stop their heartbeat.

use std::time::Duration;

use vmstrobe_core::RowState;
use vmstrobe_tests::hostile::child::Hostile;
use vmstrobe_tests::hostile::images::{OBJECTS, sample};
use vmstrobe_tests::hostile::reader::Reader;
use vmstrobe_tests::rig::wait_for;

use crate::{Place, shm, start};

/// The longest time within which its end has to be noticed.
const SOON: Duration = Duration::from_secs(1);

/// Opens all objects of a table in that place.
fn opened(hostile: &Hostile, place: &Place) -> Reader {
    let mut reader = Reader::new();
    match place {
        Place::Path(path) => reader.open_file(path).expect("the table exists"),
        _ => assert_eq!(reader.attach(hostile.pid()).expect("the table exists"), 1),
    }
    let objects = reader.look();
    assert_eq!(objects.len(), OBJECTS);
    reader.open(&objects);
    reader
}

fn all_are(reader: &mut Reader, want: RowState) -> bool {
    let rows = reader.tick();
    rows.len() == OBJECTS && rows.iter().all(|row| row.state == want)
}

#[test]
fn the_objects_of_a_killed_writer_are_gone() {
    let shm = shm();
    let entry = sample(1).entry(0);
    for place in [Place::Sealed, Place::Unsealed, Place::Path(shm.path().join("table"))] {
        for dies_in_a_change in [false, true] {
            let mut hostile = start("commands", &place, "sample");
            if dies_in_a_change {
                hostile.set(entry.lock_word, 1);
                hostile.set(entry.data().start, 0);
            }
            let mut reader = opened(&hostile, &place);
            let state = reader.tick()[0].state;
            assert_eq!(state, if dies_in_a_change { RowState::Torn } else { RowState::Good });
            hostile.must_live();
            hostile.kill();
            wait_for("all rows are gone", SOON, || {
                // Only a look finds that the writer of a file has ended.
                let listed = if matches!(place, Place::Path(_)) { reader.look() } else { vec![] };
                listed.is_empty() && all_are(&mut reader, RowState::Gone)
            });
            assert!(reader.look().is_empty() && all_are(&mut reader, RowState::Gone));
        }
    }
}

/// A writer that is killed while it changes its directory makes no reader wait.
#[test]
fn a_directory_that_a_killed_writer_left_open_is_gone() {
    let mut hostile = start("commands", &Place::Sealed, "sample");
    let mut reader = opened(&hostile, &Place::Sealed);
    hostile.set(vmstrobe_tests::hostile::layout::GENERATION, 1);
    let pid = hostile.pid();
    hostile.kill();
    wait_for("all rows are gone", SOON, || all_are(&mut reader, RowState::Gone));
    assert!(reader.look().is_empty());
    assert!(reader.attach(pid).is_err());
}

/// A sealed memfd that is opened by a path could be mapped, but is treated as any other file.
#[test]
fn a_sealed_table_opened_by_a_path_ends_with_its_writer() {
    let hostile = start("locked", &Place::Sealed, "sample");
    let path = memfd_path(hostile.pid());
    let mut reader = opened(&hostile, &Place::Path(path));
    assert!(all_are(&mut reader, RowState::Good));
    hostile.kill();
    wait_for("all rows are gone", SOON, || {
        reader.look().is_empty() && all_are(&mut reader, RowState::Gone)
    });
}

fn memfd_path(pid: u32) -> std::path::PathBuf {
    let fds =
        std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process has not been reaped");
    let mut paths = fds.map(|entry| entry.expect("the process has not been reaped").path());
    let is_table = |path: &std::path::PathBuf| {
        let link = std::fs::read_link(path).expect("the process has not been reaped");
        link.to_string_lossy().starts_with("/memfd:vmstrobe-table:")
    };
    paths.find(is_table).expect("the process has a table")
}

#[test]
fn a_stopped_writer_misses_its_heartbeat() {
    // The promised period is much longer than the real one, because other processes may take the
    // CPU.
    let limit = Duration::from_secs(10);
    for place in [Place::Sealed, Place::Unsealed] {
        let mut hostile = start("beat", &place, "beating");
        let mut reader = opened(&hostile, &place);
        let become_so = |reader: &mut Reader, want| {
            wait_for(&format!("{want:?}"), limit, || {
                reader.look();
                all_are(reader, want)
            });
        };
        become_so(&mut reader, RowState::Good);
        hostile.stop();
        become_so(&mut reader, RowState::Stale);
        // It is opened again after the heartbeat was missed.
        let objects = reader.look();
        reader.open(&objects);
        assert!(all_are(&mut reader, RowState::Stale));
        hostile.go_on();
        become_so(&mut reader, RowState::Good);
        hostile.must_live();
    }
}
