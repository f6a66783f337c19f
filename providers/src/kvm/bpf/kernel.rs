//! The running kernel, proven: its offsets were tried on a guest of our own, of which both ways
//! read the same.
//!
//! Invariant: a [`Kernel`] is only there once that is so. Whatever is wrong with this kernel or
//! with our rights is an error that says what and what to do.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use vmstrobe_core::{
    Error, ErrorKind, Mask, Object, ReadPlan, Result, RowState, Schema, WORD_BYTES,
};

use super::frame::Shape;
use super::offsets::Offsets;
use super::reference::Reference;
use super::slots::{KvmFile, Slots, Subject};
use super::sweep::{Step, Sweep, Wanted};

/// Words of our vCPU that must not be 0: by fewer, two readings might agree by chance.
const NONZERO_WORDS_MIN: usize = 3;

/// What sweeps are made with.
#[derive(Debug)]
pub(super) struct Kernel {
    offsets: Offsets,
    /// Those that work here, best first.
    steps: Vec<Step>,
    reference: Reference,
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
        let offsets = Offsets::read(btf_dir)?;
        let reference = Reference::new()?;
        let steps = Step::all(&offsets);
        let mut kernel = Self { offsets, steps, reference, threads: OnceLock::new() };
        for subject in [Subject::Vcpu, Subject::Vm] {
            kernel.check_size(subject)?;
            let step = kernel.compare(subject)?;
            // What was refused once is not tried again.
            let first = kernel.steps.iter().position(|known| *known == step).unwrap_or(0);
            kernel.steps.drain(..first);
        }
        kernel.check_kinds()?;
        Ok(kernel)
    }

    /// By which instructions it reads.
    pub(super) fn step(&self) -> Step {
        self.steps[0]
    }

    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(super) fn schema(&self, subject: Subject) -> &Arc<Schema> {
        self.reference.stats(subject).schema()
    }

    /// A sweep of these files, of which the first are those of `objects`.
    ///
    /// # Errors
    /// As [`Sweep::new`].
    pub(super) fn sweep(
        &self,
        subject: Subject,
        plan: &ReadPlan,
        objects: &[Object],
        files: &[Option<KvmFile<'_>>],
    ) -> Result<Sweep> {
        let known = self.reference.files(subject);
        let wanted = Wanted { subject, plan, objects, files, known };
        Sweep::new(&self.offsets, &self.steps, &wanted)
    }

    /// The block has to be as long as the kernel's descriptors say.
    fn check_size(&self, subject: Subject) -> Result<()> {
        let holder = match subject {
            Subject::Vm => &self.offsets.vm,
            Subject::Vcpu | Subject::Thread => &self.offsets.vcpu,
        };
        let want = self.schema(subject).data_bytes();
        if holder.stat_bytes as usize == want {
            return Ok(());
        }
        let text = format!(
            "the kernel's types do not fit its statistics: a block of {} bytes in the one, of \
             {want} in the other",
            holder.stat_bytes
        );
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    /// What tells KVM's files from others has to tell them from each other: what is the same of
    /// these, might be the same of any.
    fn check_kinds(&self) -> Result<()> {
        let known = self.reference.files(Subject::Vcpu);
        for (is_plain, fd) in [false, true].into_iter().zip(self.reference.files(Subject::Vm)) {
            let (slots, file) = (Slots::new(1)?, KvmFile { fd, is_plain });
            if slots.takes(&self.offsets, Subject::Vcpu, known, file)? {
                return Err(unproven("it takes a VM for a vCPU".to_owned()));
            }
        }
        Ok(())
    }

    /// Reads our guest through its stats fd and through its plain one, and by pread.
    fn compare(&self, subject: Subject) -> Result<Step> {
        let stats = self.reference.stats(subject);
        let schema = stats.schema();
        let plan = ReadPlan::new(schema, &Mask::all(schema));
        let [stats_file, plain] = self.reference.files(subject);
        let file = |fd, is_plain| Some(KvmFile { fd, is_plain });
        let files = [file(stats_file, false), file(plain, true)];
        let mut sweep = self.sweep(subject, &plan, &[], &files)?;
        let head = sweep.run().map_err(|unread| unproven(format!("{unread:?}")))?;
        if head.marked != 0 {
            return Err(unproven("it reads nothing of what is there".to_owned()));
        }
        let mut span = vec![0; plan.span_bytes().len() / WORD_BYTES];
        if stats.read_span(&plan, &mut span) != RowState::Good {
            return Err(unproven("our own guest cannot be read by pread".to_owned()));
        }
        let mut want = vec![0; plan.row_words()];
        plan.keep(&span, &mut want);
        let nonzero = want.iter().filter(|word| **word != 0).count();
        if subject == Subject::Vcpu && nonzero < NONZERO_WORDS_MIN {
            return Err(unproven(format!("our vCPU has run, and counted only {nonzero} things")));
        }
        for row in sweep.rows() {
            let (_, data) = row.split_at(super::frame::LOCK_WORDS);
            let mut seen = vec![0; plan.row_words()];
            match sweep.shape() {
                Shape::Span => plan.keep(data, &mut seen),
                Shape::Row => seen.copy_from_slice(data),
            }
            if seen != want {
                return Err(unproven("it reads something else than pread does".to_owned()));
            }
        }
        Ok(sweep.step())
    }
}

fn unproven(what: String) -> Error {
    let text = format!("the kernel-side tick failed its test on a guest of our own: {what}");
    Error::new(ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests;
