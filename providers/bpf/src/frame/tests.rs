//! The words of a frame are where the program puts them, and say why there is no data.

use std::sync::atomic::Ordering::Relaxed;

use super::*;
use crate::Bpf;
use crate::slots::Subject;
use crate::tests::{Guests, file, kernel, named, pread, repeated};

#[test]
fn what_is_too_large_is_refused() {
    let most = MAX_FRAME_BYTES / WORD_BYTES - FIRST_ROW;
    assert_eq!(bytes_of(most, 1).unwrap() as usize, MAX_FRAME_BYTES);
    for (rows, row_words) in [(most + 1, 1), (most, 2), (usize::MAX, usize::MAX)] {
        assert_eq!(bytes_of(rows, row_words).unwrap_err().kind(), ErrorKind::TooLarge);
    }
}

#[test]
fn a_mark_says_why_there_is_no_data() {
    let fault = RowState::Io(rustix::io::Errno::FAULT.raw_os_error());
    for (mark, state) in [
        (0, RowState::Good),
        (mark::EMPTY, RowState::Gone),
        (mark::DEAD, RowState::Gone),
        (mark::THREADLESS, RowState::Missing),
        (mark::FAILED, fault),
        (1, fault),
        (u64::MAX, fault),
    ] {
        assert_eq!(state_of(mark), state);
        // The first word of a row is the number of a lock, which must be at rest.
        assert!(mark.is_multiple_of(2) || state == fault);
    }
}

#[test]
fn what_the_program_writes_is_where_the_frame_has_it() {
    let Some(kernel) = kernel() else { return };
    let guests = Guests::new(3, Bpf::off());
    let stats = guests.stats(Subject::Vcpu);
    let schema = kernel.schema(Subject::Vcpu);
    let plan = named(schema, &["exits", "halt_exits"]);
    let rows = repeated(&stats, 3);
    let mut files: Vec<_> = rows.iter().map(|row| row.as_ref().map(file)).collect();
    files[1] = None;
    let mut bulk = kernel.bulk(Subject::Vcpu, &plan, &files).unwrap();
    let word = |bulk: &super::super::bulk::BulkReader, at: usize| bulk.words()[at].load(Relaxed);
    assert!((0..3).all(|row| bulk.row(row).iter().all(|word| word.load(Relaxed) == 0)));
    for runs in 1..3 {
        bulk.run().unwrap();
        assert_eq!([SEQ, READ, MARKED].map(|at| word(&bulk, at)), [2 * runs, 3, 1]);
    }
    let (_, want) = pread(&plan, &rows);
    for (row, want) in want.chunks(plan.row_words()).enumerate() {
        let seen = bulk.copy_of(row);
        match row {
            1 => assert_eq!(seen[..LOCK_WORDS], [mark::EMPTY, 0]),
            row => assert_eq!(seen, [&[0, row as u64 + 1], want].concat()),
        }
    }
}
