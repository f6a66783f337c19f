//! The arguments of commands that read once: `list`, `schema`, `query` and `info stats`.
//!
//! Invariant: what a command selects by default is decided by the library, which knows what there
//! is.

use clap::Args;

use super::replay::{ReplayArgs, ReplayAtArgs};
use super::source::{MethodArgs, SelectArgs, SourceArgs, VcpuArgs};

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
    pub(crate) replay: ReplayArgs,

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
    pub(crate) replay: ReplayAtArgs,

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
    pub(crate) replay: ReplayAtArgs,

    #[command(flatten)]
    pub(crate) vcpus: VcpuArgs,

    #[command(flatten)]
    pub(crate) method: MethodArgs,
}
