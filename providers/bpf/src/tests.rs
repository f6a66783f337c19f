//! Fixtures of the tests of the BPF reader: the kernel, proven once, and vCPUs that have run,
//! each with other values.
//!
//! Invariant: a test that takes the kernel from here is skipped under the name `bpf` where BPF
//! cannot be used, and fails there if `VMSTROBE_REQUIRE` promises it.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use vmstrobe_core::{Mask, Object, ReadPlan, RowState, Schema, Target};
use vmstrobe_guest::KnownGuest;
use vmstrobe_host::{GoneEpoch, Reaper};
use vmstrobe_kvm::{KvmFd, KvmRows, Opener, kvm_get_stats_fd};
use vmstrobe_testing::{require, tick};

use super::kernel::Kernel;
use super::offsets::{BTF_DIR, Offsets};
use super::policy::Bpf;
use super::reference::Reference;
use super::slots::{Kinds, KvmFile, Subject};

pub(super) mod listing;
mod sched;
pub(super) mod types;
pub(super) mod vmm;

/// The kernel of this machine, proven; `None` where it cannot be.
pub(super) fn kernel() -> Option<Arc<Kernel>> {
    static KERNEL: OnceLock<Result<Arc<Kernel>, String>> = OnceLock::new();
    let prove = || match Kernel::prove(Path::new(BTF_DIR)) {
        Ok(kernel) => Ok(Arc::new(kernel)),
        Err(error) => Err(format!("{error:#}")),
    };
    match KERNEL.get_or_init(prove) {
        Ok(kernel) => Some(Arc::clone(kernel)),
        Err(why) => {
            require("bpf", Err(why.clone()));
            None
        }
    }
}

/// The proven kernel, and the offsets of the members that are read.
pub(super) fn kernel_and_offsets() -> Option<(Arc<Kernel>, &'static Offsets)> {
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    let kernel = kernel()?;
    Some((kernel, OFFSETS.get_or_init(|| Offsets::read(Path::new(BTF_DIR)).unwrap())))
}

/// A guest at rest, of which everything can be read in both ways.
pub(super) fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| Reference::new().unwrap())
}

/// By which KVM's files are told here.
pub(super) fn kinds(offsets: &Offsets) -> Kinds {
    let kinds = Kinds::new().unwrap();
    for subject in [Subject::Vcpu, Subject::Vm] {
        kinds.learn(offsets, subject, reference().files(subject)).unwrap();
    }
    kinds
}

/// Guests that have run, each another number of times, and are at rest.
pub(super) struct Guests {
    pub(super) bpf: Bpf,
    pub(super) opener: Opener,
    guests: Vec<KnownGuest>,
}

impl Guests {
    pub(super) fn new(count: u32, bpf: Bpf) -> Self {
        let guest = |at| {
            let guest = KnownGuest::new().unwrap();
            guest.run(10 * (at + 1), 1 + at % 3).unwrap();
            guest
        };
        let opener = Opener::new(Reaper::new().unwrap(), bpf.clone().into());
        Self { bpf, opener, guests: (0..count).map(guest).collect() }
    }

    /// Returns the guest with that number, for the test to let it run.
    pub(super) fn guest(&self, at: usize) -> &KnownGuest {
        &self.guests[at]
    }

    /// Their stats fds.
    pub(super) fn stats(&self, subject: Subject) -> Vec<Arc<KvmFd>> {
        let open = |guest| {
            let fd = kvm_get_stats_fd(own(guest, subject)).unwrap();
            Arc::new(self.opener.open(fd, target(subject), None).unwrap())
        };
        self.guests.iter().map(open).collect()
    }

    /// Their object fds, as if none of statistics had ever been opened.
    pub(super) fn object_fds(&self, subject: Subject, schema: &Arc<Schema>) -> Vec<Arc<KvmFd>> {
        let open = |guest| {
            let fd = own(guest, subject).try_clone_to_owned().unwrap();
            Arc::new(self.opener.open_object_fd(fd, Arc::clone(schema), None))
        };
        self.guests.iter().map(open).collect()
    }
}

fn own(guest: &KnownGuest, subject: Subject) -> BorrowedFd<'_> {
    match subject {
        Subject::Vm => guest.vm().fd(),
        Subject::Vcpu | Subject::Thread => guest.vcpu().fd(),
    }
}

fn target(subject: Subject) -> Target {
    match subject {
        Subject::Vm => Target::Vm,
        Subject::Vcpu | Subject::Thread => Target::Vcpu,
    }
}

/// So many of these, over and over.
pub(super) fn repeated(fds: &[Arc<KvmFd>], count: usize) -> Vec<Option<Arc<KvmFd>>> {
    fds.iter().cycle().take(count).cloned().map(Some).collect()
}

pub(super) fn all(schema: &Arc<Schema>) -> Arc<ReadPlan> {
    ReadPlan::new(schema, &Mask::all(schema))
}

pub(super) fn named(schema: &Arc<Schema>, names: &[&str]) -> Arc<ReadPlan> {
    let mut mask = Mask::none(schema.descs().len());
    names.iter().for_each(|name| mask.set(schema.find(name).unwrap()));
    ReadPlan::new(schema, &mask)
}

/// An object a row, by its number.
pub(super) fn objects(schema: &Arc<Schema>, count: usize) -> Vec<Object> {
    let object = |at: usize| Object {
        path: format!("/vm/x/vcpu[{at}]").into(),
        index: Some(at as u32),
        schema: Arc::clone(schema),
        key: at as u64,
    };
    (0..count).map(object).collect()
}

pub(super) fn file(fd: &Arc<KvmFd>) -> KvmFile<'_> {
    KvmFile { fd: fd.fd().as_fd(), is_object_fd: fd.is_object_fd() }
}

/// The rows to open of these objects and descriptors.
pub(super) fn rows(
    plan: &Arc<ReadPlan>,
    fds: &[Option<Arc<KvmFd>>],
    gone_epoch: &GoneEpoch,
) -> KvmRows {
    KvmRows {
        objects: objects(plan.schema(), fds.len()).into(),
        plan: Arc::clone(plan),
        fds: fds.into(),
        gone_epoch: gone_epoch.clone(),
        opened_at: gone_epoch.count(),
    }
}

/// Reads these rows by pread: their states, and their words one after the other.
pub(super) fn pread(
    plan: &Arc<ReadPlan>,
    rows: &[Option<Arc<KvmFd>>],
) -> (Vec<RowState>, Vec<u64>) {
    let gone_epoch = GoneEpoch::default();
    let all = self::rows(plan, rows, &gone_epoch);
    let mut source = all.pread_source(rows);
    tick(&mut *source, plan.row_words())
}
