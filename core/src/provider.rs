//! The seam: a [`Provider`] says what there is and opens it, a [`Source`] reads it on the tick.
//!
//! A provider is the control half and may block and allocate. A source is the data half: bounded
//! reads into rows that the sampler hands it, and nothing else. They meet the sampler only here, so
//! a kernel, a table in shared memory, a QMP socket and a recording are all the same to it.
//!
//! Invariant: a source reads one object or many, always the same ones in the same order. An object
//! that is gone is a row marked so, never a shorter answer.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::plan::ReadPlan;
use crate::schema::{Object, Schema, Target};
use crate::snapshot::RowState;

/// The control half of a source of statistics: QAPI `StatsProvider`, `add_stats_callbacks`.
pub trait Provider: Send + Sync + fmt::Debug {
    /// The name by which users ask for it: "kvm", "cryptodev", anyone's own. What carries the
    /// statistics of others has a name of its own; theirs stand in its schemas.
    fn name(&self) -> &str;

    /// Returns the schemas of its objects' statistics, one for each target. Where possible, this
    /// works before any object exists.
    ///
    /// # Errors
    /// If the schemas cannot be had at all.
    fn schemas(&self) -> Result<Vec<Arc<Schema>>>;

    /// Everything that has statistics now, in the order in which users shall see it. Asked again
    /// whenever the roster is refreshed.
    ///
    /// # Errors
    /// If nothing can be said. One object that cannot be reached is no error: it is left out.
    fn objects(&self) -> Result<Vec<Object>>;

    /// Opens objects for reading by `plan`; all have the plan's schema. The sources' rows, one
    /// after the other, are the objects in their order.
    ///
    /// # Errors
    /// If nothing can be opened. An object that has gone since is no error: its row is marked.
    fn open(&self, objects: &[Object], plan: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>>;

    /// Refreshes cached values, so that what the sources of this target read next is newer than
    /// this call. Waits for a bounded time. Providers that read live data need not implement it.
    /// It is no error if there is nothing to ask: the rows say so.
    ///
    /// # Errors
    /// `Busy` if there is no answer in time. What sources read then may be older than this call.
    fn refresh(&self, _target: &Target) -> Result<()> {
        Ok(())
    }

    /// Returns the numbers of its processes that have ended: of those that it reads, and of the one
    /// that is known to be behind its connection. A number is named until the provider gives the
    /// process back, or is given a later process of that number, which is never taken for it.
    ///
    /// It may be asked many times a second, and waits for nothing: for no process, and for no other
    /// thread that is looking at one ([`Provider::objects`]). What is reached in another way than
    /// by its process can also end without one: then only its objects show that.
    fn ended(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Returns the problems that cost no object: that a faster way of reading had to be given up,
    /// for example. Each is returned for as long as it lasts; the caller reports it only once.
    fn warnings(&self) -> Vec<Error> {
        Vec::new()
    }
}

/// The data half: read on every tick. It allocates nothing, takes no lock, waits for nobody.
pub trait Source: Send {
    /// Returns the number of rows that it fills, which never changes.
    fn rows(&self) -> usize;

    /// Fills or marks each of its rows. A row it does not touch stays [`RowState::Missing`].
    fn read(&mut self, rows: Rows<'_>);

    /// Between which instants, in ns of `CLOCK_MONOTONIC`, the last `read` loaded all its words:
    /// from a source that reads all its rows in one call, and so knows better than its caller;
    /// `None` from any other, and after a `read` that was not done so.
    ///
    /// Before its first `read` such a source answers `Some(0..0)`, by which it is told from others.
    /// Asked on the tick, after `read`: what holds for that holds for this.
    #[inline]
    fn read_ns(&self) -> Option<Range<u64>> {
        None
    }
}

/// The rows of one source in the snapshot being filled.
#[derive(Debug)]
pub struct Rows<'a> {
    words: &'a mut [u64],
    states: &'a mut [RowState],
    row_words: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `row_words` words each, as many as there are states.
    ///
    /// # Panics
    /// If the number of words does not fit, which is a bug of the caller.
    pub fn new(words: &'a mut [u64], states: &'a mut [RowState], row_words: usize) -> Self {
        assert_eq!(words.len(), states.len() * row_words, "rows are all of one length");
        Self { words, states, row_words }
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// True if there is none.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// As [`Rows::fill`], for rows of which each has something in a list: both are gone through
    /// side by side, without looking anything up. Rows for which there is nothing stay as they are.
    #[inline]
    pub fn fill_from<T>(self, items: &[T], mut read: impl FnMut(&T, &mut [u64]) -> RowState) {
        let mut others = self.words;
        for (item, state) in items.iter().zip(self.states) {
            let (row, rest) = others.split_at_mut(self.row_words);
            others = rest;
            *state = read(item, row);
        }
    }

    /// Lets `read` fill each row and notes what it says of it. What it leaves in a row that it does
    /// not call good, nobody will see.
    #[inline]
    pub fn fill(self, mut read: impl FnMut(usize, &mut [u64]) -> RowState) {
        // One place that calls `read`, so that it is compiled into the loop: a call and return
        // around a system call cost 4 ns (measured; no doubt the return is mispredicted).
        let mut others = self.words;
        for (index, state) in self.states.iter_mut().enumerate() {
            let (row, rest) = others.split_at_mut(self.row_words);
            others = rest;
            *state = read(index, row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_one_by_one() {
        let (mut words, mut states) = ([0; 6], [RowState::Missing; 3]);
        let rows = Rows::new(&mut words, &mut states, 2);
        assert_eq!(rows.len(), 3);
        rows.fill(|index, row| {
            if index == 0 {
                return RowState::Gone;
            }
            row.copy_from_slice(&[index as u64, 6]);
            RowState::Good
        });
        assert_eq!(words, [0, 0, 1, 6, 2, 6]);
        assert_eq!(states, [RowState::Gone, RowState::Good, RowState::Good]);
    }

    #[test]
    fn rows_are_filled_side_by_side_with_a_list() {
        let (mut words, mut states) = ([0; 4], [RowState::Missing; 4]);
        Rows::new(&mut words, &mut states, 1).fill_from(&[5, 6, 7], |item, row| {
            row[0] = *item;
            if *item == 6 { RowState::Torn } else { RowState::Good }
        });
        assert_eq!(words, [5, 6, 7, 0]);
        assert_eq!(states, [RowState::Good, RowState::Torn, RowState::Good, RowState::Missing]);
    }

    #[test]
    fn rows_of_nothing_are_still_rows() {
        let mut states = [RowState::Missing; 2];
        let rows = Rows::new(&mut [], &mut states, 0);
        rows.fill(|index, row| if row.len() == index { RowState::Good } else { RowState::Torn });
        assert_eq!(states, [RowState::Good, RowState::Torn]);
    }
}
