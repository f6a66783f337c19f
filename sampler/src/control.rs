//! The exchange between the control plane and the tick: changes go in, and the things that they
//! replaced come out, to be dropped off the tick.
//!
//! Both are behind a mutex that the tick only tries to lock: if the control plane holds it, the
//! tick goes on, and the next tick tries again. One relaxed load tells whether there is a change. A
//! tick takes one change at most.
//!
//! Invariant: nothing is freed or closed on the tick; retired things wait here for
//! [`Control::collect`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use vmstrobe_core::{Error, ErrorKind, Layout, Result, Snapshot};

use crate::pool::Pool;
use crate::publish::{Latest, Publisher};
use crate::source_set::SourceSet;
use crate::subscribe::{MAX_QUEUE_SAMPLES, Outlet, Subscriber, queue};
use crate::ticker::Timing;

/// The most subscribers of one sampler.
pub const MAX_SUBSCRIBERS: usize = 64;
/// The most changes that may wait for a tick.
const MAX_CHANGES: usize = 16;
/// The most replaced things that the tick may keep until it can hand them over.
pub(crate) const MAX_RETIRED: usize = 8;

/// A change that the tick takes. Everything in it was made off the tick.
#[derive(Debug)]
pub(crate) enum Change {
    /// Other sources from now on, and snapshots for them.
    SourceSet(SourceSet, Pool<Snapshot>),
    /// One more subscriber, and snapshots for its queue; the pool has room for the present ones.
    Subscribe(Outlet, Pool<Snapshot>),
}

/// A thing that the tick no longer needs, kept only to be dropped elsewhere.
#[derive(Debug)]
#[allow(dead_code, reason = "retired things are carried to where they are dropped, never read")]
pub(crate) enum Retired {
    SourceSet(SourceSet, Pool<Snapshot>),
    Snapshot(Arc<Snapshot>),
    Pool(Pool<Snapshot>),
    Outlet(Outlet),
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    /// True if there is a change. Relaxed, because the mutex orders the change itself.
    waiting: AtomicBool,
    stop: AtomicBool,
    /// The new time from one tick to the next, in ns; 0 for none. Relaxed, because it guards no
    /// other data.
    period_ns: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    changes: Vec<Change>,
    retired: Vec<Retired>,
    /// The layout that will be in force once all changes are taken.
    layout: Arc<Layout>,
    /// Snapshots in the pool by then.
    buffers: usize,
    subscribers: usize,
    spares: usize,
    queued: usize,
}

impl Mailbox {
    /// Returns a mailbox for a sampler that begins with this layout and `spares` snapshots.
    pub(crate) fn new(layout: &Arc<Layout>, spares: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            period_ns: AtomicU64::new(0),
            inner: Mutex::new(Inner {
                changes: Vec::with_capacity(MAX_CHANGES),
                retired: Vec::with_capacity(MAX_RETIRED * 4),
                layout: Arc::clone(layout),
                buffers: spares,
                subscribers: 0,
                spares,
                queued: 0,
            }),
        })
    }

    /// Asks the sampler to end.
    pub(crate) fn request_stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns true once the sampler has been asked to end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Returns true once another time between ticks has been asked for.
    pub(crate) fn has_timing(&self) -> bool {
        self.period_ns.load(Ordering::Relaxed) != 0
    }

    /// Takes the new timing, if one has been asked for.
    pub(crate) fn take_timing(&self) -> Option<Timing> {
        let period_ns = self.period_ns.swap(0, Ordering::Relaxed);
        (period_ns != 0).then_some(Timing { period_ns, ticks_max: None })
    }

    /// Hands over the retired things and takes a change, if there is one and the mutex is free. It
    /// is called on the tick.
    #[inline]
    pub(crate) fn exchange(&self, retired: &mut Vec<Retired>) -> Option<Change> {
        if retired.is_empty() && !self.waiting.load(Ordering::Relaxed) {
            return None;
        }
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(inner)) => inner.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        if inner.retired.capacity() - inner.retired.len() < retired.len() {
            return None;
        }
        inner.retired.append(retired);
        let change = (!inner.changes.is_empty()).then(|| inner.changes.remove(0));
        self.waiting.store(!inner.changes.is_empty(), Ordering::Relaxed);
        change
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A thread that panics with the lock leaves nothing half-done: each change is one push.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The control plane's handle to a running sampler. Clone it freely.
#[derive(Clone, Debug)]
pub struct Control {
    mailbox: Arc<Mailbox>,
    newest: Publisher,
}

