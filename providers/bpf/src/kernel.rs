//! The running kernel, proven: its offsets were tried on a guest of our own, of which both ways
//! read the same ([`trial`](super::trial)).
//!
//! Invariant: a [`Kernel`] is only there once that is so. Whatever is wrong with this kernel or
//! with our rights is an error that says what and what to do.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use vmstrobe_core::{ErrorKind, ReadPlan, Result, Schema};

use super::bulk::{BulkReader, Step, Wanted};
use super::offsets::Offsets;
use super::reference::Reference;
use super::slots::{Kinds, KvmFile, Subject};
use super::sys::apart;
use super::trial::{Proven, Trial};

/// The proven offsets, kinds of files and instructions that bulk readers are made with.
#[derive(Debug)]
pub(super) struct Kernel {
    offsets: Offsets,
    kinds: Kinds,
    proven: Proven,
    /// Whether threads can be followed too; see `threads`.
    pub(super) threads: OnceLock<std::result::Result<(), (ErrorKind, String)>>,
}

impl Kernel {
    /// Tries it out: some tens of ms.
    ///
    /// # Errors
    /// `Denied` without the right to load programs; `Unsupported` if this kernel does not take
    /// them, keeps its statistics elsewhere, or they do not read what `pread` does.
    pub(super) fn prove(btf_dir: &Path) -> Result<Self> {
        Reference::check_processor()?;
        let offsets = Offsets::read(btf_dir)?;
        let kinds = Kinds::new()?;
        // Nobody who looks at this process's descriptors sees the guest, and takes it for a VM.
        let proven = apart(|| Trial::new(&offsets, &kinds)?.prove())??;
        Ok(Self { offsets, kinds, proven, threads: OnceLock::new() })
    }

    /// Returns the instructions by which it reads.
    pub(super) fn step(&self) -> Step {
        self.proven.steps[0]
    }

    pub(super) fn schema(&self, subject: Subject) -> &Arc<Schema> {
        self.proven.schema(subject)
    }

    /// Makes a bulk reader of these files.
    ///
    /// # Errors
    /// As [`BulkReader::new`].
    pub(super) fn bulk(
        &self,
        subject: Subject,
        plan: &ReadPlan,
        files: &[Option<KvmFile<'_>>],
    ) -> Result<BulkReader> {
        let wanted = Wanted { subject, plan, files, kinds: &self.kinds };
        BulkReader::new(&self.offsets, &self.proven.steps, &wanted)
    }
}

#[cfg(test)]
mod tests;
