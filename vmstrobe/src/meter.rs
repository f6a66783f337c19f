//! The measuring of intervals: which sample ends one, when the last is due, and when it will not
//! come in time.
//!
//! Invariant: every interval lies between two samples. The last sample begins at or behind the end;
//! if the next tick is too late for that, one is taken on purpose. A [`Meter`] makes pure
//! decisions: it is given samples and times, and reads neither a clock nor a session.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vmstrobe_core::Snapshot;
use vmstrobe_sampler::now_ns;

use crate::error::Result;
use crate::session::Session;
use crate::tally::Tally;

/// The wait for a sample behind the end before one is taken on purpose, if the next one is due by
/// then, in ns.
const PATIENCE_NS: u64 = 50_000_000;
/// The time for which [`measure`] waits for a sample before it looks for the end.
const SAMPLE_WAIT: Duration = Duration::from_millis(50);

/// Measures intervals of a session.
#[derive(Debug)]
pub struct Meter {
    tally: Tally,
    start_ns: u64,
    /// The first sample that begins at or behind this is the last.
    end_ns: u64,
    interval_ns: Option<u64>,
    /// The first sample that begins at or behind this ends the interval.
    interval_end_ns: u64,
    patience_ns: u64,
}

/// The result of adding a sample to a [`Meter`].
#[derive(Debug, Default)]
pub struct Added {
    /// The interval that it ended; the next one has begun with it.
    pub interval: Option<Tally>,
    /// True if it is the last: it began at or behind the end.
    pub is_last: bool,
}

impl Meter {
    /// Returns a meter that begins with this sample. `period_ns` is from tick to tick. Without a
    /// `duration` it ends by [`Meter::end_at`]; without an `interval` it is all one interval.
    pub fn new(
        first: &Arc<Snapshot>,
        period_ns: u64,
        duration: Option<Duration>,
        interval: Option<Duration>,
    ) -> Self {
        let start_ns = first.window().begin_ns;
        let after = |time: Option<Duration>| {
            let time_ns = time.map_or(u64::MAX, |time| time.as_nanos() as u64);
            start_ns.saturating_add(time_ns)
        };
        Self {
            tally: Tally::new(first),
            start_ns,
            end_ns: after(duration),
            interval_ns: interval.map(|interval| interval.as_nanos() as u64),
            interval_end_ns: after(interval),
            patience_ns: if period_ns < PATIENCE_NS / 2 { PATIENCE_NS } else { 0 },
        }
    }

    /// Returns when the first sample began, in ns of `CLOCK_MONOTONIC`.
    pub fn start_ns(&self) -> u64 {
        self.start_ns
    }

    /// Returns the interval that has begun.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Adds a sample.
    pub fn add(&mut self, sample: &Arc<Snapshot>) -> Added {
        self.tally.add(sample);
        let begin_ns = sample.window().begin_ns;
        let interval_ns = self.interval_ns.filter(|_| begin_ns >= self.interval_end_ns);
        let interval = interval_ns.map(|interval_ns| {
            // An interval without a sample of its own is not made up.
            let passed = (begin_ns - self.interval_end_ns) / interval_ns + 1;
            self.interval_end_ns += passed * interval_ns;
            self.take_tally()
        });
        Added { interval, is_last: begin_ns >= self.end_ns }
    }

    /// Ends the measurement at that time at the latest, in ns of `CLOCK_MONOTONIC`.
    pub fn end_at(&mut self, now_ns: u64) {
        self.end_ns = self.end_ns.min(now_ns);
    }

    /// Makes one interval of all that is still to come, so that nobody waits for reports of what is
    /// queued behind the end.
    pub fn join_intervals(&mut self) {
        self.interval_ns = None;
    }

    /// Takes the interval that has begun, and begins the next.
    pub fn take_tally(&mut self) -> Tally {
        let next = self.tally.next();
        std::mem::replace(&mut self.tally, next)
    }

    /// Returns true if the next sample would come too late, so that one is to be taken on purpose.
    ///
    /// Once the end is well behind, what is still queued is one interval, as by
    /// [`Meter::join_intervals`].
    pub fn must_sample(&mut self, now_ns: u64) -> bool {
        if now_ns > self.end_ns.saturating_add(PATIENCE_NS) {
            self.interval_ns = None;
        }
        now_ns > self.end_ns.saturating_add(self.patience_ns)
    }
}

/// The result of [`measure`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Measured {
    /// All that changed from the last sample before the work to the first behind it.
    pub tally: Tally,
    /// Samples that came faster than they could be taken.
    pub lost_samples: u64,
    /// The session, which has been stopped if its next tick would have been too late.
    pub session: Session,
}

/// Does some work, and measures what happens meanwhile. The work runs on this thread; samples are
/// taken off the queue by another one.
///
/// ```no_run
/// let session = vmstrobe::attach(4711)?.sample("vcpu: exits, halt_exits", 1000.0)?;
/// let (sum, measured) = vmstrobe::measure(session, || (0..1_000_000_u64).sum::<u64>())?;
/// for stat in measured.tally.stats(false) {
///     println!("{} {} during {sum}", stat.desc().name, stat.amount.total());
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
///
/// # Errors
/// If the sampler fails, or no thread can be had.
///
/// # Panics
/// If the work does.
pub fn measure<T>(session: Session, work: impl FnOnce() -> T) -> Result<(T, Measured)> {
    let end_ns = Arc::new(AtomicU64::new(u64::MAX));
    let collected = Arc::clone(&end_ns);
    let threads = session.threads().clone();
    let collector = threads.spawn("vmstrobe-measure", move || collect(session, &collected))?;
    // Dropped also if the work panics, so that the collector ends.
    let ending = Ending(end_ns);
    let value = work();
    drop(ending);
    let measured = collector.join().unwrap_or_else(|panic| resume_unwind(panic))?;
    Ok((value, measured))
}

/// Sets the end of a measurement to the time at which it is dropped.
struct Ending(Arc<AtomicU64>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Relaxed: nothing but the time is read by it.
        self.0.store(now_ns(), Ordering::Relaxed);
    }
}

/// Takes samples until one begins behind the end.
fn collect(mut session: Session, end_ns: &AtomicU64) -> Result<Measured> {
    let begin = session.control().latest().load_full();
    let lost_before = session.lost_samples();
    let mut meter = Meter::new(&begin, session.period_ns(), None, None);
    let measured = |meter: Meter, session: Session| {
        let lost_samples = session.lost_samples() - lost_before;
        Ok(Measured { tally: meter.tally, lost_samples, session })
    };
    loop {
        let finished = session.is_finished();
        let sample = session.recv(SAMPLE_WAIT);
        meter.end_at(end_ns.load(Ordering::Relaxed));
        match sample {
            // It was queued before the work began.
            Some(sample) if sample.tick() <= begin.tick() => {}
            Some(sample) if meter.add(&sample).is_last => return measured(meter, session),
            Some(_) => {}
            None if finished || meter.must_sample(now_ns()) => {
                session.stop()?.tick();
                while let Some(sample) = session.try_recv() {
                    meter.add(&sample);
                }
                return measured(meter, session);
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
