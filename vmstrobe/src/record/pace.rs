//! The pace of a replay: when each sample of a recording is due.
//!
//! Invariant: no sample is left out. A receiver that is slow makes the replay slower: what it has
//! kept waiting is not caught up in a burst.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use vmstrobe_core::Snapshot;
use vmstrobe_export::{End, Event};

use super::replay::{Replay, Replayed};
use crate::error::Result;

/// The time for which a receiver may keep the replay waiting without making it slower.
const SLOW: Duration = Duration::from_millis(1);
/// The longest wait that is asked of the system at once.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// The pace of a replay.
///
/// ```
/// use vmstrobe::Pace;
/// assert_eq!(Pace::OWN, Pace::Times(1.0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many times as fast as the samples were taken.
    Times(f64),
    /// As fast as the samples can be read and received.
    Max,
}

impl Pace {
    /// The pace at which the samples were taken.
    pub const OWN: Self = Self::Times(1.0);
}

/// A clock that says when samples are due.
#[derive(Debug)]
struct PaceClock {
    pace: Pace,
    /// The time at which the first sample was given, and its own time in ns.
    start: Option<(Instant, u64)>,
}

impl PaceClock {
    fn new(pace: Pace) -> Self {
        Self { pace, start: None }
    }

    /// Returns how long the sample of that time has to wait.
    fn wait(&mut self, at_ns: u64, now: Instant) -> Duration {
        let Pace::Times(times) = self.pace else { return Duration::ZERO };
        let (start, start_ns) = *self.start.get_or_insert((now, at_ns));
        let seconds = at_ns.saturating_sub(start_ns) as f64 * 1e-9 / times;
        // A pace of nearly 0 makes a time that no clock has.
        let due_after = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        due_after.saturating_sub(now.saturating_duration_since(start))
    }

    /// Notes that the receiver took so long, which makes later samples due later.
    fn note_receiver(&mut self, took: Duration) {
        if let Some((start, _)) = &mut self.start
            && took > SLOW
        {
            *start += took;
        }
    }
}

/// A part of a recording that is given.
#[derive(Debug)]
pub(super) enum Due {
    /// An event, which stands before the samples of its batch.
    Event(Event),
    /// A sample, whose time has come.
    Sample(Arc<Snapshot>),
}

/// Gives every sample of a recording when it is due, and each event where it stands, until the
/// recording ends, the receiver returns false, or the other end of `stop` is dropped. Returns the
/// end of the recording, if it was reached.
///
/// # Errors
/// As [`Replay::run`].
pub(super) fn run_at(
    replay: Replay,
    pace: Pace,
    stop: &Receiver<()>,
    mut give: impl FnMut(Due) -> Result<bool>,
) -> Result<Option<End>> {
    let mut clock = PaceClock::new(pace);
    replay.run(|replayed| {
        let sample = match replayed {
            Replayed::Event(event) => return give(Due::Event(event)),
            Replayed::Sample(sample) => sample,
        };
        let at_ns = sample.window().begin_ns;
        loop {
            let wait = clock.wait(at_ns, Instant::now());
            if wait.is_zero() {
                break;
            }
            if stop.recv_timeout(wait.min(WAIT_MAX)) != Err(RecvTimeoutError::Timeout) {
                return Ok(false);
            }
        }
        if stop.try_recv() != Err(TryRecvError::Empty) {
            return Ok(false);
        }
        let given = Instant::now();
        let goes_on = give(Due::Sample(Arc::new(sample)))?;
        clock.note_receiver(given.elapsed());
        Ok(goes_on)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::testing::{recording, words, words_of};
    use super::*;

    #[test]
    fn a_sample_waits_for_its_time_at_its_pace() {
        let (ms, now) = (Duration::from_millis, Instant::now());
        let mut clock = PaceClock::new(Pace::Times(2.0));
        assert_eq!(clock.wait(1_000_000, now), ms(0));
        assert_eq!(clock.wait(5_000_000, now), ms(2));
        assert_eq!(clock.wait(5_000_000, now + ms(1)), ms(1));
        assert_eq!(clock.wait(5_000_000, now + ms(3)), ms(0));
        // A slow receiver is waited for, and a quick one costs nothing.
        clock.note_receiver(ms(10));
        clock.note_receiver(Duration::from_micros(10));
        assert_eq!(clock.wait(5_000_000, now + ms(11)), ms(1));
        let mut clock = PaceClock::new(Pace::Times(1e-300));
        assert_eq!(clock.wait(0, now), ms(0));
        assert_eq!(clock.wait(u64::MAX, now), Duration::MAX);
        assert_eq!(PaceClock::new(Pace::Max).wait(u64::MAX, now), ms(0));
    }

    #[test]
    fn every_sample_is_given_until_the_end() {
        let file = recording(10, 3);
        for pace in [Pace::Max, Pace::OWN, Pace::Times(1000.0)] {
            let replay = Replay::open(file.path()).expect("it is a recording");
            let (_stop, stopped) = channel();
            let mut seen = Vec::new();
            let end = run_at(replay, pace, &stopped, |due| {
                let Due::Sample(sample) = due else { panic!("there are no events") };
                assert_eq!(words_of(&sample), words(sample.tick()));
                seen.push(sample.tick());
                Ok(true)
            });
            assert_eq!(end.expect("it is whole"), Some(End::Finished));
            assert_eq!(seen, (1..=10).collect::<Vec<_>>());
        }
    }

    #[test]
    fn it_ends_when_it_is_stopped() {
        let file = recording(10, 3);
        let replay = Replay::open(file.path()).expect("it is a recording");
        let (stop, stopped) = channel();
        let (mut stop, mut seen) = (Some(stop), 0);
        let end = run_at(replay, Pace::Times(1e-9), &stopped, |_| {
            seen += 1;
            stop = None;
            Ok(true)
        });
        assert_eq!((end.expect("it is whole"), seen), (None, 1));
    }
}
