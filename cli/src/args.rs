//! The command line: what can be typed, and the texts that teach it.
//!
//! Invariant: whatever leaves here has been checked as far as the words themselves go; whether
//! there is such a VM or such a statistic, the engine finds out. Help is data and goes to standard
//! output; anything wrong is one line that begins with `vmstrobe: `.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::error::Result;

mod quantity;
mod source;
mod serve;
mod habits;
mod examples;

pub(crate) use serve::{OnExit, ServeArgs};
pub(crate) use source::{How, ProviderSet, SCHED, Source, Vcpus, Wanted, When};

/// A stroboscope for virtual machines: statistics of every vCPU, thousands of times a second.
///
/// vmstrobe reads KVM's own statistics of running virtual machines (exits, halts, page faults, ...)
/// from outside, without stopping a vCPU and without restarting a VMM; and any program's own, which
/// it publishes in a table. It names them as QEMU's query-stats does.
///
/// It needs root, or these: for processes of other users CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH;
/// for the BPF reader, which reads all vCPUs in one call and those of any VMM, CAP_BPF and
/// CAP_PERFMON. One thread keeps these, to open what comes later, and CAP_DAC_OVERRIDE; in `serve`
/// also CAP_CHOWN and CAP_FOWNER, to make sockets; in `stat -- CMD` also CAP_KILL, to pass signals
/// on to CMD. It gives up everything else at the start. Threads that sample, serve or parse have no
/// capability.
///
/// Data goes to standard output, everything else to standard error. The exit status is 0 if it is
/// done, 1 if it failed, 2 if the command line makes no sense.
#[derive(Debug, Parser)]
#[command(name = "vmstrobe", bin_name = "vmstrobe", version, arg_required_else_help = true)]
#[command(after_help = examples::TOP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Sample a small virtual machine and a crypto device of our own, live.
    ///
    /// Starts a KVM guest whose vCPUs have different loads that change over time, and a crypto
    /// device that really encrypts and decrypts by AES; samples them 1000 times a second, and shows
    /// what each does: as a table that refreshes on a terminal, as plain lines otherwise. It ends
    /// with how well the sampling went: ticks, missed ticks, how late they began and what they
    /// cost. Without a usable /dev/kvm it says why, and samples the crypto device alone.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP end it. A second signal ends it at once, even while the terminal
    /// is stopped (Ctrl-S); then reset(1) gives the terminal its cursor and its contents back.
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),

    /// List the virtual machines and the tables of statistics on this host.
    ///
    /// Shows each virtual machine with its process id, its name, how many vCPUs it has, and how its
    /// statistics can be read, or why they cannot and what to do about it. Below them the same of
    /// the tables in which programs publish statistics of their own: the process, the provider's
    /// name, and how many objects of which target it has. A virtual machine is shown where it was
    /// made: not in a process that inherited it, nor in one that reads its statistics.
    ///
    /// The look at all processes takes 2 s at most. Those that could not be looked at are named on
    /// standard error.
    #[command(after_help = examples::LIST)]
    List(ListArgs),

    /// Show which statistics there are: query-stats-schemas.
    ///
    /// A statistic is cumulative (it only grows), an instant (it goes up and down), a peak, or a
    /// histogram. Which ones there are is the kernel's choice, or the program's that publishes
    /// them, so look here before you filter. vmstrobe's own are left out unless asked for.
    #[command(after_help = examples::SCHEMA)]
    Schema(SchemaArgs),

    /// Read the statistics once: query-stats.
    ///
    /// Prints a table with a column for each vCPU, or for each object of another target. Statistics
    /// that are 0 everywhere are left out.
    /// With --json it prints exactly what QEMU's query-stats returns, lists in ascending order.
    #[command(after_help = examples::QUERY)]
    Query(QueryArgs),

    /// Print what a QEMU monitor prints: info stats.
    ///
    /// For those who know `info stats` of QEMU's monitor: the same words give the same text.
    #[command(after_help = examples::INFO)]
    Info {
        #[command(subcommand)]
        info: Info,
    },

    /// Measure over a time or over a command: deltas and rates, like perf stat.
    ///
    /// Counts what happens until Ctrl-C, for a time (-d), in intervals (-i), or while a command
    /// runs (-- CMD). Counters show by how much they grew and how fast, with the error bar that
    /// comes from reading them; times also as a share of the vCPUs' time; histograms show quantiles
    /// of this interval as bounds, because a bucket is all that is known; booleans the share of
    /// samples in which they were true; other levels the last value and the range.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP end it, and what was measured until then is printed. With a
    /// command, signals that are sent to vmstrobe are passed on to it, SIGQUIT as well, and the
    /// measuring ends with the command; a second one within 5 s kills it. Ctrl-C in a terminal
    /// reaches the command without vmstrobe, and does not count. SIGHUP stays ignored under nohup.
    ///
    /// With a command the exit status is the command's: 128 and the signal's number if one killed
    /// it, 127 if it was not found, 126 if it could not be run. If a process ends while it is
    /// measured, what was measured until then is printed, and the exit status is 1 unless the
    /// command's is another.
    #[command(after_help = examples::STAT)]
    Stat(StatArgs),

    /// Answer query-stats over QMP, as QEMU does: on sockets of our own, for many clients.
    ///
    /// To its clients such a socket is a QEMU's own, for all that is about statistics: query-stats,
    /// query-stats-schemas, and info stats by human-monitor-command, in QEMU's words, formats and
    /// errors. It has many clients at once, it answers from the kernel and not from QEMU, with
    /// values that are read when the request is there, and it has one command more: stats-subscribe
    /// sends every sample, at a rate, without being asked again.
    ///
    /// It serves until Ctrl-C, SIGTERM or SIGHUP, or until the virtual machines have ended; then
    /// the exit status is 0. A second signal ends it at once. Sockets of its own are removed, stale
    /// ones replaced, and none on which somebody listens is ever taken away.
    ///
    /// With --all a socket is called after its virtual machine only if that belongs to a trusted
    /// user (--vm-user); those of others are at NAME-uidUID-PID.sock.
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Info {
    /// Print the statistics as `info stats` of a QEMU monitor does.
    ///
    /// NAMES is an exact list, as QEMU takes it: no globs, no blanks, `*` for all. Without PROVIDER
    /// each object's text begins with its provider. Where there is more than one object, its path
    /// stands above it, which QEMU cannot do.
    #[command(after_help = examples::INFO)]
    Stats(InfoArgs),
}

