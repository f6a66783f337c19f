//! Checks of the good rows of a reader against the words of the table, by its documentation.
//!
//! Invariant: only certain facts are checked: that a value is the one in its place, not that a
//! reader should have read it. A reader may refuse more.

use vmstrobe_core::RowState;

use super::layout::{Entry, entries};
use super::reader::Row;

/// Checks that these are good rows of objects of the image, with their values there.
///
/// # Panics
///
/// If one is not.
pub fn must_be_read(rows: &[Row], words: &[u64]) {
    let entries = entries(words);
    for row in rows.iter().filter(|row| row.state == RowState::Good) {
        let found = entries.iter().any(|entry| is_of(row, entry) && is_read(row, entry, words));
        assert!(found, "nobody has written {row:?}; there is {entries:?}");
    }
}

/// Checks the row of an object that was opened as `entry`, against the words of the table now: it
/// must be torn, gone, or good with the values at the places in `entry`. Later changes of its slot
/// and block do not count.
///
/// # Panics
///
/// If the row has another state or other values.
pub fn must_be_read_as(row: &Row, entry: &Entry, words: &[u64]) {
    let (seq, theirs) = (words[entry.lock_word], words[entry.lock_word + 1]);
    let want = if entry.is_grouped && !seq.is_multiple_of(2) {
        RowState::Torn
    } else if theirs != entry.incarnation {
        RowState::Gone
    } else {
        RowState::Good
    };
    // A reader may wait for the lock also where it means nothing.
    let may_be_torn = !entry.is_grouped && !seq.is_multiple_of(2);
    let is_so = row.state == want || may_be_torn && row.state == RowState::Torn;
    assert!(is_so, "{row:?}, not {want:?}; lock {seq:#x} {theirs:#x}");
    let is_read = row.state != RowState::Good || is_read(row, entry, words);
    assert!(is_read, "nobody has written {row:?}");
}

/// Returns true if the row is of an object of that path. Of two objects with one path, the later
/// has a number.
fn is_of(row: &Row, entry: &Entry) -> bool {
    let path = String::from_utf8_lossy(&entry.path);
    let rest = row.path.strip_prefix(&*path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_read(row: &Row, entry: &Entry, words: &[u64]) -> bool {
    let Some(values) = entry.values(words) else { return false };
    let want = entry.stats.iter().zip(&values).map(|((name, _), words)| (name, words));
    entry.is_whole(words) == Some(true)
        && row.values.len() == values.len()
        && row.values.iter().zip(want).all(|((name, words), (want_name, want_words))| {
            *name == String::from_utf8_lossy(want_name) && words == want_words
        })
}
