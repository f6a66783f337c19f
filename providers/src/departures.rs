//! Whether anything of a provider has gone: one number for all its objects.
//!
//! A source asks this one number a tick. As long as it stands where it stood when the source was
//! opened, none of its objects has gone; once it has moved, the source asks each object, on every
//! tick from then on, until the roster replaces it.
//!
//! Invariant: an object's own flag is set before the number moves. A source remembers the number
//! from before it looked at the flags, and never a newer one, so it cannot miss a flag for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many objects of a provider have gone so far. Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Departures {
    count: Arc<AtomicU64>,
}

impl Departures {
    /// To be called after an object's flag was set.
    pub(crate) fn note(&self) {
        // Release pairs with the Acquire in `count`: who opens a source after this has moved sees
        // the flag at once.
        self.count.fetch_add(1, Ordering::Release);
    }

    /// The number now.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// What a source relies on, 20,000 times: opened while a flag is being set, it sees the flag
    /// at once or, as soon as the setter is done, the moved number.
    #[test]
    fn a_flag_is_never_missed_for_good() {
        for _ in 0..20_000 {
            let (departures, gone) = (Departures::default(), AtomicBool::new(false));
            thread::scope(|scope| {
                let setter = scope.spawn(|| {
                    gone.store(true, Ordering::Relaxed);
                    departures.note();
                });
                let opened_at = departures.count();
                let seen = gone.load(Ordering::Relaxed);
                assert!(seen || opened_at == 0, "the number came without its flag");
                setter.join().unwrap();
                assert!(seen || departures.count() != opened_at);
            });
        }
    }
}