impl Control {
    pub(crate) fn new(mailbox: Arc<Mailbox>, newest: Publisher) -> Self {
        Self { mailbox, newest }
    }

    /// Returns a reader's handle to the newest snapshot. Some 60 of them can hold one each; with
    /// more, ticks may starve, which is counted.
    pub fn latest(&self) -> Latest {
        self.newest.latest()
    }

    /// Returns a subscriber to every snapshot from one of the next ticks on. Its queue has room for
    /// `samples` (at most [`MAX_QUEUE_SAMPLES`]), each of which takes the memory of a snapshot. A
    /// sample that does not fit is lost to this subscriber, and counted.
    ///
    /// # Errors
    /// `TooLarge` for a longer queue or more than [`MAX_SUBSCRIBERS`]; `Busy` if 16 changes wait,
    /// because the sampler does not tick.
    pub fn subscribe(&self, samples: usize) -> Result<Subscriber> {
        if samples > MAX_QUEUE_SAMPLES {
            let context = format!("a queue of {samples} samples; the limit is {MAX_QUEUE_SAMPLES}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        self.collect();
        let mut inner = self.mailbox.lock();
        if inner.subscribers == MAX_SUBSCRIBERS {
            let context = format!("another subscriber; the limit is {MAX_SUBSCRIBERS}");
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let (outlet, subscriber) = queue(samples);
        // One for each place of the queue, and one for the subscriber to hold.
        let more = outlet.depth() + 1;
        let mut buffers = Vec::with_capacity(inner.buffers + more);
        buffers.extend((0..more).map(|_| Arc::new(Snapshot::new(&inner.layout))));
        inner.push(Change::Subscribe(outlet, Pool::new(buffers)))?;
        inner.subscribers += 1;
        inner.buffers += more;
        inner.queued += more;
        self.mailbox.waiting.store(true, Ordering::Relaxed);
        Ok(subscriber)
    }

    /// Replaces the sources that are read, from one of the next ticks on.
    ///
    /// # Errors
    /// `Busy` if 16 changes wait, because the sampler does not tick.
    pub fn replace(&self, sources: SourceSet) -> Result<()> {
        self.collect();
        let mut inner = self.mailbox.lock();
        let layout = Arc::clone(&sources.layout);
        let count = inner.spares + inner.queued;
        inner.push(Change::SourceSet(sources, Pool::new(buffers(&layout, count))))?;
        (inner.layout, inner.buffers) = (layout, count);
        self.mailbox.waiting.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Changes the rate, from the next tick on. The ticks go on to be numbered; their number is not
    /// limited any more.
    pub fn set_timing(&self, timing: &Timing) {
        self.mailbox.period_ns.store(timing.period_ns.max(1), Ordering::Relaxed);
    }

    /// Drops the things that the tick has retired since the last call: old sources (which may be
    /// the last to hold a VM that has ended) and old snapshots. `subscribe` and `replace` do so
    /// too.
    pub fn collect(&self) {
        let retired: Vec<Retired> = {
            let mut inner = self.mailbox.lock();
            let retired: Vec<Retired> = inner.retired.drain(..).collect();
            for retired in &retired {
                if let Retired::Outlet(outlet) = retired {
                    inner.subscribers -= 1;
                    inner.queued -= outlet.depth() + 1;
                }
            }
            retired
        };
        // After the lock is free, because dropping may take long.
        drop(retired);
    }

    /// Ends the sampler's loop, at its next tick or within 50 ms, whichever is sooner.
    pub fn stop(&self) {
        self.mailbox.request_stop();
    }
}

/// Returns `count` empty snapshots of one layout.
pub(crate) fn buffers(layout: &Arc<Layout>, count: usize) -> Vec<Arc<Snapshot>> {
    (0..count).map(|_| Arc::new(Snapshot::new(layout))).collect()
}

impl Inner {
    fn push(&mut self, change: Change) -> Result<()> {
        if self.changes.len() == MAX_CHANGES {
            let context = format!("{MAX_CHANGES} changes wait for a tick: is the sampler running?");
            return Err(Error::new(ErrorKind::Busy, context));
        }
        self.changes.push(change);
        Ok(())
    }
}
