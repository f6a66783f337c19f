//! The arguments about recorders that run: the socket of `record`, and what `dump` and `mark` ask
//! of which recorder.
//!
//! Invariant: a path of the user is absolute when it leaves this module, because the recorder has
//! another working directory.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vmstrobe::control::ControlPlace;

use super::quantity;

/// The socket on which a recorder listens for `dump` and `mark`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Control")]
pub(crate) struct ControlArgs {
    /// Listen for `vmstrobe dump`, `vmstrobe mark` and QMP clients on this socket [default:
    /// record-PID.sock in /run/vmstrobe-record for root, else in $XDG_RUNTIME_DIR/vmstrobe-record]
    #[arg(long, value_name = "SOCKET", conflicts_with = "no_control")]
    control: Option<PathBuf>,

    /// Do not listen
    #[arg(long)]
    no_control: bool,
}

impl ControlArgs {
    /// Returns the place at which to listen, if there is any.
    pub(crate) fn place(&self) -> Option<ControlPlace> {
        match &self.control {
            _ if self.no_control => None,
            None => Some(ControlPlace::OfUser),
            Some(path) => Some(ControlPlace::At(path.clone())),
        }
    }
}

/// The recorder that is meant.
#[derive(Args, Debug)]
#[command(next_help_heading = "Recorder")]
pub(crate) struct RecorderArgs {
    /// Ask the recorder with this process id
    #[arg(short, long, value_name = "PID", value_parser = quantity::pid)]
    pub(crate) pid: Option<u32>,

    /// Ask the recorder that was started with this --control
    #[arg(long, value_name = "SOCKET", conflicts_with = "pid")]
    pub(crate) control: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct DumpArgs {
    /// Write only the samples of this time before now [default: all that the recorder holds]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) last: Option<Duration>,

    /// Write to this file, which ends in .arrows; if there is one, the name gets a number [default:
    /// as the recorder's -o says]
    #[arg(short, long, value_name = "FILE", value_parser = absolute)]
    pub(crate) output: Option<String>,

    /// Print a JSON array with an object for each file; docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) recorder: RecorderArgs,
}

#[derive(Args, Debug)]
pub(crate) struct MarkArgs {
    /// The text, up to 64 KiB
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,

    /// Print a JSON object for each recording that was marked; docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) recorder: RecorderArgs,
}

/// Parses a path, and makes it absolute.
fn absolute(text: &str) -> Result<String, String> {
    let path =
        std::path::absolute(text).map_err(|error| format!("'{text}' is no path: {error}"))?;
    let path = path.into_os_string().into_string();
    path.map_err(|_| "the working directory is not UTF-8: give an absolute path".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        control: ControlArgs,
    }

    #[test]
    fn a_recorder_listens_unless_it_is_told_not_to() {
        let place = |line: &[&str]| {
            let words = ["record"].iter().chain(line);
            Line::try_parse_from(words).map(|line| line.control.place()).map_err(|_| ())
        };
        assert_eq!(place(&[]), Ok(Some(ControlPlace::OfUser)));
        assert_eq!(place(&["--control", "a"]), Ok(Some(ControlPlace::At("a".into()))));
        assert_eq!(place(&["--no-control"]), Ok(None));
        assert_eq!(place(&["--no-control", "--control", "a"]), Err(()));
    }

    #[test]
    fn a_path_is_absolute() {
        assert_eq!(absolute("/a/b.arrows").as_deref(), Ok("/a/b.arrows"));
        let here = std::env::current_dir().expect("it is there");
        assert_eq!(absolute("b.arrows").map(PathBuf::from), Ok(here.join("b.arrows")));
        assert!(absolute("").is_err());
    }
}
