//! The newest snapshot, for any number of readers. The only file that uses arc-swap.
//!
//! A reader keeps the snapshot that it loaded last and checks for a newer one, which takes 1 ns;
//! loading a newer one takes some 10 ns. Publishing swaps a pointer and then visits all threads
//! that ever loaded a snapshot, so there should be tens of them, not thousands.
//!
//! Invariant: a loaded snapshot is complete and does not change while it is held. A reader that
//! keeps one costs the sampler a buffer, never time.

use std::fmt;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use vmstrobe_core::Snapshot;

/// A reader's handle to the newest snapshot. Clone it for each thread that reads.
///
/// The first [`Latest::load`] of a thread allocates its entry in arc-swap's list; later ones do not
/// allocate.
#[derive(Clone)]
pub struct Latest {
    cache: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
}

/// The other end: it publishes snapshots, and makes the readers' handles. A sampler has one; what
/// shows snapshots of another origin, such as a recording, makes its own.
///
/// ```
/// use std::sync::Arc;
/// use vmstrobe_core::{Layout, Snapshot};
/// use vmstrobe_sampler::Publisher;
/// let layout = Layout::new(0, Vec::new());
/// let publisher = Publisher::new(Arc::new(Snapshot::new(&layout)));
/// let mut latest = publisher.latest();
/// let mut next = Snapshot::new(&layout);
/// next.begin(7);
/// let before = publisher.swap(Arc::new(next));
/// assert_eq!((before.tick(), latest.load().tick()), (0, 7));
/// ```
#[derive(Clone)]
pub struct Publisher {
    newest: Arc<ArcSwap<Snapshot>>,
}

impl Publisher {
    /// Publishes the first snapshot.
    pub fn new(first: Arc<Snapshot>) -> Self {
        Self { newest: Arc::new(ArcSwap::new(first)) }
    }

    /// Publishes a snapshot and returns the one before, which readers may still hold: a reader that
    /// drops the last handle to it frees it.
    #[inline]
    pub fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.newest.swap(snapshot)
    }

    /// Returns a reader's handle.
    pub fn latest(&self) -> Latest {
        Latest { cache: Cache::new(Arc::clone(&self.newest)) }
    }
}

impl Latest {
    /// Returns the newest snapshot. Before the first tick it has tick 0 and all rows are missing.
    ///
    /// The handle holds the snapshot until the next call, which keeps one buffer from the sampler.
    #[inline]
    pub fn load(&mut self) -> &Snapshot {
        self.cache.load()
    }

    /// Returns the newest snapshot, for as long as the caller likes.
    pub fn load_full(&mut self) -> Arc<Snapshot> {
        Arc::clone(self.cache.load())
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("tick", &self.newest.load().tick()).finish()
    }
}

impl fmt::Debug for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest").field("tick", &self.cache.arc_swap().load().tick()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Pool;
    use std::sync::atomic::{AtomicBool, Ordering};
    use vmstrobe_core::{Desc, Layout, Mask, Object, ReadPlan, RowState, Schema, Target};

    /// A layout of one object with `words` counters.
    fn layout(words: u32) -> Arc<Layout> {
        let descs = (0..words).map(|i| Desc::counter(&format!("n{i}"), 8 * i)).collect();
        let schema = Schema::new("xyz", Target::Vcpu, descs);
        let plan = ReadPlan::new(&schema, &Mask::all(&schema));
        let object = Object { path: "/x".into(), index: None, schema, key: 0 };
        Layout::new(0, vec![(plan, vec![object])])
    }

    /// Publishes reused snapshots while readers hold some: every word of a snapshot stays its tick,
    /// and ticks never go back.
    #[test]
    fn recycled_snapshots_are_never_written_under_a_reader() {
        let layout = layout(64);
        let buffers = (0..12).map(|_| Arc::new(Snapshot::new(&layout))).collect();
        let mut pool = Pool::new(buffers);
        let newest = Publisher::new(Arc::new(Snapshot::new(&layout)));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for hold in [0, 1, 2, 3] {
                let (latest, done, layout) = (newest.latest(), &done, &layout);
                scope.spawn(move || read_until(done, latest, layout, hold));
            }
            let mut starved = 0;
            for tick in 1..=200_000 {
                let fresh = pool.take(|snapshot| {
                    let (words, states) = snapshot.begin(tick);
                    words.fill(tick);
                    states.fill(RowState::Good);
                });
                match fresh {
                    Some(fresh) => pool.put_back(newest.swap(fresh)),
                    None => {
                        starved += 1;
                        std::thread::yield_now();
                    }
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(starved < 200_000, "nothing was published");
        });
        assert_eq!(pool.len(), 12);
    }

    fn read_until(done: &AtomicBool, mut latest: Latest, layout: &Layout, hold: u32) {
        let cells: Vec<_> = (0..64)
            .map(|i| layout.find("/x", &format!("n{i}")).expect("the layout has the statistic"))
            .collect();
        let (mut last, mut kept) = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            let snapshot = latest.load();
            let tick = snapshot.tick();
            assert!(tick >= last, "the newest tick went back from {last} to {tick}");
            last = tick;
            for _ in 0..=hold {
                assert!(cells.iter().all(|&c| snapshot.get(c).is_none_or(|w| w == tick)));
            }
            // Some readers keep a snapshot beside the newest.
            kept.truncate(hold.min(1) as usize);
            kept.insert(0, latest.load_full());
        }
    }
}
