//! A running guest: counters grow and never decrease, histograms and counts agree, and a guest may
//! end while it is sampled.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmstrobe_core::{
    Change, Interval, ObjectView, RowState, Snapshot, StatType, Value, bucket, change,
};
use vmstrobe_guest::DemoGuest;
use vmstrobe_sampler::{Control, Fanout, Sampler, Tick, Timing};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Rig, own_kvm, rig, show, vcpu_path, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn counters_never_go_back_in_20_000_ticks() {
    const TICKS: u64 = 20_000;
    /// The shortest time in which the guest's longest sleeps are counted, however fast a tick is.
    const TIME_MIN: Duration = Duration::from_millis(1500);
    /// The number of ticks between two comparisons of rates, because over one tick most are 0.
    const RATE_TICKS: u64 = 100;
    if !require_kvm() {
        return;
    }
    let mut guest = DemoGuest::new(4).expect("KVM can make a guest");
    let kvm = own_kvm("moving", guest.vm(), guest.vcpus());
    let Rig { mut sampler, control, .. } = rig(kvm, &["vcpu"], Fanout::Inline);
    let first = tick(&mut sampler, &control);
    guest.start().expect("KVM runs the guest");
    let began = Instant::now();
    let (mut last, mut rated) = (Arc::clone(&first), Arc::clone(&first));
    let mut moves = 0;
    while last.tick() < TICKS || began.elapsed() < TIME_MIN {
        let now = tick(&mut sampler, &control);
        moves += both(&last, &now).map(|(was, is)| grown(was, is)).sum::<u64>();
        if now.tick() - rated.tick() == RATE_TICKS {
            rates_are_sound(&rated, &now);
            rated = Arc::clone(&now);
        }
        last = now;
    }
    let ticks = last.tick();
    show(&format!("{ticks} ticks in {:?}: {moves} words moved, none back", began.elapsed()));
    guest.stop().expect("the sampler's thread does not panic");
    let at_rest = tick(&mut sampler, &control);
    assert!(moves > 1000, "the guest runs, and only {moves} words moved");
    histograms_agree(&first, &at_rest);
}

fn tick(sampler: &mut Sampler, control: &Control) -> Arc<Snapshot> {
    assert_eq!(sampler.tick(), Tick::Published);
    let newest = control.latest().load_full();
    assert!(newest.objects().all(|view| view.state() == RowState::Good));
    newest
}

/// Pairs the values of each statistic of each object in two snapshots.
fn both<'a>(
    was: &'a Snapshot,
    is: &'a Snapshot,
) -> impl Iterator<Item = (Value<'a>, Value<'a>)> + 'a {
    was.objects().zip(is.objects()).flat_map(|(was, is)| {
        assert_eq!(was.object().path, is.object().path);
        was.stats().zip(is.stats())
    })
}

/// Returns the number of words that have grown, of a statistic that only grows; checks that none
/// has shrunk.
fn grown(was: Value<'_>, is: Value<'_>) -> u64 {
    if is.desc().is_boolean() || is.desc().stat_type == StatType::Instant {
        return 0;
    }
    let mut moved = 0;
    for (was, now) in was.words().iter().zip(is.words()) {
        assert!(now >= was, "{} went from {was} back to {now}", is.desc().name);
        moved += u64::from(now > was);
    }
    moved
}

/// Checks that no rate is negative or a reset, and that each lies within its own bounds.
fn rates_are_sound(was: &Snapshot, is: &Snapshot) {
    let time = Interval::between(was.window(), is.window()).expect("time has passed");
    for (was, is) in both(was, is) {
        match change(was, is, time) {
            Change::Delta { rate, .. } | Change::Buckets { rate, .. } => {
                let ordered = 0.0 <= rate.low && rate.low <= rate.per_second;
                assert!(ordered && rate.per_second <= rate.high, "{}: {rate:?}", is.desc().name);
                assert!(rate.per_second.is_finite(), "{}: {rate:?}", is.desc().name);
            }
            Change::Level(words) => assert_eq!(words, is.words()),
            Change::Reset { .. } => panic!("{} was reset by nobody", is.desc().name),
        }
    }
}

