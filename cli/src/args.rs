//! The command line: the arguments of each command, and the help texts.
//!
//! Invariant: every value that leaves this module is well formed. Whether such a VM or statistic
//! exists is for the library to find out. Help is data and goes to standard output; an error begins
//! with `vmstrobe: `.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use vmstrobe::Timing;

use crate::error::Result;

mod quantity;
mod source;
mod serve;
mod parse_error;
mod examples;

pub(crate) use serve::{OnExit, ServeArgs};
pub(crate) use source::{
    BpfWhen, MethodArgs, ProviderSet, SCHED, SelectArgs, SourceArgs, VcpuArgs,
};

/// A stroboscope for virtual machines: statistics of every vCPU, thousands of times a second.
///
/// vmstrobe reads KVM's statistics of running virtual machines (exits, halts, page faults, ...)
/// from outside: no vCPU is stopped, and no VMM is contacted or restarted. It also reads the
/// statistics that other programs publish in tables. It uses the names of QEMU's query-stats.
///
/// vmstrobe runs as root, or with these capabilities: CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH for
/// processes of other users; CAP_BPF and CAP_PERFMON for the BPF reader, which reads all vCPUs of
/// any VMM in one call. Only one thread keeps them, to open objects that appear later, together
/// with CAP_DAC_OVERRIDE; for `serve` also CAP_CHOWN and CAP_FOWNER, to create sockets; for
/// `stat -- CMD` also CAP_KILL, to forward signals to CMD. All other capabilities are dropped at
/// start. Threads that sample, serve or parse have none.
///
/// Data goes to standard output, messages go to standard error. The exit status is 0 for success,
/// 1 for a failure, and 2 for a wrong command line.
#[derive(Debug, Parser)]
#[command(name = "vmstrobe", bin_name = "vmstrobe", version, arg_required_else_help = true)]
#[command(after_help = examples::TOP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a small virtual machine and a crypto device, and sample them live.
    ///
    /// Starts a KVM guest whose vCPUs have different loads that change over time, and a crypto
    /// device that encrypts and decrypts with AES. Samples both 1000 times a second and shows what
    /// each of them does: on a terminal as a table that refreshes, otherwise as plain lines. At the
    /// end it reports the quality of the sampling: how many ticks there were (a sample is due at
    /// each), how many were missed, how late they began, and how long they took. Without a usable
    /// /dev/kvm it prints the reason and samples only the crypto device.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP end the demo. A second signal ends it at once, even while the
    /// terminal is stopped (Ctrl-S); run reset(1) afterwards to restore the terminal.
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),

    /// List the virtual machines and the tables of statistics on this host.
    ///
    /// Shows for each virtual machine its process id, its name, its number of vCPUs, and how its
    /// statistics can be read; or why they cannot be read, and what to do about it. Below the
    /// virtual machines it lists the tables in which programs publish their own statistics: the
    /// process, the name of the provider, and the number of objects of each target. A virtual
    /// machine is listed once, for the process that created it: not for a process that inherited it
    /// or that reads its statistics.
    ///
    /// Examining all processes takes at most 2 s. Processes that could not be examined in this time
    /// are named on standard error.
    #[command(after_help = examples::LIST)]
    List(ListArgs),

    /// Show the statistics that exist, with types and units: query-stats-schemas.
    ///
    /// A statistic is cumulative (it only grows), an instant value (it goes up and down), a peak,
    /// or a histogram. The kernel, or the program that publishes a table, decides which statistics
    /// exist: look here before you filter. vmstrobe's statistics of itself are shown only on
    /// request (--provider vmstrobe).
    #[command(after_help = examples::SCHEMA)]
    Schema(SchemaArgs),

    /// Read the statistics once: query-stats.
    ///
    /// Prints a table with a column for each vCPU, or for each object of another target. Statistics
    /// that are 0 in all columns are left out. With --json it prints exactly what QEMU's
    /// query-stats returns, with lists in ascending order.
    #[command(after_help = examples::QUERY)]
    Query(QueryArgs),

    /// Print the text of QEMU's monitor: info stats.
    ///
    /// The arguments are those of `info stats` in QEMU's monitor, and the text is the same.
    #[command(after_help = examples::INFO)]
    Info {
        #[command(subcommand)]
        info: Info,
    },

    /// Measure deltas and rates, over a time or over a command, like perf stat.
    ///
    /// Measures until Ctrl-C, for a time (-d), in intervals (-i), or while a command runs (-- CMD).
    /// For a counter the report shows its increase, its rate, and the error bound of the rate; for
    /// a time also the share of the vCPUs' time. For a histogram it shows quantiles of the interval
    /// as upper bounds, because only the buckets are known. For a boolean it shows the share of
    /// samples in which it was true, and for any other instant value the last value and the range.
    ///
    /// Ctrl-C, SIGTERM and SIGHUP end the measurement, and the results so far are printed. With a
    /// command, signals that are sent to vmstrobe (also SIGQUIT) are forwarded to the command, and
    /// the measurement ends when the command ends; a second signal within 5 s kills the command.
    /// Ctrl-C in a terminal reaches the command directly and is not counted. Under nohup SIGHUP is
    /// ignored.
    ///
    /// With a command the exit status is that of the command: 128 plus the signal number if a
    /// signal killed it, 127 if it was not found, 126 if it could not be run. If a measured process
    /// ends early, the results so far are printed, and the exit status is 1 unless the command's is
    /// another failure.
    #[command(after_help = examples::STAT)]
    Stat(StatArgs),

    /// Answer query-stats over QMP, as QEMU does, to many clients at once.
    ///
    /// For the statistics commands the socket behaves like QEMU's own QMP socket: query-stats,
    /// query-stats-schemas, and info stats by human-monitor-command, with QEMU's formats and error
    /// texts. The values are read from the kernel after the request has arrived, without contacting
    /// QEMU. One more command, stats-subscribe, streams every sample at the rate that the client
    /// chooses.
    ///
    /// The server runs until Ctrl-C, SIGTERM or SIGHUP, or until the virtual machines have ended,
    /// and exits with status 0. A second signal ends it at once. The server removes its own sockets
    /// at the end and replaces stale ones at start. A socket on which another process listens is
    /// never replaced.
    ///
    /// With --all a socket has the name of its virtual machine only if the virtual machine belongs
    /// to a trusted user (--vm-user). The sockets of others are at NAME-uidUID-PID.sock.
    #[command(after_help = examples::SERVE)]
    Serve(ServeArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Info {
    /// Print the statistics as `info stats` of a QEMU monitor does.
    ///
    /// NAMES is a list of exact names, as in QEMU: no globs, no blanks, `*` for all. Without
    /// PROVIDER the text of each object begins with the name of its provider. If there are several
    /// objects, the path of each is printed above its text; QEMU does not print it.
    #[command(after_help = examples::INFO)]
    Stats(InfoArgs),
}

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
pub(crate) struct DemoArgs {
    /// Number of vCPUs of the guest: 1 to 64
    #[arg(long, value_name = "N", default_value = "4", value_parser = quantity::vcpus)]
    pub(crate) vcpus: u32,

    /// Print only the summary, as JSON
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) method: MethodArgs,

    #[command(flatten)]
    pub(crate) pace: PaceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Show for each virtual machine which methods of reading it can be used, and why the others
    /// cannot
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// Print a JSON array with an object for each VM and table; docs/json.md has the fields
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SchemaArgs {
    /// Print what QEMU's query-stats-schemas returns
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,
}

#[derive(Args, Debug)]
pub(crate) struct QueryArgs {
    /// Print what QEMU's query-stats returns
    #[arg(long)]
    pub(crate) json: bool,

    /// Show also statistics that are 0 in all columns
    #[arg(short = 'z', long)]
    pub(crate) zeros: bool,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) select: SelectArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,
}

#[derive(Args, Debug)]
pub(crate) struct InfoArgs {
    /// Object type: vm, vcpu, cryptodev, a program's own, or sampler for vmstrobe itself
    pub(crate) target: String,

    /// Exact names, separated by commas, or * for all
    pub(crate) names: Option<String>,

    /// Show one provider only. sched is shown only when named here
    pub(crate) provider: Option<String>,

    #[command(flatten)]
    pub(crate) source: SourceArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,
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

/// Parses the command line of this process.
///
/// # Errors
/// If it is not well formed. Help and the version, if asked for, are returned as errors, too.
pub(crate) fn parse() -> Result<Command> {
    let words: Vec<OsString> = std::env::args_os().collect();
    let parsed = Cli::try_parse_from(&words);
    Ok(parsed.map_err(|error| parse_error::with_hint(error, &words))?.command)
}

#[cfg(test)]
mod tests;
