//! KVM's statistics: of a VM of this process ([`OwnKvm`]) and of VMs of others ([`AttachedKvm`]).
//!
//! Invariant: an object's key is given out once, so that no source can read another vCPU than the
//! one it was opened for. The two providers differ only in how they come by their fds.

use std::sync::Arc;

use vmstrobe_core::{Object, Schema};

use crate::fd::KvmFd;

mod proc;
mod scan;
mod bpf;

mod own;
mod attach;
mod sched;

#[cfg(test)]
pub(crate) mod tests;

pub use attach::{AttachOptions, AttachedKvm};
pub use bpf::{Bpf, BpfMode, BpfStatus};
pub use own::{OwnKvm, VCPU_BUSY_LIMIT};
pub use scan::{Access, VmInfo, scan, scan_by};
pub(crate) use scan::{Made, divide, made, vms_of};
pub use sched::Sched;

/// An object with its open fd.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) object: Object,
    pub(crate) fd: Arc<KvmFd>,
    /// The thread that runs the vCPU, if its VMM has said so.
    thread_id: Option<u32>,
}

impl Opened {
    pub(crate) fn new(path: &str, index: Option<u32>, key: u64, fd: KvmFd) -> Self {
        let schema = Arc::clone(fd.schema());
        let object = Object { path: path.into(), index, schema, key };
        Self { object, fd: Arc::new(fd), thread_id: None }
    }
}

/// The schemas of these objects, each once, the VMs' before the vCPUs'.
pub(crate) fn schemas_of<'a>(opened: impl Iterator<Item = &'a Opened>) -> Vec<Arc<Schema>> {
    let mut schemas: Vec<Arc<Schema>> = Vec::new();
    for schema in opened.map(|opened| &opened.object.schema) {
        // They were interned: equal ones are one.
        if !schemas.iter().any(|known| Arc::ptr_eq(known, schema)) {
            schemas.push(Arc::clone(schema));
        }
    }
    schemas.sort_by(|a, b| a.target().cmp(b.target()));
    schemas
}

/// The path of a VM of that name, in which a name is one component.
fn vm_path(name: &str) -> String {
    format!("/vm/{}", name.replace('/', "_"))
}

fn vcpu_path(vm_path: &str, index: u32) -> String {
    format!("{vm_path}/vcpu[{index}]")
}
