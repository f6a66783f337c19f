//! The arguments that say where statistics come from, how they are read and which are wanted.
//!
//! Invariant: what the user named is told from what they left out. The engine, which knows what
//! there is on this host, decides what an option that was left out stands for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmstrobe_core::{Names, Target};

use super::quantity;

/// The provider that is read only if the user asks for it: QEMU has none of that name.
pub(crate) const SCHED: &str = "sched";

const HEADING: &str =
    "Where from (default: the only virtual machine here, or else the only program with tables)";

/// The sources of statistics.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = HEADING)]
pub(crate) struct Source {
    /// The process of this id: its virtual machine, its tables; may be given more than once
    #[arg(short, long = "pid", value_name = "PID", value_parser = quantity::pid)]
    pub(crate) pids: Vec<u32>,

    /// All virtual machines and tables on this host that can be read
    #[arg(long, conflicts_with = "pids")]
    pub(crate) all: bool,

    /// The QEMU behind this QMP socket: all it tells; beside -p or --all its names for the vCPUs,
    /// and what only it knows, such as its crypto devices; may be given more than once
    #[arg(long = "from-qmp", value_name = "SOCKET")]
    pub(crate) qmp: Vec<PathBuf>,

    /// The table of statistics in this file on tmpfs; may be given more than once
    #[arg(long = "table", value_name = "FILE")]
    pub(crate) tables: Vec<PathBuf>,

    /// The statistics that the process behind this socket hands over; may be given more than once
    #[arg(long = "from-socket", value_name = "SOCKET")]
    pub(crate) sockets: Vec<PathBuf>,

    /// Attach also on a kernel before 6.5 (6.4.8, 6.1.43, 5.15.124), which reads freed memory if a
    /// virtual machine ends while it is read: only for one that has the fix under another number
    #[arg(long)]
    pub(crate) on_any_kernel: bool,

    /// A demo guest and its crypto device, which are started for this
    #[arg(long, conflicts_with_all = ["pids", "all", "qmp", "tables", "sockets"])]
    pub(crate) demo: bool,
}

impl Source {
    /// Did the user say anything?
    pub(crate) fn is_named(&self) -> bool {
        let Self { pids, all, qmp, tables, sockets, demo, on_any_kernel: _ } = self;
        let any = !pids.is_empty() || !qmp.is_empty() || !tables.is_empty() || !sockets.is_empty();
        any || *all || *demo
    }
}

/// The options for how statistics are read.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "How they are read")]
pub(crate) struct How {
    /// The BPF reader: a program in the kernel (BPF) reads all vCPUs in one call, and those
    /// of any VMM. Without it each takes a call, and its VMM has to keep its statistics open
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) bpf: When,
}

/// When to use the BPF reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Only if it is permitted, passes its self-test here, and is faster or the only way
    #[default]
    Auto,
    /// Never: nothing is loaded into the kernel
    Off,
    /// Always: where it cannot be used, fail and say why
    Require,
}

/// The providers that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderSet {
    /// vmstrobe's own alone, which needs no source.
    Own,
    /// All providers of the sources but [`SCHED`].
    Usual,
    /// All providers of the sources, and [`SCHED`].
    WithSched,
}

impl ProviderSet {
    /// Returns the providers that statistics of this target and provider need. `None`: not named.
    pub(crate) fn of(target: Option<&str>, provider: Option<&str>) -> Self {
        match (target, provider) {
            (Some(vmstrobe_sampler::TARGET), _) | (_, Some(vmstrobe_sampler::PROVIDER)) => {
                Self::Own
            }
            (_, Some(SCHED)) => Self::WithSched,
            _ => Self::Usual,
        }
    }
}

/// The choice of statistics.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which statistics (default: all)")]
pub(crate) struct Wanted {
    /// Of what kind of object: vm, vcpu, cryptodev, anyone's own (such as queue), or sampler for
    /// vmstrobe itself. Left out: vcpu, or else the only kind there is
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,

    /// Names, globs (halt_*) and /regexes/ with commas between; a leading - excludes
    #[arg(long, value_name = "LIST", value_parser = Names::parse, allow_hyphen_values = true)]
    pub(crate) names: Option<Names>,

    /// Of one provider: kvm, cryptodev, anyone's own, or vmstrobe for vmstrobe itself; or, not
    /// shown otherwise, sched: what the host's scheduler says of each vCPU's thread
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
}

impl Wanted {
    /// Returns the providers that this choice needs.
    pub(crate) fn whose(&self) -> ProviderSet {
        ProviderSet::of(self.target.as_deref(), self.provider.as_deref())
    }

    /// Returns the target, if the user named one.
    pub(crate) fn target(&self) -> Option<Target> {
        self.target.as_deref().map(Target::from_name)
    }
}

/// The choice of vCPUs.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Which statistics (default: all)")]
pub(crate) struct Vcpus {
    /// One vCPU, by its number or path; may be given more than once
    #[arg(long = "vcpu", value_name = "PATH|INDEX")]
    pub(crate) vcpus: Vec<String>,
}
