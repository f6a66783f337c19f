//! The sampler: a real vCPU, many rows of it, and a BPF reader of them.

use std::path::Path;
use std::sync::Arc;

use vmstrobe_core::{Mask, Provider, ReadPlan, RowState, Rows, Source, Target};
use vmstrobe_guest::{Exits, KnownGuest};
use vmstrobe_providers::{Bpf, BpfMode, FdServer, OwnKvm};

/// Rows of a frame: one source of a table's reader, and copied in some 20 ns.
pub const ROWS: usize = 8;

/// The statistic that is read in each row.
const NAME: &str = "exits";

/// A guest, and the source of its vCPU under [`ROWS`] names. Each row has one word.
pub struct Sampler {
    source: Box<dyn Source>,
    /// The BPF reader that reads the rows and owns their frame.
    pub bpf: Bpf,
    _kvm: OwnKvm,
    guest: KnownGuest,
}

impl Sampler {
    /// Opens the source, which is the program's and no other.
    ///
    /// # Panics
    ///
    /// If KVM or BPF refuses.
    pub fn new() -> Self {
        let guest = KnownGuest::new().expect("KVM makes a guest");
        let bpf = Bpf::new(BpfMode::Require);
        let kvm = OwnKvm::with_bpf("frame", guest.vm().fd(), bpf.clone());
        let kvm = kvm.expect("a VM of ours has statistics");
        for index in 0..ROWS as u32 {
            let added = kvm.add_vcpu_here(index, None, guest.vcpu().fd());
            added.expect("a vCPU of ours has statistics");
        }
        let mut objects = kvm.objects().expect("it has no reason to fail");
        objects.retain(|object| *object.schema.target() == Target::Vcpu);
        let schema = &objects[0].schema;
        let mut mask = Mask::none(schema.descs().len());
        mask.set(schema.find(NAME).expect("KVM counts exits"));
        let sources = kvm.open(&objects, &ReadPlan::new(schema, &mask)).expect("BPF allows it");
        let [source] = <[_; 1]>::try_from(sources).ok().expect("so few are one source");
        Self { source, bpf, _kvm: kvm, guest }
    }

    /// Lets the vCPU run, and reads it.
    ///
    /// # Panics
    ///
    /// If either failed, or it was not the program that read.
    pub fn tick(&mut self) {
        let ran = self.guest.run(1, 0).expect("KVM runs it");
        assert_eq!(ran, Exits { outs: 1, halts: 0 });
        let (mut words, mut states) = ([0; ROWS], [RowState::Missing; ROWS]);
        self.source.read(Rows::new(&mut words, &mut states, 1));
        assert_eq!(states, [RowState::Good; ROWS]);
        assert!(self.source.read_ns().is_some(), "{}", self.bpf.status());
    }

    /// Lends its frames at that path, for as long as what this returns is there.
    ///
    /// # Panics
    ///
    /// If it cannot listen there.
    pub fn lend(&self, path: &Path) -> FdServer {
        let hand_over = FdServer::listen(path).expect("the place is free");
        hand_over.offer(Arc::new(self.bpf.clone())).expect("frames may be lent");
        hand_over
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("bpf", &self.bpf).finish_non_exhaustive()
    }
}
