//! The memory of one object of a table, from its writer's side.
//!
//! Invariant: the memory is one object's for as long as the object or any handle of it is there.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use vmstrobe_core::Schema;

use super::format::LOCK_WORDS;
use super::map::Words;
use super::store::{Place, Shared};

/// The memory of an object. It goes back to its table when the object and all its handles are gone.
#[derive(Debug)]
pub(crate) struct Region {
    shared: Arc<Shared>,
    place: Place,
    schema: Arc<Schema>,
    next_shard: AtomicUsize,
    /// Whether the only handle of each statistic was given out; behind them, the group's, or there
    /// is none.
    given_out: Box<[AtomicBool]>,
}

impl Region {
    pub(crate) fn new(
        shared: &Arc<Shared>,
        place: Place,
        schema: Arc<Schema>,
        is_grouped: bool,
    ) -> Arc<Self> {
        let descs = schema.descs().iter().map(|_| false);
        let given_out = descs.chain([!is_grouped]).map(AtomicBool::new).collect();
        let (shared, next_shard) = (Arc::clone(shared), AtomicUsize::new(0));
        Arc::new(Self { shared, place, schema, next_shard, given_out })
    }

    /// Words of the data, in one of the shards.
    pub(crate) fn words(&self, words: Range<usize>, shard: usize) -> Words {
        let first = self.data_word() + shard * self.place.shard_words + words.start;
        Words::new(&self.shared.map, first, words.len()).expect("a place lies inside its table")
    }

    /// Returns these words of the data in the shard whose turn it is.
    pub(crate) fn next_shard(&self, words: Range<usize>) -> Words {
        let shard = self.next_shard.fetch_add(1, Relaxed) % self.place.shards;
        self.words(words, shard)
    }

    /// Returns the lock word of the first shard.
    pub(crate) fn lock(&self) -> Words {
        let lock = Words::new(&self.shared.map, self.place.lock(), 1);
        lock.expect("a place lies inside its table")
    }

    /// Returns the index in the table of the first data word.
    pub(crate) fn data_word(&self) -> usize {
        self.place.lock() + LOCK_WORDS
    }

    /// Returns the statistics of the object.
    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Takes the object, which has that slot, out of the directory.
    pub(crate) fn unlist(&self, slot: usize) {
        self.shared.remove(slot, &self.place);
    }

    /// Notes that the only handle of a statistic, or the group's behind them, is given out. Returns
    /// whether it was before.
    pub(crate) fn is_given_out(&self, what: usize) -> bool {
        self.given_out[what].swap(true, Relaxed)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.shared.give_back(self.place.clone());
    }
}
