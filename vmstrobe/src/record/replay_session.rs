//! A recording that is replayed as a session: its samples one after the other, at a pace.
//!
//! Invariant: no sample is lost. The thread that reads the recording waits for the receiver, and
//! ends with it.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel,
};
use std::time::Duration;

use vmstrobe_core::{Snapshot, Thread, ThreadStart};
use vmstrobe_export::{End, Event};

use super::pace::{Due, Pace, run_at};
use super::replay::Replay;
use crate::error::{Error, Result};
use crate::notice::{Notice, Notices};

/// The most samples between the reader and the receiver, ...
const QUEUE_SAMPLES_MAX: usize = 256;
/// ... but no more than so many words, ...
const QUEUE_WORDS_MAX: usize = 1 << 20;
/// ... and never less than this, so that both can work.
const QUEUE_SAMPLES_MIN: usize = 2;
/// The most events that are kept for a receiver that never takes them.
const MAX_EVENTS: usize = 10_000;

/// A sample and the events that stand before it; behind the last sample, events alone.
#[derive(Debug)]
struct Queued {
    events: Vec<Event>,
    sample: Option<Arc<Snapshot>>,
}

/// A recording that is replayed.
///
/// ```no_run
/// use std::path::Path;
/// use std::time::Duration;
/// use vmstrobe::{Pace, Replay, Tally, ThreadStart};
///
/// let replay = Replay::open(Path::new("run.arrows"))?;
/// let session = replay.start(Pace::Max, &ThreadStart::default())?;
/// let mut tally = Tally::new(session.first());
/// while let Some(sample) = session.recv(Duration::MAX) {
///     tally.add(&sample);
/// }
/// println!("{} samples", tally.samples());
/// # Ok::<(), vmstrobe::Error>(())
/// ```
#[derive(Debug)]
pub struct ReplaySession {
    path: PathBuf,
    first: Arc<Snapshot>,
    period_ns: u64,
    /// The begin of the sample that was received last, in ns.
    received_ns: Cell<u64>,
    samples: Receiver<Queued>,
    /// The events that were received and not taken.
    events: RefCell<Vec<Event>>,
    /// True once the thread was found to have no more samples, and so to be about to end.
    is_drained: Cell<bool>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<Thread<Result<Option<End>>>>,
    notices: Notices,
    /// The error that ended the thread, until it is returned.
    error: Option<Error>,
}

impl Replay {
    /// Starts to replay: the first sample is there at once, and the others follow at the pace.
    ///
    /// # Errors
    /// [`Error::NothingRecorded`] if there is no sample; [`Error::Recording`] if the recording is
    /// damaged before the first; if no thread can be had.
    pub fn start(self, pace: Pace, threads: &ThreadStart) -> Result<ReplaySession> {
        let path = self.path().to_owned();
        let period_ns = self.period_ns();
        let (stop, stopped) = channel();
        let (queue, queued) = sync_channel(1);
        let thread =
            threads.spawn("vmstrobe-replay", move || send_all(self, pace, &stopped, &queue))?;
        // The thread sends the queue before the first sample, or ends without either.
        let started = queued.recv().ok().and_then(|samples: Receiver<Queued>| {
            let Queued { events, sample } = samples.recv().ok()?;
            Some((sample?, events, samples))
        });
        let Some((first, events, samples)) = started else {
            joined(thread)?;
            return Err(Error::NothingRecorded { path });
        };
        Ok(ReplaySession {
            path,
            received_ns: Cell::new(first.window().begin_ns),
            first,
            period_ns,
            samples,
            events: RefCell::new(events),
            is_drained: Cell::new(false),
            stop: Some(stop),
            thread: Some(thread),
            notices: Notices::default(),
            error: None,
        })
    }
}

impl ReplaySession {
    /// Returns the first sample.
    pub fn first(&self) -> &Arc<Snapshot> {
        &self.first
    }

    /// Returns the time from one tick to the next, in ns; 0 if the recording does not say it.
    pub fn period_ns(&self) -> u64 {
        self.period_ns
    }

    /// Returns the begin of the sample that was received last, in ns of the `CLOCK_MONOTONIC` of
    /// the recording: the present of a replay.
    pub fn now_ns(&self) -> u64 {
        self.received_ns.get()
    }

    /// Returns the next sample, if one comes in time; at once `None` behind the last one.
    pub fn recv(&self, timeout: Duration) -> Option<Arc<Snapshot>> {
        let queued = self.samples.recv_timeout(timeout);
        self.noted(queued.map_err(|error| error == RecvTimeoutError::Disconnected))
    }

