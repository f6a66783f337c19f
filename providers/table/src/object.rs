//! An object in a table, from its writer's side, and its handles.
//!
//! Invariant: an object is listed as long as its [`TableObject`] is there.

use std::sync::Arc;

use super::define::StatKey;
use super::handle::{Group, Handle, Held, OwnedCounter, sealed};
use super::region::Region;

/// An object in a table: it is there for readers as long as this value is. Handles may outlive it,
/// and then count for nobody.
///
/// ```
/// use vmstrobe_core::Target;
/// use vmstrobe_table::{Stat, TableSchema, TableWriter};
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
        self.region.data_word()
    }

    /// Returns the handle of a statistic. It can be cloned into threads.
    ///
    /// # Panics
    /// If the key is of another schema whose statistic at that place is of another kind: a bug of
    /// the caller.
    pub fn get<H: Handle>(&self, key: StatKey<H>) -> H {
        let desc = self.region.schema().descs().get(key.desc);
        let desc = desc.filter(|desc| H::fits(desc)).expect("a key is of the object's schema");
        let words = self.region.words(desc.words(), 0);
        sealed::Handle::new(Held::new(words, &self.region), desc)
    }

    /// Returns the only handle of a counter that one thread owns; `None` if it has been given out.
    ///
    /// # Panics
    /// As [`TableObject::get`].
    pub fn own(&self, key: StatKey<OwnedCounter>) -> Option<OwnedCounter> {
        let desc = self.region.schema().descs().get(key.desc);
        let desc = desc.expect("a key is of the object's schema");
        let words = self.region.words(desc.words(), 0);
        let is_free = !self.region.is_given_out(key.desc);
        is_free.then(|| OwnedCounter::new(Held::new(words, &self.region)))
    }

    /// Returns the right to change statistics together; `None` if it has been given out, or
    /// [`TableSchema::group`](crate::TableSchema::group) was not called.
    pub fn group(&self) -> Option<Group> {
        let is_free = !self.region.is_given_out(self.region.schema().descs().len());
        is_free.then(|| Group::new(Held::new(self.region.lock(), &self.region)))
    }
}

impl Drop for TableObject {
    fn drop(&mut self) {
        self.region.unlist(self.slot);
    }
}
