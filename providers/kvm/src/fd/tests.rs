//! The rules of the kernel's selftest that reading an fd must keep
//! (assertions 17 to 21 of `kvm_binary_stats_test.c`, Linux 6.12), and what a source makes of its
//! rows.

use std::time::Duration;
use std::{fs, io};

use rustix::fs::{SeekFrom, seek};
use vmstrobe_core::{Desc, Mask, Object, Source};
use vmstrobe_guest::{Farm, KnownGuest, Vcpu, Vm};
use vmstrobe_testing::{has_kvm, has_link, soon, tick, vm};

use super::*;
use crate::opener::Opener;
use crate::sys::kvm_get_stats_fd;

fn opener() -> Opener {
    Opener::new(Reaper::new().unwrap(), None)
}

fn plan(schema: &Arc<Schema>, names: &[&str]) -> Arc<ReadPlan> {
    let mut mask = Mask::none(schema.descs().len());
    names.iter().for_each(|name| mask.set(schema.find(name).unwrap()));
    ReadPlan::new(schema, &mask)
}

fn object(stats: &KvmFd, key: u64) -> Object {
    Object { path: "x".into(), index: None, schema: Arc::clone(stats.schema()), key }
}

/// The sources over these fds, of the provider whose they are.
fn sources(fds: &[Arc<KvmFd>], plan: &Arc<ReadPlan>) -> Vec<Box<dyn Source>> {
    let gone_epoch = fds.first().map(|fd| fd.gone_epoch.clone()).unwrap_or_default();
    let rows: Vec<_> = fds.iter().cloned().map(Some).collect();
    pread_sources(plan, &rows, &gone_epoch, gone_epoch.count())
}

/// One source over these fds.
fn source(fds: &[Arc<KvmFd>], plan: &Arc<ReadPlan>) -> Box<dyn Source> {
    let mut sources = sources(fds, plan);
    assert_eq!(sources.len(), 1);
    sources.remove(0)
}

fn data_offset(stats: &KvmFd) -> u64 {
    match &stats.head {
        Head::Stats { data_offset, .. } => *data_offset,
        Head::ObjectFd => panic!("it is a stats fd"),
    }
}

/// The words of everything, read at once.
fn bulk(stats: &KvmFd) -> Vec<u64> {
    let mut words = vec![0; stats.schema.data_bytes() / 8];
    assert_eq!(fetch(stats.fd().as_fd(), &mut words, data_offset(stats)), RowState::Good);
    words
}

/// Stats fds of a VM and its vCPUs.
fn open_vm(opener: &Opener, vm: &Vm, vcpus: &[Vcpu]) -> Vec<KvmFd> {
    let open = |fd, target| opener.open(kvm_get_stats_fd(fd).unwrap(), target, None).unwrap();
    let vcpus = vcpus.iter().map(|vcpu| open(vcpu.fd(), Target::Vcpu));
    std::iter::once(open(vm.fd(), Target::Vm)).chain(vcpus).collect()
}