    /// Returns the next sample, if it is there.
    pub fn try_recv(&self) -> Option<Arc<Snapshot>> {
        let queued = self.samples.try_recv();
        self.noted(queued.map_err(|error| error == TryRecvError::Disconnected))
    }

    /// Takes the marks and triggers that were recorded up to the sample that was received last, or
    /// all if there are no more samples. Those that nobody takes are kept, up to 10,000.
    pub fn events(&self) -> Vec<Event> {
        let now_ns = if self.is_drained.get() { u64::MAX } else { self.received_ns.get() };
        self.events.borrow_mut().extract_if(.., |event| event.monotonic_ns <= now_ns).collect()
    }

    /// Notes the time of a sample, or that none will come.
    fn noted(&self, queued: std::result::Result<Queued, bool>) -> Option<Arc<Snapshot>> {
        match queued {
            Ok(Queued { events, sample }) => {
                let mut kept = self.events.borrow_mut();
                let room = MAX_EVENTS.saturating_sub(kept.len());
                kept.extend(events.into_iter().take(room));
                if let Some(sample) = &sample {
                    self.received_ns.set(sample.window().begin_ns);
                }
                sample
            }
            Err(is_drained) => {
                self.is_drained.set(self.is_drained.get() || is_drained);
                None
            }
        }
    }

    /// Returns true once no more samples come than are there already: the recording has ended, or
    /// is damaged, which [`ReplaySession::stop`] returns.
    pub fn is_finished(&self) -> bool {
        self.is_drained.get() || self.thread.as_ref().is_none_or(Thread::is_finished)
    }

    /// Takes the notices that have come up since the last call: that the recording is torn, once
    /// that place is reached.
    pub fn notices(&mut self) -> Vec<Notice> {
        if self.is_finished() {
            self.join();
        }
        self.notices.take()
    }

    /// Ends the replay without waiting: at most one sample more comes than is there already.
    pub fn end(&mut self) {
        self.stop = None;
    }

    /// Ends the replay. Samples that are there can still be received.
    ///
    /// # Errors
    /// [`Error::Recording`] if the recording is damaged in what was read, which is returned once.
    pub fn stop(&mut self) -> Result<()> {
        self.end();
        if self.is_finished() {
            self.join();
        }
        self.error.take().map_or(Ok(()), Err)
    }

    /// Joins the thread, which has ended or will not wait for a receiver.
    fn join(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        match joined(thread) {
            Ok(end) => end.and_then(|end| cut(&self.path, end)).into_iter().for_each(|notice| {
                self.notices.add(notice);
            }),
            Err(error) => self.error = Some(error),
        }
    }
}

impl Drop for ReplaySession {
    fn drop(&mut self) {
        self.end();
        // The thread may wait until a sample is received: then it finds that nobody will.
        drop(std::mem::replace(&mut self.samples, sync_channel(0).1));
        // It fails only if the thread panicked, and then the panic hook has said so.
        let _ = self.thread.take().map(Thread::join);
    }
}

/// Sends the queue, and then all samples and events by it. Returns the end, if it was reached.
fn send_all(
    replay: Replay,
    pace: Pace,
    stopped: &Receiver<()>,
    queue: &SyncSender<Receiver<Queued>>,
) -> Result<Option<End>> {
    let mut samples: Option<SyncSender<Queued>> = None;
    let mut events = Vec::new();
    let end = run_at(replay, pace, stopped, |due| {
        let sample = match due {
            Due::Event(event) => {
                events.push(event);
                return Ok(true);
            }
            Due::Sample(sample) => sample,
        };
        let samples = samples.get_or_insert_with(|| {
            let (samples, received) = sync_channel(queue_depth(&sample));
            // It fails only if the starter has gone, which the next send finds.
            let _ = queue.send(received);
            samples
        });
        let queued = Queued { events: std::mem::take(&mut events), sample: Some(sample) };
        Ok(samples.send(queued).is_ok())
    });
    if let Some(samples) = samples.filter(|_| !events.is_empty()) {
        // It fails only if the receiver has gone.
        let _ = samples.send(Queued { events, sample: None });
    }
    end
}

/// Returns the notice on the end of a recording, if a part was left out.
pub(crate) fn cut(path: &std::path::Path, end: End) -> Option<Notice> {
    match end {
        End::Torn { whole_bytes, cut_bytes } | End::Trailing { whole_bytes, cut_bytes } => {
            Some(Notice::CutRecording { path: path.to_owned(), whole_bytes, cut_bytes })
        }
        _ => None,
    }
}

