//! The arguments that select the sources, the method of reading, and the statistics.
//!
//! Invariant: an option that was left out is distinguished from any value of it. The library, which
//! knows what this host has, decides what an option that was left out stands for.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use vmstrobe::{Names, Selection, Sources, Target, VcpuRef};

use super::quantity;

/// The provider that is read only if the user names it, because QEMU has none of that name.
pub(crate) const SCHED: &str = "sched";

/// The heading of the sources in help texts.
pub(super) const HEADING: &str =
    "Sources (default: the only virtual machine here, or else the only program with tables)";

/// The sources of statistics.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = HEADING)]
pub(crate) struct SourceArgs {
    /// Read the virtual machine and the tables of this process; may be given more than once
    #[arg(short, long = "pid", value_name = "PID", value_parser = quantity::pid)]
    pub(crate) pids: Vec<u32>,

    /// Read all virtual machines and tables on this host, except those that cannot be read; `stat`,
    /// `record` and `serve` also read those that come later
    #[arg(long, conflicts_with = "pids")]
    pub(crate) all: bool,

    /// Read from the QEMU behind this QMP socket. Alone, this option reads all of QEMU's
    /// statistics. With -p or --all it adds QEMU's names of the vCPUs, and data that only QEMU has,
    /// such as crypto devices; may be given more than once
    #[arg(long = "from-qmp", value_name = "SOCKET")]
    pub(crate) qmp: Vec<PathBuf>,

    /// Read the statistics that a program publishes in this file (a table; it is on tmpfs, such as
    /// /dev/shm); may be given more than once
    #[arg(long = "table", value_name = "FILE")]
    pub(crate) tables: Vec<PathBuf>,

    /// Read the virtual machine and the tables whose descriptors a program hands over on this
    /// socket (FdServer of vmstrobe's library); no right is needed but to connect; may be given
    /// more than once
    #[arg(long = "from-socket", value_name = "SOCKET")]
    pub(crate) sockets: Vec<PathBuf>,

    /// Attach also on a kernel before 6.5 (6.4.8, 6.1.43, 5.15.124). Such a kernel reads freed
    /// memory if a virtual machine ends while it is read; use this only if the kernel has the fix
    /// under another version number
    #[arg(long)]
    pub(crate) on_any_kernel: bool,

    /// Start a guest and a crypto device for this command, and read these
    #[arg(long, conflicts_with_all = ["pids", "all", "qmp", "tables", "sockets"])]
    pub(crate) demo: bool,
}

impl SourceArgs {
    /// Returns true if the user named any source.
    pub(crate) fn is_named(&self) -> bool {
        self.demo || self.sources().is_any()
    }

    /// Returns the sources for the library, which does not know the demo's guest.
    pub(crate) fn sources(&self) -> Sources {
        let Self { pids, all, qmp, tables, sockets, demo: _, on_any_kernel: _ } = self.clone();
        Sources { pids, all, qmp, tables, sockets }
    }
}

/// The method of reading.
#[derive(Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Method of reading")]
pub(crate) struct MethodArgs {
    /// Choose when to use the BPF reader, a program in the kernel that reads all vCPUs of any VMM
    /// in one call. Without it each vCPU takes one call, and the VMM must keep its stats fds open,
    /// as QEMU 8.1 and later do
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) bpf: BpfWhen,
}

/// When to use the BPF reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BpfWhen {
    /// If it is permitted, passes its self-test, and is faster or the only method
    #[default]
    Auto,
    /// Never; nothing is loaded into the kernel
    Off,
    /// Always; fail with the reason if it cannot be used
    Require,
}

/// The providers that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProviderSet {
    /// The sampler's own provider alone, which needs no source.
    OwnOnly,
    /// All providers of the sources but [`SCHED`].
    WithoutSched,
    /// All providers of the sources, and [`SCHED`].
    WithSched,
}

