//! An object in a table, from its writer's side: where it lies, and its handles.
//!
//! Invariant: an object is listed as long as its [`TableObject`] is there, and its memory is its
//! own for as long as that or any handle of it is.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use vmstrobe_core::Schema;

use super::define::StatKey;
use super::format::LOCK_WORDS;
use super::handle::{Group, Handle, Held, OwnedCounter, sealed};
use super::map::Words;
use super::store::Shared;

/// The place of an object in its table: a block, and behind it the shards, which begin with the
/// lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) first: usize,
    /// Words from the first to the lock.
    pub(crate) lock: usize,
    pub(crate) shards: usize,
    pub(crate) shard_words: usize,
}

impl Place {
    pub(crate) fn lock(&self) -> usize {
        self.first + self.lock
    }

    pub(crate) fn end(&self) -> usize {
        self.lock() + self.shards * self.shard_words
    }

    pub(crate) fn is_laid_out(&self, lock: usize, shards: usize, shard_words: usize) -> bool {
        (self.lock, self.shards, self.shard_words) == (lock, shards, shard_words)
    }
}

/// The memory of an object. It goes back to its table when the object and all its handles are gone.
#[derive(Debug)]
pub(crate) struct Region {
    shared: Arc<Shared>,
    place: Place,
    schema: Arc<Schema>,
    next_shard: AtomicUsize,
    /// By statistic: its only handle has been given out. Behind them, the group's, or there is
    /// none.
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
        let first = self.place.lock() + LOCK_WORDS + shard * self.place.shard_words + words.start;
        Words::new(&self.shared.map, first, words.len()).expect("a place lies inside its table")
    }

    /// Returns these words of the data in the shard whose turn it is.
    pub(crate) fn next_shard(&self, words: Range<usize>) -> Words {
        let shard = self.next_shard.fetch_add(1, Relaxed) % self.place.shards;
        self.words(words, shard)
    }

    fn is_given_out(&self, what: usize) -> bool {
        self.given_out[what].swap(true, Relaxed)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        self.shared.give_back(self.place.clone());
    }
}

/// An object in a table: it is there for readers as long as this value is. Handles may outlive it,
/// and then count for nobody.
///
/// ```
/// use vmstrobe_core::Target;
/// use vmstrobe_providers::{Stat, TableSchema, TableWriter};
///
/// let mut stats = TableSchema::new(Target::from_name("queue"));
/// let (requests, bytes) = (stats.counter("requests"), stats.counter(Stat::bytes("bytes")));
/// stats.group();
/// let table = TableWriter::new("xyz")?;
/// let queue = table.add("/xyz/queue[0]", &stats)?;
/// let (requests, bytes) = (queue.get(requests), queue.get(bytes));
/// let mut both = queue.group().expect("nobody has taken it before");
/// both.change(|| {
///     requests.add(1);
///     bytes.add(512);
/// });
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Debug)]
pub struct TableObject {
    region: Arc<Region>,
    slot: usize,
}

impl TableObject {
    pub(crate) fn new(region: Arc<Region>, slot: usize) -> Self {
        Self { region, slot }
    }

    /// Returns the index in the table of the first word of its data, for code that maps the table
    /// itself, as a program in another language does.
    pub fn data_word(&self) -> usize {
        self.region.place.lock() + LOCK_WORDS
    }

    /// The handle of a statistic. It can be cloned into threads.
    ///
    /// # Panics
    /// If the key is of another schema whose statistic at that place is of another kind: a bug of
    /// the caller.
    pub fn get<H: Handle>(&self, key: StatKey<H>) -> H {
        let desc = self.region.schema.descs().get(key.desc);
        let desc = desc.filter(|desc| H::fits(desc)).expect("a key is of the object's schema");
        let words = self.region.words(desc.words(), 0);
        sealed::Handle::new(Held::new(words, &self.region), desc)
    }

    /// The only handle of a counter that one thread owns; `None` if it has been given out.
    ///
    /// # Panics
    /// As [`TableObject::get`].
    pub fn own(&self, key: StatKey<OwnedCounter>) -> Option<OwnedCounter> {
        let desc = self.region.schema.descs().get(key.desc);
        let desc = desc.expect("a key is of the object's schema");
        let words = self.region.words(desc.words(), 0);
        let is_free = !self.region.is_given_out(key.desc);
        is_free.then(|| OwnedCounter::new(Held::new(words, &self.region)))
    }

    /// The right to change statistics together; `None` if it has been given out, or
    /// [`TableSchema::group`](crate::TableSchema::group) was not called.
    pub fn group(&self) -> Option<Group> {
        let Region { shared, place, schema, .. } = &*self.region;
        let lock = Words::new(&shared.map, place.lock(), 1);
        let lock = lock.expect("a place lies inside its table");
        let is_free = !self.region.is_given_out(schema.descs().len());
        is_free.then(|| Group::new(Held::new(lock, &self.region)))
    }
}

impl Drop for TableObject {
    fn drop(&mut self) {
        self.region.shared.remove(self.slot, &self.region.place);
    }
}
