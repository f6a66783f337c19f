//! The newest snapshot, for any number of readers: the only file that knows arc-swap.
//!
//! Reading is wait-free and takes a few ns; publishing swaps a pointer and then looks through the
//! threads that ever read (so keep readers to tens, not thousands). Only `load`, `load_full` and
//! `swap` are used.
//!
//! Invariant: what is read is immutable and whole, and stays so for as long as it is held. A reader
//! that holds on to it costs the sampler a buffer, never time.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use vmstrobe_core::Snapshot;

/// A handle to the newest snapshot. Clone it for each thread that reads.
///
/// A thread's first [`Latest::load`] allocates its place in arc-swap's list; later ones do not.
#[derive(Clone)]
pub struct Latest {
    newest: Arc<ArcSwap<Snapshot>>,
}

impl Latest {
    pub(crate) fn new(first: Arc<Snapshot>) -> Self {
        Self { newest: Arc::new(ArcSwap::new(first)) }
    }

    /// The newest snapshot, to look at and let go: tick 0 with all rows missing before the first
    /// tick. To keep one, use [`Latest::load_full`].
    #[inline]
    pub fn load(&self) -> Newest {
        Newest(self.newest.load())
    }

    /// The newest snapshot, to keep.
    pub fn load_full(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// Publishes a snapshot and takes the one before.
    #[inline]
    pub(crate) fn swap(&self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        self.newest.swap(snapshot)
    }
}

impl fmt::Debug for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latest").field("tick", &self.load().tick()).finish()
    }
}

/// A short hold on the newest snapshot; see [`Latest::load`].
pub struct Newest(Guard<Arc<Snapshot>>);

impl Deref for Newest {
    type Target = Snapshot;

    #[inline]
    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

impl fmt::Debug for Newest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
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

    /// Recycled snapshots against readers that hold them for a while: every word of a snapshot is
    /// its tick, and ticks never go back.
    #[test]
    fn recycled_snapshots_are_never_written_under_a_reader() {
        let layout = layout(64);
        let buffers = (0..6).map(|_| Arc::new(Snapshot::new(&layout))).collect();
        let mut pool = Pool::new(buffers);
        let latest = Latest::new(Arc::new(Snapshot::new(&layout)));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for hold in [0, 1, 2, 3] {
                let (latest, done, layout) = (latest.clone(), &done, &layout);
                scope.spawn(move || read_until(done, &latest, layout, hold));
            }
            let mut starved = 0;
            for tick in 1..=200_000 {
                let Some(at) = pool.free() else {
                    starved += 1;
                    std::thread::yield_now();
                    continue;
                };
                let (words, states) = pool.fill(at).begin(tick);
                words.fill(tick);
                states.fill(RowState::Good);
                let before = latest.swap(pool.share(at));
                drop(pool.put_back(at, before));
            }
            done.store(true, Ordering::Relaxed);
            assert!(starved < 200_000, "nothing was published");
        });
        assert_eq!(pool.len(), 6);
    }

    fn read_until(done: &AtomicBool, latest: &Latest, layout: &Layout, hold: u32) {
        let cells: Vec<_> =
            (0..64).map(|i| layout.find("/x", &format!("n{i}")).expect("laid out")).collect();
        let mut last = 0;
        while !done.load(Ordering::Relaxed) {
            let (guard, full);
            let snapshot: &Snapshot = if hold == 0 {
                guard = latest.load();
                &guard
            } else {
                full = latest.load_full();
                &full
            };
            let tick = snapshot.tick();
            assert!(tick >= last, "went back from {last} to {tick}");
            last = tick;
            for _ in 0..=hold {
                assert!(cells.iter().all(|&c| snapshot.get(c).is_none_or(|w| w == tick)));
            }
        }
    }
}
