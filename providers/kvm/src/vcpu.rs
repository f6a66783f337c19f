//! The vCPUs whose threads are read, as a provider of KVM's has them.
//!
//! Invariant: a vCPU holds its descriptor and its process, so that both stay those that it was made
//! of.

use std::collections::HashMap;
use std::sync::Arc;

use vmstrobe_core::{Object, Target};
use vmstrobe_host::{Process, thread_of};

use crate::fd::KvmFd;
use crate::opened::Opened;

/// A vCPU of a provider of KVM's.
#[derive(Clone, Debug)]
pub struct Vcpu {
    /// The path of its object.
    pub path: Box<str>,
    /// The index of its object.
    pub index: Option<u32>,
    /// The key of its object.
    pub key: u64,
    /// Keeps it, and says whether it is gone.
    pub fd: Arc<KvmFd>,
    /// The process of its VMM; `None` if that is this one.
    pub process: Option<Arc<Process>>,
    /// The thread that runs it, if its VMM has said so.
    pub thread_id: Option<u32>,
}

impl Vcpu {
    /// `None` of a VM.
    pub(crate) fn of(opened: &Opened, process: Option<&Arc<Process>>) -> Option<Self> {
        let Object { path, index, schema, key } = &opened.object;
        (*schema.target() == Target::Vcpu).then(|| Self {
            path: path.clone(),
            index: *index,
            key: *key,
            fd: Arc::clone(&opened.fd),
            process: process.cloned(),
            thread_id: opened.thread_id,
        })
    }

    /// Adds the thread that runs it, if it is among these, by the kernel's number of the thread
    /// that made it.
    pub(crate) fn run_by(mut self, threads: &HashMap<u32, u32>) -> Self {
        let made_by = self.fd.id().and_then(thread_of);
        let run_by = made_by.and_then(|thread| threads.get(&thread).copied());
        self.thread_id = self.thread_id.or(run_by);
        self
    }

    /// Returns the number of its VMM's process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or_else(std::process::id, |process| process.pid())
    }
}
