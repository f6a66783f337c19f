//! The times of the ticks: absolute deadlines, one period apart.
//!
//! Sleeping to an absolute time does not drift. A deadline that has passed before its tick could
//! begin is missed: it is counted and skipped, and there is no burst of ticks to catch up.
//!
//! Invariant: ticks begin at most once a period, and never before their deadline.

use std::num::NonZeroU64;

use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute, set_current_timer_slack};
use vmstrobe_core::{Error, ErrorKind, Result};

use crate::clock;

/// The highest rate: reading one statistic alone takes a third of a µs.
pub const MAX_RATE_HZ: f64 = 1_000_000.0;
/// The lowest rate: one tick in 1000 s.
pub const MIN_RATE_HZ: f64 = 0.001;

const NS_PER_S: u64 = 1_000_000_000;
/// The longest sleep before the next check whether to stop.
const SLEEP_NS_MAX: u64 = 50_000_000;

/// The rate of sampling, and when it ends.
///
/// The CPU and the scheduling policy are those of the thread that samples: see [`Sampler::run`].
///
/// ```
/// use vmstrobe_sampler::Timing;
/// let timing = Timing { ticks_max: Some(5000), ..Timing::hz(1000.0)? };
/// assert_eq!(timing.period_ns, 1_000_000);
/// # Ok::<(), vmstrobe_core::Error>(())
/// ```
///
/// [`Sampler::run`]: crate::Sampler::run
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The time from one deadline to the next, in ns; 0 counts as 1.
    pub period_ns: u64,
    /// The number of deadlines, ticked or missed, after which the run ends; `None` for no end.
    pub ticks_max: Option<u64>,
}

impl Timing {
    /// Returns the timing of `rate_hz` ticks a second without end.
    ///
    /// # Errors
    /// `TooLarge` if the rate is not from [`MIN_RATE_HZ`] to [`MAX_RATE_HZ`].
    pub fn hz(rate_hz: f64) -> Result<Self> {
        if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz) {
            let context = format!(
                "a rate of {rate_hz} Hz cannot be sampled: use one from {MIN_RATE_HZ} Hz to \
                 {} MHz",
                MAX_RATE_HZ / 1e6
            );
            return Err(Error::new(ErrorKind::TooLarge, context));
        }
        let period_ns = (NS_PER_S as f64 / rate_hz).round() as u64;
        Ok(Self { period_ns, ticks_max: None })
    }
}

/// Makes the calling thread wake on time: sets its timer slack to 1 ns.
///
/// # Errors
/// `Io` if the kernel refuses.
pub(crate) fn make_punctual() -> Result<()> {
    // The kernel's default lets a wake-up be 50 µs late to save power.
    set_current_timer_slack(NonZeroU64::new(1))
        .map_err(|error| Error::caused(ErrorKind::Io, "cannot set the timer slack to 1 ns", error))
}

/// The deadlines of one run, and the number of them that are left.
#[derive(Debug)]
pub(crate) struct Ticker {
    period_ns: u64,
    deadline_ns: u64,
    /// The deadlines that are neither ticked nor missed yet.
    left: u64,
    /// The deadlines missed since the last tick began.
    missed: u64,
}

/// The begin of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TickBegin {
    /// The time since the deadline that was waited for.
    pub(crate) late_ns: u64,
    /// The number of deadlines that were missed between the tick before and this one.
    pub(crate) missed: u64,
}

impl Ticker {
    /// Returns the deadlines of that timing; the first is one period from `now_ns`.
    pub(crate) fn new(timing: &Timing, now_ns: u64) -> Self {
        let period_ns = timing.period_ns.max(1);
        let left = timing.ticks_max.unwrap_or(u64::MAX);
        let deadline_ns = now_ns + period_ns;
        Self { period_ns, deadline_ns, left, missed: 0 }
    }

    /// Waits for the deadline and returns the time, which is at or after it; `None` if `stopped`.
    pub(crate) fn wait(&self, stopped: impl Fn() -> bool) -> Option<u64> {
        loop {
            if stopped() {
                return None;
            }
            let now_ns = clock::now_ns();
            if now_ns >= self.deadline_ns {
                return Some(now_ns);
            }
            sleep_until(self.deadline_ns.min(now_ns + SLEEP_NS_MAX));
        }
    }

    /// Begins the tick of the last deadline that has passed. The deadlines before it that passed
    /// during the sleep are missed, as are those that passed in the tick before.
    pub(crate) fn begin(&mut self, now_ns: u64) -> TickBegin {
        let late_ns = now_ns.saturating_sub(self.deadline_ns);
        self.left -= 1;
        self.miss(late_ns / self.period_ns);
        TickBegin { late_ns, missed: std::mem::take(&mut self.missed) }
    }

