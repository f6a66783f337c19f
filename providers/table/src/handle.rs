//! Handles, which a device calls when something happens. Each writes words of one object.
//!
//! Invariant: a handle writes nowhere but in the words of its statistic, and these belong to no
//! other object for as long as there is a handle. All stores are relaxed: a counter needs no order;
//! what must be seen together is changed in a [`Group`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use vmstrobe_core::seq::{self, AtomicU64};
use vmstrobe_core::{Desc, StatType};

use super::map::Words;
use super::region::Region;

/// The words of one statistic.
#[derive(Clone)]
pub struct Held {
    words: Words,
    /// Keeps them from becoming another object's.
    region: Arc<Region>,
}

impl Held {
    pub(crate) fn new(words: Words, region: &Arc<Region>) -> Self {
        Self { words, region: Arc::clone(region) }
    }

    /// The word of a scalar, the first of a histogram.
    #[inline]
    fn word(&self) -> &AtomicU64 {
        &self.words.get()[0]
    }

    /// Counts one in a bucket; what is beyond the last belongs to the last.
    #[inline]
    fn count(&self, bucket: u64) {
        let words = self.words.get();
        let last = words.len() - 1;
        let bucket = usize::try_from(bucket).map_or(last, |bucket| bucket.min(last));
        words[bucket].fetch_add(1, Relaxed);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("words", &self.words).finish()
    }
}

/// A handle, which an object gives for a key. Only the types of this crate are handles.
pub trait Handle: sealed::Handle {}

pub(crate) mod sealed {
    use super::{Desc, Held};

    /// Makes handles; only this crate can implement it.
    pub trait Handle: Sized {
        /// Whether a statistic is of its kind.
        fn fits(desc: &Desc) -> bool;
        /// The handle of such a statistic.
        fn new(held: Held, desc: &Desc) -> Self;
    }
}

macro_rules! handles {
    ($($handle:ident: $stat_type:ident,)*) => {$(
        impl Handle for $handle {}

        impl sealed::Handle for $handle {
            fn fits(desc: &Desc) -> bool {
                desc.stat_type == StatType::$stat_type
            }

            fn new(held: Held, _: &Desc) -> Self {
                Self { held }
            }
        }
    )*};
}

handles! {
    Counter: Cumulative,
    Gauge: Instant,
    Peak: Peak,
    Flag: Instant,
    Log2Histogram: Log2Histogram,
}

/// A count that only grows. Clones count together, on whatever thread.
#[derive(Clone, Debug)]
pub struct Counter {
    held: Held,
}

impl Counter {
    /// Counts so many.
    #[inline]
    pub fn add(&self, count: u64) {
        self.held.word().fetch_add(count, Relaxed);
    }
}

/// A count that only grows, of one thread at a time: there is one handle, and it is not shared.
#[derive(Debug)]
pub struct OwnedCounter {
    held: Held,
}

impl OwnedCounter {
    pub(crate) fn new(held: Held) -> Self {
        Self { held }
    }

    /// Counts so many: a load, an addition and a store.
    #[inline]
    pub fn add(&mut self, count: u64) {
        let word = self.held.word();
        // Nobody else stores to it: this is the only handle, and it is borrowed alone.
        word.store(word.load(Relaxed).wrapping_add(count), Relaxed);
    }
}

/// A count that only grows, of many threads: give each a clone. A clone counts in a shard of its
/// own as long as there are any; readers see the sum.
#[derive(Debug)]
pub struct ShardedCounter {
    held: Held,
    /// Its word in every shard.
    word: usize,
}

impl ShardedCounter {
    /// Counts so many.
    #[inline]
    pub fn add(&self, count: u64) {
        // Not a load and a store: where threads are more than shards, two share one.
        self.held.word().fetch_add(count, Relaxed);
    }
}

impl Clone for ShardedCounter {
    fn clone(&self) -> Self {
        Self::of(&self.held.region, self.word)
    }
}

impl ShardedCounter {
    fn of(region: &Arc<Region>, word: usize) -> Self {
        Self { held: Held::new(region.next_shard(word..word + 1), region), word }
    }
}

impl Handle for ShardedCounter {}

impl sealed::Handle for ShardedCounter {
    fn fits(desc: &Desc) -> bool {
        desc.stat_type == StatType::Cumulative
    }

    fn new(held: Held, desc: &Desc) -> Self {
        Self::of(&held.region, desc.words().start)
    }
}

/// A value of this instant.
#[derive(Clone, Debug)]
pub struct Gauge {
    held: Held,
}

impl Gauge {
    /// Sets the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.held.word().store(value, Relaxed);
    }

    /// Adds to the value.
    #[inline]
    pub fn add(&self, count: u64) {
        self.held.word().fetch_add(count, Relaxed);
    }

    /// Subtracts from the value.
    #[inline]
    pub fn sub(&self, count: u64) {
        self.held.word().fetch_sub(count, Relaxed);
    }
}

/// The largest value so far.
#[derive(Clone, Debug)]
pub struct Peak {
    held: Held,
}

impl Peak {
    /// Notes a value, which counts if it is the largest so far.
    #[inline]
    pub fn note(&self, value: u64) {
        // Seldom a new peak: the load alone leaves the line where it is.
        if value > self.held.word().load(Relaxed) {
            self.held.word().fetch_max(value, Relaxed);
        }
    }
}

/// A truth of this instant.
#[derive(Clone, Debug)]
pub struct Flag {
    held: Held,
}

impl Flag {
    /// Sets whether it is so.
    #[inline]
    pub fn set(&self, value: bool) {
        self.held.word().store(value.into(), Relaxed);
    }
}

/// Counts of values by buckets of equal width.
#[derive(Clone, Debug)]
pub struct LinearHistogram {
    held: Held,
    bucket_size: u64,
}

impl LinearHistogram {
    /// Counts a value, in stored units.
    #[inline]
    pub fn record(&self, value: u64) {
        self.held.count(value / self.bucket_size);
    }
}

impl Handle for LinearHistogram {}

impl sealed::Handle for LinearHistogram {
    fn fits(desc: &Desc) -> bool {
        desc.stat_type == StatType::LinearHistogram && desc.bucket_size > 0
    }

    fn new(held: Held, desc: &Desc) -> Self {
        Self { held, bucket_size: desc.bucket_size.into() }
    }
}

/// Counts of values by buckets that double, as the kernel's: 0, 1, 2 to 3, 4 to 7, ...
#[derive(Clone, Debug)]
pub struct Log2Histogram {
    held: Held,
}

impl Log2Histogram {
    /// Counts a value, in stored units (`kvm_stats_log2_hist_update`: bucket `fls64(value)`).
    #[inline]
    pub fn record(&self, value: u64) {
        self.held.count((u64::BITS - value.leading_zeros()).into());
    }
}

/// The right to change statistics of one object together, so that nobody sees some of them changed
/// and others not. There is one for each object.
#[derive(Debug)]
pub struct Group {
    lock: Held,
}

impl Group {
    pub(crate) fn new(lock: Held) -> Self {
        Self { lock }
    }

    /// Changes statistics of the object by their handles: readers see all of it or nothing. Should
    /// be short: meanwhile they can read none of the object's statistics.
    #[inline]
    pub fn change(&mut self, change: impl FnOnce()) {
        seq::write(self.lock.word(), change);
    }
}
