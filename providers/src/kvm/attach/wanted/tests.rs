//! Which fd of each object is borrowed, and for how long it is looked at first.

use std::cell::Cell;
use std::os::fd::RawFd;

use super::*;
use crate::kvm::proc::KvmLink;
use crate::kvm::scan::tests::vms_of;

/// What is wanted of the VMs of a compact text, as in the scan's tests: path and fd, and behind a
/// bar the fd that is taken if that one does not stay.
fn check(links: &str, plain_too: bool, held: &[RawFd], want: &[&str]) {
    let got = wanted(&vms_of(links), "x", plain_too, |(fd, _)| held.contains(&fd));
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

/// Each stays for so many looks.
#[test]
fn what_is_open_for_a_moment_is_left_out() {
    let all = LOOK_PAUSES.len();
    let (known, stays, looks) = (7, [0, 1, all - 1, all, all + 1], Cell::new(0));
    let wanted = |fds: &[usize]| -> Vec<Wanted> {
        let place = |fd: usize| (fd as RawFd, KvmLink::VmStats);
        let wanted = |&fd| Wanted { place: place(fd), or_else: None, path: String::new() };
        fds.iter().map(wanted).collect()
    };
    let mut left = wanted(&[0, 1, 2, 3, 4, known]);
    let is_known = |(fd, _)| fd as usize == known;
    let wait = |pause| {
        assert_eq!(pause, LOOK_PAUSES[looks.get()]);
        looks.set(looks.get() + 1);
    };
    leave_passing(&mut left, is_known, wait, |(fd, _)| stays[fd as usize] >= looks.get());
    assert_eq!((left, looks.get()), (wanted(&[3, 4, known]), all));
    let mut left = wanted(&[known]);
    leave_passing(&mut left, is_known, |_| panic!("nothing is new"), |_| false);
    assert_eq!(left, wanted(&[known]));
}

#[test]
fn the_objects_own_takes_the_place_of_what_is_open_for_a_moment() {
    let all = LOOK_PAUSES.len();
    // How many looks the stats fd and the vCPU's own stay, and which is left.
    for (stats, own, want) in [
        (all, all, Some((12, KvmLink::VcpuStats(0)))),
        (all, 0, Some((12, KvmLink::VcpuStats(0)))),
        (0, all, Some((11, KvmLink::Vcpu(0)))),
        (all - 1, all, Some((11, KvmLink::Vcpu(0)))),
        (0, all - 1, None),
    ] {
        let looks = Cell::new(0);
        let mut left = wanted(&vms_of("v c0 s0"), "x", true, |_| false);
        let is_there = |(fd, _)| match fd {
            11 => own >= looks.get(),
            12 => stats >= looks.get(),
            _ => true,
        };
        leave_passing(&mut left, |_| false, |_| looks.set(looks.get() + 1), is_there);
        let vcpu = left.iter().find(|wanted| wanted.path == "/vm/x/vcpu[0]");
        assert_eq!(vcpu.map(|wanted| wanted.place), want);
        assert_eq!(left[0].place, (10, KvmLink::Vm));
    }
}
