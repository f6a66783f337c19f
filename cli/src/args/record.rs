//! The arguments of `vmstrobe record`.
//!
//! Invariant: options of the flight recorder are refused without `--last`, and those of files with
//! it.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, ValueEnum};
use vmstrobe::export::Compression;
use vmstrobe::{Condition, Split};

use super::recorders::ControlArgs;
use super::source::{MethodArgs, SelectEachArgs, SourceArgs, VcpuArgs};
use super::{PaceArgs, quantity};

/// The arguments about what is sampled, how and when, which a recording has behind it.
const OF_SAMPLING: [&str; 18] = [
    "output",
    "pids",
    "all",
    "qmp",
    "tables",
    "sockets",
    "on_any_kernel",
    "demo",
    "bpf",
    "targets",
    "names",
    "provider",
    "vcpus",
    "rate",
    "duration",
    "count",
    "command",
    "on_trigger",
];

#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    /// Write to this file; its name says the format: .arrows, .parquet, .pftrace, .csv or .jsonl.
    /// With --last: the name of the dumps, in which {vm}, {time} and {trigger} are replaced
    /// [default with --last: {vm}-{time}.arrows]
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["last", "dry_run"])]
    pub(crate) output: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) file: FileArgs,

    #[command(flatten)]
    pub(crate) flight: FlightArgs,

    #[command(flatten)]
    pub(crate) control: ControlArgs,

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

    /// Record while this command runs
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["duration", "count"])]
    #[arg(help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}

/// Options of the files of a recording.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(crate) struct FileArgs {
    #[command(flatten)]
    pub(crate) write: WriteArgs,

    /// Begin another file after so many bytes or so long: 1GiB, 1h. The files are FILE-0001,
    /// FILE-0002 and so on
    #[arg(long, value_name = "SIZE|TIME", value_parser = split, conflicts_with = "last")]
    pub(crate) split: Option<Split>,

    /// Remove the oldest files of this recording beyond this size of all: 20GiB
    #[arg(long, value_name = "SIZE", value_parser = quantity::bytes, requires = "split")]
    pub(crate) keep: Option<u64>,

    /// Write also how a histogram grows each second, as an interval log of HdrHistogram
    #[arg(long, value_name = "FILE", conflicts_with = "last")]
    pub(crate) histlog: Option<PathBuf>,

    /// Choose the histogram of --histlog; lateness_ns_hist is that of vmstrobe's own ticks
    #[arg(long, value_name = "NAME", default_value = "halt_wait_hist", requires = "histlog")]
    pub(crate) histlog_stat: String,

    /// Write at least so often
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = quantity::duration)]
    pub(crate) flush: Duration,
}

/// Options of a file, whichever command writes it.
#[derive(Args, Debug)]
#[command(next_help_heading = "Files")]
pub(crate) struct WriteArgs {
    /// Replace the file if there is one
    #[arg(long)]
    pub(crate) overwrite: bool,

    /// Note this beside the samples, as run=baseline; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,

    /// Choose the layout of .parquet: a row for each object and sample, or one for each sample, as
    /// Rezolus' viewer reads it
    #[arg(long, value_name = "LAYOUT", default_value = "rows")]
    pub(crate) layout: ParquetLayout,

    /// Choose the compression of .arrows: zstd makes files half as large as lz4
    #[arg(long, value_name = "CODEC", default_value = "zstd", value_parser = compression)]
    pub(crate) compress: Compression,

    /// Write only the first sample of each such stretch of time; `record` does so for .csv and
    /// .jsonl
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) every: Option<Duration>,
}

#[derive(Args, Debug)]
pub(crate) struct ConvertArgs {
    /// The recording: .arrows, or .parquet in rows
    #[arg(value_name = "IN")]
    pub(crate) input: PathBuf,

    /// The file to write; its name says the format
    #[arg(value_name = "OUT")]
    pub(crate) output: PathBuf,

    #[command(flatten)]
    pub(crate) write: WriteArgs,

    #[command(flatten)]
    pub(crate) select: SelectEachArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,
}

