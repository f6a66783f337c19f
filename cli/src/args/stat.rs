//! The arguments of `vmstrobe stat`, and the rate of every command that samples.
//!
//! Invariant: a rate that is accepted can be sampled.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use vmstrobe::Timing;

use super::quantity;
use super::replay::StatReplayArgs;
use super::source::{MethodArgs, SelectArgs, SourceArgs, VcpuArgs};
use crate::error::Result;

/// The rate of sampling and its end.
#[derive(Args, Debug)]
#[command(next_help_heading = "Rate and duration")]
pub(crate) struct PaceArgs {
    /// Samples per second: 1000, 1k, 10kHz, 0.5; from 0.001 Hz to 1 MHz
    ///
    /// Samples are taken more punctually on a CPU of their own and at a real-time priority: start
    /// vmstrobe by `taskset -c 3 chrt -f 10`, which all its threads inherit.
    #[arg(short, long, value_name = "HZ", default_value = "1k", value_parser = quantity::rate)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) rate: f64,

    /// End after this time: 10s, 500ms, 2m
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) duration: Option<Duration>,

    /// End after this number of samples, missed ones included
    #[arg(long, value_name = "N", value_parser = quantity::count, allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
}

impl PaceArgs {
    /// Returns the times of the ticks.
    ///
    /// # Errors
    /// If the rate is out of bounds.
    pub(crate) fn timing(&self) -> Result<Timing> {
        Ok(Timing { ticks_max: self.count, ..Timing::hz(self.rate)? })
    }
}

#[derive(Args, Debug)]
pub(crate) struct StatArgs {
    /// Print a report for each interval; without a unit the value is in milliseconds
    #[arg(short, long, value_name = "MS", value_parser = quantity::interval)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) interval: Option<Duration>,

    /// Show each object separately instead of the sum of all
    #[arg(long)]
    pub(crate) per_vcpu: bool,

    /// Show also statistics that did not change
    #[arg(short = 'z', long)]
    pub(crate) zeros: bool,

    /// Write the report to this file, separate from the command's output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print one JSON object per interval, each on a line
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) replay: StatReplayArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,

    #[command(flatten)]
    pub(crate) pace: PaceArgs,

    /// Measure while this command runs
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["duration", "count"])]
    #[arg(help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}