/// How often and how long.
#[derive(Args, Debug)]
#[command(next_help_heading = "How often, how long")]
pub(crate) struct Pace {
    /// Samples a second: 1000, 1k, 10kHz, 0.5; from 0.001 Hz to 1 MHz
    #[arg(short, long, value_name = "HZ", default_value = "1k", value_parser = quantity::rate)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) rate: f64,

    /// End after this time: 10s, 500ms, 2m
    #[arg(short, long, value_name = "TIME", value_parser = quantity::duration)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) duration: Option<Duration>,

    /// End after so many samples, missed ones included
    #[arg(long, value_name = "N", value_parser = quantity::count, allow_negative_numbers = true)]
    pub(crate) count: Option<u64>,
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// How many vCPUs the guest has: 1 to 64
    #[arg(long, value_name = "N", default_value = "4", value_parser = quantity::vcpus)]
    pub(crate) vcpus: u32,

    /// Print nothing but the summary, as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) how: How,

    #[command(flatten)]
    pub(crate) pace: Pace,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show for each virtual machine which methods of reading it can be used, and why the others
    /// cannot
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print an array of objects, each with kind (vm or table), pid, name, readable, how; and of a
    /// VM vcpus, of a table its provider and how many objects of which target it has. With -v a VM
    /// also has methods: an array of objects, each with method, open, how
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaArgs {
    /// Print what QEMU's query-stats-schemas returns
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// Print what QEMU's query-stats returns
    #[arg(long)]
    pub(crate) json: bool,

    /// Show statistics that are 0 everywhere too
    #[arg(short = 'z', long)]
    pub(crate) zeros: bool,

    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    #[command(flatten)]
    pub(crate) vcpus: Vcpus,

    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// vm, vcpu, cryptodev, anyone's own, or sampler for vmstrobe itself
    pub(crate) target: String,

    /// Exact names with commas between, or * for all
    pub(crate) names: Option<String>,

    /// Of one provider only; sched is shown only so
    pub(crate) provider: Option<String>,

    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) vcpus: Vcpus,

    #[command(flatten)]
    pub(crate) how: How,
}

#[derive(Args, Debug)]
pub(crate) struct StatArgs {
    /// Print what moved in every interval; in milliseconds if there is no unit
    #[arg(short, long, value_name = "MS", value_parser = quantity::interval)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) interval: Option<Duration>,

    /// Show every object by itself instead of their sum
    #[arg(long)]
    pub(crate) per_vcpu: bool,

    /// Show statistics that did not move too
    #[arg(short = 'z', long)]
    pub(crate) zeros: bool,

    /// Write to a file, so that the command's output does not mix with it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Print one JSON object a line for each interval
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: Source,

    #[command(flatten)]
    pub(crate) wanted: Wanted,

    #[command(flatten)]
    pub(crate) vcpus: Vcpus,

    #[command(flatten)]
    pub(crate) how: How,

    #[command(flatten)]
    pub(crate) pace: Pace,

    /// Measure while this command runs
    #[arg(last = true, value_name = "CMD", conflicts_with_all = ["duration", "count"])]
    #[arg(help_heading = "Arguments")]
    pub(crate) command: Vec<OsString>,
}

/// Parses the command line.
///
/// # Errors
/// If it cannot be understood. Help and the version, if asked for, are returned as an error, too.
pub(crate) fn parse() -> Result<Command> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let parsed = Cli::try_parse_from(&words);
    Ok(parsed.map_err(|error| habits::hinted(error, &words))?.command)
}

#[cfg(test)]
mod tests;
