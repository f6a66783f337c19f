//! The stand-in for KVM's statistics: no process has a virtual machine.

use std::convert::Infallible;
use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Object, Provider, ReadPlan, Result, Schema, Source};
use vmstrobe_host::{CpuNames, FdBudget, Host, Reaper, Seen, VmInfo};

/// The name of the providers of KVM's statistics.
pub(crate) const KVM: &str = "kvm";
/// The name of the provider of the scheduler's statistics.
pub(crate) const SCHED: &str = "sched";

/// The method that reads many vCPUs in one call: there is none.
pub(crate) type Bulk = Option<Infallible>;

/// The options for attaching, of which the host counts, which others use too.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "given as to the real one, and nothing is attached to")]
pub(crate) struct AttachOptions {
    pub(crate) bulk: Bulk,
    pub(crate) host: Host,
    pub(crate) budget: FdBudget,
    pub(crate) on_any_kernel: bool,
}

/// Returns no virtual machine.
pub(crate) fn vms_of(_: &Host, _: &[(u32, Seen)]) -> Vec<VmInfo> {
    Vec::new()
}

/// Returns the error that the process has none.
pub(crate) fn scan_by(_: &Host, pid: u32) -> Result<Vec<VmInfo>> {
    Err(no_vm(pid))
}

fn no_vm(pid: u32) -> Error {
    let why = super::without(&format!("the virtual machine of pid {pid}"), "kvm");
    // As of a process without a VM: what else it has is read.
    Error::new(ErrorKind::NotFound, why.to_string())
}

/// A provider without virtual machines.
#[derive(Debug)]
pub(crate) struct AttachedKvm;

impl AttachedKvm {
    pub(crate) fn with_options(_: Reaper, _: AttachOptions) -> Result<Self> {
        Ok(Self)
    }

    pub(crate) fn attach(&self, pid: u32) -> Result<()> {
        Err(no_vm(pid))
    }

    pub(crate) fn attach_all(&self, pids: &[u32]) -> Vec<Result<()>> {
        pids.iter().map(|pid| self.attach(*pid)).collect()
    }

    pub(crate) fn detach(&self, _: u32) {}

    pub(crate) fn use_names(&self, _: u32, _: CpuNames) {}

    pub(crate) fn sched(self: &Arc<Self>) -> Result<Self> {
        Err(super::without("the scheduler's statistics of vCPUs", "kvm"))
    }
}

impl Provider for AttachedKvm {
    fn name(&self) -> &str {
        KVM
    }

    fn schemas(&self) -> Result<Vec<Arc<Schema>>> {
        Ok(Vec::new())
    }

    fn objects(&self) -> Result<Vec<Object>> {
        Ok(Vec::new())
    }

    fn open(&self, _: &[Object], _: &Arc<ReadPlan>) -> Result<Vec<Box<dyn Source>>> {
        Ok(Vec::new())
    }
}
