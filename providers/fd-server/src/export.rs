//! The owners of descriptors that can be exported, and the descriptors of each.
//!
//! Invariant: nothing can be changed by a descriptor that is exported.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vmstrobe_core::{Object, Result, Target};
use vmstrobe_kvm::{KvmFd, OwnKvm};
use vmstrobe_table::TableWriter;

use super::message::{Kind, sent_path};

/// An owner of descriptors that can be exported: [`OwnKvm`] and [`TableWriter`].
pub trait ExportFds: Send + Sync + fmt::Debug {
    /// Returns the descriptors to be exported now. It is called again and again while a client is
    /// connected, so it must not wait.
    ///
    /// # Errors
    /// If they cannot be had, or this is not to be exported at all.
    fn exports(&self) -> Result<Vec<ExportedFd>>;
}

/// A descriptor to be exported, and what it is.
#[derive(Debug)]
pub struct ExportedFd {
    /// Unlike any other that its [`ExportFds`] ever has.
    pub(super) key: u64,
    pub(super) kind: Kind,
    held: Held,
}

#[derive(Debug)]
enum Held {
    /// Closed by its reaper, as every stats fd.
    Stats(Arc<KvmFd>),
    Table(OwnedFd),
}

impl ExportedFd {
    /// The stats fd of a VM or a vCPU, under its path and index.
    fn stats(object: &Object, stats: &Arc<KvmFd>) -> Self {
        let path = sent_path(&object.path);
        let kind = match object.index {
            Some(index) if *object.schema.target() == Target::Vcpu => Kind::Vcpu { index, path },
            _ => Kind::Vm { path },
        };
        Self { key: object.key, kind, held: Held::Stats(Arc::clone(stats)) }
    }

    /// A table, under a number of its owner's.
    pub(super) fn table(key: u64, table: OwnedFd) -> Self {
        Self { key, kind: Kind::Table, held: Held::Table(table) }
    }

    /// Returns the descriptor itself.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match &self.held {
            Held::Stats(stats) => stats.fd().as_fd(),
            Held::Table(table) => table.as_fd(),
        }
    }
}

/// Exports the stats fds, by which nothing of the VM can be changed.
impl ExportFds for OwnKvm {
    fn exports(&self) -> Result<Vec<ExportedFd>> {
        let stats = self.stats_fds();
        Ok(stats.iter().map(|(object, fd)| ExportedFd::stats(object, fd)).collect())
    }
}

/// Exports the table. A table in a file is not exported.
impl ExportFds for TableWriter {
    fn exports(&self) -> Result<Vec<ExportedFd>> {
        Ok(vec![ExportedFd::table(0, self.descriptor()?)])
    }
}
