//! The arguments of the commands that show what there is or read it once: `demo`, `list`,
//! `schema`, `query` and `info`.
//!
//! Invariant: a source, a method and a choice have the same options in each of them.

use clap::Args;

use super::quantity;
use super::replay::{ReplayArgs, ReplayAtArgs};
use super::source::{MethodArgs, SelectArgs, SourceArgs, VcpuArgs};
use super::stat::PaceArgs;

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
