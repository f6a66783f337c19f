//! The rules of the kernel's selftest that reading an fd must keep
//! (assertions 17 to 21 of `kvm_binary_stats_test.c`, Linux 6.12), and what a source makes of its
//! rows.

use std::time::Duration;
use std::{fs, io};

use rustix::fs::{SeekFrom, seek};
use vmstrobe_core::{Desc, Mask};
use vmstrobe_guest::{Farm, KnownGuest, Vm};

use super::*;
use crate::sys::kvm_get_stats_fd;
use crate::tests::{has_kvm, has_link, soon, tick, vm};

fn opener() -> Opener {
    Opener::new(Reaper::new().unwrap())
}

fn plan(schema: &Arc<Schema>, names: &[&str]) -> Arc<ReadPlan> {
    let mut mask = Mask::none(schema.descs().len());
    names.iter().for_each(|name| mask.set(schema.find(name).unwrap()));
    ReadPlan::new(schema, &mask)
}

fn object(stats: &StatsFd, key: u64) -> Object {
    Object { path: "x".into(), index: None, schema: Arc::clone(stats.schema()), key }
}

fn departures(stats: &[Arc<StatsFd>]) -> Departures {
    stats.first().map(|stats| stats.departures.clone()).unwrap_or_default()
}

/// One source over these fds.
fn source(stats: &[Arc<StatsFd>], plan: &Arc<ReadPlan>) -> Box<dyn Source> {
    let objects: Vec<_> = (0..).zip(stats).map(|(key, stats)| object(stats, key)).collect();
    let mut sources =
        sources(&objects, plan, &departures(stats), |key| stats.get(key as usize).map(Arc::clone))
            .unwrap();
    assert_eq!(sources.len(), 1);
    sources.remove(0)
}

/// The words of everything, read at once.
fn bulk(stats: &StatsFd) -> Vec<u64> {
    let mut words = vec![0; stats.schema.data_bytes() / 8];
    assert_eq!(fetch(stats.fd().as_fd(), &mut words, stats.data_offset), RowState::Good);
    words
}

/// Stats fds of a VM and its vCPUs.
fn open_vm(opener: &Opener, vm: &Vm, vcpus: &[vmstrobe_guest::Vcpu]) -> Vec<StatsFd> {
    let open = |fd, target| opener.open(kvm_get_stats_fd(fd).unwrap(), target, None).unwrap();
    let vcpus = vcpus.iter().map(|vcpu| open(vcpu.fd(), Target::Vcpu));
    std::iter::once(open(vm.fd(), Target::Vm)).chain(vcpus).collect()
}

/// Rules 17 and 18.
fn check_reads(stats: &StatsFd) {
    let all = bulk(stats);
    assert!(all.len() >= stats.schema.descs().len());
    for desc in stats.schema.descs() {
        let mut words = vec![u64::MAX; desc.size.into()];
        let offset = stats.data_offset + u64::from(desc.offset);
        assert_eq!(fetch(stats.fd().as_fd(), &mut words, offset), RowState::Good, "{}", desc.name);
        // These vCPUs are at rest.
        assert_eq!(words, all[desc.words()], "{}", desc.name);
    }
    let mut one_more = vec![0; all.len() + 1];
    assert_eq!(fetch(stats.fd().as_fd(), &mut one_more, stats.data_offset), RowState::Torn);
}

#[test]
fn rule_17_bulk_pread_returns_all_data() {
    if !has_kvm() {
        return;
    }
    let (farm, opener) = (Farm::with_vcpus_per_vm(16, 4).unwrap(), opener());
    for vm in farm.vms() {
        for stats in open_vm(&opener, vm.vm(), vm.vcpus()) {
            bulk(&stats);
            assert!(stats.id().starts_with("kvm-"));
        }
    }
    assert_eq!(opener.schemas.lock().unwrap().len(), 2, "one a target for 20 fds");
}

#[test]
fn rule_18_each_statistic_can_be_read_alone() {
    if !has_kvm() {
        return;
    }
    let (farm, opener) = (Farm::with_vcpus_per_vm(16, 4).unwrap(), opener());
    for vm in farm.vms() {
        open_vm(&opener, vm.vm(), vm.vcpus()).iter().for_each(check_reads);
    }
}

