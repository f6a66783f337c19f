//! The command line: the arguments of each command, and the help texts.
//!
//! Invariant: every value that leaves this module is well formed. Whether such a VM or statistic
//! exists is for the library to find out. Help is data and goes to standard output; an error begins
//! with `vmstrobe: `.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::error::Result;

mod quantity;
mod source;
mod replay;
mod reading;
mod record;
mod recorders;
mod report;
mod serve;
mod stat;
#[cfg(feature = "top")]
mod top;
mod parse_error;
mod examples;

pub(crate) use reading::{DemoArgs, InfoArgs, ListArgs, QueryArgs, SchemaArgs};
pub(crate) use record::{ConvertArgs, FileArgs, FlightArgs, ParquetLayout, RecordArgs, WriteArgs};
pub(crate) use recorders::{ControlArgs, DumpArgs, MarkArgs, RecorderArgs};
pub(crate) use replay::ReplayAtArgs;
pub(crate) use report::ReportArgs;
pub(crate) use serve::{OnExit, ServeArgs};
pub(crate) use source::{
    BpfWhen, MethodArgs, NameArgs, ProviderSet, SCHED, SelectEachArgs, SourceArgs, VcpuArgs,
};

#[cfg(feature = "top")]
pub(crate) use quantity::rate as parse_rate;
#[cfg(feature = "top")]
pub(crate) use source::SelectArgs;
pub(crate) use stat::{PaceArgs, StatArgs};
#[cfg(feature = "top")]
pub(crate) use top::{BatchArgs, Marker, TopArgs};

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

    /// Watch virtual machines live: a table, charts and histograms; and go back in time.
    ///
    /// Samples 1000 times a second and draws 10 times a second what was sampled: the table has
    /// rates over the last second and the highest 10 ms in each cell of a sparkline, the chart the
    /// lowest and the highest rate over 10 ms and their mean. A spike of 2 ms is seen.
    ///
    /// The last 60 s are kept: Left and Right go back and forward while sampling goes on, Space
    /// pauses, n goes to the next mark or trigger, End is live again. Key m marks a moment, D
    /// writes the last 30 s to a file, / filters, 1 to 9 sort, Enter opens a vCPU, ? shows all
    /// keys. With --replay a recording is played with the same keys.
    ///
    /// To a pipe, -b prints tables as text. NO_COLOR is obeyed; no meaning is in a colour alone.
    #[cfg(feature = "top")]
    #[command(after_help = examples::WATCH)]
    Top(Box<TopArgs>),

    /// Write every sample to a file, or keep the newest and write them when something happens.
    ///
    /// A file that ends in .arrows is an Arrow stream, which pandas, polars, DuckDB and others
    /// read, also while it is written and after vmstrobe was killed. docs/recordings.md says what
    /// is in each format, and how to open it. Unless --target says otherwise, the recording has all
    /// types of objects that there are at the start: VMs, vCPUs, devices, those of programs.
    ///
    /// With --last, vmstrobe is a flight recorder: it keeps the newest samples in memory and writes
    /// them on `vmstrobe dump`, on SIGUSR2, or when a condition comes true (--when). A condition
    /// compares statistics with bounds: `exits.rate > 50k` (per second, over 10 ms),
    /// `exits.rate[1ms]`, `.delta`, `.value`, and of histograms `.p99` and `.max`; `any` (the
    /// default), `all`, `sum` or `25%` before it says which vCPUs must satisfy it; `and`, `or` and
    /// parentheses join several. docs/flight-recorder.md has more.
    ///
    /// Recording ends on Ctrl-C, SIGTERM or SIGHUP, after a time (-d), with the command (-- CMD),
    /// or with the virtual machines; with --all it goes on, because others may come. If the file
    /// cannot be written any more, what was written is good (of .parquet nothing), and the exit
    /// status is 1.
    #[command(after_help = examples::RECORD)]
    Record(Box<RecordArgs>),

    /// Have a running flight recorder write what it holds.
    ///
    /// A flight recorder is a `vmstrobe record --last TIME`. It writes the samples up to this
    /// moment, and loses none meanwhile. Prints for each file its path, its samples and their time.
    /// There is more than one file if statistics came or went.
    ///
    /// If the recorder cannot write, its reason is printed, the exit status is 1, and the samples
    /// stay with it. Recorders of other users cannot be asked, except by root with --control.
    #[command(after_help = examples::DUMP)]
    Dump(DumpArgs),

    /// Note an event in running recordings.
    ///
    /// Each recording of this user that runs gets an event with the text and the time. It is in the
    /// file, or in the next dump of a flight recorder. The exit status is 1 if one of them could
    /// not be marked.
    #[command(after_help = examples::MARK)]
    Mark(MarkArgs),

    /// Write a recording in another format, or with less in it, or repair its torn end.
    ///
    /// Reads .arrows, also of a writer that was killed or with a torn end, and .parquet in rows.
    /// Writes what is whole in the format that the name of OUT says: .arrows, .parquet, .pftrace,
    /// .csv or .jsonl. What was cut off is said.
    #[command(after_help = examples::CONVERT)]
    Convert(ConvertArgs),

    /// Summarise a recording, or compare two, or sample and summarise.
    ///
    /// For a counter the report shows its total, its mean rate, and how its rate varied: the
    /// median, the 99th percentile and the maximum of its rates over 10 ms, and over 1 s; and which
    /// vCPU has most of it. Rates are of all objects together. A time has ms in a second. For a
    /// histogram the report shows quantiles as upper bounds, and for any other value its range and
    /// mean. Marks and triggers are listed.
    ///
    /// Of two recordings it shows the change of each mean rate with its error, for 95 %, largest
    /// first, and apart from it what is within its error. docs/report.md says how both are
    /// computed.
    ///
    /// Without a FILE, what runs is sampled until Ctrl-C, for a time (-d), or while a command runs
    /// (-- CMD), as `vmstrobe stat` does.
    #[command(after_help = examples::REPORT)]
    Report(Box<ReportArgs>),

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
