//! The statistics of a kind of object, which a writer defines once; each has a typed key, for which
//! every such object then gives a handle.
//!
//! Invariant: statistics lie one after the other in the data, each on words of its own, in the
//! order in which they were defined.

use std::marker::PhantomData;
use std::sync::Arc;

use vmstrobe_core::{Desc, Scale, Schema, StatType, Target, Unit, WORD_BYTES};

use super::format::{LINES_WORDS, LOCK_WORDS, MAX_SHARDS};
use super::handle::{
    Counter, Flag, Gauge, LinearHistogram, Log2Histogram, OwnedCounter, Peak, ShardedCounter,
};
use super::store::Shape;

/// The name, unit and scale of a statistic. A name alone makes a plain number, without a unit.
///
/// ```
/// use vmstrobe_core::Unit;
/// use vmstrobe_table::Stat;
/// assert_eq!(Stat::from("requests").unit, Unit::None);
/// assert_eq!(Stat::ns("latency").scale.text(Unit::Seconds), "ns");
/// assert_eq!(Stat { unit: Unit::Cycles, ..Stat::from("work") }.name, "work");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Stat<'a> {
    /// Its name. For libvirt, unlike that of any statistic of another provider.
    pub name: &'a str,
    /// The unit of its values.
    pub unit: Unit,
    /// The factor by which a stored number is multiplied.
    pub scale: Scale,
}

impl<'a> Stat<'a> {
    /// Describes a number of bytes.
    pub fn bytes(name: &'a str) -> Self {
        Self { unit: Unit::Bytes, ..Self::from(name) }
    }

    /// Describes a time in nanoseconds.
    pub fn ns(name: &'a str) -> Self {
        Self { unit: Unit::Seconds, scale: Scale::NANO, ..Self::from(name) }
    }
}

impl<'a> From<&'a str> for Stat<'a> {
    fn from(name: &'a str) -> Self {
        Self { name, unit: Unit::None, scale: Scale::ONE }
    }
}

/// The key of a statistic whose handle is an `H`; for it, an object of its schema gives that
/// handle.
#[derive(Debug)]
pub struct StatKey<H> {
    pub(crate) desc: usize,
    handle: PhantomData<fn() -> H>,
}

impl<H> Clone for StatKey<H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<H> Copy for StatKey<H> {}

/// The statistics of a kind of object, defined once.
///
/// ```
/// use vmstrobe_core::Target;
/// use vmstrobe_table::{Stat, TableSchema, TableWriter};
///
/// let mut stats = TableSchema::new(Target::from_name("queue"));
/// let requests = stats.counter("requests");
/// let latency = stats.log2_histogram(Stat::ns("latency"), 32);
///
/// let table = TableWriter::new("xyz")?;
/// let queue = table.add("/xyz/queue[0]", &stats)?;
/// queue.get(requests).add(1);
/// queue.get(latency).record(1500);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TableSchema {
    target: Target,
    descs: Vec<Desc>,
    words: usize,
    shards: usize,
    is_grouped: bool,
}

impl TableSchema {
    /// Makes a schema of objects of that kind, without statistics yet.
    pub fn new(target: Target) -> Self {
        Self { target, descs: Vec::new(), words: 0, shards: 1, is_grouped: false }
    }

    /// Declares that statistics are changed together: objects then give a [`Group`](crate::Group).
    /// Readers then look at the object's sequence lock too, which costs them a few ns.
    pub fn group(&mut self) {
        self.is_grouped = true;
    }

    /// Defines a count that only grows, to which any thread adds.
    pub fn counter<'a>(&mut self, stat: impl Into<Stat<'a>>) -> StatKey<Counter> {
        self.define(stat.into(), StatType::Cumulative, 1, 0)
    }

    /// Defines a count that only grows, to which one thread at a time adds: five times as quick.
    pub fn owned_counter<'a>(&mut self, stat: impl Into<Stat<'a>>) -> StatKey<OwnedCounter> {
        self.define(stat.into(), StatType::Cumulative, 1, 0)
    }

    /// Defines a count that only grows, to which many threads add: each clone of its handle has a
    /// cache line of its own, as far as the shards go.
    pub fn sharded_counter<'a>(&mut self, stat: impl Into<Stat<'a>>) -> StatKey<ShardedCounter> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        self.shards = self.shards.max(cpus.min(MAX_SHARDS as usize));
        self.define(stat.into(), StatType::Cumulative, 1, 0)
    }

    /// Defines a value of this instant, which goes up and down.
    pub fn gauge<'a>(&mut self, stat: impl Into<Stat<'a>>) -> StatKey<Gauge> {
        self.define(stat.into(), StatType::Instant, 1, 0)
    }

    /// Defines the largest value so far.
    pub fn peak<'a>(&mut self, stat: impl Into<Stat<'a>>) -> StatKey<Peak> {
        self.define(stat.into(), StatType::Peak, 1, 0)
    }

    /// Defines a truth of this instant.
    pub fn flag(&mut self, name: &str) -> StatKey<Flag> {
        let stat = Stat { unit: Unit::Boolean, ..Stat::from(name) };
        self.define(stat, StatType::Instant, 1, 0)
    }

    /// Counts in `buckets` buckets of `bucket_size` each; the last is open. Neither is ever 0: that
    /// counts as 1.
    pub fn linear_histogram<'a>(
        &mut self,
        stat: impl Into<Stat<'a>>,
        buckets: u16,
        bucket_size: u32,
    ) -> StatKey<LinearHistogram> {
        let (buckets, bucket_size) = (buckets.max(1), bucket_size.max(1));
        self.define(stat.into(), StatType::LinearHistogram, buckets, bucket_size)
    }

    /// Counts in `buckets` buckets that double, the first for 0 alone; the last is open. Never 0:
    /// that counts as 1.
    pub fn log2_histogram<'a>(
        &mut self,
        stat: impl Into<Stat<'a>>,
        buckets: u16,
    ) -> StatKey<Log2Histogram> {
        self.define(stat.into(), StatType::Log2Histogram, buckets.max(1), 0)
    }

    fn define<H>(
        &mut self,
        stat: Stat<'_>,
        stat_type: StatType,
        size: u16,
        bucket_size: u32,
    ) -> StatKey<H> {
        let offset = (self.words * WORD_BYTES) as u32;
        let plain = Desc::counter(stat.name, offset);
        let (unit, scale) = (stat.unit, stat.scale);
        self.descs.push(Desc { stat_type, unit, scale, size, bucket_size, ..plain });
        self.words += usize::from(size);
        StatKey { desc: self.descs.len() - 1, handle: PhantomData }
    }

    /// As readers will see it.
    pub(crate) fn schema(&self, provider: &str) -> Arc<Schema> {
        Schema::new(provider, self.target.clone(), self.descs.clone())
    }

    /// Returns the shape of an object's memory.
    pub(crate) fn shape(&self) -> Shape {
        // Each shard on lines of its own, the lock in front of the first one's.
        let shard_words = (LOCK_WORDS + self.words).next_multiple_of(LINES_WORDS);
        Shape { shards: self.shards, shard_words, is_grouped: self.is_grouped }
    }
}
