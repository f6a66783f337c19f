//! Whether anything of a provider has gone: one number for all its objects.
//!
//! A source asks this one number a tick. As long as it stands where it stood when the source was
//! opened, none of its objects has gone; once it has moved, the source asks each object, on every
//! tick from then on, until the roster replaces it.
//!
//! Invariant: an object's own flag is set before the number moves. A source remembers the number
//! from before it looked at the flags, and never a newer one, so it cannot miss a flag for good.

use crate::sync::{Arc, AtomicU64, Ordering};

/// An epoch that advances each time an object of a provider goes. Clones share it.
#[derive(Clone, Debug)]
pub struct GoneEpoch {
    count: Arc<AtomicU64>,
}

impl Default for GoneEpoch {
    fn default() -> Self {
        Self { count: Arc::new(AtomicU64::new(0)) }
    }
}

impl GoneEpoch {
    /// Moves the number. To be called after an object's flag was set.
    pub fn note(&self) {
        // Release pairs with the Acquire in `count`: who opens a source after this has moved sees
        // the flag at once.
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Returns the present epoch.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}
