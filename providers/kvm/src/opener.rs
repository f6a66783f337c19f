//! Opens the descriptors of one provider, and sources of them.
//!
//! Invariant: equal schemas of a provider are one. A source is opened only of objects that have the
//! statistics of its plan.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use vmstrobe_core::{Error, ErrorKind, Object, ReadPlan, Result, Schema, Source, Target};
use vmstrobe_host::{FdOwner, GoneEpoch, Reaper};

use crate::bulk::{BulkOpener, KvmRows};
use crate::fd::{Head, KvmFd, read_block};

/// The parts that the fds of one provider share: one schema for all alike, the reaper that closes
/// them, the counter that moves when an object goes, and what reads many of them in one call.
#[derive(Debug)]
pub struct Opener {
    reaper: Reaper,
    bulk: Option<Arc<dyn BulkOpener>>,
    gone_epoch: GoneEpoch,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

impl Opener {
    /// Makes an opener of a new provider.
    pub fn new(reaper: Reaper, bulk: Option<Arc<dyn BulkOpener>>) -> Self {
        Self { reaper, bulk, gone_epoch: GoneEpoch::default(), schemas: Mutex::default() }
    }

    /// Returns what reads many objects in one call, if there is something.
    pub fn bulk(&self) -> Option<&dyn BulkOpener> {
        self.bulk.as_deref()
    }

    /// Whether objects can be read by their own descriptors, without a stats fd.
    pub fn reads_object_fds(&self) -> bool {
        self.bulk().is_some_and(|bulk| bulk.refusal().is_none())
    }

    /// Returns the schema of what is behind the own descriptor of a VM or a vCPU.
    ///
    /// # Errors
    /// `Unsupported` if nothing reads such descriptors, or as [`BulkOpener::object_schema`].
    pub fn object_schema(&self, target: &Target) -> Result<Arc<Schema>> {
        let none =
            || Error::new(ErrorKind::Unsupported, "nothing reads objects without a stats fd");
        self.bulk().ok_or_else(none)?.object_schema(target)
    }

    /// Returns the warnings of what reads many objects in one call.
    pub fn warnings(&self) -> Vec<Error> {
        self.bulk().map(BulkOpener::warnings).unwrap_or_default()
    }

    /// Moves when an object of the provider goes.
    pub fn gone_epoch(&self) -> &GoneEpoch {
        &self.gone_epoch
    }

    /// Reads and checks the head of a stats fd; `owner` is whose it is, if it is borrowed.
    ///
    /// # Errors
    /// `Malformed` or `TooLarge` if this is no block of statistics, `Io` if it cannot be read.
    pub fn open(&self, fd: OwnedFd, target: Target, owner: Option<FdOwner>) -> Result<KvmFd> {
        let block = match read_block(&fd, target) {
            Ok(block) => block,
            Err(error) => {
                self.reaper.close(fd);
                return Err(error);
            }
        };
        let data_offset = u64::from(block.header.data_offset);
        Ok(self.hold(fd, Head::Stats { data_offset, id: block.id }, block.schema, owner))
    }

    /// Holds a VM's or vCPU's own fd, which nothing is read from; `schema` is what the BPF
    /// reader finds behind it.
    pub fn open_object_fd(
        &self,
        fd: OwnedFd,
        schema: Arc<Schema>,
        owner: Option<FdOwner>,
    ) -> KvmFd {
        self.hold(fd, Head::ObjectFd, schema, owner)
    }

    fn hold(&self, fd: OwnedFd, head: Head, schema: Arc<Schema>, owner: Option<FdOwner>) -> KvmFd {
        let (reaper, gone_epoch) = (self.reaper.clone(), self.gone_epoch.clone());
        KvmFd::new(fd, head, self.intern(schema), owner, reaper, gone_epoch)
    }

    /// Opens sources of these objects, in their order. `find` gives an object's fd by its key; the
    /// row of one that it does not find is marked as gone.
    ///
    /// # Errors
    /// `Malformed` if an object's statistics are not those that the plan was made for, or as
    /// [`BulkOpener::open`].
    pub fn sources(
        &self,
        objects: &[Object],
        plan: &Arc<ReadPlan>,
        find: impl Fn(u64) -> Option<Arc<KvmFd>>,
    ) -> Result<Vec<Box<dyn Source>>> {
        // Before anyone is asked whether it is gone; see `GoneEpoch`.
        let opened_at = self.gone_epoch.count();
        let row = |object: &Object| {
            let Some(fd) = find(object.key).filter(|fd| !fd.is_gone()) else {
                return Ok(None);
            };
            // Else the plan's words would be other statistics' here.
            if *fd.schema() != *plan.schema() {
                let text = format!("{} has other statistics than the plan is for", object.path);
                return Err(Error::new(ErrorKind::Malformed, text));
            }
            Ok(Some(fd))
        };
        let rows = KvmRows {
            fds: objects.iter().map(row).collect::<Result<_>>()?,
            objects: objects.into(),
            plan: Arc::clone(plan),
            gone_epoch: self.gone_epoch.clone(),
            opened_at,
        };
        let opened = self.bulk().map_or(Ok(None), |bulk| bulk.open(&rows))?;
        Ok(opened.unwrap_or_else(|| rows.pread_sources()))
    }

    /// The one of equal schemas that was there first.
    fn intern(&self, schema: Arc<Schema>) -> Arc<Schema> {
        let mut schemas = self.schemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = schemas.iter().find(|known| **known == schema) {
            return Arc::clone(known);
        }
        schemas.push(Arc::clone(&schema));
        schema
    }

    /// Returns the number of different schemas.
    #[cfg(test)]
    pub(crate) fn schema_count(&self) -> usize {
        self.schemas.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