/// The layouts of Parquet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ParquetLayout {
    Rows,
    Wide,
}

/// Options of the flight recorder.
#[derive(Args, Debug)]
#[command(next_help_heading = "Flight recorder")]
#[command(group = ArgGroup::new("condition_of").args(["last", "dry_run"]))]
pub(crate) struct FlightArgs {
    /// Keep only the samples of the last time in memory, and write them when something happens: on
    /// SIGUSR2, on `vmstrobe dump`, or by --when
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    pub(crate) last: Option<Duration>,

    /// Keep at most this much in memory
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = quantity::bytes)]
    #[arg(requires = "last")]
    pub(crate) memory: u64,

    /// Dump when this condition comes true, such as 'exits.rate > 50k' or 'halt_wait.p99 > 2ms'
    #[arg(long, value_name = "EXPR", requires = "condition_of")]
    pub(crate) when: Option<Condition>,

    /// Dump only if the condition lasts so long
    #[arg(long = "for", value_name = "TIME", value_parser = quantity::duration, requires = "when")]
    pub(crate) hold_for: Option<Duration>,

    /// Dump so long after the condition, so that the dump has what followed
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, requires = "when")]
    pub(crate) after: Option<Duration>,

    /// Pause the condition for this time after it caused a dump
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = quantity::duration)]
    #[arg(requires = "when")]
    pub(crate) hold_off: Duration,

    /// Dump at most so often because of the condition
    #[arg(long, value_name = "N", default_value = "10", value_parser = quantity::count)]
    #[arg(requires = "when")]
    pub(crate) max_dumps: u64,

    /// Run this shell command after each dump of the condition. VMSTROBE_DUMP has the path of the
    /// dump, VMSTROBE_CAUSE the condition. It runs without capabilities
    #[arg(long, value_name = "CMD", requires = "when")]
    pub(crate) on_trigger: Option<OsString>,

    /// Record nothing: evaluate the condition over this recording, which is .arrows, and print when
    /// it would have caused dumps
    #[arg(long, value_name = "FILE", requires = "when", conflicts_with_all = OF_SAMPLING)]
    pub(crate) dry_run: Option<PathBuf>,

    /// Print what --dry-run finds as a JSON object for each trigger, and one for the whole;
    /// docs/json.md has the fields
    #[arg(long, requires = "dry_run")]
    pub(crate) json: bool,
}

/// Parses a label.
fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{text}' is not a label: write KEY=VALUE, such as run=baseline")),
    }
}

fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "zstd" => Ok(Compression::Zstd),
        "lz4" => Ok(Compression::Lz4),
        _ => Err(format!("'{text}' is not a compression: write zstd or lz4")),
    }
}

/// Parses a size or a time.
fn split(text: &str) -> Result<Split, String> {
    let bytes = quantity::bytes(text).map(Split::Bytes);
    let time = || quantity::duration(text).map(Split::Time);
    // A number without a unit is neither: it would be bytes here and seconds elsewhere.
    let has_unit = text.ends_with(char::is_alphabetic);
    bytes.or_else(|_| time()).ok().filter(|_| has_unit).ok_or_else(|| {
        format!("'{text}' is neither a size nor a time: write 1GiB, 500MB, 1h or 30m")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_a_size_or_a_time() {
        assert_eq!(split("1GiB"), Ok(Split::Bytes(1 << 30)));
        assert_eq!(split("1h"), Ok(Split::Time(Duration::from_secs(3600))));
        assert_eq!(split("5M"), Ok(Split::Bytes(5_000_000)));
        assert_eq!(split("5m"), Ok(Split::Time(Duration::from_secs(300))));
        assert!(split("100").is_err() && split("soon").is_err() && split("0B").is_err());
    }

    #[test]
    fn a_label_has_a_key() {
        assert_eq!(label("run=a=b"), Ok(("run".to_owned(), "a=b".to_owned())));
        assert_eq!(label("run="), Ok(("run".to_owned(), String::new())));
        assert!(label("run").is_err() && label("=x").is_err());
    }
}