/// Asserts that the halt histograms of each vCPU fit its counters, between two times at which the
/// guest is stopped.
fn histograms_agree(first: &Snapshot, last: &Snapshot) {
    for (was, is) in first.objects().zip(last.objects()) {
        let deltas = |name| deltas(was, is, name);
        let delta = |name| deltas(name)[0];
        let count = |name| deltas(name).iter().sum::<u64>();
        let (halts, waits) = (delta("halt_exits"), count("halt_wait_hist"));
        let polls = count("halt_poll_success_hist") + count("halt_poll_fail_hist");
        let path = &is.object().path;
        let ns = delta("halt_wait_ns");
        show(&format!("{path}: {halts} halts, {waits} waits of {ns} ns together, {polls} polls"));
        assert!(halts > 10 && waits > 10, "{path} halted {halts} times and waited {waits} times");
        // A vCPU may wait again after a spurious wake-up.
        assert!(waits <= halts + halts / 10 + 2, "{path}: {waits} waits in {halts} halts");
        assert!(polls.abs_diff(delta("halt_attempted_poll")) <= 1, "{path}: {polls} polls");
        let (low_ns, end_ns) = bounds(is.get("halt_wait_hist"), &deltas("halt_wait_hist"));
        assert!((low_ns..end_ns).contains(&ns), "{path}: {ns} ns, not in {low_ns}..{end_ns}");
    }
}

fn deltas(was: ObjectView<'_>, is: ObjectView<'_>, name: &str) -> Vec<u64> {
    let words = |view: ObjectView<'_>| view.get(name).map(|value| value.words().to_vec());
    let (was, is) = (words(was).expect("the entry exists"), words(is).expect("the entry exists"));
    is.iter().zip(was).map(|(is, was)| is - was).collect()
}

/// Returns the least and the largest sum of values with these bucket counts, in ns.
fn bounds(histogram: Option<Value<'_>>, counts: &[u64]) -> (u64, u64) {
    let desc = histogram.expect("the object has the histogram").desc();
    let (mut low_ns, mut end_ns) = (0, 0);
    for (at, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let bucket = bucket(desc, at).expect("the statistic is a histogram");
        low_ns += count * bucket.low;
        // No wait of this guest reaches the last bucket, which begins at 1 s.
        end_ns += count * bucket.end.expect("no wait is that long");
    }
    (low_ns, end_ns)
}

/// A guest is stopped, and then dropped, while it is sampled: its rows have its last values until
/// they leave the roster, and then none.
#[test]
fn a_guest_may_end_while_it_is_sampled() {
    if !require_kvm() {
        return;
    }
    let mut guest = DemoGuest::new(2).expect("KVM can make a guest");
    let kvm = own_kvm("ending", guest.vm(), guest.vcpus());
    let Rig { roster, sampler, control } = rig(kvm.clone(), &["vcpu"], Fanout::Inline);
    let timing = Timing::hz(1000.0).expect("the rate is within the bounds");
    let running = sampler.start(timing).expect("a thread can be started");
    guest.start().expect("KVM runs the guest");
    let moved = |than: u64| exits(&newest_after(&control, 2)) > than;
    let before = exits(&newest_after(&control, 2));
    wait_for("the counters of the guest change", LIMIT, || moved(before));
    guest.stop().expect("the sampler's thread does not panic");
    let stopped = exits(&newest_after(&control, 2));
    drop(guest);
    assert_eq!(exits(&newest_after(&control, 20)), stopped);

    let watch = roster.watch(control.clone(), Duration::from_millis(20), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    assert!(kvm.remove_vcpu(0) && kvm.remove_vcpu(1));
    // Its row is gone in a layout that still has it; then comes a layout without it.
    let none = newest_after(&control, 2);
    assert!(none.objects().all(|view| view.state() == RowState::Gone), "{none:?}");
    let empty = || control.latest().load().layout().rows() == 0;
    wait_for("the roster is empty", LIMIT, empty);
    drop(watch);
    let sampler = running.stop().expect("the sampler's thread does not panic");
    assert!(sampler.health().counts().ticks > 20);
}

/// Returns a snapshot that was begun at least `ticks - 1` ticks from now.
fn newest_after(control: &Control, ticks: u64) -> Arc<Snapshot> {
    let mut latest = control.latest();
    let from = latest.load().tick();
    wait_for("the sampler ticks", LIMIT, || latest.load().tick() >= from + ticks);
    latest.load_full()
}

fn exits(snapshot: &Snapshot) -> u64 {
    let both = [0, 1].map(|index| {
        let view = snapshot.object(&vcpu_path("ending", index)).expect("the object is sampled");
        view.get("exits").and_then(|value| value.number()).expect("the row was read")
    });
    both.iter().sum()
}
