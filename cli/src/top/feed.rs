//! The samples that a view takes: of a session that samples, or of a recording.
//!
//! Invariant: samples are taken in bursts, far less often than they are made, but before the queue
//! of a session is full; so that sampling wakes nobody. A recording is read ahead, and its samples
//! are taken for a part of the time only, so that keys are not kept waiting.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use vmstrobe::export::{End, Event};
use vmstrobe::view::View;
use vmstrobe::{Desc, Pace, Replay, Replayed, Schema, Session, Snapshot, Thread, ThreadStart};

use crate::error::Result;
use crate::messages::of_notices;

/// The longest time between two looks for samples.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// The samples that may wait between two looks. A session's queue is never shorter than 32.
const WAITING_MAX: u64 = 24;
/// The longest time for which samples are taken in one go.
const TAKE_LIMIT: Duration = Duration::from_millis(15);
/// The samples and events of a recording that are read ahead.
const AHEAD_MAX: usize = 256;

/// The source of the samples.
#[derive(Debug)]
pub(super) enum Feed {
    Session(Box<Session>),
    Recording(Recording),
}

/// A recording that is read by a thread.
#[derive(Debug)]
pub(super) struct Recording {
    items: Receiver<Item>,
    thread: Option<Thread<vmstrobe::Result<Option<End>>>>,
    pace: Pace,
    schemas: Vec<Arc<Schema>>,
    /// The time up to which it was played.
    played: Instant,
}

#[derive(Debug)]
enum Item {
    Sample(Arc<Snapshot>),
    Event(Event),
}

impl Recording {
    /// Starts to read a recording.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(replay: Replay, pace: Pace, threads: &ThreadStart) -> Result<Self> {
        let schemas = replay.schemas();
        let (items, received) = sync_channel(AHEAD_MAX);
        let thread = threads.spawn("vmstrobe-replay", move || {
            replay.run(|replayed| {
                let item = match replayed {
                    Replayed::Sample(sample) => Item::Sample(Arc::new(sample)),
                    Replayed::Event(event) => Item::Event(event),
                    _ => return Ok(true),
                };
                Ok(items.send(item).is_ok())
            })
        })?;
        let (thread, played) = (Some(thread), Instant::now());
        Ok(Self { items: received, thread, pace, schemas, played })
    }

    fn take(&mut self, view: &mut View) -> Result<bool> {
        let (began, mut has_taken) = (Instant::now(), false);
        while began.elapsed() < TAKE_LIMIT {
            match self.items.try_recv() {
                Ok(Item::Sample(sample)) => view.take(&sample)?,
                Ok(Item::Event(event)) => view.take_event(&event),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    view.end();
                    self.join()?;
                    break;
                }
            }
            has_taken = true;
        }
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.played);
        self.played = now;
        match self.pace {
            Pace::Times(times) => view.advance(passed.mul_f64(times.min(1e6))),
            Pace::Max => view.advance(Duration::from_secs(1 << 32)),
        }
        Ok(has_taken)
    }

    /// Takes the end of the thread.
    fn join(&mut self) -> Result<()> {
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    }
}

impl Feed {
    /// Takes what there is. Returns true if there was anything.
    ///
    /// # Errors
    /// If a sample is beyond the limits, the sampler failed, or the recording is damaged.
    pub(super) fn take(&mut self, view: &mut View) -> Result<bool> {
        match self {
            Self::Recording(recording) => recording.take(view),
            Self::Session(session) => {
                let is_finished = session.is_finished();
                let (began, mut has_taken) = (Instant::now(), false);
                while let Some(sample) = session.try_recv() {
                    view.take(&sample)?;
                    has_taken = true;
                    if began.elapsed() > TAKE_LIMIT {
                        return Ok(true);
                    }
                }
                if is_finished || session.has_ended() {
                    view.end();
                }
                Ok(has_taken)
            }
        }
    }

    /// Returns the time until samples must be taken again.
    pub(super) fn look_period(&self) -> Duration {
        match self {
            Self::Recording(_) => LOOK_PERIOD,
            Self::Session(session) => {
                let fills_in = session.period_ns().saturating_mul(WAITING_MAX);
                Duration::from_nanos(fills_in).clamp(Duration::from_millis(1), LOOK_PERIOD)
            }
        }
    }

    /// Returns what has happened since the last call: members that have ended, and notices.
    pub(super) fn news(&mut self) -> Vec<String> {
        let Self::Session(session) = self else { return Vec::new() };
        let mut news = of_notices(session.notices());
        news.extend(session.newly_ended().iter().map(|vm| format!("{} has ended", vm.title)));
        news
    }

    /// Samples at another rate.
    ///
    /// # Errors
    /// If the rate is out of bounds, or it is a recording.
    pub(super) fn set_rate(&mut self, rate_hz: f64) -> std::result::Result<(), String> {
        match self {
            Self::Session(session) => session.set_rate(rate_hz).map_err(|error| error.to_string()),
            Self::Recording(_) => Err("a recording has the rate that it was made at".to_owned()),
        }
    }

    /// Returns the statistics that there are.
    pub(super) fn descs(&self) -> Vec<Desc> {
        match self {
            Self::Recording(recording) => {
                recording.schemas.iter().flat_map(|schema| schema.descs()).cloned().collect()
            }
            Self::Session(session) => {
                let newest = session.control().latest().load_full();
                let plans = newest.layout().groups().iter().map(|group| &group.plan);
                let descs = plans.flat_map(|plan| {
                    plan.columns().iter().map(|column| plan.schema().descs()[column.desc].clone())
                });
                descs.collect()
            }
        }
    }
}

/// Returns the name of a recording without its directory.
pub(super) fn name_of(recording: &Path) -> String {
    recording.file_name().unwrap_or(recording.as_os_str()).to_string_lossy().into_owned()
}
