//! QEMU is killed while it is sampled: its rows are gone within a second, then it leaves the
//! roster, and nothing of it stays open.

use std::fs;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_sampler::{Control, Fanout, Sampler, Tick, Timing};
use vmstrobe_tests::qemu::{Config, Qemu};
use vmstrobe_tests::require::require_lending_qemu;
use vmstrobe_tests::rig::{Rig, health, rig, show, wait_for};

use crate::{FDS, LIMIT, borrowed, lending_qemu, sampling};

#[test]
fn a_killed_qemu_is_gone_within_a_second() {
    if !require_lending_qemu() {
        return;
    }
    let _alone = FDS.write().unwrap_or_else(PoisonError::into_inner);
    let before = lent_fds();
    let qemu = Qemu::start(&Config { name: "killed", vcpus: 4, ..Config::default() });
    let Rig { roster, sampler, control } = sampling(&qemu, "vcpu");
    let running = sampler.start(Timing::hz(1000.0).expect("the rate is within the bounds"));
    let running = running.expect("a thread can be started");
    let mut latest = control.latest();
    let all = |snapshot: &Snapshot, state| {
        snapshot.objects().count() == 4 && snapshot.objects().all(|view| view.state() == state)
    };
    wait_for("all vCPUs are read", LIMIT, || all(latest.load(), RowState::Good));
    assert!(lent_fds() >= before + 6, "there are four stats fds, a pidfd, and that of the helper");

    let killed = Instant::now();
    drop(qemu);
    wait_for("the rows are gone", Duration::from_secs(1), || all(latest.load(), RowState::Gone));
    let gone_after = killed.elapsed();
    assert!(latest.load().objects().all(|view| view.stats().next().is_none()));

    // Without a watch the rows stay gone; with a watch the roster becomes empty, and the fds are
    // closed.
    let watch = roster.watch(control.clone(), Duration::from_millis(20), |error| panic!("{error}"));
    let watch = watch.expect("a thread can be started");
    wait_for("the roster is empty", LIMIT, || latest.load().layout().rows() == 0);
    let empty_after = killed.elapsed();
    // One more descriptor remains, by which the helper's end is noticed.
    wait_for("its fds are closed", LIMIT, || lent_fds() <= before + 1);
    show(&format!(
        "killed with its reaping: rows gone after {gone_after:?}, roster empty after \
         {empty_after:?}, all fds closed after {:?}",
        killed.elapsed()
    ));
    let tick = latest.load().tick();
    wait_for("the sampler continues", LIMIT, || latest.load().tick() > tick + 10);
    drop(watch);
    let sampler = running.stop().expect("the sampler's thread does not panic");
    let counts = sampler.health().counts();
    assert!(counts.unread_rows > 0 && counts.rows == 0, "{counts:?}");
}

/// Returns the number of KVM fds and pidfds of this process.
fn lent_fds() -> usize {
    let fds = fs::read_dir("/proc/self/fd").expect("/proc is there");
    let links = fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let lent = ["anon_inode:kvm-", "anon_inode:[pidfd]", "pidfd:"];
    links.filter(|link| lent.iter().any(|kind| link.to_string_lossy().starts_with(kind))).count()
}

/// The sampler's health, sampled beside the QEMU, counts the rows that could not be read.
#[test]
fn health_counts_the_rows_of_a_killed_qemu() {
    let Some(_fds) = lending_qemu() else { return };
    let qemu = Qemu::start(&Config { name: "counted", vcpus: 2, ..Config::default() });
    let filters = ["vcpu: exits", "sampler"];
    // The roster owns the provider.
    let Rig { roster: _roster, mut sampler, control } =
        rig(borrowed(&qemu), &filters, Fanout::Inline);
    assert_eq!(sampler.tick(), Tick::Published);
    drop(qemu);
    until_gone(&mut sampler, &control);
    let unread = |snapshot: &Snapshot| health(snapshot, "unread_rows");
    let first = unread(&control.latest().load_full());
    for after in 1..=3 {
        assert_eq!(sampler.tick(), Tick::Published);
        assert_eq!(unread(&control.latest().load_full()), first + 2 * after);
    }
}

/// A sampler whose roster and provider have been dropped does not read the last values of a dead VM
/// for ever.
#[test]
fn rows_of_a_killed_qemu_are_gone_also_without_their_provider() {
    let Some(_fds) = lending_qemu() else { return };
    let qemu = Qemu::start(&Config { name: "orphan", vcpus: 2, ..Config::default() });
    let Rig { roster, mut sampler, control } = sampling(&qemu, "vcpu: exits");
    drop(roster);
    assert_eq!(sampler.tick(), Tick::Published);
    assert_eq!(control.latest().load().stat("exits").count(), 2);
    drop(qemu);
    until_gone(&mut sampler, &control);
}

fn until_gone(sampler: &mut Sampler, control: &Control) {
    wait_for("the rows are gone", Duration::from_secs(1), || {
        assert_eq!(sampler.tick(), Tick::Published);
        control.latest().load().stat("exits").count() == 0
    });
}
