//! The seam to a method that reads many objects in one call, where `pread` takes one each.
//!
//! This crate knows the method only by the trait [`BulkOpener`], which a program gives to a
//! provider. Without one, everything is read by `pread`, and threads from /proc.
//!
//! Invariant: whoever implements it has read every object right before a source is given out, and
//! falls back on what is given here after any doubt.

use std::fmt::Debug;
use std::sync::Arc;

use vmstrobe_core::{Error, Object, ReadPlan, Result, Schema, Source, Target};
use vmstrobe_host::GoneEpoch;

use crate::fd::{KvmFd, pread_source, pread_sources};
use crate::vcpu::Vcpu;

/// Opens sources that read many objects in one call.
pub trait BulkOpener: Debug + Send + Sync {
    /// Returns the reason why it cannot read objects by their own descriptors, and `None` if it
    /// can. Tries it, if that has not been done yet, which may take some 50 ms.
    fn refusal(&self) -> Option<String>;

    /// Returns the schema of what it reads behind the own descriptor of a VM or a vCPU.
    ///
    /// # Errors
    /// As [`BulkOpener::refusal`] says.
    fn object_schema(&self, target: &Target) -> Result<Arc<Schema>>;

    /// Opens sources of these rows; `None` if `pread` is to read them.
    ///
    /// # Errors
    /// If it must be used, why it cannot be.
    fn open(&self, rows: &KvmRows) -> Result<Option<Vec<Box<dyn Source>>>>;

    /// Checks whether it is to read the threads of vCPUs; `is_only_way` says that some of these
    /// threads cannot be told in any other way.
    ///
    /// # Errors
    /// Why it is not.
    fn check_threads(&self, is_only_way: bool) -> std::result::Result<(), NoThreads>;

    /// Opens sources of threads; `fallback` makes what reads some of them otherwise.
    ///
    /// # Errors
    /// As [`BulkOpener::check_threads`].
    fn open_threads(&self, rows: &ThreadRows, fallback: MakeFallback<'_>) -> ThreadSources;

    /// Says in words whether it is used, and by which means or why not.
    fn status(&self) -> String;

    /// Returns a warning if it was used and is not any more.
    fn warnings(&self) -> Vec<Error>;
}

/// The reason why threads are not read in one call.
#[derive(Debug)]
#[non_exhaustive]
pub enum NoThreads {
    /// It is not wanted for them, or reads nothing at all.
    Unwanted,
    /// It reads objects, but cannot read threads.
    Refused(Error),
    /// It must read them, and cannot.
    Required(Error),
}

/// Makes a source that reads the threads of these vCPUs otherwise.
pub type MakeFallback<'a> = &'a dyn Fn(&[Option<Vcpu>]) -> Box<dyn Source>;

/// The sources of threads, or why threads are not read in one call.
pub type ThreadSources = std::result::Result<Vec<Box<dyn Source>>, NoThreads>;

/// Objects to be opened, all of the plan's schema.
#[derive(Clone, Debug)]
pub struct KvmRows {
    /// The objects, in the order of the rows.
    pub objects: Box<[Object]>,
    /// The words to keep of each.
    pub plan: Arc<ReadPlan>,
    /// The descriptor of each object; `None` if it had gone.
    pub fds: Box<[Option<Arc<KvmFd>>]>,
    /// The number that moves when an object of the provider goes.
    pub gone_epoch: GoneEpoch,
    /// The number from before any object was asked whether it is gone.
    pub opened_at: u64,
}

/// vCPUs whose threads are to be opened; the plan is of the schema of [`Sched`](crate::Sched) and
/// keeps something.
#[derive(Clone, Debug)]
pub struct ThreadRows {
    /// The objects, in the order of the rows.
    pub objects: Box<[Object]>,
    /// The words to keep of each.
    pub plan: Arc<ReadPlan>,
    /// The vCPU of each object; `None` if it had gone.
    pub vcpus: Box<[Option<Vcpu>]>,
    /// The number that moves when a vCPU of the provider goes.
    pub gone_epoch: GoneEpoch,
    /// The number from before any vCPU was asked whether it is gone.
    pub opened_at: u64,
}

impl KvmRows {
    /// Opens sources that read the rows by `pread`, some 64 each.
    pub fn pread_sources(&self) -> Vec<Box<dyn Source>> {
        pread_sources(&self.plan, &self.fds, &self.gone_epoch, self.opened_at)
    }

    /// Opens one source that reads some of the rows by `pread`.
    pub fn pread_source(&self, fds: &[Option<Arc<KvmFd>>]) -> Box<dyn Source> {
        pread_source(&self.plan, fds, &self.gone_epoch, self.opened_at)
    }

    /// Whether an object can be read by its own descriptor alone.
    pub fn has_object_fd(&self) -> bool {
        self.fds.iter().flatten().any(|fd| fd.is_object_fd())
    }
}
