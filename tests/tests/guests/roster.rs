//! vCPUs are added and removed while a sampler runs: the layouts follow, and a vCPU that does not
//! exist has no value.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use vmstrobe::kvm::{NewVcpu, OwnKvm};
use vmstrobe_core::{ObjectView, RowState, Snapshot};
use vmstrobe_guest::{Irqchip, Vcpu, Vm};
use vmstrobe_sampler::{Control, Fanout, Subscriber, Tick, Timing};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Over, Rig, own_kvm, rig, show, vcpu_path, wait_for};

const LIMIT: Duration = Duration::from_secs(20);

fn vm_of(vcpus: u32) -> (Vm, Vec<Vcpu>) {
    let vm = Vm::new(Irqchip::None).expect("KVM can make a VM");
    let vcpus = (0..vcpus).map(|id| vm.vcpu(id).expect("KVM can make vCPUs")).collect();
    (vm, vcpus)
}

fn indexes(snapshot: &Snapshot) -> Vec<u32> {
    snapshot.objects().filter_map(|view| view.object().index).collect()
}

/// The sampler is ticked by hand, so that the rows after each change of the roster are known.
#[test]
fn a_removed_vcpu_is_gone_until_the_roster_catches_up() {
    if !require_kvm() {
        return;
    }
    let (vm, vcpus) = vm_of(4);
    let kvm = own_kvm("steps", &vm, &vcpus[..3]);
    let Rig { mut roster, mut sampler, control } =
        rig(kvm.clone(), &["vcpu: exits"], Fanout::Inline);
    let mut tick = || {
        assert_eq!(sampler.tick(), Tick::Published);
        control.latest().load_full()
    };
    let before = tick();
    assert_eq!(states(&before), [RowState::Good; 3]);
    let cell = before
        .layout()
        .find(&vcpu_path("steps", 1), "exits")
        .expect("the layout has the statistic");
    assert!(before.get(cell).is_some());

    assert!(kvm.remove_vcpu(1));
    let removed = tick();
    assert_eq!(states(&removed), [RowState::Good, RowState::Gone, RowState::Good]);
    assert_eq!((removed.get(cell), removed.stat("exits").count()), (None, 2));
    // A vCPU with the same index is another object: the row of the first stays gone.
    add(&kvm, &vcpus[1]);
    assert_eq!(states(&tick()), [RowState::Good, RowState::Gone, RowState::Good]);
    add(&kvm, &vcpus[3]);
    let (sources, errors) = roster.refresh();
    assert!(errors.is_empty(), "{errors:?}");
    control.replace(sources.expect("the objects have changed")).expect("the sampler ticks");

    let after = tick();
    assert_eq!(states(&after), [RowState::Good; 4]);
    assert_eq!(indexes(&after), [0, 1, 2, 3]);
    assert_eq!(after.get(cell), None, "a cell of another layout has no value in this one");
    assert!(after.layout().generation() > before.layout().generation());
    assert_eq!(states(&before), [RowState::Good; 3], "what was kept stays as it was");
    assert!(roster.refresh().0.is_none(), "nothing has changed since");
}

fn add(kvm: &OwnKvm, vcpu: &Vcpu) {
    kvm.add_vcpu(NewVcpu::new(vcpu.id(), vcpu.fd())).expect("no vCPU has that index");
}

fn states(snapshot: &Snapshot) -> Vec<RowState> {
    snapshot.objects().map(|view| view.state()).collect()
}

/// The sampler runs at 2 kHz with the roster watched, and every snapshot is checked.
#[test]
fn snapshots_follow_a_watched_roster() {
    const VCPUS: usize = 6;
    const ROUNDS: usize = 24;
    if !require_kvm() {
        return;
    }
    let (vm, vcpus) = vm_of(VCPUS as u32);
    let kvm = own_kvm("watched", &vm, &vcpus[..1]);
    let Rig { roster, sampler, control } = rig(kvm.clone(), &["vcpu"], Fanout::Inline);
    let running = sampler.start(Timing::hz(2000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let subscriber = control.subscribe(4096).expect("there are fewer subscribers than the limit");
    let watch = roster.watch(control.clone(), Duration::from_millis(3), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        let over = Over(&done);
        let seen = scope.spawn(|| see_all(&subscriber, &done));
        for round in 0..ROUNDS {
            change(&kvm, &vcpus[1 + round % (VCPUS - 1)], &control);
        }
        drop(over);
        seen.join().expect("every snapshot is sound")
    });
    drop(watch);
    let sampler = running.stop().expect("the sampler's thread does not panic");
    show(&format!("{ROUNDS} changes at 2 kHz: {seen:?}"));
    let counts = sampler.health().counts();
    assert_eq!((counts.starved_ticks, subscriber.lost_samples()), (0, 0));
    assert!(seen.generations > ROUNDS, "{seen:?}");
}

/// Adds the vCPU or removes it, and waits until snapshots show that.
fn change(kvm: &OwnKvm, vcpu: &Vcpu, control: &Control) {
    let was_there = kvm.remove_vcpu(vcpu.id());
    if !was_there {
        add(kvm, vcpu);
    }
    let mut latest = control.latest();
    wait_for("snapshots follow the roster", LIMIT, || {
        let newest = latest.load();
        newest.tick() > 0 && indexes(newest).contains(&vcpu.id()) != was_there
    });
}

#[derive(Debug, Default)]
struct Seen {
    snapshots: usize,
    generations: usize,
    gone_rows: usize,
}

/// Checks every snapshot until all changes are done.
fn see_all(subscriber: &Subscriber, done: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    let mut last: Option<Arc<Snapshot>> = None;
    loop {
        let is_done = done.load(SeqCst);
        while let Some(now) = subscriber.try_recv() {
            now.objects().for_each(is_sound);
            seen.snapshots += 1;
            seen.gone_rows += states(&now).iter().filter(|s| **s == RowState::Gone).count();
            let new = last.as_ref().is_none_or(|last| is_of_a_later_layout(last, &now));
            seen.generations += usize::from(new);
            last = Some(now);
        }
        if is_done {
            return seen;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Checks that a row is good and has all its values, or is gone and has none.
fn is_sound(view: ObjectView<'_>) {
    let want = match view.state() {
        RowState::Good => view.object().schema.descs().len(),
        RowState::Gone => 0,
        state => panic!("{}: {state:?}", view.object().path),
    };
    assert_eq!(view.stats().count(), want, "{}", view.object().path);
    assert_eq!(view.get("exits").is_some(), want > 0, "{}", view.object().path);
}

/// Checks that ticks and layouts only increase, and that an object that is gone stays gone within a
/// layout.
fn is_of_a_later_layout(last: &Snapshot, now: &Snapshot) -> bool {
    assert!(now.tick() > last.tick());
    let [before, after] = [last, now].map(|snapshot| snapshot.layout().generation());
    assert!(after >= before, "from layout {before} back to {after}");
    if after == before {
        assert!(Arc::ptr_eq(last.layout(), now.layout()));
        let back = states(last).into_iter().zip(states(now));
        let is_back = |(was, is)| was == RowState::Gone && is != RowState::Gone;
        assert!(!back.into_iter().any(is_back), "a row that was gone is back");
    }
    after > before
}
