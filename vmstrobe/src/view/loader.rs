//! The samples of a recording, read ahead by a thread while a view shows the first of them.
//!
//! Invariant: the samples around the moment that is shown are held, and no more than the limits of
//! the view; the thread waits for room, and ends with the loader. What could be read of a damaged
//! recording is shown.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use vmstrobe_core::{Thread, ThreadStart};
use vmstrobe_export::{End, Event, Item, Metadata, PackedBatch};

use super::View;
use crate::error::{Error, Result};
use crate::notice::{Notice, Notices};
use crate::record::{Replay, cut};

/// The items between the thread and the view.
const QUEUE_ITEMS: usize = 64;
/// The most ticks of a packed batch. Reading one value takes time in proportion to them.
const BATCH_TICKS: usize = 256;

/// A recording that is loaded into a [`View`].
///
/// ```no_run
/// use std::path::Path;
/// use std::time::{Duration, Instant};
/// use vmstrobe::view::{Loader, Request, View, ViewOptions};
/// use vmstrobe::{Replay, ThreadStart};
///
/// let replay = Replay::open(Path::new("run.arrows"))?;
/// let mut loader = Loader::start(replay, &ThreadStart::default())?;
/// let mut view = View::of_recording(ViewOptions::default());
/// let mut drawn = Instant::now();
/// while !loader.feed(&mut view)? {
///     view.advance(drawn.elapsed());
///     drawn = Instant::now();
///     println!("{:?}", view.frame(&Request::default()).moment);
///     std::thread::sleep(Duration::from_millis(100));
/// }
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct Loader {
    path: PathBuf,
    metadata: Metadata,
    items: Receiver<Loaded>,
    thread: Option<Thread<Result<Option<End>>>>,
    /// Items that were received, and not yet given to a view.
    waiting: VecDeque<Loaded>,
    notices: Notices,
}

#[derive(Debug)]
enum Loaded {
    Batch(Arc<PackedBatch>),
    Event(Event),
}

impl Loader {
    /// Starts to read a recording. The first samples are there at once.
    ///
    /// # Errors
    /// [`Error::NothingRecorded`] if there is no sample; [`Error::Recording`] if the recording is
    /// damaged before the first; if no thread can be had.
    pub fn start(replay: Replay, threads: &ThreadStart) -> Result<Self> {
        let (path, metadata) = (replay.path().to_owned(), replay.metadata().clone());
        let (send, items) = sync_channel(QUEUE_ITEMS);
        let thread = threads.spawn("vmstrobe-replay", move || {
            let mut before: Option<Arc<PackedBatch>> = None;
            // Sending fails only if the loader has been dropped.
            replay.run_batches(|item| match item {
                Item::Event(event) => Ok(send.send(Loaded::Event(event)).is_ok()),
                Item::Batch(batch) => {
                    let ticks = batch.ticks().len();
                    let mut starts = (0..ticks).step_by(BATCH_TICKS);
                    Ok(starts.all(|start| {
                        let part = batch.part(start..ticks.min(start + BATCH_TICKS));
                        let packed = Arc::new(PackedBatch::new(&part, before.as_deref()));
                        before = Some(Arc::clone(&packed));
                        send.send(Loaded::Batch(packed)).is_ok()
                    }))
                }
            })
        })?;
        let mut waiting = VecDeque::new();
        while !matches!(waiting.back(), Some(Loaded::Batch(_)))
            && let Ok(item) = items.recv()
        {
            waiting.push_back(item);
        }
        let has_samples = matches!(waiting.back(), Some(Loaded::Batch(_)));
        let (thread, notices) = (Some(thread), Notices::default());
        let mut loader = Self { path, metadata, items, thread, waiting, notices };
        if !has_samples {
            loader.join()?;
            return Err(Error::NothingRecorded { path: loader.path.clone() });
        }
        Ok(loader)
    }

    /// Returns the circumstances of the recording.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Gives a view what was read, as far as it has room for it. Returns true once all of the
    /// recording is there, or was.
    ///
    /// # Errors
    /// [`Error::Recording`] at the first damaged place, which is returned once; all that stands
    /// before it is in the view.
    pub fn feed(&mut self, view: &mut View) -> Result<bool> {
        loop {
            let item = self.waiting.pop_front().map_or_else(|| self.items.try_recv(), Ok);
            match item {
                Ok(Loaded::Event(event)) => view.take_event(&event),
                Ok(Loaded::Batch(batch)) if view.has_room(&batch) => view.take_batch(batch),
                Ok(batch) => {
                    self.waiting.push_front(batch);
                    return Ok(false);
                }
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => {
                    view.end();
                    self.join()?;
                    return Ok(true);
                }
            }
        }
    }

    /// Takes the notices that have come up since the last call: that the recording is torn, once
    /// that place is reached.
    pub fn notices(&mut self) -> Vec<Notice> {
        self.notices.take()
    }

    /// Joins the thread, which has ended or will not wait for a receiver.
    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let end = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let notice = end.and_then(|end| cut(&self.path, end));
        notice.into_iter().for_each(|notice| self.notices.add(notice));
        Ok(())
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The thread may wait until an item is received: then it finds that nobody will.
        drop(std::mem::replace(&mut self.items, sync_channel(0).1));
        // It fails only if the thread panicked, and then the panic hook has said so.
        let _ = self.thread.take().map(Thread::join);
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use vmstrobe_testing::snapshots::{snapshot, vcpu};

