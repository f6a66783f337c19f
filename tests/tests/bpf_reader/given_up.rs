//! The BPF reader is given up while it is sampled: pread takes over at the next tick, no row is
//! lost, no value decreases, and there is one warning.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vmstrobe::bpf::BpfStatus;
use vmstrobe_core::{ObjectView, Provider, RowState, Snapshot, StatType};
use vmstrobe_guest::DemoGuest;
use vmstrobe_sampler::{Fanout, Tick, Timing};
use vmstrobe_tests::require::{require_bpf, require_kvm};
use vmstrobe_tests::rig::{Rig, health, own_kvm_by, rig, show, wait_for};

use crate::{LIMIT, required};

const VCPUS: u64 = 8;
const WHY: &str = "a test has its doubts";

/// The sampler is ticked by hand.
#[test]
fn after_a_doubt_the_next_tick_is_read_by_pread() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let guest = DemoGuest::new(VCPUS as u32).expect("KVM can make a guest");
    let bpf = required();
    let kvm = own_kvm_by(bpf.clone(), "doubt", guest.vm(), guest.vcpus());
    let filters = ["vcpu", "vm"];
    let Rig { mut sampler, control, .. } = rig(kvm.clone(), &filters, Fanout::Inline);
    let mut tick = || {
        assert_eq!(sampler.tick(), Tick::Published);
        let newest = control.latest().load_full();
        assert!(newest.objects().all(|view| view.state() == RowState::Good), "{newest:?}");
        let counts = sampler.health().counts();
        (counts.bulk_rows, counts.fallback_ticks)
    };
    // The row of the VM is among them.
    for _ in 0..3 {
        assert_eq!(tick(), (VCPUS + 1, 0));
    }
    assert!(matches!(bpf.status(), BpfStatus::Open(_)), "{:?}", bpf.status());
    assert_eq!(kvm.warnings().len(), 0);
    bpf.give_up(WHY);
    for ticks in 1..=3 {
        assert_eq!(tick(), (0, ticks));
    }
    bpf.give_up("nobody asks for a second reason");
    assert_eq!(bpf.status(), BpfStatus::GivenUp(WHY.to_owned()));
    // Objects that are opened now are read by pread, even if the BPF reader was required.
    let Rig { mut sampler, .. } = rig(kvm, &filters, Fanout::Inline);
    assert_eq!(sampler.tick(), Tick::Published);
    let counts = sampler.health().counts();
    assert_eq!((counts.rows, counts.bulk_rows, counts.fallback_ticks), (VCPUS + 1, 0, 0));
}

/// The sampler runs at 1 kHz, over vCPUs that run, with the roster watched.
#[test]
fn at_a_kilohertz_the_fallback_loses_no_sample_and_warns_once() {
    if !require_kvm() || !require_bpf() {
        return;
    }
    let mut guest = DemoGuest::new(VCPUS as u32).expect("KVM can make a guest");
    let bpf = required();
    let kvm = own_kvm_by(bpf.clone(), "doubt", guest.vm(), guest.vcpus());
    guest.start().expect("KVM runs the guest");
    let Rig { roster, sampler, control } = rig(kvm, &["vcpu", "sampler"], Fanout::Inline);
    let subscriber = control.subscribe(4096).expect("there are fewer subscribers than the limit");
    let complaints: Arc<Mutex<Vec<String>>> = Arc::default();
    let said = Arc::clone(&complaints);
    let complain = move |error: &_| {
        said.lock().expect("no test panics with the lock").push(format!("{error}"))
    };
    let watch = roster.watch(control.clone(), Duration::from_millis(20), complain);
    let watch = watch.expect("a thread can be started");
    let running = sampler.start(Timing::hz(1000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let mut latest = control.latest();
    wait_for("the sampler runs", LIMIT, || latest.load().tick() > 400);
    let bulk = latest.load().tick();
    bpf.give_up(WHY);
    let fallback = latest.load().tick() + 2;
    wait_for("the sampler continues", LIMIT, || latest.load().tick() > fallback + 400);
    wait_for("the message is printed", LIMIT, || {
        !complaints.lock().expect("no test panics with the lock").is_empty()
    });
    // A second warning would come within this time.
    thread::sleep(Duration::from_millis(200));
    drop(watch);
    let sampler = running.stop().expect("the sampler's thread does not panic");
    let complaints = complaints.lock().expect("no test panics with the lock");
    let [complaint] = &complaints[..] else { panic!("said otherwise than once: {complaints:?}") };
    assert!(complaint.contains("BPF reader") && complaint.contains(WHY), "{complaint}");

    let samples: Vec<_> = std::iter::from_fn(|| subscriber.try_recv()).collect();
    assert_eq!(subscriber.lost_samples(), 0);
    check_samples(&samples, bulk, fallback);
    let counts = sampler.health().counts();
    assert_eq!((counts.unread_rows, counts.rows, counts.bulk_rows), (0, VCPUS + 1, 0));
    show(&format!(
        "given up at 1 kHz: {} samples, of them {} by pread, none lost; said: {complaint}",
        samples.len(),
        counts.fallback_ticks
    ));
}

/// Checks that all rows are good, that cumulative words only grow, and that the expected number of
/// ticks was read in each way.
fn check_samples(samples: &[Arc<Snapshot>], bulk: u64, fallback: u64) {
    let moved = AtomicUsize::new(0);
    for pair in samples.windows(2) {
        let [before, now] = [&pair[0], &pair[1]];
        for (before, now) in before.objects().zip(now.objects()) {
            assert_eq!(now.state(), RowState::Good, "{}", now.object().path);
            moved.fetch_add(grown(before, now), SeqCst);
        }
        let [rows, was] = [now, before].map(|sample| health(sample, "bulk_rows"));
        let fallbacks = [before, now].map(|sample| health(sample, "fallback_ticks"));
        // The health in a sample is that after the tick before.
        let tick = before.tick();
        let by_pread = fallbacks[1] - fallbacks[0];
        if tick <= bulk {
            assert_eq!((rows, by_pread), (VCPUS, 0), "tick {tick}");
        } else if tick >= fallback {
            assert_eq!((rows, by_pread), (0, 1), "tick {tick}");
        } else {
            assert!(rows <= was, "the BPF reader was used again");
        }
    }
    let moved = moved.into_inner();
    assert!(moved > 1000, "next to nothing moved: {moved}");
}

/// Returns the number of words that have grown; checks that no cumulative one has shrunk.
fn grown(before: ObjectView<'_>, now: ObjectView<'_>) -> usize {
    let mut grown = 0;
    for (before, now) in before.stats().zip(now.stats()) {
        if now.desc().stat_type == StatType::Instant {
            continue;
        }
        for (before, now_word) in before.words().iter().zip(now.words()) {
            assert!(before <= now_word, "{}: {before}, {now_word}", now.desc().name);
            grown += usize::from(before < now_word);
        }
    }
    grown
}
