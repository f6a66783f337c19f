//! The states of a row, reading by reading, against a poller that is played by the test.

use std::sync::atomic::AtomicBool;

use vmstrobe_core::{Mask, Target};
use vmstrobe_guest::{Irqchip, Vm};
use vmstrobe_host::{Broker, Reaper};
use vmstrobe_testing::{has_kvm, tick};

use super::*;
use crate::fd::Opener;
use crate::kvm::Bpf;
use crate::kvm::sched::schema;

const MS: u64 = NS_PER_MS;

/// The stats fd of a vCPU that never runs.
fn fd() -> Option<Arc<KvmFd>> {
    has_kvm().then(|| {
        let vm = Vm::new(Irqchip::None).unwrap();
        let vcpu = vm.vcpu(0).unwrap();
        let stats = crate::kvm_get_stats_fd(vcpu.fd()).unwrap();
        let opener = Opener::new(Reaper::new().unwrap(), Bpf::off());
        Arc::new(opener.open(stats, Target::Vcpu, None).unwrap())
    })
}

fn plan(names: &[&str]) -> Arc<ReadPlan> {
    let schema = schema();
    let mut mask = Mask::none(schema.descs().len());
    names.iter().for_each(|name| mask.set(schema.find(name).unwrap()));
    ReadPlan::new(&schema, &mask)
}

fn row(watched: &Arc<Watched>) -> Row {
    Row { watched: Some(Arc::clone(watched)), seen: 0 }
}

#[test]
fn a_row_is_good_once_a_reading_and_grows_old() {
    let Some(fd) = fd() else { return };
    let watched = Watched::new(1, &fd);
    let plan = plan(&["run_delay", "thread_id"]);
    let mut row = row(&watched);
    let mut words = [u64::MAX; 2];
    let mut at = |now_ns| (row.read(&plan, &mut words, now_ns), words);

    assert!(!watched.is_wanted());
    assert_eq!(at(MS).0, RowState::Missing, "nothing has been read");
    assert!(watched.is_wanted());
    watched.write(100 * MS, &[10, 20, 30, 40]);
    assert_eq!(at(100 * MS), (RowState::Good, [10, 40]));
    assert_eq!(at(102 * MS - 1), (RowState::Aged(1), [10, 40]));
    watched.write(200 * MS, &[11, 21, 31, 41]);
    // Read after the tick began: no older than nothing.
    assert_eq!(at(199 * MS), (RowState::Good, [11, 41]));
    let stale_ns = STALE_AFTER.as_nanos() as u64;
    assert_eq!(at(200 * MS + stale_ns), (RowState::Aged(1000), [11, 41]));
    assert_eq!(at(200 * MS + stale_ns + 1).0, RowState::Stale);

    watched.forget();
    assert_eq!(at(201 * MS).0, RowState::Missing, "its thread has ended");
    watched.write(300 * MS, &[1, 2, 3, 4]);
    assert_eq!(at(300 * MS), (RowState::Good, [1, 4]));
    fd.retire();
    assert_eq!(at(300 * MS).0, RowState::Gone);
}

#[test]
fn each_source_sees_each_reading() {
    let Some(fd) = fd() else { return };
    let watched = Watched::new(1, &fd);
    let plan = plan(&["timeslices"]);
    let (mut one, mut other) = (row(&watched), row(&watched));
    watched.write(MS, &[0, 0, 5, 0]);
    for row in [&mut one, &mut other] {
        assert_eq!(row.read(&plan, &mut [0], MS), RowState::Good);
        assert_eq!(row.read(&plan, &mut [0], MS), RowState::Aged(0));
    }
}

#[test]
fn a_reading_is_whole() {
    let Some(fd) = fd() else { return };
    let watched = Watched::new(1, &fd);
    let plan = plan(&["run_delay", "run_time", "timeslices", "thread_id"]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=300_000 {
                watched.write(n, &[n; WORDS]);
            }
            done.store(true, Ordering::Release);
        });
        let (mut row, mut last, mut good) = (row(&watched), 0, 0);
        while !done.load(Ordering::Acquire) || good == 0 {
            let mut words = [0; WORDS];
            if row.read(&plan, &mut words, 0) == RowState::Good {
                assert!(words[0] > last && words.iter().all(|word| *word == words[0]), "{words:?}");
                (last, good) = (words[0], good + 1);
            }
        }
    });
    // A writer that died in the middle.
    watched.seq.store(7, Ordering::Relaxed);
    assert_eq!(row(&watched).read(&plan, &mut [0; WORDS], 0), RowState::Torn);
}

#[test]
fn a_vcpu_that_had_gone_and_a_plan_of_nothing() {
    let Some(fd) = fd() else { return };
    let watched = Watched::new(1, &fd);
    watched.write(clock_ns(), &[1; WORDS]);
    let poller = Arc::new(Poller::start(&Broker::default()).unwrap());
    let rows = [None, Some(Arc::clone(&watched))];
    let mut source = SchedSource::new(&plan(&["run_time"]), &rows, &poller);
    assert_eq!(tick(&mut source, 1), (vec![RowState::Gone, RowState::Good], vec![u64::MAX, 1]));
    let mut source = SchedSource::new(&plan(&[]), &rows, &poller);
    assert_eq!(tick(&mut source, 0).0, [RowState::Gone, RowState::Good]);
    assert_eq!(source.read_ns(), None);
}
