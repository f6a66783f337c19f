//! Tests of which descriptors a process made: on invented descriptors, and on real threads.

use super::*;

const VM: KvmLink = KvmLink::Vm;
const VCPU: KvmLink = KvmLink::Vcpu(0);
const STATS: KvmLink = KvmLink::VcpuStats(0);

/// Judges the fds of a process, 10 and up: a link, an open file and a maker each. Maker 1 is a
/// thread of this process, 2 is another's, and 0 is unknown.
fn judged(is_reader: bool, held: &[i32], fds: &[(KvmLink, u32, u32)]) -> (char, Vec<i32>) {
    let kvm = (10..).zip(fds).map(|(fd, &(link, file, maker))| {
        let maker = Some(maker).filter(|&maker| maker != 0);
        SeenKvm { fd, link, file, maker }
    });
    let seen = Seen { kvm: kvm.collect(), is_reader, ..Seen::default() };
    let maker = |seen: &SeenKvm| match seen.maker {
        Some(1) => Maker::This,
        Some(_) => Maker::Other,
        None => Maker::Unknown,
    };
    let numbers = |places: Vec<Place>| places.iter().map(|place| place.0).collect();
    match judge(&seen, maker, |(fd, _)| held.contains(&fd)) {
        Made::Here(places) => ('h', numbers(places)),
        Made::Somewhere(places) => ('s', numbers(places)),
        Made::Elsewhere => ('-', Vec::new()),
    }
}

#[test]
fn whose_a_process_is_that_has_statistics_is_told_by_them() {
    for (is_reader, fds, want) in [
        (false, &[(VM, 0, 0), (VCPU, 1, 0), (STATS, 2, 1)][..], ('h', vec![10, 11, 12])),
        // A fork, which inherited them; a reader, which borrowed them.
        (false, &[(VM, 0, 0), (VCPU, 1, 0), (STATS, 2, 2)], ('-', vec![])),
        (true, &[(VM, 0, 0), (STATS, 2, 2)], ('-', vec![])),
        // A VMM that reads others' statistics, too.
        (
            true,
            &[(VM, 0, 0), (VCPU, 1, 0), (STATS, 2, 1), (STATS, 3, 2), (KvmLink::Vcpu(7), 4, 0)],
            ('h', vec![10, 11, 12]),
        ),
        // Without statistics it is not told.
        (false, &[(VM, 0, 0), (VCPU, 1, 0)], ('s', vec![10, 11])),
        (true, &[(VM, 0, 0), (VCPU, 1, 0)], ('s', vec![10, 11])),
        // Nor in a pid namespace.
        (false, &[(VM, 0, 0), (STATS, 1, 0)], ('s', vec![10, 11])),
        (false, &[], ('s', vec![])),
    ] {
        assert_eq!(judged(is_reader, &[], fds), want, "{is_reader} {fds:?}");
    }
}

#[test]
fn a_duplicate_counts_once_and_the_one_that_is_held_is_kept() {
    let fds = [(VM, 0, 0), (VM, 0, 0), (STATS, 2, 1), (STATS, 2, 1), (VM, 0, 0), (STATS, 5, 1)];
    assert_eq!(judged(false, &[], &fds).1, [10, 12, 15]);
    assert_eq!(judged(false, &[13, 14], &fds).1, [13, 14, 15]);
}

#[test]
fn a_thread_that_has_ended_was_its_if_it_began_later() {
    let this = std::process::id();
    let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get());
    let ended = thread.join().unwrap().cast_unsigned();
    assert!(vmstrobe_testing::soon(std::time::Duration::from_secs(5), || !procfs::is_thread(
        ended
    )));
    assert_eq!(maker(this, this), Maker::This);
    // Unless numbers have begun anew.
    if ended > this {
        assert_eq!(maker(this, ended), Maker::This);
        assert_eq!(maker(ended, this), Maker::Other);
    }
    assert_eq!(maker(this, 1), Maker::Other);
}