    /// Ends a tick: the next deadline is the first that has not passed at `now_ns`.
    pub(crate) fn end(&mut self, now_ns: u64) {
        self.deadline_ns += self.period_ns;
        if now_ns >= self.deadline_ns {
            self.miss((now_ns - self.deadline_ns) / self.period_ns + 1);
        }
    }

    fn miss(&mut self, deadlines: u64) {
        self.deadline_ns += deadlines * self.period_ns;
        let missed = deadlines.min(self.left);
        self.left -= missed;
        self.missed += missed;
    }

    /// Returns true once every deadline was ticked or missed.
    pub(crate) fn is_over(&self) -> bool {
        self.left == 0
    }

    /// Returns the number of deadlines missed since the last tick began.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }
}

fn sleep_until(time_ns: u64) {
    let time = Timespec {
        tv_sec: (time_ns / NS_PER_S) as i64,
        // It is below 10^9, so it fits into the type of any platform.
        tv_nsec: (time_ns % NS_PER_S) as _,
    };
    // A signal ends the sleep early; the caller reads the clock again.
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &time);
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn ticker(period_ns: u64, ticks_max: Option<u64>) -> Ticker {
        let timing = Timing { period_ns, ticks_max };
        Ticker::new(&timing, 0)
    }

    #[test]
    fn passed_deadlines_are_missed_and_not_caught_up() {
        let mut ticker = ticker(1_000_000, None);
        for (end_ns, missed, deadline_ns) in [
            (1_000_100, 0, 2_000_000),
            (2_999_999, 0, 3_000_000),
            // The deadline at 4 ms has passed already.
            (4_000_000, 1, 5_000_000),
            (15_500_000, 10, 16_000_000),
        ] {
            let begun = ticker.begin(ticker.deadline_ns);
            assert_eq!(begun.late_ns, 0);
            ticker.end(end_ns);
            assert_eq!((ticker.missed(), ticker.deadline_ns), (missed, deadline_ns));
        }
    }

    #[test]
    fn deadlines_that_pass_in_the_sleep_are_missed_before_the_tick() {
        let mut ticker = ticker(1_000_000, Some(5000));
        let begin = |ticker: &mut Ticker, now_ns| {
            let TickBegin { late_ns, missed } = ticker.begin(now_ns);
            ticker.end(now_ns + 10_000);
            (late_ns, missed)
        };
        assert_eq!(begin(&mut ticker, 1_000_100), (100, 0));
        // After a stop of 4 s the tick is that of the deadline at 4,002 ms.
        assert_eq!(begin(&mut ticker, 4_002_300_000), (4_000_300_000, 4000));
        assert_eq!((ticker.missed(), ticker.deadline_ns), (0, 4_003_000_000));
        assert_eq!(begin(&mut ticker, 4_003_000_100), (100, 0));
        // No more deadlines are missed than are left.
        assert_eq!(begin(&mut ticker, 9_000_000_000), (4_996_000_000, 5000 - 4003 - 1));
        assert!(ticker.is_over());
    }

    #[test]
    fn ticks_and_misses_are_all_deadlines() {
        let mut ticker = ticker(7, None);
        let (mut now_ns, mut number) = (7, 0);
        for step in (1..50).cycle().take(1000) {
            now_ns = ticker.deadline_ns.max(now_ns + step % 23);
            number += 1 + ticker.begin(now_ns).missed;
            assert_eq!(number, now_ns / 7, "a tick has the number of its deadline");
            now_ns += step % 11;
            ticker.end(now_ns);
            assert!(ticker.deadline_ns > now_ns);
        }
        assert_eq!((number + ticker.missed() + 1) * 7, ticker.deadline_ns);
        assert_eq!(ticker.left, u64::MAX - number - ticker.missed());
    }

    #[test]
    fn a_wait_ends_at_or_after_the_deadline() {
        let ticker = Ticker::new(&Timing::hz(500.0).expect("500 Hz is a rate"), clock::now_ns());
        let now_ns = ticker.wait(|| false).expect("the wait is not stopped");
        assert!(now_ns >= ticker.deadline_ns);
    }

    #[test]
    fn a_wait_ends_without_a_time_once_it_is_stopped() {
        let timing = Timing::hz(MIN_RATE_HZ).expect("the lowest rate is a rate");
        let ticker = Ticker::new(&timing, clock::now_ns());
        let looks = Cell::new(0);
        let stopped = || looks.replace(looks.get() + 1) == 2;
        assert_eq!(ticker.wait(stopped), None);
    }

    #[test]
    fn rates_out_of_bounds_are_refused() {
        for rate_hz in [0.0, -1.0, 1e12, 0.0009, f64::NAN, f64::INFINITY] {
            let error = Timing::hz(rate_hz).expect_err("the rate is out of bounds");
            assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
        }
        assert!(Timing::hz(MAX_RATE_HZ).is_ok() && Timing::hz(MIN_RATE_HZ).is_ok());
    }
}
