//! Counted allocations: a tick and its readers make none, and parsers hold no more than their
//! limits.
//!
//! The allocator counts the calls, frees included, of the threads that take part while a count is
//! on. A thread may also measure the most bytes that it holds at once. The tests in `count` check
//! both measurements. The harness's own threads take no part, so other tests may run meanwhile.

mod alloc {
    mod count;
    mod limits;
    mod ticks;
    mod kernel;
    mod tables;
    mod queries;
    mod recordings;
    mod replay;
}

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// True while the events of the participating threads are counted.
static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static REALLOCATED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Constant and without a destructor: an allocator may touch them at any time.
    static TAKES_PART: Cell<bool> = const { Cell::new(false) };
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
    static HELD_BYTES_MAX: Cell<i64> = const { Cell::new(0) };
}

/// The system's allocator, which counts the calls.
struct Counting;

// SAFETY: `GlobalAlloc` asks that blocks fit their layout, stay until they are freed, and that no
// method unwinds. Every method hands its arguments to `System`, which keeps all that, and returns
// what that gave. `note` and `hold` touch atomics and thread-locals that need no allocation, and
// cannot panic.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller gives a layout of non-zero size, as `System.alloc` wants it.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(&ALLOCATED);
        hold(layout.size() as i64);
        // SAFETY: the same layout, under the same promise.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller gives a block that came from here with this layout.
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        note(&FREED);
        hold(-(layout.size() as i64));
        // SAFETY: what came from here came from `System`, with the same layout.
        unsafe { System.dealloc(block, layout) }
    }

    // SAFETY: as for `dealloc`, and `size` is not 0 and does not overflow when it is rounded up.
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(&REALLOCATED);
        // For a moment there may be both.
        hold(size as i64);
        hold(-(layout.size() as i64));
        // SAFETY: what came from here came from `System`, with the same layout; and the same size.
        unsafe { System.realloc(block, layout, size) }
    }
}

fn note(events: &AtomicU64) {
    // A thread that is ending has no more thread-locals, and takes no part.
    if COUNTING.load(SeqCst) && TAKES_PART.try_with(Cell::get).unwrap_or(false) {
        events.fetch_add(1, SeqCst);
    }
}

fn hold(bytes: i64) {
    let _ = HELD_BYTES.try_with(|held| {
        held.set(held.get() + bytes);
        HELD_BYTES_MAX.with(|max| max.set(max.get().max(held.get())));
    });
}