#[test]
fn rule_19_a_closed_fd_is_closed() {
    let Some(vm) = vm() else { return };
    // An id that no other test has.
    let vcpu = vm.vcpu(191).unwrap();
    let fd = kvm_get_stats_fd(vcpu.fd()).unwrap();
    let stats = opener().open(fd, Target::Vcpu, None).unwrap();
    assert!(has_link("anon_inode:kvm-vcpu-stats:191"));
    drop(stats);
    assert!(soon(Duration::from_secs(5), || !has_link("anon_inode:kvm-vcpu-stats:191")));
}

#[test]
fn rule_20_dup_and_two_independent_fds_work() {
    let Some(vm) = vm() else { return };
    let (vcpu, opener) = (vm.vcpu(0).unwrap(), opener());
    for (fd, target) in [(vm.fd(), Target::Vm), (vcpu.fd(), Target::Vcpu)] {
        let first = kvm_get_stats_fd(fd).unwrap();
        let second = kvm_get_stats_fd(fd).unwrap();
        let duplicate = first.try_clone().unwrap();
        let first = opener.open(first, target.clone(), None).unwrap();
        let others = [second, duplicate].map(|fd| opener.open(fd, target.clone(), None).unwrap());
        for other in others {
            check_reads(&other);
            assert_eq!(bulk(&other), bulk(&first));
            assert!(Arc::ptr_eq(other.schema(), first.schema()));
        }
    }
}

#[test]
fn rule_21_stats_outlive_the_vm() {
    let Some(vm) = vm() else { return };
    let vcpus: Vec<_> = (0..4).map(|id| vm.vcpu(id).unwrap()).collect();
    let all = open_vm(&opener(), &vm, &vcpus);
    let before: Vec<_> = all.iter().map(bulk).collect();
    drop((vcpus, vm));
    all.iter().for_each(check_reads);
    assert_eq!(all.iter().map(bulk).collect::<Vec<_>>(), before);
}

#[test]
fn reading_neither_needs_nor_moves_the_position() {
    let Some(vm) = vm() else { return };
    let fd = kvm_get_stats_fd(vm.fd()).unwrap();
    let shared = fd.try_clone().unwrap();
    let mut head = [0; 8];
    assert_eq!(rustix::io::read(&shared, &mut head).unwrap(), 8);
    let stats = opener().open(fd, Target::Vm, None).unwrap();
    bulk(&stats);
    // On these fds a seek moves nothing and tells the position.
    assert_eq!(seek(&shared, SeekFrom::Start(0)).unwrap(), 8);
}

#[test]
fn the_names_that_every_x86_kernel_has_are_there() {
    let Some(vm) = vm() else { return };
    let vcpus = [vm.vcpu(0).unwrap()];
    let [vm, vcpu] = open_vm(&opener(), &vm, &vcpus).try_into().unwrap();
    for (stats, name) in
        [(vcpu.schema(), "exits"), (vcpu.schema(), "halt_exits"), (vm.schema(), "pages_4k")]
    {
        assert!(stats.find(name).is_some(), "{name}");
    }
}

#[test]
fn a_known_guest_has_the_known_counts() {
    if !has_kvm() {
        return;
    }
    let guest = KnownGuest::new().unwrap();
    let fd = kvm_get_stats_fd(guest.vcpu().fd()).unwrap();
    let stats = [Arc::new(opener().open(fd, Target::Vcpu, None).unwrap())];
    let plan = plan(stats[0].schema(), &["exits", "halt_exits"]);
    let columns = ["exits", "halt_exits"].map(|n| plan.column(n).unwrap().words.start);
    let mut source = source(&stats, &plan);
    let mut read = || {
        let (states, words) = tick(&mut *source, plan.row_words());
        assert_eq!(states, [RowState::Good]);
        columns.map(|column| words[column])
    };
    let before = read();
    guest.run(400, 30).unwrap();
    let after = read();
    assert!(after[0] - before[0] >= 430, "{before:?} {after:?}");
    assert_eq!(after[1] - before[1], 30);
}

