//! A stress test: a sampler ticks without a pause while readers and subscribers come and go, some
//! keep snapshots for long, and its objects change all the time.
//!
//! The vCPUs do not run, and each has its own values, so a good row has exactly one right content:
//! a snapshot that is written while a reader holds it, or has the layout of another roster, is
//! seen. In the end all snapshots and all threads are gone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmstrobe::kvm::{NewVcpu, OwnKvm};
use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_guest::DemoGuest;
use vmstrobe_sampler::{Control, Fanout, Health, Latest, MAX_SUBSCRIBERS, Roster, Sampler, Tick};
use vmstrobe_tests::require::require_kvm;
use vmstrobe_tests::rig::{Over, Rig, health, own_kvm, rig, show, wait_for};

const VCPUS: u32 = 16;
const RUN: Duration = Duration::from_millis(2500);
const LIMIT: Duration = Duration::from_secs(20);
/// The most bytes by which memory may grow after a fifth of the time. One roster's snapshots take
/// 1 to 2 MiB, and there are hundreds of rosters.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// The right words of each vCPU, by path.
type Truth = Arc<BTreeMap<String, Vec<u64>>>;

/// A thread that checks snapshots.
struct Reader {
    truth: Truth,
    done: Arc<AtomicBool>,
    /// One snapshot of each layout that it saw.
    seen: Vec<Weak<Snapshot>>,
    generation: u64,
    looks: u64,
}

/// The number of snapshots that a thread looked at, and one snapshot of each layout.
type Found = (u64, Vec<Weak<Snapshot>>);

#[test]
fn everything_changes_at_once() {
    if !require_kvm() {
        return;
    }
    let mut guest = DemoGuest::new(VCPUS).expect("KVM can make a guest");
    let kvm = own_kvm("stress", guest.vm(), guest.vcpus());
    guest.start().expect("KVM runs the guest");
    thread::sleep(Duration::from_millis(300));
    guest.stop().expect("the sampler's thread does not panic");
    let guest = Arc::new(guest);
    for fanout in [Fanout::Inline, Fanout::Threads(2)] {
        let threads = count("/proc/self/task");
        check(&guest, &kvm, fanout);
        wait_for("all threads end", LIMIT, || count("/proc/self/task") <= threads);
    }
}

fn check(guest: &Arc<DemoGuest>, kvm: &Arc<OwnKvm>, fanout: Fanout) {
    let Rig { roster, mut sampler, control } = rig(kvm.clone(), &["vcpu", "sampler"], fanout);
    sampler.tick();
    let truth = truth(&control.latest().load_full());
    let done = Arc::new(AtomicBool::new(false));
    let over = Over(&done);
    let ticking = {
        let done = Arc::clone(&done);
        thread::spawn(move || tick_until(sampler, &done))
    };
    let changing = {
        let (guest, kvm, control) = (Arc::clone(guest), Arc::clone(kvm), control.clone());
        let done = Arc::clone(&done);
        thread::spawn(move || change_until(&guest, &kvm, roster, &control, &done))
    };
    let spawn = |follow: fn(Reader, Control) -> Found| {
        let (truth, done) = (Arc::clone(&truth), Arc::clone(&done));
        let reader = Reader { truth, done, seen: Vec::new(), generation: 0, looks: 0 };
        let control = control.clone();
        thread::spawn(move || follow(reader, control))
    };
    let readers: Vec<_> =
        [glance, glance, hold, hold, subscribe, subscribe].into_iter().map(spawn).collect();

    thread::sleep(RUN / 5);
    let early_bytes = resident_bytes();
    thread::sleep(RUN - RUN / 5);
    let late_bytes = resident_bytes();
    drop(over);
    let changes = join(changing);
    let found: Vec<Found> = readers.into_iter().map(join).collect();
    let sampler = join(ticking);
    let counts = sampler.health().counts();
    let looks: Vec<u64> = found.iter().map(|(looks, _)| *looks).collect();
    show(&format!(
        "{fanout:?}: {} ticks, {} starved, {changes} rosters, {} lost; looks {looks:?}; memory \
         {} then {} MiB",
        counts.ticks,
        counts.starved_ticks,
        counts.lost_samples,
        early_bytes >> 20,
        late_bytes >> 20
    ));
    assert!(late_bytes < early_bytes + GROWTH_BYTES_MAX, "{early_bytes} then {late_bytes} bytes");
    assert!(changes > 20 && counts.ticks > 1000 && looks.iter().all(|looks| *looks > 100));

    drop((sampler, control));
    let held = found.iter().flat_map(|(_, seen)| seen).filter(|seen| seen.strong_count() > 0);
    assert_eq!(held.count(), 0, "no thread holds a snapshot, but some exist");
}

