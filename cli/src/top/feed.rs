//! The samples that a view takes: of a session that samples, or of a recording.
//!
//! Invariant: samples are taken in bursts, far less often than they are made, but before the queue
//! of a session is full; so that sampling wakes nobody.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe::view::{Loader, View};
use vmstrobe::{Desc, Pace, Replay, Schema, Session, ThreadStart};

use crate::error::Result;
use crate::messages::of_notices;

/// The longest time between two looks for samples.
const LOOK_PERIOD: Duration = Duration::from_millis(25);
/// The samples that may wait between two looks. A session's queue is never shorter than 32.
const WAITING_MAX: u64 = 24;
/// The longest time for which samples are taken in one go.
const TAKE_LIMIT: Duration = Duration::from_millis(15);
/// A time that no recording is longer than: a step to its end.
const ALL: Duration = Duration::from_secs(1 << 32);

/// The source of the samples.
#[derive(Debug)]
pub(super) enum Feed {
    Session(Box<Session>),
    Recording(Box<Recording>),
}

/// A recording that is loaded, and played.
#[derive(Debug)]
pub(super) struct Recording {
    loader: Loader,
    pace: Pace,
    schemas: Vec<Arc<Schema>>,
    /// The time at which it was played on last.
    played: Instant,
    has_ended: bool,
}

impl Recording {
    /// Starts to load a recording into a view. The first samples are there at once.
    ///
    /// # Errors
    /// If it has no sample, or is damaged before the first.
    pub(super) fn start(
        replay: Replay,
        pace: Pace,
        threads: &ThreadStart,
        view: &mut View,
    ) -> Result<Self> {
        let schemas = replay.schemas();
        let mut loader = Loader::start(replay, threads)?;
        let has_ended = loader.feed(view)?;
        Ok(Self { loader, pace, schemas, played: Instant::now(), has_ended })
    }

    fn take(&mut self, view: &mut View) -> Result<()> {
        if !self.has_ended {
            self.has_ended = self.loader.feed(view)?;
        }
        let now = Instant::now();
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.played, now));
        view.advance(match self.pace {
            Pace::Times(times) => passed.mul_f64(times),
            Pace::Max => ALL,
        });
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
            // It may have been played on.
            Self::Recording(recording) => recording.take(view).map(|()| true),
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
        let session = match self {
            Self::Session(session) => session,
            Self::Recording(recording) => return of_notices(recording.loader.notices()),
        };
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
