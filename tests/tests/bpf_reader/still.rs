//! Counters that do not change: of 1024 vCPUs that ran before, each word equals the word of pread.

use std::collections::BTreeSet;
use std::time::Instant;

use vmstrobe::bpf::Bpf;
use vmstrobe_core::{ReadPlan, Target};
use vmstrobe_guest::DemoGuest;
use vmstrobe_tests::require::{require_bpf, require_kvm};
use vmstrobe_tests::rig::{farm, own_kvm_by, show, wait_for};

use crate::{LIMIT, PLANS, Reader, crowd, objects_of, plan, required};

const GUESTS: usize = 16;
const VCPUS: u32 = 64;
/// The number of exits after which a vCPU has counters that are not 0.
const EXITS_MIN: u64 = 5;

/// Checks that both readers have the same rows, and returns them.
#[track_caller]
fn read_both<'a>(
    plan: &ReadPlan,
    ours: &'a mut Reader,
    theirs: &mut Reader,
) -> std::slice::Chunks<'a, u64> {
    let want = theirs.read_all();
    let seen = ours.read_all();
    let rows = || seen.chunks(plan.row_words());
    for (row, (seen, want)) in rows().zip(want.chunks(plan.row_words())).enumerate() {
        assert_eq!(seen, want, "row {row}");
    }
    rows()
}

#[test]
fn a_thousand_vcpus_read_the_same_to_the_word() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let begun = Instant::now();
    let guests: Result<Vec<DemoGuest>, _> = (0..GUESTS).map(|_| DemoGuest::new(VCPUS)).collect();
    let mut guests = guests.expect("KVM can make guests");
    let [ours, theirs] = [required(), Bpf::off()].map(|bpf| crowd(&guests, bpf));
    for guest in &mut guests {
        guest.start().expect("KVM runs the guest");
        let has_past = || (0..VCPUS).all(|id| guest.exits_seen(id) >= EXITS_MIN);
        wait_for("every vCPU has run", LIMIT, has_past);
        guest.stop().expect("the sampler's thread does not panic");
    }
    let vcpus = objects_of(&ours, &Target::Vcpu);
    assert_eq!(vcpus.len(), GUESTS * VCPUS as usize);
    for (name, wanted) in PLANS {
        let plan = plan(&vcpus[0].schema, wanted);
        let mut by_pread = Reader::open(&theirs, &objects_of(&theirs, &Target::Vcpu), &plan);
        let mut in_kernel = Reader::open(&ours, &vcpus, &plan);
        assert_eq!((in_kernel.sources.len(), by_pread.is_bulk()), (1, false));
        let rows = read_both(&plan, &mut in_kernel, &mut by_pread);
        // Otherwise one row could be taken for another, or all could be empty.
        let nonzero = rows.clone().flatten().filter(|word| **word != 0).count();
        let distinct = rows.collect::<BTreeSet<_>>().len();
        assert!(in_kernel.is_bulk(), "{name} was read by pread");
        show(&format!(
            "{name} of {} vCPUs at rest: {} words as pread has them, {nonzero} not 0, {distinct} \
             different rows",
            vcpus.len(),
            in_kernel.words.len(),
        ));
        // Many vCPUs have the same buckets.
        let want = if name.contains("histogram") { 10 } else { vcpus.len() * 9 / 10 };
        assert!(distinct > want && nonzero >= vcpus.len(), "{name}");
    }
    show(&format!("in {:?}", begun.elapsed()));
}

#[test]
fn vms_read_the_same_to_the_word() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let guest = || DemoGuest::new(2).expect("KVM can make a guest");
    let mut guests: Vec<DemoGuest> = (0..8).map(|_| guest()).collect();
    let providers: Vec<_> = guests
        .iter()
        .map(|guest| [required(), Bpf::off()].map(|bpf| own_kvm_by(bpf, "one", guest.vm(), &[])))
        .collect();
    guests.iter_mut().for_each(|guest| guest.start().expect("KVM runs the guest"));
    let has_past = |guest: &DemoGuest| (0..2).all(|id| guest.exits_seen(id) >= EXITS_MIN);
    wait_for("every guest has run", LIMIT, || guests.iter().all(has_past));
    guests.iter_mut().for_each(|guest| guest.stop().expect("the sampler's thread does not panic"));
    let (mut words, mut nonzero) = (0, 0);
    for [ours, theirs] in &providers {
        let vm = objects_of(&**ours, &Target::Vm);
        let plan = plan(&vm[0].schema, |_| true);
        let mut in_kernel = Reader::open(&**ours, &vm, &plan);
        let mut by_pread = Reader::open(&**theirs, &objects_of(&**theirs, &Target::Vm), &plan);
        for row in read_both(&plan, &mut in_kernel, &mut by_pread) {
            words += row.len();
            nonzero += row.iter().filter(|word| **word != 0).count();
        }
        assert!(in_kernel.is_bulk() && !by_pread.is_bulk());
    }
    show(&format!(
        "{} VMs at rest: {words} words as pread has them, {nonzero} not 0",
        guests.len()
    ));
    assert!(nonzero >= guests.len(), "the rows are unchanged");
}

#[test]
fn a_vm_of_a_thousand_vcpus_reads_the_same_to_the_word() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    const MANY: usize = 1024;
    let (farm, theirs) = farm(MANY);
    let vm = &farm.vms()[0];
    let ours = own_kvm_by(required(), "farm", vm.vm(), vm.vcpus());
    let vcpus = objects_of(&*ours, &Target::Vcpu);
    let plan = plan(&vcpus[0].schema, |_| true);
    let mut in_kernel = Reader::open(&*ours, &vcpus, &plan);
    let mut by_pread = Reader::open(&*theirs, &objects_of(&*theirs, &Target::Vcpu), &plan);
    let rows = read_both(&plan, &mut in_kernel, &mut by_pread).count();
    assert!(in_kernel.is_bulk() && !by_pread.is_bulk());
    show(&format!(
        "{} words of {rows} vCPUs that never ran, as pread has them",
        by_pread.words.len()
    ));
    assert_eq!(rows, MANY);
}