/// Rules 17 and 18.
fn check_reads(stats: &KvmFd) {
    let all = bulk(stats);
    assert!(all.len() >= stats.schema.descs().len());
    for desc in stats.schema.descs() {
        let mut words = vec![u64::MAX; desc.size.into()];
        let offset = data_offset(stats) + u64::from(desc.offset);
        assert_eq!(fetch(stats.fd().as_fd(), &mut words, offset), RowState::Good, "{}", desc.name);
        // These vCPUs are at rest.
        assert_eq!(words, all[desc.words()], "{}", desc.name);
    }
    let mut one_more = vec![0; all.len() + 1];
    assert_eq!(fetch(stats.fd().as_fd(), &mut one_more, data_offset(stats)), RowState::Torn);
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
            assert!(stats.id().unwrap().starts_with("kvm-"));
        }
    }
    assert_eq!(opener.schema_count(), 2, "one a target for 20 fds");
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
    let gone_epoch = opener.gone_epoch();
    let open = |vcpu: &Vcpu| {
        let fd = kvm_get_stats_fd(vcpu.fd()).unwrap();
        Arc::new(
            opener
                .open(
                    fd,
                    Target::Vcpu,
                    Some(FdOwner { alive: Arc::clone(&alive), watch: Arc::new(()), seat: None }),
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
        let mut sources = opener.sources(&objects, &plan, find).unwrap();
        let mut states = || tick(&mut *sources[0], plan.row_words()).0;
        let (good, gone) = (RowState::Good, RowState::Gone);
        assert_eq!(states(), [good, good, gone, good]);
        vcpus[1].retire();
        assert_eq!(states(), [good, gone, gone, good]);
        alive.store(false, Ordering::Relaxed);
        gone_epoch.note();
        assert_eq!(states(), [gone; 4]);
    }
}

#[test]
fn many_objects_are_several_sources() {
    let Some(vm) = vm() else { return };
    let stats = Arc::new(open_vm(&opener(), &vm, &[]).remove(0));
    let plan = plan(stats.schema(), &["pages_4k"]);
    let rows = |count| -> Vec<usize> {
        sources(&vec![Arc::clone(&stats); count], &plan).iter().map(|s| s.rows()).collect()
    };
    assert_eq!(rows(130), [64, 64, 2]);
    assert_eq!(rows(0).len(), 0);
}

#[test]
fn a_plan_for_other_statistics_is_refused() {
    let Some(vm) = vm() else { return };
    let opener = opener();
    let stats = Arc::new(open_vm(&opener, &vm, &[]).remove(0));
    let other = Schema::new("kvm", Target::Vm, vec![Desc::counter("exits", 0)]);
    let plan = plan(&other, &["exits"]);
    let error = opener.sources(&[object(&stats, 0)], &plan, |_| Some(Arc::clone(&stats)));
    assert_eq!(error.err().unwrap().kind(), ErrorKind::Malformed);
}

/// A VM and its vCPU, each by its stats fd and by its own.
fn both_ways(opener: &Opener, vm: &Vm, vcpu: &Vcpu) -> [[Arc<KvmFd>; 2]; 2] {
    [(vm.fd(), Target::Vm), (vcpu.fd(), Target::Vcpu)].map(|(fd, target)| {
        let stats = opener.open(kvm_get_stats_fd(fd).unwrap(), target, None).unwrap();
        let own = fd.try_clone_to_owned().unwrap();
        // Another one of equal statistics, as it is learnt elsewhere.
        let schema = Arc::new(Schema::clone(stats.schema()));
        [Arc::new(stats), Arc::new(opener.open_object_fd(own, schema, None))]
    })
}

#[test]
fn fds_are_what_they_were_opened_as() {
    let Some(vm) = vm() else { return };
    let opener = opener();
    let all = both_ways(&opener, &vm, &vm.vcpu(0).unwrap());
    let kinds = all.each_ref().map(|fds| fds.each_ref().map(|fd| fd.kind()));
    assert_eq!(kinds, [[FdKind::VmStats, FdKind::Vm], [FdKind::VcpuStats, FdKind::Vcpu]]);
    for [stats, object_fd] in &all {
        assert_eq!((stats.is_object_fd(), object_fd.is_object_fd()), (false, true));
        assert!(stats.id().is_some() && object_fd.id().is_none());
        assert!(Arc::ptr_eq(stats.schema(), object_fd.schema()), "one schema for all alike");
    }
}

#[test]
fn an_object_fd_is_not_read() {
    let Some(vm) = vm() else { return };
    let vcpu = vm.vcpu(0).unwrap();
    let opener = opener();
    let (good, missing, gone) = (RowState::Good, RowState::Missing, RowState::Gone);
    for [stats, object_fd] in both_ways(&opener, &vm, &vcpu) {
        let names: Vec<&str> = stats.schema().descs().iter().map(|desc| &*desc.name).collect();
        let ends = [names[0], names[names.len() - 1]];
        // Straight into the row, by way of the span, and nothing at all.
        for names in [&names[..], &ends, &[]] {
            let plan = plan(stats.schema(), names);
            object_fd.retired.store(false, Ordering::Relaxed);
            for (fds, before, after) in [
                (
                    &[&object_fd, &stats, &object_fd][..],
                    &[missing, good, missing][..],
                    [gone, good, gone],
                ),
                (&[&stats, &object_fd, &stats], &[good, missing, good], [good, gone, good]),
                (&[&object_fd, &object_fd, &object_fd], &[missing; 3], [gone; 3]),
            ] {
                object_fd.retired.store(false, Ordering::Relaxed);
                let fds: Vec<_> = fds.iter().map(|&fd| Arc::clone(fd)).collect();
                let mut source = source(&fds, &plan);
                let (states, words) = tick(&mut *source, plan.row_words());
                assert_eq!(states, before);
                let rows = (0..3).map(|row| &words[row * plan.row_words()..][..plan.row_words()]);
                let untouched = |row: &[u64]| row.iter().all(|&word| word == u64::MAX);
                for (row, state) in rows.zip(before).filter(|(row, _)| !row.is_empty()) {
                    assert_eq!(untouched(row), *state == missing, "{row:?}");
                }
                object_fd.retire();
                assert_eq!(tick(&mut *source, plan.row_words()).0, after);
            }
        }
    }
}

#[test]
fn a_span_is_read_of_a_stats_fd_alone() {
    let Some(vm) = vm() else { return };
    let vcpus = [vm.vcpu(0).unwrap()];
    let [_, [stats, object_fd]] = both_ways(&opener(), &vm, &vcpus[0]);
    let names: Vec<&str> = stats.schema().descs().iter().map(|desc| &*desc.name).collect();
    let plan = plan(stats.schema(), &names[1..3]);
    let mut span = vec![u64::MAX; plan.span_bytes().len() / 8];
    assert_eq!(object_fd.read_span(&plan, &mut span), RowState::Missing);
    assert!(span.iter().all(|&word| word == u64::MAX));
    assert_eq!(stats.read_span(&plan, &mut span), RowState::Good);
    let first = plan.span_bytes().start / 8;
    assert_eq!(span, bulk(&stats)[first..first + span.len()]);
}

/// The last close of a vCPU's own fd tears the VM down as that of its stats fd does.
#[test]
fn an_object_fd_is_closed_by_the_reaper() {
    let Some(vm) = vm() else { return };
    let (reaper, closed) = Reaper::held();
    let opener = Opener::new(reaper, None);
    let [_, [stats, object_fd]] = both_ways(&opener, &vm, &vm.vcpu(0).unwrap());
    let plan = plan(object_fd.schema(), &["exits"]);
    let source = source(&[Arc::clone(&object_fd)], &plan);
    drop((stats, object_fd));
    let links = || -> Vec<String> {
        closed.try_iter().map(|fd| vmstrobe_host::procfs::link_of(&fd).unwrap()).collect()
    };
    assert!(!links().contains(&"anon_inode:kvm-vcpu:0".to_owned()), "its row has it");
    drop(source);
    assert_eq!(links(), ["anon_inode:kvm-vcpu:0"]);
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
