//! The two clocks of a window.
//!
//! Invariant: a time is in ns of `CLOCK_MONOTONIC`; the wall clock is an offset to it.

use rustix::time::{ClockId, clock_gettime};

const NS_PER_S: i64 = 1_000_000_000;

/// Returns the time now in ns of `CLOCK_MONOTONIC`, as a snapshot's window has it.
#[inline]
pub fn now_ns() -> u64 {
    // The monotonic clock starts at 0 with the machine, so it is never negative.
    read_ns(ClockId::Monotonic) as u64
}

/// Returns the number to add to a monotonic time to get ns since 1970.
pub(crate) fn wall_offset_ns() -> i64 {
    read_ns(ClockId::Realtime) - read_ns(ClockId::Monotonic)
}

fn read_ns(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * NS_PER_S + now.tv_nsec
}