#[test]
fn rows_are_the_columns_of_the_plan_in_the_order_of_the_objects() {
    if !has_kvm() {
        return;
    }
    let farm = Farm::new(3).unwrap();
    let opener = opener();
    let all = open_vm(&opener, farm.vms()[0].vm(), farm.vms()[0].vcpus());
    let vcpus: Vec<_> = all.into_iter().skip(1).map(Arc::new).collect();
    let schema = vcpus[0].schema();
    let names: Vec<&str> = schema.descs().iter().map(|desc| &*desc.name).collect();
    // Everything, straight into the row; a few, by way of the span; neighbours, straight again.
    for wanted in [&names[..], &["halt_exits", "exits", "blocking"], &names[5..8]] {
        let plan = plan(schema, wanted);
        let mut source = source(&vcpus, &plan);
        let (states, words) = tick(&mut *source, plan.row_words());
        assert_eq!(states, [RowState::Good; 3]);
        for (row, stats) in words.chunks(plan.row_words()).zip(&vcpus) {
            let all = bulk(stats);
            for column in plan.columns() {
                assert_eq!(row[column.words.clone()], all[schema.descs()[column.desc].words()]);
            }
        }
    }
}

#[test]
fn gone_rows_are_marked_and_the_others_read_on() {
    if !has_kvm() {
        return;
    }
    let farm = Farm::new(3).unwrap();
    let alive = Arc::new(AtomicBool::new(true));
    let opener = opener();
    let departures = opener.departures();
    let open = |vcpu: &vmstrobe_guest::Vcpu| {
        let fd = kvm_get_stats_fd(vcpu.fd()).unwrap();
        Arc::new(
            opener
                .open(
                    fd,
                    Target::Vcpu,
                    Some(Lender { alive: Arc::clone(&alive), _watch: Arc::new(()) }),
                )
                .unwrap(),
        )
    };
    let vcpus: Vec<_> = farm.vms()[0].vcpus().iter().map(open).collect();
    for names in [&["exits", "halt_exits"][..], &["exits"], &[]] {
        alive.store(true, Ordering::Relaxed);
        vcpus[1].retired.store(false, Ordering::Relaxed);
        let plan = plan(vcpus[0].schema(), names);
        let objects: Vec<_> = (0..4).map(|key| object(&vcpus[0], key)).collect();
        // The third was closed between the roster and now.
        let find = |key| [Some(0), Some(1), None, Some(2)][key as usize];
        let find = |key| find(key).map(|at: usize| Arc::clone(&vcpus[at]));
        let mut sources = sources(&objects, &plan, departures, find).unwrap();
        let mut states = || tick(&mut *sources[0], plan.row_words()).0;
        let (good, gone) = (RowState::Good, RowState::Gone);
        assert_eq!(states(), [good, good, gone, good]);
        vcpus[1].retire();
        assert_eq!(states(), [good, gone, gone, good]);
        alive.store(false, Ordering::Relaxed);
        departures.note();
        assert_eq!(states(), [gone; 4]);
    }
}

#[test]
fn many_objects_are_several_sources() {
    let Some(vm) = vm() else { return };
    let stats = Arc::new(open_vm(&opener(), &vm, &[]).remove(0));
    let objects: Vec<_> = (0..130).map(|key| object(&stats, key)).collect();
    let plan = plan(stats.schema(), &["pages_4k"]);
    let open =
        |objects| sources(objects, &plan, &stats.departures, |_| Some(Arc::clone(&stats))).unwrap();
    assert_eq!(open(&objects).iter().map(|s| s.rows()).collect::<Vec<_>>(), [64, 64, 2]);
    assert_eq!(open(&[]).len(), 0);
}

#[test]
fn a_plan_for_other_statistics_is_refused() {
    let Some(vm) = vm() else { return };
    let stats = Arc::new(open_vm(&opener(), &vm, &[]).remove(0));
    let other = Schema::new("kvm", Target::Vm, vec![Desc::counter("exits", 0)]);
    let error = sources(&[object(&stats, 0)], &plan(&other, &["exits"]), &stats.departures, |_| {
        Some(Arc::clone(&stats))
    });
    assert_eq!(error.err().unwrap().kind(), ErrorKind::Malformed);
}

#[test]
fn what_is_no_stats_fd_is_refused_and_closed() {
    let (reader, writer) = io::pipe().unwrap();
    let short = fs::File::open("/dev/null").unwrap();
    let zeros = fs::File::open("/dev/zero").unwrap();
    for (fd, kind, text) in [
        (short.into(), ErrorKind::Malformed, "its header should be 24 bytes and is 0"),
        (zeros.into(), ErrorKind::Malformed, "names have no room for a NUL"),
        (writer.into(), ErrorKind::Io, "cannot read the header of a stats fd"),
    ] {
        let error = opener().open(fd, Target::Vcpu, None).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(text), "{error}");
    }
    // Ends only when the writer is closed.
    assert_eq!(io::read_to_string(reader).unwrap(), "");
}
