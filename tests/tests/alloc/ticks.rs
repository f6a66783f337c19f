//! 10,000 ticks on real statistics fds, with subscribers and readers: no participating thread
//! allocates or frees anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use vmstrobe::kvm::NewVcpu;
use vmstrobe_core::{Cell, Provider};
use vmstrobe_guest::{Irqchip, Vm};
use vmstrobe_sampler::{Control, Fanout, Latest, Sampler, Subscriber, Tick, Timing};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Over, Rig, farm, health, own_kvm, rig, show, vcpu_path, wait_for};

use super::count::{Counted, alone, counted, take_part};

const VCPUS: usize = 128;
const TICKS: u64 = 10_000;
const SUBSCRIBERS: usize = 2;
const READERS: usize = 4;
const QUEUE_SAMPLES: usize = 64;
/// The ticks before the count, in which every thread does each of its calls for the first time.
const WARM_UP: u64 = 500;
/// The pause between two looks of a subscriber or a reader, because two CPUs are few for seven
/// threads.
const PAUSE: Duration = Duration::from_micros(200);

/// A way to make a sampler tick a number of times.
pub(super) type Ticking = fn(&mut Sampler, u64);

/// A count of the threads that are ready to follow a sampler, and a flag that tells them to stop.
#[derive(Default)]
struct Stage {
    ready: AtomicUsize,
    done: AtomicBool,
}

impl Stage {
    /// Calls `look` again and again until the stage is done, at first to warm up, and returns the
    /// number of snapshots that it saw while it took part.
    fn follow(&self, mut look: impl FnMut() -> u64) -> u64 {
        let mut seen = 0;
        while seen < 3 && !self.done.load(SeqCst) {
            seen += look();
            thread::sleep(PAUSE);
        }
        seen = 0;
        take_part(true);
        self.ready.fetch_add(1, SeqCst);
        while !self.done.load(SeqCst) {
            seen += look();
            thread::sleep(PAUSE);
        }
        take_part(false);
        seen
    }
}

/// The statistic and the objects that subscribers and readers look at.
pub(super) struct Followed {
    /// A statistic that all objects have.
    pub(super) stat: &'static str,
    /// The paths of some objects, at least as many as there are readers.
    pub(super) paths: Vec<String>,
    /// Whether a row may be read while it is being changed.
    pub(super) may_be_torn: bool,
}

#[test]
fn inline_ticks_allocate_nothing() {
    check_farm(Fanout::Inline, by_hand);
}

#[test]
fn spread_ticks_allocate_nothing() {
    check_farm(Fanout::Threads(2), by_hand);
}

#[test]
fn the_timed_loop_allocates_nothing() {
    check_farm(Fanout::Inline, timed);
    check_farm(Fanout::Threads(2), timed);
}

/// Runs [`check`] on vCPUs.
fn check_farm(fanout: Fanout, ticking: Ticking) {
    if !require_kvm() {
        return;
    }
    let (_farm, kvm) = farm(VCPUS);
    let paths = (0..VCPUS as u32).map(|index| vcpu_path("farm", index)).collect();
    let followed = Followed { stat: "exits", paths, may_be_torn: false };
    check(kvm, &["vcpu", "sampler"], &followed, fanout, ticking);
}

pub(super) fn by_hand(sampler: &mut Sampler, ticks: u64) {
    for _ in 0..ticks {
        assert_eq!(sampler.tick(), Tick::Published);
    }
}

fn timed(sampler: &mut Sampler, ticks: u64) {
    let before = sampler.health().counts().ticks;
    // Deadlines that pass unused do not count here.
    while sampler.health().counts().ticks - before < ticks {
        let left = ticks - (sampler.health().counts().ticks - before);
        let timing = Timing::hz(20_000.0).expect("the rate is within the bounds");
        let outcome = sampler.run(&Timing { ticks_max: Some(left), ..timing });
        assert!(outcome.is_ok(), "the kernel permits a timer slack of 1 ns");
    }
}

/// Checks that nothing is allocated by ticks over the objects of these filters, while other threads
/// receive the samples.
pub(super) fn check(
    provider: Arc<dyn Provider>,
    filters: &[&str],
    followed: &Followed,
    fanout: Fanout,
    ticking: Ticking,
) {
    let _alone = alone();
    let Rig { mut sampler, control, .. } = rig(provider, filters, fanout);
    let want_threads = if let Fanout::Threads(threads) = fanout { threads } else { 1 };
    assert_eq!(sampler.threads(), want_threads);
    let stage = Stage::default();
    let (counted, seen) = thread::scope(|scope| {
        let over = Over(&stage.done);
        let followers = followers(&stage, &control, followed);
        let followers: Vec<_> = followers.into_iter().map(|follow| scope.spawn(follow)).collect();
        let counted = sampler.inside(|sampler| tick_counted(sampler, &stage, ticking));
        drop(over);
        let join = |thread: thread::ScopedJoinHandle<'_, u64>| {
            thread.join().expect("the thread does not panic")
        };
        (counted, followers.into_iter().map(join).collect::<Vec<u64>>())
    });
    show(&format!(
        "{TICKS} ticks of {} objects on {} threads: {counted:?}; subscribers and readers saw \
         {seen:?}",
        followed.paths.len(),
        sampler.threads()
    ));
    assert_eq!(counted, Counted::default());
    assert!(seen.iter().all(|&seen| seen > 10), "someone did not take part: {seen:?}");
    let counts = sampler.health().counts();
    let rows = counts.ticks * followed.paths.len() as u64;
    let unread_max = if followed.may_be_torn { rows / 100 } else { 0 };
    assert!(counts.ticks >= TICKS + WARM_UP && counts.unread_rows <= unread_max, "{counts:?}");
}

