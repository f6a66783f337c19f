//! The arguments of `vmstrobe report`.
//!
//! Invariant: files are reported alone. Options about sampling are refused beside them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::PaceArgs;
use super::replay::{SAMPLING, SOURCES};
use super::source::{MethodArgs, SelectEachArgs, SourceArgs, VcpuArgs};

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// The recording, which is .arrows, or .parquet in rows; of two, the second is compared with
    /// the first. Without one, what runs is sampled
    #[arg(value_name = "FILE", num_args = 0..=2)]
    #[arg(conflicts_with_all = SOURCES, conflicts_with_all = SAMPLING)]
    #[arg(conflicts_with = "duration")]
    pub(crate) files: Vec<PathBuf>,

    /// Show also statistics that did not change
    #[arg(short = 'z', long)]
    pub(crate) zeros: bool,

    /// Print tables as Markdown
    #[arg(long, conflicts_with = "json")]
    pub(crate) markdown: bool,

    /// Print one JSON object; docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,

    /// Write the report to this file, separate from the command's output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) select: SelectEachArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,

    #[command(flatten)]
    pub(crate) pace: PaceArgs,

    /// Sample while this command runs
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["duration", "count"])]
    #[arg(help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        report: ReportArgs,
    }

    fn parse(line: &str) -> Result<ReportArgs, String> {
        let words = std::iter::once("report").chain(line.split_whitespace());
        let parsed = Line::try_parse_from(words).map_err(|error| error.to_string());
        parsed.map(|line| line.report)
    }

    #[test]
    fn files_are_reported_alone() {
        Line::command().debug_assert();
        let files = |line: &str| parse(line).expect("it is well formed").files.len();
        assert_eq!([files(""), files("a"), files("a b --names exits")], [0, 1, 2]);
        for line in ["a b c", "a -p 7", "a --all", "a -r 5", "a -d 1s", "a --bpf off", "a -- true"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["-p 7 -d 1s", "--demo -- true", "--json -z"] {
            assert!(parse(line).is_ok(), "{line}");
        }
        assert!(parse("a --json --markdown").is_err_and(|error| error.contains("--markdown")));
    }
}
