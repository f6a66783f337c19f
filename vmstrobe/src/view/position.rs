//! The moment that a view shows: the newest sample, one of the past, or one that moves on as a
//! recording is played.
//!
//! Invariant: the moment is a sample that is held. One that is no longer held is replaced by the
//! oldest that is.

use std::time::Duration;

use super::action::TimeStep;
use crate::history::{History, Place};

/// The moment that is shown.
#[derive(Debug)]
pub(super) struct Position {
    /// The time; `None` for the newest sample.
    at_ns: Option<u64>,
    /// True if samples come from a recording, which is played, and not from a session.
    pub(super) is_recording: bool,
    /// True while a recording is played.
    pub(super) is_playing: bool,
}

/// The moment, and what it is in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) place: Place,
    pub(super) at_ns: u64,
    /// True if it is the newest sample of a session, and moves with it.
    pub(super) is_live: bool,
    /// True if the wanted moment is no longer held.
    pub(super) is_oldest: bool,
}

impl Position {
    /// Begins with the newest sample of a session.
    pub(super) fn live() -> Self {
        Self { at_ns: None, is_recording: false, is_playing: false }
    }

    /// Begins with the oldest sample of a recording, which is played.
    pub(super) fn played() -> Self {
        Self { at_ns: Some(0), is_recording: true, is_playing: true }
    }

    /// Returns the moment; `None` if there is no sample.
    pub(super) fn shown(&self, history: &History) -> Option<Shown> {
        let (begin_ns, end_ns) = history.span()?;
        let wanted_ns = self.at_ns.unwrap_or(end_ns);
        let place = history.find(wanted_ns.clamp(begin_ns, end_ns))?;
        let at_ns = history.time_ns(place);
        let is_live = self.at_ns.is_none() && !self.is_recording;
        Some(Shown { place, at_ns, is_live, is_oldest: wanted_ns < begin_ns && !self.is_begin() })
    }

    /// Returns true before a recording has been moved from its begin.
    fn is_begin(&self) -> bool {
        self.at_ns == Some(0)
    }

    /// Stops at this moment, or goes on.
    pub(super) fn pause(&mut self, history: &History) {
        if self.is_recording {
            self.is_playing = !self.is_playing;
        } else if self.at_ns.is_some() {
            self.at_ns = None;
        } else {
            self.at_ns = self.shown(history).map(|shown| shown.at_ns);
        }
    }

    /// Moves in time.
    pub(super) fn step(&mut self, step: TimeStep, history: &History) {
        let (Some(shown), Some((begin_ns, end_ns))) = (self.shown(history), history.span()) else {
            return;
        };
        let events = || history.events().map(|event| event.monotonic_ns);
        let at_ns = match step {
            TimeStep::By(by_ns) => Some(shown.at_ns.saturating_add_signed(by_ns)),
            TimeStep::Samples(samples) => Some(history.time_ns(history.step(shown.place, samples))),
            TimeStep::Oldest => Some(begin_ns),
            TimeStep::Newest => Some(u64::MAX),
            TimeStep::NextEvent => events().find(|&event| event > self.now_ns(shown)),
            TimeStep::PreviousEvent => events().rev().find(|&event| event < self.now_ns(shown)),
        };
        let Some(at_ns) = at_ns else { return };
        // A step forward that reaches the newest sample of a session goes on with it.
        let reaches_end = at_ns >= end_ns && !matches!(step, TimeStep::PreviousEvent);
        self.at_ns = match reaches_end && !self.is_recording {
            true => None,
            false => Some(at_ns.clamp(begin_ns, end_ns)),
        };
    }

    /// Returns the moment that was asked for, between two samples.
    fn now_ns(&self, shown: Shown) -> u64 {
        self.at_ns.map_or(shown.at_ns, |at_ns| at_ns.max(shown.at_ns))
    }

    /// Plays a recording on for so long.
    pub(super) fn advance(&mut self, time: Duration, history: &History) {
        let (true, Some((begin_ns, end_ns))) = (self.is_playing, history.span()) else { return };
        let at_ns = self.at_ns.unwrap_or(begin_ns).max(begin_ns);
        self.at_ns = Some(at_ns.saturating_add(time.as_nanos() as u64).min(end_ns));
    }
}
