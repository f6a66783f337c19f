//! The arguments that put a recording in the place of the sources.
//!
//! Invariant: a recording is read alone. Options about how running objects are read are refused
//! beside it, and options about replaying are refused without it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vmstrobe::{Moment, Pace};

use super::quantity;
use super::source::HEADING;

/// The arguments of other sources, and of how these are read.
pub(super) const SOURCES: [&str; 8] =
    ["pids", "all", "qmp", "tables", "sockets", "on_any_kernel", "demo", "bpf"];
/// The arguments that decide when samples are taken, or during what.
pub(super) const SAMPLING: [&str; 3] = ["rate", "count", "command"];

/// A recording in the place of the sources.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = HEADING)]
pub(crate) struct ReplayArgs {
    /// Read this recording, which is .arrows
    #[arg(long = "replay", value_name = "FILE", conflicts_with_all = SOURCES)]
    pub(crate) file: Option<PathBuf>,
}

/// One sample of a recording.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = HEADING)]
pub(crate) struct ReplayAtArgs {
    #[command(flatten)]
    pub(crate) replay: ReplayArgs,

    /// Read the sample at this time: so long after the first one, as 1.5s or 20ms, or a time of day
    /// in UTC, as 2026-12-01T14:23:38.5Z [default: the last sample]
    #[arg(long, value_name = "TIME", value_parser = moment, requires = "file")]
    pub(crate) at: Option<Moment>,
}

/// A recording that `stat` replays.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct StatReplayArgs {
    /// Measure this recording, which is .arrows; -d and -i are of its time
    #[arg(long = "replay", value_name = "FILE", conflicts_with_all = SOURCES)]
    #[arg(conflicts_with_all = SAMPLING)]
    pub(crate) file: Option<PathBuf>,

    /// Replay the recording at so many times its own speed: 1, 0.1, 10, or max
    #[arg(long, value_name = "N|max", default_value = "max", value_parser = speed)]
    #[arg(requires = "file")]
    pub(crate) speed: Pace,
}

/// A recording that `serve` replays.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct ServeReplayArgs {
    #[command(flatten)]
    pub(crate) replay: ReplayArgs,

    /// Replay the recording at so many times its own speed: 1, 0.1, 10, or max. Behind its end the
    /// last values stay, if --on-exit wait is given
    #[arg(long, value_name = "N|max", default_value = "1", value_parser = speed)]
    #[arg(requires = "file")]
    pub(crate) speed: Pace,
}

impl ReplayAtArgs {
    /// Returns the moment whose sample is read.
    pub(crate) fn moment(&self) -> Moment {
        self.at.unwrap_or(Moment::Last)
    }
}

/// Parses a speed.
pub(super) fn speed(text: &str) -> Result<Pace, String> {
    if text == "max" {
        return Ok(Pace::Max);
    }
    let times: Option<f64> = text.strip_suffix('x').unwrap_or(text).parse().ok();
    let times = times.filter(|times| (1e-6..=1e6).contains(times));
    times.map(Pace::Times).ok_or_else(|| {
        format!("'{text}' is not a speed: write 1, 0.1, 10 or max, from 0.000001 to 1000000")
    })
}

/// Parses a moment of a recording.
fn moment(text: &str) -> Result<Moment, String> {
    if matches!(text, "0" | "0s" | "0ms") {
        return Ok(Moment::After(Duration::ZERO));
    }
    let wall = || vmstrobe::parse_utc(text).map(Moment::Wall);
    let after = quantity::duration(text).ok().map(Moment::After);
    after.or_else(wall).ok_or_else(|| {
        format!(
            "'{text}' is not a time of a recording: write 1.5s or 20ms after its first sample, or \
             2026-12-01T14:23:38.5Z"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        for (text, want) in [
            ("max", Pace::Max),
            ("1", Pace::OWN),
            ("0.5", Pace::Times(0.5)),
            ("10x", Pace::Times(10.0)),
        ] {
            assert_eq!(speed(text), Ok(want), "{text}");
        }
        for text in ["", "0", "-1", "inf", "nan", "fast", "1e9", "MAX"] {
            assert!(speed(text).is_err_and(|error| error.contains("is not a speed")), "{text}");
        }
    }

    #[test]
    fn moments() {
        let after = |ms| Ok(Moment::After(Duration::from_millis(ms)));
        for (text, want) in [
            ("0", after(0)),
            ("1.5", after(1500)),
            ("20ms", after(20)),
            ("1970-01-01T00:00:01.5Z", Ok(Moment::Wall(1_500_000_000))),
            ("1970-01-01 00:01:00", Ok(Moment::Wall(60_000_000_000))),
        ] {
            assert_eq!(moment(text), want, "{text}");
        }
        for text in ["", "-1s", "noon", "1969-01-01T00:00:00Z", "2026-13-01T00:00:00Z"] {
            assert!(moment(text).is_err_and(|error| error.contains("is not a time")), "{text}");
        }
    }
}