/// Returns the result of a thread. A panic is one of this thread, too.
fn joined<T>(thread: Thread<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Returns the number of samples that may wait for the receiver.
fn queue_depth(sample: &Snapshot) -> usize {
    let affordable = QUEUE_WORDS_MAX / sample.layout().words().max(1);
    affordable.clamp(QUEUE_SAMPLES_MIN, QUEUE_SAMPLES_MAX)
}

/// Returns the period of a rate, in ns; 0 if there is none.
pub(super) fn period_ns(hz: Option<f64>) -> u64 {
    // A rate that somebody else wrote may be any number; beyond u64 the cast saturates.
    hz.filter(|hz| *hz > 0.0).map_or(0, |hz| (1e9 / hz) as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::testing::{damaged, recording, recording_with, words, words_of};
    use super::*;

    fn session(path: &std::path::Path, pace: Pace) -> ReplaySession {
        let replay = Replay::open(path).expect("it is a recording");
        replay.start(pace, &ThreadStart::default()).expect("it has samples")
    }

    fn rest(session: &ReplaySession) -> Vec<u64> {
        let samples = std::iter::from_fn(|| session.recv(Duration::from_secs(30)));
        let checked = samples.inspect(|sample| assert_eq!(words_of(sample), words(sample.tick())));
        checked.map(|sample| sample.tick()).collect()
    }

    #[test]
    fn no_sample_is_lost_however_slow_the_receiver_is() {
        let file = recording(2000, 100);
        let mut session = session(file.path(), Pace::Max);
        assert_eq!((session.first().tick(), session.period_ns()), (1, 1_000_000));
        // Longer than the queue is deep: the thread waits.
        std::thread::sleep(Duration::from_millis(20));
        assert!(!session.is_finished());
        assert_eq!(rest(&session), (2..=2000).collect::<Vec<_>>());
        session.stop().expect("it is whole");
        assert!(session.is_finished() && session.notices().is_empty());
    }

    #[test]
    fn a_replay_ends_with_its_receiver() {
        let file = recording(2000, 100);
        drop(session(file.path(), Pace::Max));
        drop(session(file.path(), Pace::Times(1e-9)));
        let mut slow = session(file.path(), Pace::Times(1e-9));
        assert!(slow.try_recv().is_none() && !slow.is_finished());
        slow.end();
        assert_eq!(rest(&slow), [0; 0]);
    }

    #[test]
    fn a_torn_tail_is_said_and_damage_is_an_error() {
        let file = recording(100, 10);
        let bytes = fs::read(file.path()).expect("it is there");
        fs::write(file.path(), &bytes[..bytes.len() - 100]).expect("there is room");
        let mut torn = session(file.path(), Pace::Max);
        assert_eq!(rest(&torn), (2..=90).collect::<Vec<_>>());
        torn.stop().expect("a torn tail is an end");
        let notices = torn.notices();
        assert!(
            matches!(notices[..], [Notice::CutRecording { cut_bytes: 1.., .. }]),
            "{notices:?}"
        );
        let file = damaged(100, 10);
        let mut damaged = session(file.path(), Pace::Max);
        assert!(rest(&damaged).len() < 99);
        let error = damaged.stop().expect_err("it is damaged");
        assert!(matches!(error, Error::Recording { .. }), "{error:?}");
        damaged.stop().expect("the error is returned once");
    }

    #[test]
    fn events_come_with_the_samples_of_their_time() {
        let event = |ms: u64, text: &str| Event {
            monotonic_ns: ms * 1_000_000,
            wall_offset_ns: 0,
            kind: vmstrobe_export::EventKind::Mark,
            text: text.to_owned(),
        };
        let marks = [event(3, "a"), event(17, "b"), event(500, "behind the end")];
        let file = recording_with(20, 10, &marks);
        let mut session = session(file.path(), Pace::Max);
        let mut seen = Vec::new();
        let mut note = |session: &ReplaySession, ms: u64| {
            seen.extend(session.events().into_iter().map(|event| (ms, event.text)));
        };
        note(&session, 1);
        while let Some(sample) = session.recv(Duration::from_secs(30)) {
            note(&session, sample.tick());
        }
        // Events alone stand behind the last sample.
        while session.recv(Duration::from_secs(30)).is_some() {}
        note(&session, 21);
        let of = |ms, text: &str| (ms, text.to_owned());
        assert_eq!(seen, [of(3, "a"), of(17, "b"), of(21, "behind the end")]);
        session.stop().expect("it is whole");
    }

    #[test]
    fn a_rate_that_somebody_wrote_gives_a_period() {
        let periods = [None, Some(f64::NAN), Some(-1.0), Some(0.0), Some(1e-300), Some(1000.0)];
        assert_eq!(periods.map(period_ns), [0, 0, 0, 0, u64::MAX, 1_000_000]);
    }
}
