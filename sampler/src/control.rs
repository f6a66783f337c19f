//! The exchange between the control plane and the tick: changes go in, and what they replaced comes
//! out, to be dropped where dropping does no harm.
//!
//! Both lie behind a mutex that the tick only ever tries: if the control plane is just holding it,
//! the tick goes on and tries again next time. It looks for changes by one relaxed load. A tick
//! takes one change at most.
//!
//! Invariant: nothing is freed or closed on the tick; what is retired waits here for
//! [`Control::collect`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use vmstrobe_core::{Error, ErrorKind, Layout, Result, Snapshot};

use crate::pool::Pool;
use crate::publish::{Latest, Publisher};
use crate::source_set::SourceSet;
use crate::subscribe::{MAX_QUEUE_SAMPLES, Outlet, Subscriber, queue};

/// The most subscribers of one sampler.
pub const MAX_SUBSCRIBERS: usize = 64;
/// Changes that may wait for a tick.
const MAX_CHANGES: usize = 16;
/// Replaced things that the tick may keep until it can hand them over.
pub(crate) const MAX_RETIRED: usize = 8;

/// A change that the tick takes up. Everything in it was made off the tick.
#[derive(Debug)]
pub(crate) enum Change {
    /// Other objects from now on, and snapshots for them.
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
    /// There is a change. Relaxed: the mutex orders what it announces.
    waiting: AtomicBool,
    stop: AtomicBool,
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
    /// A mailbox for a sampler that begins with this layout and so many snapshots.
    pub(crate) fn new(layout: &Arc<Layout>, spares: usize) -> Arc<Self> {
        Arc::new(Self {
            waiting: AtomicBool::new(false),
            stop: AtomicBool::new(false),
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

    /// True once the sampler shall end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// On the tick: hands over what is retired and takes a change, if there is one and nobody else
    /// is in here.
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
        // A panic elsewhere leaves nothing half-done in here: each change is one push.
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

    /// A reader's handle to the newest snapshot. Some 60 of them can hold one each; beyond that
    /// ticks may starve, which is counted.
    pub fn latest(&self) -> Latest {
        self.newest.latest()
    }

    /// Every snapshot from one of the next ticks on, through a queue of `samples` (at most
    /// [`MAX_QUEUE_SAMPLES`]), each place of which takes the memory of a snapshot. What does not
    /// fit is lost to this subscriber, and counted.
    ///
    /// # Errors
    /// `TooLarge` beyond [`MAX_SUBSCRIBERS`] or that depth; `Busy` if changes pile up because
    /// nothing ticks.
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
        // One for each place of the queue, one in the subscriber's hands.
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

    /// Samples other objects from one of the next ticks on.
    ///
    /// # Errors
    /// `Busy` if changes pile up because nothing ticks.
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

    /// Drops what the tick has put aside since the last call: old sources (which may be the last
    /// to hold a dead VM) and old snapshots. Every other call here does so too.
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
        // Dropped here, after the lock: it may take long.
        drop(retired);
    }

    /// Ends the sampler's loop, at its next tick or within 50 ms, whichever is sooner.
    pub fn stop(&self) {
        self.mailbox.request_stop();
    }
}

/// So many empty snapshots of one layout.
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
