//! The CPU time of a sampler at 1 kHz, over that of a bare loop that sleeps and reads.

use std::error::Error;
use std::num::NonZeroU64;

use rustix::thread::{
    ClockId as SleepClock, Timespec, clock_nanosleep_absolute, set_current_timer_slack,
};
use rustix::time::{ClockId, clock_gettime};
use vmstrobe_sampler::{Fanout, Timing};

use crate::pairs::Effort;
use crate::rig::{Bare, THREE, rig};
use crate::{Goal, Line};

/// The number of ticks of one side of a pair, which take a second.
const TICKS: u64 = 1000;
const PERIOD_NS: u64 = 1_000_000;
const NS_PER_S: u64 = 1_000_000_000;

pub(crate) fn sleep_1khz(name: &str, effort: Effort) -> Result<Line, Box<dyn Error>> {
    let mut rig = rig(4, THREE, Fanout::Inline)?;
    let (sampler, bare) = (&mut rig.sampler, &mut rig.bare);
    let ticks = if effort == Effort::Quick { TICKS / 10 } else { TICKS };
    let timing = Timing { ticks_max: Some(ticks), ..Timing::hz(1000.0)? };
    let per_tick_us = |cpu_ns: u64| cpu_ns as f64 / ticks as f64 / 1000.0;
    let medians = effort.pairs(
        15,
        || {
            let before_ns = cpu_ns();
            sampler.run(&timing).expect("the kernel permits a timer slack of 1 ns");
            per_tick_us(cpu_ns() - before_ns)
        },
        || {
            let before_ns = cpu_ns();
            bare_loop(bare, ticks);
            per_tick_us(cpu_ns() - before_ns)
        },
    );
    Ok(Line {
        name: name.into(),
        ours: medians.ours,
        peer: medians.peer,
        ratio: medians.ratio,
        goal: Goal::RatioAtMost(1.15),
        unit: "us",
    })
}

/// The least that a sampler can do: sleep to a time, read, and on.
fn bare_loop(bare: &mut Bare, ticks: u64) {
    at_1khz(ticks, || bare.read());
}

/// Calls `work` `times` times, at 1 kHz.
pub(crate) fn at_1khz(times: u64, mut work: impl FnMut()) {
    set_current_timer_slack(NonZeroU64::new(1)).expect("a thread may be punctual");
    let start = clock_gettime(ClockId::Monotonic);
    let start_ns = start.tv_sec as u64 * NS_PER_S + start.tv_nsec as u64;
    for tick in 1..=times {
        let deadline_ns = start_ns + tick * PERIOD_NS;
        let deadline = Timespec {
            tv_sec: (deadline_ns / NS_PER_S) as i64,
            tv_nsec: (deadline_ns % NS_PER_S) as _,
        };
        clock_nanosleep_absolute(SleepClock::Monotonic, &deadline).expect("nobody interrupts it");
        work();
    }
}

/// Returns the CPU time of this thread, in ns.
pub(crate) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * NS_PER_S + time.tv_nsec as u64
}
