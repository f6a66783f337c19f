//! The arguments of `vmstrobe top`.
//!
//! Invariant: options of the screen are refused with `-b`, which has none.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use vmstrobe::Pace;

use super::quantity;
use super::replay::{SOURCES, speed};
use super::source::{HEADING, MethodArgs, SelectArgs, SourceArgs, VcpuArgs};

#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pub(crate) screen: ScreenArgs,

    #[command(flatten)]
    pub(crate) batch: BatchArgs,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) replay: TopReplayArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,

    /// Samples per second: 1000, 1k, 10kHz, 0.5; from 0.001 Hz to 1 MHz. Key s changes it
    #[arg(short, long, value_name = "HZ", default_value = "1k", value_parser = quantity::rate)]
    #[arg(allow_negative_numbers = true, help_heading = "Rate and duration")]
    pub(crate) rate: f64,

    /// Keep the samples of this time in memory, to go back to [default: 60s; with --replay all of
    /// the recording, as far as memory goes]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    #[arg(help_heading = "Rate and duration")]
    pub(crate) last: Option<Duration>,
}

/// The appearance of the screen.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Screen")]
pub(crate) struct ScreenArgs {
    /// Draw at most so many screens per second
    #[arg(long, value_name = "HZ", default_value = "10", value_parser = redraw_rate)]
    pub(crate) redraw: f64,

    /// Draw charts with these characters
    #[arg(long, value_name = "MARKER", default_value = "braille")]
    pub(crate) marker: Marker,

    /// Use characters of ASCII only
    #[arg(long, conflicts_with = "marker")]
    pub(crate) ascii: bool,

    /// Leave the last screen behind at the end
    #[arg(long, conflicts_with = "batch")]
    pub(crate) keep_screen: bool,
}

impl ScreenArgs {
    /// Returns the characters that charts are drawn with.
    pub(crate) fn marker(&self) -> Marker {
        if self.ascii { Marker::Ascii } else { self.marker }
    }
}

/// The characters that show the dots of a chart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Marker {
    /// Two columns and four rows of dots; most fonts have them
    #[default]
    Braille,
    /// Dots as in braille, without gaps between them; needs a font with Unicode 16
    Octant,
    /// Two columns and two rows of blocks
    Block,
    /// One character, of ASCII
    #[value(skip)]
    Ascii,
}

/// Plain text in place of the screen.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Plain text")]
pub(crate) struct BatchArgs {
    /// Print the table as text, again and again, instead of a screen
    #[arg(short, long)]
    pub(crate) batch: bool,

    /// End after so many tables
    #[arg(short = 'n', long, value_name = "N", value_parser = quantity::count)]
    #[arg(requires = "batch")]
    pub(crate) iterations: Option<u64>,

    /// Print a table each time; without a unit the value is in milliseconds
    #[arg(short, long, value_name = "MS", default_value = "1s", value_parser = quantity::interval)]
    #[arg(requires = "batch")]
    pub(crate) interval: Duration,
}

/// A recording that `top` replays.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = HEADING)]
pub(crate) struct TopReplayArgs {
    /// Play this recording, which is .arrows, with the same keys, forwards and back
    #[arg(long = "replay", value_name = "FILE", conflicts_with_all = SOURCES)]
    #[arg(conflicts_with_all = ["rate"])]
    pub(crate) file: Option<PathBuf>,

    /// Play the recording at so many times its own speed: 1, 0.1, 10, or max
    #[arg(long, value_name = "N|max", default_value = "1", value_parser = speed)]
    #[arg(requires = "file")]
    pub(crate) speed: Pace,
}

/// Parses a number of screens per second.
fn redraw_rate(text: &str) -> Result<f64, String> {
    match quantity::hertz(text)? {
        rate_hz @ 0.1..=60.0 => Ok(rate_hz),
        _ => Err(format!("a screen cannot be drawn {text} times a second: use 0.1 to 60")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        top: TopArgs,
    }

    fn parsed(line: &str) -> Result<TopArgs, String> {
        let words = ["top"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.top).map_err(|error| error.to_string())
    }

    #[test]
    fn a_screen_has_its_defaults() {
        let args = parsed("").expect("all have defaults");
        assert_eq!((args.rate, args.screen.redraw, args.last), (1000.0, 10.0, None));
        assert_eq!(args.screen.marker(), Marker::Braille);
        assert_eq!(parsed("--ascii").expect("it is an option").screen.marker(), Marker::Ascii);
        let octant = parsed("--marker octant").expect("it is an option");
        assert_eq!(octant.screen.marker(), Marker::Octant);
    }

    #[test]
    fn options_that_contradict_each_other_are_refused() {
        for line in [
            "--ascii --marker block",
            "--marker ascii",
            "-n 3",
            "-i 500",
            "-b --keep-screen",
            "--replay a -r 10",
            "--replay a -p 3",
            "--speed 2",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
        let batch = parsed("-b -n 3 -i 500").expect("they belong together").batch;
        assert_eq!((batch.iterations, batch.interval), (Some(3), Duration::from_millis(500)));
    }

    #[test]
    fn screens_are_drawn_as_often_as_anybody_sees() {
        assert_eq!([redraw_rate("10"), redraw_rate("0.5Hz")], [Ok(10.0), Ok(0.5)]);
        for text in ["0", "1k", "61", "-1"] {
            let error = format!("a screen cannot be drawn {text} times a second: use 0.1 to 60");
            assert_eq!(redraw_rate(text), Err(error));
        }
        assert!(redraw_rate("fast").is_err_and(|error| error.starts_with("'fast' is not a rate")));
    }
}
