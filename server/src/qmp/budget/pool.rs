//! One limit: a pool of units, from which leases are taken.
//!
//! Invariant: the leases of a pool never add up to more units than it has. Taking a lease waits
//! only if the caller asks for it, and not longer than the caller allows.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A pool of units. Clones are the same pool.
#[derive(Clone, Debug)]
pub(in crate::qmp) struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    max: usize,
    taken: Mutex<usize>,
    given_back: Condvar,
}

/// Units that were taken from a pool. Dropping the lease returns them.
#[derive(Debug)]
pub(in crate::qmp) struct Lease {
    pool: Pool,
    units: usize,
}

impl Pool {
    /// Makes a pool with all of its units.
    pub(in crate::qmp) fn new(max: usize) -> Self {
        let (taken, given_back) = (Mutex::new(0), Condvar::new());
        Self(Arc::new(Inner { max, taken, given_back }))
    }

    /// Returns the number of all units, including those that are taken.
    pub(in crate::qmp) fn max(&self) -> usize {
        self.0.max
    }

    /// Returns the number of units that can still be taken.
    pub(in crate::qmp) fn left(&self) -> usize {
        self.0.max - *self.lock()
    }

    /// Returns whether more than half of the units are taken, so that idle ones should be returned.
    pub(in crate::qmp) fn is_scarce(&self) -> bool {
        self.left() < self.0.max / 2
    }

    /// Takes some units; `None` if fewer are left.
    pub(in crate::qmp) fn take(&self, units: usize) -> Option<Lease> {
        self.wait(units, Duration::ZERO)
    }

    /// Takes some units if half of all are left afterwards. Leases that are held for long are taken
    /// this way, so that short ones always find some.
    pub(in crate::qmp) fn take_of_first_half(&self, units: usize) -> Option<Lease> {
        let lease = self.take(units)?;
        (units == 0 || !self.is_scarce()).then_some(lease)
    }

    /// Takes some units, and waits for them at most for `patience`. `None` if they do not become
    /// free; without waiting if the pool does not have as many.
    pub(in crate::qmp) fn wait(&self, units: usize, patience: Duration) -> Option<Lease> {
        let mut lease = Lease { pool: self.clone(), units: 0 };
        lease.grow(units, patience).then_some(lease)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        // A panic cannot leave a number half changed.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Makes a lease of no units, to be grown.
    pub(in crate::qmp) fn empty(pool: &Pool) -> Self {
        Self { pool: pool.clone(), units: 0 }
    }

    /// Returns the number of its units.
    pub(in crate::qmp) fn units(&self) -> usize {
        self.units
    }

    /// Returns the pool that it belongs to.
    pub(in crate::qmp) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Grows to this number of units, if it has fewer, and waits for them as [`Pool::wait`] does.
    /// Returns false, without any change, if they do not become free.
    pub(in crate::qmp) fn grow(&mut self, units: usize, patience: Duration) -> bool {
        let more = units.saturating_sub(self.units);
        let inner = &*self.pool.0;
        if more > inner.max {
            return false;
        }
        let deadline = Instant::now() + patience;
        let mut taken = self.pool.lock();
        while inner.max - *taken < more {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = inner.given_back.wait_timeout(taken, left);
            taken = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken += more;
        self.units += more;
        true
    }

    /// Returns units to the pool until no more than this number are left.
    pub(in crate::qmp) fn shrink(&mut self, units: usize) {
        let less = self.units.saturating_sub(units);
        if less > 0 {
            *self.pool.lock() -= less;
            self.units -= less;
            self.pool.0.given_back.notify_all();
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn no_more_than_there_is_can_be_taken() {
        let pool = Pool::new(10);
        let mut some = pool.take(4).unwrap();
        let rest = pool.take(6).unwrap();
        assert!(pool.take(1).is_none() && pool.left() == 0 && pool.is_scarce());
        assert!(!some.grow(5, Duration::ZERO) && some.units() == 4);
        drop(rest);
        assert!(some.grow(10, Duration::ZERO) && pool.left() == 0);
        // The lease is that large already.
        assert!(some.grow(3, Duration::ZERO) && some.units() == 10);
        some.shrink(5);
        assert!(pool.left() == 5 && !pool.is_scarce());
        drop(some);
        assert_eq!((pool.left(), pool.max()), (10, 10));
    }

    #[test]
    fn half_of_it_is_kept_for_the_others() {
        let pool = Pool::new(10);
        let half = pool.take_of_first_half(5).unwrap();
        assert!(pool.take_of_first_half(1).is_none() && pool.left() == 5);
        assert!(pool.take_of_first_half(0).is_some() && pool.take(5).is_some());
        drop(half);
        assert!(pool.take_of_first_half(6).is_none() && pool.left() == 10);
    }

    #[test]
    fn what_will_never_be_there_is_not_waited_for() {
        let before = Instant::now();
        assert!(Pool::new(3).wait(4, Duration::from_secs(60)).is_none());
        assert!(before.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn whoever_waits_gets_what_is_given_back_in_time() {
        let pool = Pool::new(1);
        let (only, before) = (pool.take(1).unwrap(), Instant::now());
        assert!(pool.wait(1, Duration::from_millis(30)).is_none());
        assert!(before.elapsed() >= Duration::from_millis(30));
        let of_thread = pool.clone();
        let waiting = thread::spawn(move || of_thread.wait(1, Duration::from_secs(60)).is_some());
        thread::sleep(Duration::from_millis(20));
        drop(only);
        assert!(waiting.join().unwrap());
        assert_eq!(pool.left(), 1);
    }
}