impl ProviderSet {
    /// Returns the providers that a target and a provider need; `None` for one that was not named.
    pub(crate) fn of(target: Option<&str>, provider: Option<&str>) -> Self {
        match (target, provider) {
            (Some(vmstrobe::TARGET), _) | (_, Some(vmstrobe::PROVIDER)) => Self::OwnOnly,
            (_, Some(SCHED)) => Self::WithSched,
            _ => Self::WithoutSched,
        }
    }
}

/// The choice of statistics.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Statistics (default: all)")]
pub(crate) struct SelectArgs {
    /// Select the object type: vm, vcpu, cryptodev, a program's own (such as queue), or sampler for
    /// vmstrobe itself. Default: vcpu, or the only type present
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Option<String>,

    #[command(flatten)]
    pub(crate) of: NameArgs,
}

/// The choice of statistics for a recording, which can have objects of several types.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Statistics (default: all)")]
pub(crate) struct SelectEachArgs {
    /// Select an object type: vm, vcpu, cryptodev, a program's own (such as queue), or sampler for
    /// vmstrobe itself; may be given more than once. Default: all types present but sampler
    #[arg(long = "target", value_name = "TARGET")]
    pub(crate) targets: Vec<String>,

    #[command(flatten)]
    pub(crate) of: NameArgs,
}

/// The choice of statistics by their names.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Statistics (default: all)")]
pub(crate) struct NameArgs {
    /// Select by names, globs (halt_*) and /regexes/, separated by commas; a leading - excludes
    #[arg(long, value_name = "LIST", value_parser = Names::parse, allow_hyphen_values = true)]
    pub(crate) names: Option<Names>,

    /// Show one provider only: kvm, cryptodev, a program's own, or vmstrobe for vmstrobe itself.
    /// sched, the host scheduler's statistics of each vCPU's thread, is shown only when named here
    #[arg(long, value_name = "NAME")]
    pub(crate) provider: Option<String>,
}

impl NameArgs {
    /// Returns the selection for the library, with this target and these vCPUs.
    fn selection(&self, target: Option<Target>, vcpus: &VcpuArgs) -> Selection {
        let Self { names, provider } = self;
        Selection { target, provider: provider.clone(), names: names.clone(), vcpus: vcpus.refs() }
    }
}

impl SelectArgs {
    /// Returns the providers that this choice needs.
    pub(crate) fn providers(&self) -> ProviderSet {
        ProviderSet::of(self.target.as_deref(), self.of.provider.as_deref())
    }

    /// Returns the selection for the library, with these vCPUs.
    pub(crate) fn selection(&self, vcpus: &VcpuArgs) -> Selection {
        self.of.selection(self.target.as_deref().map(Target::from_name), vcpus)
    }
}

impl SelectEachArgs {
    /// Returns the providers that this choice needs.
    pub(crate) fn providers(&self) -> ProviderSet {
        // Every other target needs more than vmstrobe's own provider.
        let is_own = |target: &&String| *target == vmstrobe::TARGET;
        let target = self.targets.iter().find(|target| !is_own(target)).or(self.targets.first());
        ProviderSet::of(target.map(String::as_str), self.of.provider.as_deref())
    }

    /// Returns the targets that the user named.
    pub(crate) fn targets(&self) -> Vec<Target> {
        self.targets.iter().map(|target| Target::from_name(target)).collect()
    }

    /// Returns the selection for the library, with these vCPUs and without the targets.
    pub(crate) fn selection(&self, vcpus: &VcpuArgs) -> Selection {
        self.of.selection(None, vcpus)
    }
}

/// The choice of vCPUs.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Statistics (default: all)")]
pub(crate) struct VcpuArgs {
    /// Select this vCPU, by index or path; may be given more than once
    #[arg(long = "vcpu", value_name = "PATH|INDEX")]
    pub(crate) vcpus: Vec<String>,
}

impl VcpuArgs {
    /// Returns the vCPUs for the library.
    pub(crate) fn refs(&self) -> Vec<VcpuRef> {
        self.vcpus.iter().map(|vcpu| VcpuRef::parse(vcpu)).collect()
    }
}
