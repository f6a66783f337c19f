//! The trial: everything is read of a guest of our own by both ways, and must be the same.
//!
//! Invariant: the guest lives as long as the trial, and no longer. What comes of it is data.

use std::sync::Arc;

use vmstrobe_core::{Error, ErrorKind, Mask, ReadPlan, Result, RowState, Schema, WORD_BYTES};

use super::bulk::{BulkReader, Step, Wanted};
use super::frame::{LOCK_WORDS, Shape};
use super::offsets::Offsets;
use super::reference::Reference;
use super::slots::{Kinds, KvmFile, Slots, Subject};

/// Words of our vCPU that must not be 0: by fewer, two readings might agree by chance.
const NONZERO_WORDS_MIN: usize = 3;

/// A trial of these offsets and kinds of files on a guest of our own.
pub(super) struct Trial<'a> {
    offsets: &'a Offsets,
    kinds: &'a Kinds,
    reference: Reference,
}

/// The outcome of a trial.
#[derive(Debug)]
pub(super) struct Proven {
    /// The best step that works here, and behind it the others, which were not tried.
    pub(super) steps: Vec<Step>,
    vm: Arc<Schema>,
    vcpu: Arc<Schema>,
}

impl Proven {
    pub(super) fn schema(&self, subject: Subject) -> &Arc<Schema> {
        match subject {
            Subject::Vm => &self.vm,
            Subject::Vcpu | Subject::Thread => &self.vcpu,
        }
    }
}

impl<'a> Trial<'a> {
    /// Makes the guest, by which `kinds` learns how KVM's files are told.
    ///
    /// # Errors
    /// As [`Reference::new`] and [`Kinds::learn`].
    pub(super) fn new(offsets: &'a Offsets, kinds: &'a Kinds) -> Result<Self> {
        let reference = Reference::new()?;
        for subject in [Subject::Vcpu, Subject::Vm] {
            kinds.learn(offsets, subject, reference.files(subject))?;
        }
        Ok(Self { offsets, kinds, reference })
    }

    /// Compares all that can be.
    ///
    /// # Errors
    /// `Unsupported` if anything differs; as [`BulkReader::new`].
    pub(super) fn prove(&self) -> Result<Proven> {
        let mut steps = Step::all(self.offsets);
        for subject in [Subject::Vcpu, Subject::Vm] {
            self.check_size(subject)?;
            let step = self.compare(subject, &steps)?;
            // A step that was refused once is not tried again.
            let first = steps.iter().position(|known| *known == step).unwrap_or(0);
            steps.drain(..first);
        }
        self.check_kinds()?;
        let schema = |subject| Arc::clone(self.reference.stats(subject).schema());
        Ok(Proven { steps, vm: schema(Subject::Vm), vcpu: schema(Subject::Vcpu) })
    }

    /// The block has to be as long as the kernel's descriptors say.
    fn check_size(&self, subject: Subject) -> Result<()> {
        let holder = match subject {
            Subject::Vm => &self.offsets.vm,
            Subject::Vcpu | Subject::Thread => &self.offsets.vcpu,
        };
        let want = self.reference.stats(subject).schema().data_bytes();
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

    /// Checks that no descriptor of a VM is taken for a vCPU's: a mark that both have might be on
    /// any file.
    fn check_kinds(&self) -> Result<()> {
        for (is_object_fd, fd) in [false, true].into_iter().zip(self.reference.files(Subject::Vm)) {
            let (slots, file) = (Slots::new(1)?, KvmFile { fd, is_object_fd });
            if slots.takes(self.offsets, Subject::Vcpu, self.kinds, file)? {
                return Err(unproven("it takes a VM for a vCPU".to_owned()));
            }
        }
        Ok(())
    }

    /// Reads our guest through its stats fd and through its object fd, and by pread.
    pub(super) fn compare(&self, subject: Subject, steps: &[Step]) -> Result<Step> {
        let stats = self.reference.stats(subject);
        let schema = stats.schema();
        let plan = ReadPlan::new(schema, &Mask::all(schema));
        let [stats_file, object_fd] = self.reference.files(subject);
        let file = |fd, is_object_fd| Some(KvmFile { fd, is_object_fd });
        let files = [file(stats_file, false), file(object_fd, true)];
        let kinds = self.kinds;
        let wanted = Wanted { subject, plan: &plan, files: &files, kinds };
        let mut bulk = BulkReader::new(self.offsets, steps, &wanted)?;
        let head = bulk.run().map_err(|unread| unproven(format!("{unread:?}")))?;
        if head.marked != 0 {
            return Err(unproven("it finds no statistics".to_owned()));
        }
        let mut span = vec![0; plan.span_bytes().len() / WORD_BYTES];
        if stats.read_span(&plan, &mut span) != RowState::Good {
            return Err(unproven("that guest cannot be read by pread".to_owned()));
        }
        let mut want = vec![0; plan.row_words()];
        plan.keep(&span, &mut want);
        let nonzero = want.iter().filter(|word| **word != 0).count();
        if subject == Subject::Vcpu && nonzero < NONZERO_WORDS_MIN {
            return Err(unproven(format!(
                "its vCPU has run, and only {nonzero} of its statistics are not 0"
            )));
        }
        for row in 0..files.len() {
            let row = bulk.copy_of(row);
            let (_, data) = row.split_at(LOCK_WORDS);
            let mut seen = vec![0; plan.row_words()];
            match bulk.shape() {
                Shape::Span => plan.keep(data, &mut seen),
                Shape::Row => seen.copy_from_slice(data),
            }
            if seen != want {
                return Err(unproven("it reads other values than pread".to_owned()));
            }
        }
        Ok(bulk.step())
    }
}

fn unproven(what: String) -> Error {
    let text = format!("the BPF reader failed its self-test on a small guest of vmstrobe: {what}");
    Error::new(ErrorKind::Unsupported, text)
}

#[cfg(test)]
impl Proven {
    /// Pretends that these are the steps that work here.
    pub(super) fn with_steps(self, steps: Vec<Step>) -> Self {
        Self { steps, ..self }
    }
}

#[cfg(test)]
impl Trial<'_> {
    pub(super) fn reference(&self) -> &Reference {
        &self.reference
    }
}