fn join<T>(thread: JoinHandle<T>) -> T {
    wait_for("a thread ends", LIMIT, || thread.is_finished());
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn tick_until(mut sampler: Sampler, done: &AtomicBool) -> Sampler {
    sampler.inside(|sampler| {
        while !done.load(SeqCst) {
            // Readers hold a limited number, so mostly a snapshot is free.
            if sampler.tick() == Tick::Starved {
                thread::yield_now();
            }
        }
    });
    sampler
}

/// Removes vCPUs and adds them, one at a time; returns the number of new rosters of the sampler.
fn change_until(
    guest: &DemoGuest,
    kvm: &OwnKvm,
    mut roster: Roster,
    control: &Control,
    done: &AtomicBool,
) -> u64 {
    let mut changes = 0;
    for vcpu in guest.vcpus().iter().cycle() {
        if !kvm.remove_vcpu(vcpu.id()) {
            kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd())).expect("the vCPU was removed before");
        }
        let (sources, errors) = roster.refresh();
        assert!(errors.is_empty(), "{errors:?}");
        // The sampler refuses it while 16 changes wait for a tick: the next roster has this change
        // too.
        changes += u64::from(control.replace(sources.expect("the objects have changed")).is_ok());
        if done.load(SeqCst) {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for vcpu in guest.vcpus() {
        // Add the vCPUs again for the next round; the present ones are refused.
        let _ = kvm.add_vcpu(NewVcpu::here(vcpu.id(), vcpu.fd()));
    }
    changes
}

impl Reader {
    fn goes_on(&self) -> bool {
        !self.done.load(SeqCst)
    }

    fn look(&mut self, snapshot: &Snapshot) {
        self.looks += 1;
        let mut rows = 0;
        for view in snapshot.objects() {
            rows += 1;
            let path = &*view.object().path;
            match (view.state(), self.truth.get(path)) {
                (RowState::Good, Some(words)) => {
                    let got = view.stats().flat_map(|value| value.words());
                    assert!(got.eq(words), "{path} in tick {}", snapshot.tick());
                }
                // It is the sampler's own health, which changes.
                (RowState::Good, None) => assert!(view.get("ticks").is_some(), "{path}"),
                (RowState::Gone, Some(_)) => assert_eq!(view.stats().count(), 0, "{path}"),
                (state, _) => panic!("{path} is {state:?}"),
            }
        }
        assert_eq!(rows, snapshot.layout().rows());
    }

    /// Remembers one snapshot of each layout, without holding it.
    fn remember(&mut self, snapshot: &Arc<Snapshot>) {
        let generation = snapshot.layout().generation();
        if self.generation < generation {
            self.generation = generation;
            self.seen.push(Arc::downgrade(snapshot));
        }
    }

    fn found(self) -> Found {
        (self.looks, self.seen)
    }
}

/// Checks the newest snapshot again and again, now and then by a new handle.
fn glance(mut reader: Reader, control: Control) -> Found {
    let mut last = 0;
    while reader.goes_on() {
        let mut latest: Latest = control.latest();
        for _ in 0..50 {
            let newest = latest.load();
            assert!(newest.tick() >= last, "from tick {last} back to {}", newest.tick());
            last = newest.tick();
            reader.look(newest);
        }
        reader.remember(&latest.load_full());
    }
    reader.found()
}

/// Holds a dozen snapshots for long, and checks each before it is dropped.
fn hold(mut reader: Reader, control: Control) -> Found {
    let (mut latest, mut held) = (control.latest(), VecDeque::new());
    while reader.goes_on() {
        let newest = latest.load_full();
        reader.remember(&newest);
        held.push_back((newest.tick(), newest));
        if held.len() > 12 {
            let (tick, oldest) = held.pop_front().expect("the queue is not empty");
            assert_eq!(oldest.tick(), tick, "the snapshot changed while it was held");
            reader.look(&oldest);
        }
        thread::sleep(Duration::from_millis(1));
    }
    reader.found()
}

/// Subscribes, takes every sample for a while, and leaves; again and again.
fn subscribe(mut reader: Reader, control: Control) -> Found {
    for depth in (1..=40).cycle() {
        if !reader.goes_on() {
            break;
        }
        let Ok(subscriber) = control.subscribe(depth) else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let (mut last, mut in_gaps) = (None::<(u64, u64)>, 0);
        for _ in 0..depth * 3 {
            let Some(sample) = subscriber.recv_timeout(Duration::from_millis(20)) else { break };
            let (tick, ticks) = (sample.tick(), health(&sample, "ticks"));
            if let Some((last_tick, last_ticks)) = last {
                assert!(tick > last_tick, "tick {tick} after {last_tick}");
                in_gaps += ticks - last_ticks - 1;
            }
            last = Some((tick, ticks));
            reader.look(&sample);
            reader.remember(&sample);
        }
        assert!(in_gaps <= subscriber.lost_samples(), "a gap that was not counted");
    }
    reader.found()
}

/// A subscriber that has left makes room for another, also if every tick takes a change.
#[test]
fn a_subscriber_that_left_makes_room() {
    let mut rig = rig(Arc::new(Health::new().0), &["sampler: ticks"], Fanout::Inline);
    for round in 0..MAX_SUBSCRIBERS * 3 {
        let subscriber = match rig.control.subscribe(2) {
            Ok(subscriber) => subscriber,
            Err(error) => panic!("round {round}, nobody else is there: {error}"),
        };
        assert_eq!(rig.sampler.tick(), Tick::Published);
        assert!(
            subscriber.try_recv().is_some(),
            "a tick takes one change, so the subscriber has joined"
        );
    }
    assert!(rig.sampler.health().counts().subscribers < MAX_SUBSCRIBERS as u64 / 2);
}

fn truth(snapshot: &Snapshot) -> Truth {
    let vcpus = snapshot.objects().filter(|view| view.object().index.is_some());
    let words: BTreeMap<String, Vec<u64>> = vcpus
        .map(|view| {
            let words = view.stats().flat_map(|value| value.words()).copied().collect();
            (view.object().path.to_string(), words)
        })
        .collect();
    let mut distinct: Vec<_> = words.values().collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((words.len(), distinct.len()), (VCPUS as usize, VCPUS as usize));
    Arc::new(words)
}

fn count(directory: &str) -> usize {
    fs::read_dir(directory).expect("/proc is there").count()
}

fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the entry exists");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("the text is a number");
    kib * 1024
}
