//! Tests of which fd of each object is borrowed, and of how long a new one is observed first.

use std::cell::Cell;
use std::os::fd::RawFd;

use vmstrobe_host::KvmLink;

use super::*;
use crate::scan::tests::vms_of;

const BOTH: Which = Which { stats: true, object_fds: true };

/// Checks the fds that are wanted of the VMs in `links`, a compact text as in the scan's tests.
/// Each of `want` is a path and an fd, with a bar and the fd that is taken if that one does not
/// stay.
fn check(links: &str, object_fds_too: bool, held: &[RawFd], want: &[&str]) {
    let which = Which { stats: true, object_fds: object_fds_too };
    let got = wanted(&vms_of(links), "x", which, |(fd, _)| held.contains(&fd));
    let got: Vec<String> = got
        .iter()
        .map(|Wanted { place, or_else, path }| {
            let or_else = or_else.map_or(String::new(), |(fd, _)| format!("|{fd}"));
            format!("{} {}{or_else}", path.trim_start_matches("/vm/"), place.0)
        })
        .collect();
    assert_eq!(got, want, "{links}, {held:?}");
}

#[test]
fn only_stats_fds_are_wanted_where_no_other_can_be_read() {
    check("v c0 s0 c1 s1", false, &[], &["x/vcpu[0] 12", "x/vcpu[1] 14"]);
    check("v S c0 s0 c1", false, &[], &["x 11", "x/vcpu[0] 13"]);
    check("v c0 c1", false, &[], &[]);
    // One that was held by its own is given up.
    check("v c0 c1", false, &[10, 11], &[]);
}

#[test]
fn where_no_stats_fd_may_be_held_the_objects_own_is() {
    let which = |object_fds| Which { stats: false, object_fds };
    let places = |which| -> Vec<RawFd> {
        wanted(&vms_of("v S c0 s0"), "x", which, |_| false).iter().map(|w| w.place.0).collect()
    };
    assert_eq!(places(which(true)), [10, 12]);
    assert!(places(which(false)).is_empty());
}

#[test]
fn a_stats_fd_comes_before_the_objects_own() {
    check("v c0 c1", true, &[], &["x 10", "x/vcpu[0] 11", "x/vcpu[1] 12"]);
    // As QEMU from 8.1 on: none for the VM.
    check("v c0 s0 c1 s1", true, &[], &["x 10", "x/vcpu[0] 12|11", "x/vcpu[1] 14|13"]);
    check("v S c0 s0 c1", true, &[], &["x 11|10", "x/vcpu[0] 13|12", "x/vcpu[1] 14"]);
    // The vCPU's own may be closed.
    check("v s0", true, &[], &["x 10", "x/vcpu[0] 11"]);
    check("v c0 v c0 s0", true, &[], &["x 10", "x/vcpu[0] 11", "x#2 12", "x#2/vcpu[0] 14|13"]);
}

#[test]
fn an_object_that_is_held_by_its_own_fd_stays_so() {
    check("v S c0 s0 c1 s1", true, &[10, 12], &["x 10", "x/vcpu[0] 12", "x/vcpu[1] 15|14"]);
    check("v S c0 s0", true, &[11, 13], &["x 11|10", "x/vcpu[0] 13|12"]);
    // Its stats fd was closed, or its own.
    check("v c0", true, &[12], &["x 10", "x/vcpu[0] 11"]);
    check("v s0", true, &[10, 7], &["x 10", "x/vcpu[0] 11"]);
    // A VM that is held by one of several of its own.
    check("v v c0", true, &[], &["x 10", "x/vcpu[0] 12"]);
    check("v v c0", true, &[11], &["x 11", "x/vcpu[0] 12"]);
}

/// New fds that are not there at each of the looks are left out.
#[test]
fn what_is_open_for_a_moment_is_left_out() {
    let all = LOOK_PAUSES.len();
    let (known, stays, looks) = (7, [0, 1, all - 1, all, all + 1], Cell::new(0));
    let wanted = |fds: &[usize]| -> Vec<Wanted> {
        let place = |fd: usize| (fd as RawFd, KvmLink::VmStats);
        let wanted = |&fd| Wanted { place: place(fd), or_else: None, path: String::new() };
        fds.iter().map(wanted).collect()
    };
    let mut left = [wanted(&[0, 1, 2, 3, 4, known]), wanted(&[known])];
    let is_known = |_, (fd, _)| fd as usize == known;
    let wait = |pause| {
        assert_eq!(pause, LOOK_PAUSES[looks.get()]);
        looks.set(looks.get() + 1);
    };
    let look = |at| -> HashSet<Place> {
        assert_eq!(at, 0, "nothing of the other is new");
        let there = (0..).zip(stays).filter(|(_, stays)| *stays >= looks.get());
        there.map(|(fd, _)| (fd, KvmLink::VmStats)).collect()
    };
    drop_transient(&mut left, is_known, wait, look);
    assert_eq!((left, looks.get()), ([wanted(&[3, 4, known]), wanted(&[known])], all));
    let mut left = [wanted(&[known])];
    drop_transient(&mut left, is_known, |_| panic!("nothing is new"), look);
    assert_eq!(left, [wanted(&[known])]);
}

#[test]
fn the_objects_own_takes_the_place_of_what_is_open_for_a_moment() {
    let all = LOOK_PAUSES.len();
    // The number of looks for which the stats fd and the vCPU's own fd stay, and the fd that is
    // left.
    for (stats, own, want) in [
        (all, all, Some((12, KvmLink::VcpuStats(0)))),
        (all, 0, Some((12, KvmLink::VcpuStats(0)))),
        (0, all, Some((11, KvmLink::Vcpu(0)))),
        (all - 1, all, Some((11, KvmLink::Vcpu(0)))),
        (0, all - 1, None),
    ] {
        let looks = Cell::new(0);
        let mut left = wanted(&vms_of("v c0 s0"), "x", BOTH, |_| false);
        let wait = |_| looks.set(looks.get() + 1);
        let look = |_| {
            let there = [
                (usize::MAX, (10, KvmLink::Vm)),
                (own, (11, KvmLink::Vcpu(0))),
                (stats, (12, KvmLink::VcpuStats(0))),
            ];
            let there = there.into_iter().filter(|(stays, _)| *stays >= looks.get());
            there.map(|(_, place)| place).collect()
        };
        drop_transient(std::slice::from_mut(&mut left), |_, _| false, wait, look);
        let vcpu = left.iter().find(|wanted| wanted.path == "/vm/x/vcpu[0]");
        assert_eq!(vcpu.map(|wanted| wanted.place), want);
        assert_eq!(left[0].place, (10, KvmLink::Vm));
    }
}
