//! A guest that makes a known number of exits: N port writes and M halts.

use vmstrobe_core::Snapshot;
use vmstrobe_guest::{Exits, KnownGuest};
use vmstrobe_sampler::{Control, Fanout, Sampler, Tick};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Rig, own_kvm, rig, show, vcpu_path};

#[test]
fn a_real_guest_has_the_known_counts() {
    if !require_kvm() {
        return;
    }
    let guest = KnownGuest::new().expect("KVM can make a guest");
    let kvm = own_kvm("known", guest.vm(), std::slice::from_ref(guest.vcpu()));
    let Rig { mut sampler, control, .. } = rig(kvm, &["vcpu"], Fanout::Inline);
    for (outs, halts) in [(0, 0), (4, 1), (1, 0), (0, 1), (1000, 500), (20_000, 3), (0, 777)] {
        check(&guest, &mut sampler, &control, outs, halts);
    }
}

fn check(guest: &KnownGuest, sampler: &mut Sampler, control: &Control, outs: u32, halts: u32) {
    let mut read = || {
        assert_eq!(sampler.tick(), Tick::Published);
        let newest = control.latest().load_full();
        (number(&newest, "exits"), number(&newest, "halt_exits"))
    };
    let before = read();
    let made = guest.run(outs, halts).expect("KVM runs the guest");
    let after = read();
    assert_eq!(read(), after, "the counters of a stopped guest do not change");
    let want = Exits { outs: outs.into(), halts: halts.into() };
    assert_eq!(made, want, "what the guest itself saw");
    let (exits, halt_exits) = (after.0 - before.0, after.1 - before.1);
    show(&format!("{outs} outs and {halts} halts: exits {exits}, halt_exits {halt_exits}"));
    // The host's own interrupts and the guest's page faults are exits too.
    assert!(exits >= want.outs + want.halts, "{exits} exits for {want:?}");
    assert_eq!(halt_exits, want.halts);
}

fn number(snapshot: &Snapshot, name: &str) -> u64 {
    let view = snapshot.object(&vcpu_path("known", 0)).expect("the object is sampled");
    view.get(name)
        .and_then(|value| value.number())
        .expect("the row was read, and the statistic is a number")
}