/// Subscribers that drain their queues, and readers of the newest snapshot.
fn followers<'a>(
    stage: &'a Stage,
    control: &Control,
    followed: &Followed,
) -> Vec<Box<dyn FnOnce() -> u64 + Send + 'a>> {
    let mut followers: Vec<Box<dyn FnOnce() -> u64 + Send>> = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let subscriber =
            control.subscribe(QUEUE_SAMPLES).expect("there are fewer subscribers than the limit");
        let stat = followed.stat;
        followers.push(Box::new(move || stage.follow(|| drain(&subscriber, stat))));
    }
    let layout = Arc::clone(control.latest().load().layout());
    let cell =
        |path: &String| layout.find(path, followed.stat).expect("the layout has the statistic");
    let last = cell(&followed.paths[followed.paths.len() - 1]);
    for path in &followed.paths[..READERS] {
        let cells = [cell(path), last];
        let mut latest = control.latest();
        followers.push(Box::new(move || stage.follow(|| read(&mut latest, &cells))));
    }
    followers
}

/// Takes what is in the queue, but does not race the sampler.
fn drain(subscriber: &Subscriber, stat: &str) -> u64 {
    let samples = (0..QUEUE_SAMPLES).map_while(|_| subscriber.try_recv());
    samples.map(|sample| u64::from(sample.stat(stat).next().is_some())).sum()
}

fn read(latest: &mut Latest, cells: &[Cell]) -> u64 {
    let kept = latest.load_full();
    let newest = latest.load();
    let good = |cell: &Cell| newest.get(*cell).is_some();
    let is_sound = newest.tick() > 0 && newest.tick() >= kept.tick() && cells.iter().all(good);
    u64::from(is_sound)
}

/// Ticks until all threads are warm, then ticks under count. The reading threads take part too.
fn tick_counted(sampler: &mut Sampler, stage: &Stage, ticking: Ticking) -> Counted {
    let all_ready = || stage.ready.load(SeqCst) == SUBSCRIBERS + READERS;
    wait_for("all followers take part", Duration::from_secs(20), || {
        ticking(sampler, 10);
        all_ready()
    });
    // Outside a pool, this would start one.
    let in_pool = rayon::current_thread_index().is_some();
    let all_take_part = |yes| {
        if in_pool {
            rayon::broadcast(|_| take_part(yes));
        }
        take_part(yes);
    };
    all_take_part(true);
    ticking(sampler, WARM_UP);
    let ((), counted) = counted(|| ticking(sampler, TICKS));
    all_take_part(false);
    counted
}

/// Objects and subscribers come and go all the time: the control plane allocates for them, and the
/// tick does not.
#[test]
fn a_tick_that_takes_a_change_allocates_nothing() {
    const CHANGES: u64 = 200;
    if !require_kvm() {
        return;
    }
    let _alone = alone();
    let vm = Vm::new(Irqchip::None).expect("KVM can make a VM");
    let vcpus: Vec<_> = (0..8).map(|id| vm.vcpu(id).expect("KVM can make vCPUs")).collect();
    let kvm = own_kvm("changing", &vm, &vcpus);
    let Rig { mut roster, mut sampler, control } =
        rig(kvm.clone(), &["vcpu", "sampler"], Fanout::Inline);
    let done = AtomicBool::new(false);
    let counted = thread::scope(|scope| {
        let over = Over(&done);
        let ticker = scope.spawn(|| {
            by_hand(&mut sampler, WARM_UP);
            take_part(true);
            let ((), counted) = counted(|| tick_until(&done, &mut sampler));
            take_part(false);
            counted
        });
        for change in 0..CHANGES {
            let vcpu = &vcpus[(change % 8) as usize];
            if !kvm.remove_vcpu(vcpu.id()) {
                kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()))
                    .expect("the vCPU was removed before");
            }
            let (sources, errors) = roster.refresh();
            assert!(errors.is_empty(), "{errors:?}");
            let sources = sources.expect("the objects have changed");
            let rows = sources.layout().rows();
            control.replace(sources).expect("the sampler ticks");
            let subscriber =
                control.subscribe(8).expect("there are fewer subscribers than the limit");
            let taken = || control.latest().load().layout().rows() == rows;
            wait_for("the sampler has taken the change", Duration::from_secs(20), taken);
            let received = || subscriber.try_recv().is_some();
            wait_for("the subscriber gets samples", Duration::from_secs(20), received);
        }
        drop(over);
        ticker.join().expect("the thread does not panic")
    });
    let ticks = sampler.health().counts().ticks;
    show(&format!("{ticks} ticks with {CHANGES} changes of objects and subscribers: {counted:?}"));
    assert_eq!(counted, Counted::default());
    assert!(health(&control.latest().load_full(), "ticks") > CHANGES);
}

fn tick_until(done: &AtomicBool, sampler: &mut Sampler) {
    while !done.load(SeqCst) {
        sampler.tick();
        // The other side needs the CPU too.
        thread::sleep(Duration::from_micros(50));
    }
}
