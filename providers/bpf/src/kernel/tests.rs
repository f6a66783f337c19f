//! The real kernel, and what is proven of it by descriptions that lie.

use std::time::Instant;

use vmstrobe_core::{RowState, WORD_BYTES};

use super::*;
use crate::offsets::BTF_DIR;
use crate::program::{Access, Loop};
use crate::tests::types::{BtfDir, Types};
use crate::tests::{all, kernel, kernel_and_offsets};

impl Kernel {
    /// As if these were what works here.
    pub(crate) fn with_steps(self, steps: Vec<Step>) -> Self {
        let proven = self.proven.with_steps(steps);
        Self { proven, ..self }
    }
}

/// The types to be falsified, where there is a kernel that can be proven.
fn types() -> Option<Types> {
    kernel()?;
    Types::read()
}

fn why(dir: &BtfDir) -> String {
    let error = Kernel::prove(dir.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    error.to_string()
}

#[test]
fn this_kernel_is_proven() {
    if kernel().is_none() {
        return;
    }
    let before = Instant::now();
    let kernel = Kernel::prove(Path::new(BTF_DIR)).unwrap();
    println!("{}, in {:?}", kernel.step().name(), before.elapsed());
    let (vm, vcpu) = (kernel.schema(Subject::Vm), kernel.schema(Subject::Vcpu));
    assert!(vcpu.find("exits").is_some() && vm.find("pages_4k").is_some());
    assert_eq!((vm.target().name(), vcpu.target().name()), ("vm", "vcpu"));
}

#[test]
fn a_block_of_another_size_is_refused() {
    for (name, subject) in [("kvm_vcpu_stat", Subject::Vcpu), ("kvm_vm_stat", Subject::Vm)] {
        let Some(mut types) = types() else { return };
        let bytes = kernel().unwrap().schema(subject).data_bytes();
        // Less, so that it still lies inside of what has it.
        let text = why(&types.resize(name, -8).dir());
        assert!(text.contains(&format!("a block of {} bytes in the one", bytes - 8)), "{text}");
        assert!(text.contains(&format!("of {bytes} in the other")), "{text}");
    }
}

#[test]
fn without_a_cast_it_is_read_by_probes() {
    let Some(mut types) = types() else { return };
    let dir = types.rename("bpf_rdonly_cast").dir();
    let kernel = Kernel::prove(dir.path()).unwrap();
    let probe = Step { looping: Loop::Bounded, access: Access::Probe };
    assert_eq!((kernel.step(), &kernel.proven.steps[..]), (probe, &[probe][..]));
    assert_eq!(kernel.step().name(), "bounded loop, probe_read");
}

#[test]
fn statistics_at_another_place_are_refused() {
    let text = "it reads other values than pread";
    for of in ["kvm_vcpu", "kvm"] {
        for by_bytes in [-8, 8] {
            let Some(mut types) = types() else { return };
            let why = why(&types.shift(of, "stat", by_bytes).dir());
            assert!(why.ends_with(text), "{of}, {by_bytes}: {why}");
        }
    }
}

/// The first counter is no address. Nothing is read there, and nothing breaks.
#[test]
fn statistics_that_are_behind_no_pointer_are_refused() {
    for (of, like) in [("kvm_vcpu", ("kvm_vcpu", "kvm")), ("kvm", ("kvm", "mm"))] {
        let Some(mut types) = types() else { return };
        why(&types.retype(of, "stat", like).dir());
    }
}

/// Any file's, or none's: it must not be followed to where statistics would be.
#[test]
fn a_way_that_leads_elsewhere_is_refused() {
    for (of, name, there) in [
        ("file", "private_data", "f_op"),
        ("file", "private_data", "f_inode"),
        ("files_struct", "fdt", "count"),
        ("kvm_vcpu", "kvm", "stats_id"),
        ("kvm", "mm", "stats_id"),
    ] {
        let Some(mut types) = types() else { return };
        why(&types.move_to(of, name, there).dir());
    }
}

/// All anonymous files are of one inode: by that, any of them would be KVM's.
#[test]
fn what_does_not_tell_kvms_files_from_others_is_refused() {
    let Some(mut types) = types() else { return };
    let why = why(&types.move_to("file", "f_op", "f_inode").dir());
    assert!(why.ends_with("it takes a VM for a vCPU"), "{why}");
}

#[test]
fn what_makes_every_vmm_look_dead_is_refused() {
    let Some(mut types) = types() else { return };
    // Pages for remote direct access, of which we have none.
    let why = why(&types.move_to("mm_struct", "mm_users", "pinned_vm").dir());
    assert!(why.ends_with("it finds no statistics"), "{why}");
}

#[test]
fn our_own_guest_stands_still() {
    let Some((kernel, offsets)) = kernel_and_offsets() else { return };
    let kinds = Kinds::new().unwrap();
    let trial = Trial::new(offsets, &kinds).unwrap();
    for subject in [Subject::Vm, Subject::Vcpu] {
        let stats = trial.reference().stats(subject);
        let plan = all(stats.schema());
        let read = || {
            let mut span = vec![0; plan.span_bytes().len() / WORD_BYTES];
            assert_eq!(stats.read_span(&plan, &mut span), RowState::Good);
            span
        };
        let first = read();
        assert!(first.iter().any(|word| *word != 0), "{subject:?} has nothing to compare");
        let steps = Step::all(offsets);
        assert_eq!(trial.compare(subject, &steps).unwrap(), kernel.step());
        assert_eq!(read(), first);
    }
}
