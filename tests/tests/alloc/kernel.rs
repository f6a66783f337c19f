//! 10,000 BPF reads over real vCPUs, audits included, and with the end of the BPF reader in the
//! middle: nothing is allocated, and nothing is freed.
//!
//! The kernel's count of the thread's reads shows that a tick reads nothing by pread, and the
//! number of audits, each of which reads twice.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use vmstrobe::bpf::{Bpf, BpfMode, BpfStatus};
use vmstrobe_sampler::{Fanout, Sampler, Timing};
use vmstrobe_tests::require::{require_bpf, require_kvm};
use vmstrobe_tests::rig::{Over, Rig, farm, own_kvm_by, rig, show, vcpu_path};

use super::count::{Counted, alone, counted, take_part};
use super::ticks::{Followed, by_hand, check};

const VCPUS: usize = 128;
const TICKS: u64 = 10_000;
/// The rate at which 10,000 ticks last long enough for at least two audits, which are a second
/// apart.
const RATE_HZ: f64 = 4000.0;
const WARM_UP: u64 = 100;

fn required() -> Bpf {
    Bpf::new(BpfMode::Require)
}

/// Makes a sampler of `vcpus` vCPUs that has ticked already.
fn sampler(bpf: &Bpf) -> (vmstrobe_guest::Farm, Rig) {
    let (farm, _) = farm(VCPUS);
    let vm = &farm.vms()[0];
    let kvm = own_kvm_by(bpf.clone(), "farm", vm.vm(), vm.vcpus());
    let mut rig = rig(kvm, &["vcpu"], Fanout::Inline);
    by_hand(&mut rig.sampler, WARM_UP);
    assert_eq!(rig.sampler.health().counts().bulk_rows, VCPUS as u64);
    (farm, rig)
}

/// Ticks `ticks` times on this thread, at [`RATE_HZ`].
fn tick(sampler: &mut Sampler, ticks: u64) {
    let timing = Timing::hz(RATE_HZ).expect("the rate is within the bounds");
    let before = sampler.health().counts().ticks;
    // Deadlines that pass unused do not count here.
    while sampler.health().counts().ticks - before < ticks {
        let left = ticks - (sampler.health().counts().ticks - before);
        let outcome = sampler.run(&Timing { ticks_max: Some(left), ..timing });
        assert!(outcome.is_ok(), "the kernel permits a timer slack of 1 ns");
    }
}

/// Returns the read system calls of this thread so far; `None` if the kernel does not count them.
fn reads() -> Option<u64> {
    let io = fs::read_to_string("/proc/thread-self/io").ok()?;
    io.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse().ok()
}

/// Returns the number of read system calls that one [`reads`] makes; `None` if the kernel does not
/// count them.
fn reads_of_asking() -> Option<u64> {
    let [first, second] = [reads(), reads()];
    Some(second? - first?)
}

#[test]
fn bpf_ticks_with_audits_allocate_nothing() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let _alone = alone();
    let (_farm, Rig { mut sampler, .. }) = sampler(&required());
    let (asking, begun) = (reads_of_asking(), Instant::now());
    take_part(true);
    tick(&mut sampler, 10);
    let before = reads();
    let ((), counted) = counted(|| tick(&mut sampler, TICKS));
    take_part(false);
    let (after, took) = (reads(), begun.elapsed());
    let preads = after.zip(before).zip(asking).map(|((after, before), of)| after - before - of);
    show(&format!("{TICKS} BPF reads of {VCPUS} objects: {counted:?}, {preads:?} preads"));
    assert_eq!(counted, Counted::default());
    let counts = sampler.health().counts();
    assert_eq!((counts.bulk_rows, counts.fallback_ticks, counts.unread_rows), (128, 0, 0));
    assert!(took > Duration::from_secs(2), "too quick for two audits: {took:?}");
    if let Some(preads) = preads {
        let audits_max = took.as_secs() + 1;
        let whole = preads.is_multiple_of(2) && (2..=audits_max).contains(&(preads / 2));
        assert!(whole, "{preads} preads in {took:?}");
    }
}

#[test]
fn ticks_that_fall_back_from_bpf_allocate_nothing() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let _alone = alone();
    let bpf = required();
    let (_farm, Rig { mut sampler, .. }) = sampler(&bpf);
    let (middle, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let counted = thread::scope(|scope| {
        let over = Over(&done);
        let bpf = &bpf;
        let (middle, done) = (&middle, &done);
        scope.spawn(move || {
            while !middle.load(SeqCst) && !done.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            bpf.give_up("the middle is reached");
        });
        take_part(true);
        tick(&mut sampler, 10);
        let ((), counted) = counted(|| {
            tick(&mut sampler, TICKS / 2);
            middle.store(true, SeqCst);
            tick(&mut sampler, TICKS / 2);
        });
        take_part(false);
        drop(over);
        counted
    });
    let counts = sampler.health().counts();
    show(&format!("{TICKS} ticks, {} by pread in the end: {counted:?}", counts.fallback_ticks));
    assert_eq!(counted, Counted::default());
    assert!(matches!(bpf.status(), BpfStatus::GivenUp(_)), "{:?}", bpf.status());
    assert_eq!((counts.bulk_rows, counts.unread_rows), (0, 0));
    // Some ms pass until it is given up.
    let fallback = counts.fallback_ticks;
    assert!((TICKS / 4..=TICKS / 2).contains(&fallback), "{fallback} ticks");
}

/// Subscribers, readers and health take part, as for the tick of pread.
#[test]
fn bpf_ticks_with_readers_allocate_nothing() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let (farm, _) = farm(VCPUS);
        let vm = &farm.vms()[0];
        let kvm = own_kvm_by(required(), "farm", vm.vm(), vm.vcpus());
        let paths = (0..VCPUS as u32).map(|index| vcpu_path("farm", index)).collect();
        let followed = Followed { stat: "exits", paths, may_be_torn: false };
        check(kvm, &["vcpu", "sampler"], &followed, fanout, by_hand);
    }
}
