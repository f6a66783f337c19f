//! The counting itself: the threads that take part, the begin and the end, and a check that
//! allocations are seen.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::{ALLOCATED, COUNTING, FREED, HELD_BYTES, HELD_BYTES_MAX, REALLOCATED, TAKES_PART};

/// The allocator calls of the threads that took part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) allocated: u64,
    pub(super) reallocated: u64,
    pub(super) freed: u64,
}

/// Makes the calls of this thread count whenever a count is on, or no more.
pub(super) fn take_part(yes: bool) {
    TAKES_PART.set(yes);
}

/// Locks the count: a test holds this for as long as threads of its own take part.
pub(super) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `work` and counts the allocator calls of all threads that take part meanwhile.
pub(super) fn counted<T>(work: impl FnOnce() -> T) -> (T, Counted) {
    let now = |events: &AtomicU64| events.load(SeqCst);
    let all = || Counted {
        allocated: now(&ALLOCATED),
        reallocated: now(&REALLOCATED),
        freed: now(&FREED),
    };
    let before = all();
    COUNTING.store(true, SeqCst);
    let done = work();
    COUNTING.store(false, SeqCst);
    let after = all();
    let counted = Counted {
        allocated: after.allocated - before.allocated,
        reallocated: after.reallocated - before.reallocated,
        freed: after.freed - before.freed,
    };
    (done, counted)
}

/// Returns the most bytes that this thread held at once while `work` ran, beyond those that it held
/// before.
pub(super) fn held_bytes_max<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = HELD_BYTES.get();
    HELD_BYTES_MAX.set(before);
    let done = work();
    (done, (HELD_BYTES_MAX.get() - before) as u64)
}

#[test]
fn an_allocation_of_this_thread_is_counted() {
    let _alone = alone();
    take_part(true);
    let ((), none) = counted(|| {
        black_box(1 + 1);
    });
    let (block, one) = counted(|| black_box(Box::new(7_u64)));
    let ((), freed) = counted(|| drop(block));
    let (_, grown) = counted(|| {
        let mut bytes = Vec::<u8>::with_capacity(10);
        black_box(&mut bytes).reserve_exact(1000);
        black_box(bytes);
    });
    take_part(false);
    assert_eq!(none, Counted::default());
    assert_eq!(one, Counted { allocated: 1, ..none });
    assert_eq!(freed, Counted { freed: 1, ..none });
    assert_eq!(grown, Counted { allocated: 1, reallocated: 1, freed: 1 });
}

#[test]
fn an_allocation_of_a_participating_thread_is_counted() {
    let _alone = alone();
    let allocate = || drop(black_box(Box::new(7_u64)));
    let on_another = |takes_part| {
        let other = || {
            take_part(takes_part);
            allocate();
            take_part(false);
        };
        // This thread, which starts the other, takes no part.
        let ((), counted) = counted(|| thread::scope(|scope| drop(scope.spawn(other).join())));
        counted
    };
    assert_eq!(on_another(true), Counted { allocated: 1, reallocated: 0, freed: 1 });
    assert_eq!(on_another(false), Counted::default());
}

#[test]
fn the_most_bytes_held_at_once_are_measured() {
    let block = |bytes: usize| black_box(vec![1_u8; bytes]);
    assert_eq!(held_bytes_max(|| drop((block(1000), block(500)))).1, 1500);
    let one_after_the_other = || {
        drop(block(1000));
        drop(block(700));
    };
    assert_eq!(held_bytes_max(one_after_the_other).1, 1000);
    let (_, grown) = held_bytes_max(|| {
        let mut bytes = block(1000);
        black_box(&mut bytes).reserve_exact(1000);
    });
    assert_eq!(grown, 3000, "the old one, and the new one of 2000");
}
