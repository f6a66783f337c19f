//! An object of KVM's with its open descriptor.
//!
//! Invariant: the schemas of one provider's objects are interned: equal ones are one.

use std::sync::Arc;

use vmstrobe_core::{Object, Schema};

use crate::fd::KvmFd;

/// An object with its open fd.
#[derive(Debug)]
pub struct Opened {
    /// The object.
    pub object: Object,
    /// Its descriptor.
    pub fd: Arc<KvmFd>,
    /// The thread that runs the vCPU, if its VMM has said so.
    pub thread_id: Option<u32>,
}

impl Opened {
    /// Makes an object of that path, index and key, of the statistics of its descriptor.
    pub fn new(path: &str, index: Option<u32>, key: u64, fd: KvmFd) -> Self {
        let schema = Arc::clone(fd.schema());
        let object = Object { path: path.into(), index, schema, key };
        Self { object, fd: Arc::new(fd), thread_id: None }
    }
}

/// Returns the schemas of these objects, each once, the VMs' before the vCPUs'.
pub fn schemas_of<'a>(opened: impl Iterator<Item = &'a Opened>) -> Vec<Arc<Schema>> {
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

/// Returns the path of a vCPU below that of its VM.
pub(crate) fn vcpu_path(vm_path: &str, index: u32) -> String {
    format!("{vm_path}/vcpu[{index}]")
}
