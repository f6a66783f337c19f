//! Samples that were held when they were asked for, to be written to files by another thread.
//!
//! Invariant: the memory is shared with the history, which goes on and drops what it likes. Files
//! have every sample of the time that was asked for, and every event in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use vmstrobe_export::{Event, PackedBatch};

use super::{History, begin_ns, end_ns};
use crate::error::Result;
use crate::record::{FileOptions, RecordedFile, write_batches};

/// The samples of the last time, and their events.
///
/// ```no_run
/// # use std::path::Path;
/// # use std::time::Duration;
/// # use vmstrobe::FileOptions;
/// # fn dump(view: &mut vmstrobe::view::View) -> vmstrobe::Result<()> {
/// let held = view.freeze(Some(Duration::from_secs(30)));
/// let path = Path::new("dump.arrows");
/// let dump = std::thread::spawn(move || held.write(path, FileOptions::default()));
/// # drop(dump);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct HeldSamples {
    batches: Vec<Arc<PackedBatch>>,
    events: Vec<Event>,
}

impl HeldSamples {
    /// Returns the number of samples.
    pub fn samples(&self) -> usize {
        self.batches.iter().map(|batch| batch.ticks().len()).sum()
    }

    /// Returns the time from the first sample to the last.
    pub fn length(&self) -> Duration {
        let ends = self.batches.first().zip(self.batches.last());
        let ns = ends.map_or(0, |(first, last)| end_ns(last).saturating_sub(begin_ns(first)));
        Duration::from_nanos(ns)
    }

    /// Writes the samples and events into a file of the format that its name ends in, or the
    /// options say. There is a further file where the statistics change.
    ///
    /// # Errors
    /// [`Error::UnknownFormat`](crate::Error::UnknownFormat) if the name does not tell the format;
    /// if a file cannot be made or written.
    pub fn write(&self, path: &Path, options: FileOptions) -> Result<Vec<RecordedFile>> {
        let mut events = self.events.iter().peekable();
        let items = self.batches.iter().map(|batch| {
            let mut of_batch = Vec::new();
            while let Some(event) = events.next_if(|it| it.monotonic_ns <= end_ns(batch)) {
                of_batch.push(event.clone());
            }
            (of_batch, batch.unpack())
        });
        write_batches(path, options, items)
    }
}

impl History {
    /// Returns the samples of the last time, or all, with their events.
    pub(crate) fn freeze(&mut self, last: Option<Duration>) -> HeldSamples {
        self.close();
        let newest_ns = self.span().map_or(0, |(_, end_ns)| end_ns);
        let is_wanted = |at_ns: u64| {
            let age_ns = newest_ns.saturating_sub(at_ns);
            last.is_none_or(|last| u128::from(age_ns) < last.as_nanos())
        };
        let batches = self.batches.iter().filter(|batch| is_wanted(end_ns(batch)));
        let batches: Vec<Arc<PackedBatch>> = batches.cloned().collect();
        let begin_ns = batches.first().map_or(0, |batch| begin_ns(batch));
        let is_in = |event: &&Event| (begin_ns..=newest_ns).contains(&event.monotonic_ns);
        let events = self.events.iter().filter(is_in).cloned().collect();
        HeldSamples { batches, events }
    }
}

#[cfg(test)]
mod tests {
    use vmstrobe_export::EventKind;
    use vmstrobe_testing::snapshots::{laid_out, vcpu};

    use super::super::HistoryLimits;
    use super::*;
    use crate::record::{Replay, Replayed};

    #[test]
    fn what_was_held_is_a_recording() {
        let mut history = History::new(HistoryLimits::default());
        for tick in 1..=1000 {
            // Each of these samples has a layout of its own, and so is a batch.
            let rows = [(vcpu(0), Some([tick, 2, 3, 4, 0, 6])), (vcpu(1), Some([tick; 6]))];
            let rows = &rows[..if tick > 500 { 2 } else { 1 }];
            history.push(&laid_out(tick, tick, tick, rows)).expect("it is small");
        }
        for at_ms in [5, 300, 950, 2000] {
            let (kind, text) = (EventKind::Mark, at_ms.to_string());
            let wall_offset_ns = 1_000_000_000_000;
            let monotonic_ns = at_ms * 1_000_000;
            history.event(&Event { monotonic_ns, wall_offset_ns, kind, text });
        }
        let held = history.freeze(Some(Duration::from_millis(800)));
        assert_eq!((held.samples(), held.length()), (800, Duration::from_millis(799)));
        let place = tempfile::tempdir().expect("there is room");
        let path = place.path().join("dump.arrows");
        let files = held.write(&path, FileOptions::default()).expect("there is room");
        assert_eq!(files.len(), 1);
        let (mut ticks, mut marks) = (Vec::new(), Vec::new());
        let replay = Replay::open(&path).expect("it was written");
        let end = replay.run(|replayed| {
            match replayed {
                Replayed::Sample(sample) => {
                    let exits: Vec<_> =
                        sample.stat("exits").filter_map(|(_, exits)| exits.number()).collect();
                    let vcpus = if sample.tick() > 500 { 2 } else { 1 };
                    assert_eq!(exits, vec![sample.tick(); vcpus]);
                    ticks.push(sample.tick());
                }
                Replayed::Event(event) => marks.push((event.text, ticks.len())),
            }
            Ok(true)
        });
        assert!(end.is_ok());
        assert_eq!(ticks, (201..=1000).collect::<Vec<_>>());
        // Each stands before the samples of its batch; none of other times is there.
        let want = [("300".to_owned(), 99), ("950".to_owned(), 749)];
        assert_eq!(marks, want);
    }
}