    use super::super::testing::ALL;
    use super::super::{Action, Cell, Moment, TimeStep, ViewOptions};
    use super::*;
    use crate::history::HistoryLimits;
    use crate::record::testing::{damaged, recording, recording_of};
    use crate::report::{Report, ReportOptions};

    fn start(path: &std::path::Path) -> Loader {
        let replay = Replay::open(path).expect("it is a recording");
        Loader::start(replay, &ThreadStart::default()).expect("it has samples")
    }

    fn feed_all(loader: &mut Loader, view: &mut View) {
        let begin = Instant::now();
        while !loader.feed(view).expect("it is whole") {
            assert!(begin.elapsed() < Duration::from_secs(30), "the recording is read");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn limits(bytes: usize) -> ViewOptions {
        let limits = HistoryLimits { time: Duration::MAX, bytes };
        ViewOptions { limits, ..ViewOptions::default() }
    }

    #[test]
    fn the_ticks_of_a_recording_are_any_numbers_that_ascend() {
        let rows = [(vcpu(0), Some([7; 6]))];
        let samples = [(0, 1), (u64::MAX, 2)].map(|(tick, ms)| snapshot(tick, ms, &rows));
        let file = recording_of(samples.into_iter(), 2);
        let (mut loader, mut view) = (start(file.path()), View::of_recording(limits(1 << 20)));
        feed_all(&mut loader, &mut view);
        view.advance(Duration::from_secs(1));
        let frame = view.frame(&ALL);
        assert_eq!(frame.header.lost_samples, u64::MAX - 1);
        assert_eq!((frame.ring.begin_ns, frame.ring.at_ns), (1_000_000, 2_000_000));
        let report = Report::of_file(file.path(), ReportOptions::default()).expect("it is whole");
        assert_eq!((report.tally.samples(), report.tally.ticks()), (1, u64::MAX));
    }

    #[test]
    fn a_recording_is_played_forwards_and_back() {
        let file = recording(3000, 700);
        let mut loader = start(file.path());
        let mut view = View::of_recording(limits(1 << 20));
        let is_all = loader.feed(&mut view).expect("it is whole");
        let at_ms = |view: &mut View| {
            let frame = view.frame(&ALL);
            assert!(matches!(frame.moment, Moment::Back { is_oldest: false, .. }));
            frame.ring.at_ns / 1_000_000
        };
        assert_eq!(at_ms(&mut view), 1, "the first sample is shown at once");
        if !is_all {
            feed_all(&mut loader, &mut view);
        }
        view.advance(Duration::from_millis(2000));
        assert_eq!(at_ms(&mut view), 2001);
        let exits = |view: &mut View| view.frame(&ALL).rows[1].cells[0];
        assert_eq!(exits(&mut view), Cell::Number(10_000.0));
        view.act(Action::Time(TimeStep::By(-500_000_000)));
        view.act(Action::Pause);
        view.advance(Duration::from_secs(5));
        assert_eq!(at_ms(&mut view), 1501, "it is paused");
        view.act(Action::Pause);
        view.advance(Duration::from_secs(5));
        assert_eq!(at_ms(&mut view), 3000, "there is no later sample");
        let frame = view.frame(&ALL);
        assert!(frame.header.has_ended && frame.header.lost_samples == 0);
        assert!(loader.notices().is_empty() && loader.feed(&mut view).expect("it has ended"));
    }

    #[test]
    fn what_is_near_the_moment_is_held_within_the_limits() {
        let file = recording(20_000, 100);
        let mut loader = start(file.path());
        let bytes = 100_000;
        let mut view = View::of_recording(limits(bytes));
        let begin = Instant::now();
        let mut at_ns = 0;
        while !loader.feed(&mut view).expect("it is whole") {
            assert!(begin.elapsed() < Duration::from_secs(30), "the recording is read");
            let ring = view.frame(&ALL).ring;
            assert!(ring.bytes <= bytes && ring.begin_ns <= at_ns.max(1_000_000));
            at_ns = ring.at_ns;
            view.advance(Duration::from_millis(20));
        }
        assert_eq!(view.frame(&ALL).ring.end_ns, 20_000_000_000);
    }

    #[test]
    fn a_torn_tail_is_said_and_damage_is_an_error() {
        let file = recording(100, 10);
        let bytes = std::fs::read(file.path()).expect("it is there");
        std::fs::write(file.path(), &bytes[..bytes.len() - 100]).expect("there is room");
        let (mut loader, mut view) = (start(file.path()), View::of_recording(limits(1 << 20)));
        feed_all(&mut loader, &mut view);
        let notices = loader.notices();
        assert!(matches!(notices[..], [Notice::CutRecording { .. }]), "{notices:?}");
        let file = damaged(100, 10);
        let (mut loader, mut view) = (start(file.path()), View::of_recording(limits(1 << 20)));
        let begin = Instant::now();
        let error = loop {
            assert!(begin.elapsed() < Duration::from_secs(30), "the damage is reached");
            match loader.feed(&mut view) {
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Recording { .. }), "{error:?}");
        assert!(view.frame(&ALL).ring.end_ns > 0, "what stands before it is shown");
        assert!(loader.feed(&mut view).expect("the error is returned once"));
        drop(start(file.path()));
    }
}
