//! The choices of the user about what the screen looks like, and the facts beside a frame.
//!
//! Invariant: plain data. A frame, a look and these facts are all that a screen is drawn from, so
//! that the same ones give the same screen.

use super::theme::Theme;
use crate::args::Marker;

/// The appearance of the screen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Look {
    pub(super) theme: Theme,
    pub(super) marker: Marker,
    /// True if only characters of ASCII are shown.
    pub(super) is_ascii: bool,
}

/// The facts of a session that no frame has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Facts {
    /// Screens in a second; 0 for plain text.
    pub(super) redraw_hz: f64,
    /// The time of the first sample, from which the times of charts of the past count.
    pub(super) start_ns: u64,
    /// The name of the recording, if one is replayed.
    pub(super) recording: Option<String>,
    /// True if the view was paused at the newest sample, not sent back.
    pub(super) is_paused: bool,
}
