//! The sample of a recording at a moment.
//!
//! Invariant: no sample is taken for that of a time at which there was none: a time before the
//! first sample or behind the last one is an error, which names the times that there are.

use std::time::Duration;

use vmstrobe_core::{Snapshot, Window};
use vmstrobe_export::{Batch, End, Item};

use super::{Replay, Replayed, pass_on};
use crate::error::{Error, Result};

/// A moment counts as that of the last sample if it is behind it by no more than this: times are
/// printed and typed in ms.
const TOLERANCE: Duration = Duration::from_millis(1);

/// A sample of a recording, by its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The last sample.
    Last,
    /// The last sample that began no later than this after the first one.
    After(Duration),
    /// The last sample that began no later than this time, in ns since 1970.
    Wall(u64),
}

impl Moment {
    /// Returns whether a sample began no later than this moment; `first` is the first sample's
    /// time.
    fn is_due(self, window: &Window, first: &Window) -> bool {
        match self {
            Self::Last => true,
            Self::After(time) => u128::from(window.begin_ns - first.begin_ns) <= time.as_nanos(),
            Self::Wall(wall_ns) => window.begin_wall_ns() <= wall_ns,
        }
    }

    /// Returns whether the moment is behind the last sample.
    fn is_beyond(self, last: &Window, first: &Window) -> bool {
        let tolerance_ns = TOLERANCE.as_nanos() as u64;
        let last = Window { begin_ns: last.begin_ns.saturating_add(tolerance_ns), ..*last };
        match self {
            Self::Last => false,
            Self::After(time) => u128::from(last.begin_ns - first.begin_ns) < time.as_nanos(),
            Self::Wall(wall_ns) => last.begin_wall_ns() < wall_ns,
        }
    }
}

impl Replay {
    /// Finds the sample of a moment. Returns it with the end of the recording, if it was read that
    /// far.
    ///
    /// # Errors
    /// [`Error::NoSampleThen`] if there is none at that time; as [`Replay::run`] for damage before
    /// it.
    pub fn find(mut self, moment: Moment) -> Result<(Snapshot, Option<End>)> {
        let mut first: Option<Window> = None;
        let mut found: Option<(Batch, usize)> = None;
        let mut is_past = false;
        while !is_past && let Some(item) = self.next_item()? {
            let Item::Batch(batch) = item else { continue };
            let first = *first.get_or_insert(batch.windows()[0]);
            let is_due = |window: &&Window| moment.is_due(window, &first);
            let due = batch.windows().iter().take_while(is_due).count();
            is_past = due < batch.windows().len();
            if due > 0 {
                found = Some((batch, due - 1));
            }
        }
        let Some(first) = first else { return Err(Error::NothingRecorded { path: self.path }) };
        let last = self.last_window();
        let is_beyond = !is_past && moment.is_beyond(&last, &first);
        let Some((batch, at)) = found.filter(|_| !is_beyond) else {
            let begin_wall_ns = first.begin_wall_ns();
            // A recording is read whole unless the moment is before its first sample.
            let length_ns = last.begin_ns - first.begin_ns;
            return Err(Error::NoSampleThen { path: self.path, begin_wall_ns, length_ns });
        };
        let mut sample = None;
        let mut number = 0;
        pass_on(&self.wanted(batch), |replayed| {
            let is_it = number == at;
            if is_it && let Replayed::Sample(it) = replayed {
                sample = Some(it);
            }
            number += 1;
            Ok(!is_it)
        })?;
        Ok((sample.expect("the batch has a sample for each window"), self.reader.end()))
    }

    /// Returns the time of the last sample that was read.
    fn last_window(&self) -> Window {
        self.last.map(|(_, window)| window).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{recording, words, words_of};
    use super::*;

    #[test]
    fn the_last_sample_at_a_time_is_found() {
        // One sample each ms, in batches of 4.
        let file = recording(10, 4);
        let found = |moment| {
            let replay = Replay::open(file.path()).expect("it is a recording");
            let (sample, end) = replay.find(moment)?;
            assert_eq!(words_of(&sample), words(sample.tick()));
            Ok::<_, Error>((sample.tick(), end))
        };
        let end = Some(End::Finished);
        assert_eq!(found(Moment::Last).expect("it has one"), (10, end));
        let after = |us| found(Moment::After(Duration::from_micros(us)));
        for (us, tick) in [(0, 1), (999, 1), (1000, 2), (3999, 4), (4000, 5)] {
            assert_eq!(after(us).expect("it has one").0, tick, "{us}");
        }
        assert_eq!(after(9000).expect("it is the last").0, 10);
        assert!(matches!(after(11_000), Err(Error::NoSampleThen { length_ns: 9_000_000, .. })));
    }
}
