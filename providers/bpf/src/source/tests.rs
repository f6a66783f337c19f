//! The source against pread; and whatever can go wrong with it while it is read.

use std::fs;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use vmstrobe_core::{ErrorKind, Schema, Target};
use vmstrobe_guest::{Farm, Vcpu};
use vmstrobe_host::Reaper;
use vmstrobe_kvm::{BulkOpener, Opener, kvm_get_stats_fd};
use vmstrobe_testing::tick;

use super::*;
use crate::policy::{Bpf, BpfMode, BpfStatus};
use crate::slots::Subject;
use crate::tests::vmm::Vmm;
use crate::tests::{Guests, all, file, kernel, named, objects, pread, repeated, rows};

const GOOD: RowState = RowState::Good;
const GONE: RowState = RowState::Gone;

type Fds = Vec<Option<Arc<KvmFd>>>;

fn now_ns() -> u64 {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap().as_nanos() as u64
}

/// Returns a BPF reader that is used even for one row; `None` where BPF cannot be used.
fn bpf() -> Option<Bpf> {
    kernel()?;
    Some(Bpf::new(BpfMode::Require))
}

/// One source of these rows, of a provider that has this opener.
fn open(opener: &Opener, plan: &Arc<ReadPlan>, fds: &Fds) -> Box<dyn Source> {
    let opened = opener.bulk().unwrap().open(&rows(plan, fds, opener.gone_epoch()));
    let sources = opened.unwrap().unwrap();
    let [source] = <[_; 1]>::try_from(sources).ok().unwrap();
    assert_eq!(source.read_ns(), Some(0..0), "read by the BPF reader");
    source
}

/// Returns a source of these rows whose audit compares the words of another plan.
fn falsely_audited(
    bpf: &Bpf,
    plan: &Arc<ReadPlan>,
    compared: &Arc<ReadPlan>,
    rows: &Fds,
    gone_epoch: &GoneEpoch,
) -> KernelSource {
    let (kernel, objects) = (bpf.kernel().unwrap(), objects(plan.schema(), rows.len()));
    let files: Vec<_> = rows.iter().map(|row| row.as_ref().map(file)).collect();
    let bulk = kernel.bulk(Subject::Vcpu, plan, &files).unwrap();
    let audited = rows.iter().enumerate().map(|(at, row)| (at, row.clone().unwrap()));
    KernelSource {
        audit: Audit::new(compared, bulk.shape(), audited.collect()),
        bulk,
        plan: Arc::clone(plan),
        health: Arc::clone(bpf.health()),
        fault: bpf.health().add_source(plan, &objects),
        rows: rows.clone().into(),
        fallback: Fallback(self::rows(plan, rows, gone_epoch).pread_source(rows)),
        gone_epoch: gone_epoch.clone(),
        opened_at: gone_epoch.count(),
        read_ns: Some(0..0),
    }
}

/// Stats fds of all vCPUs of a farm, which have run.
fn farm(count: usize, opener: &Opener) -> (Farm, Vec<Arc<KvmFd>>) {
    let farm = Farm::new(count).unwrap();
    let open = |vcpu: &Vcpu| {
        let fd = kvm_get_stats_fd(vcpu.fd()).unwrap();
        Arc::new(opener.open(fd, Target::Vcpu, None).unwrap())
    };
    let fds = farm.vms().iter().flat_map(|vm| vm.vcpus()).map(open).collect();
    farm.run_each(3, 1).unwrap();
    (farm, fds)
}

#[test]
fn vcpus_at_rest_are_read_word_for_word_as_by_pread() {
    let Some(bpf) = bpf() else { return };
    let opener = Opener::new(Reaper::new().unwrap(), bpf.into());
    let (_farm, fds) = farm(64, &opener);
    let (rows, schema) = (repeated(&fds, 64), fds[0].schema());
    let few = ["exits", "halt_exits", "halt_wait_ns"];
    let plans = [all(schema), named(schema, &few), named(schema, &few[1..2])];
    for plan in plans.into_iter().chain([4, 5, 8].map(|count| first(schema, count))) {
        let mut source = open(&opener, &plan, &rows);
        assert_eq!(source.rows(), 64);
        let want = pread(&plan, &rows);
        let has_run = want.1.iter().any(|word| *word != 0);
        assert!(want.0.iter().all(|state| *state == GOOD));
        assert!(has_run || plan.column("exits").is_none());
        for _ in 0..3 {
            assert_eq!(tick(&mut *source, plan.row_words()), want);
        }
    }
}

/// The plan of the first statistics.
fn first(schema: &Arc<Schema>, count: usize) -> Arc<ReadPlan> {
    let names: Vec<&str> = schema.descs().iter().take(count).map(|desc| &*desc.name).collect();
    named(schema, &names)
}

#[test]
fn what_moves_is_read_anew_each_time() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(4, bpf);
    let rows = repeated(&guests.stats(Subject::Vcpu), 4);
    let schema = rows[0].as_ref().unwrap().schema();
    for plan in [named(schema, &["halt_exits"]), all(schema)] {
        let mut source = open(&guests.opener, &plan, &rows);
        for at in [0, 3, 3] {
            let before = tick(&mut *source, plan.row_words()).1;
            guests.guest(at).run(0, 5).unwrap();
            let seen = tick(&mut *source, plan.row_words());
            assert_eq!(seen, pread(&plan, &rows));
            let column = at * plan.row_words() + plan.column("halt_exits").unwrap().words.start;
            assert_eq!(seen.1[column] - before[column], 5);
        }
    }
}

#[test]
fn gone_rows_are_marked_and_the_others_read_on() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(4, bpf);
    let schema = Arc::clone(guests.stats(Subject::Vcpu)[0].schema());
    for plan in [named(&schema, &["exits", "halt_exits"]), all(&schema)] {
        // With a row that was gone between the roster and now, and without.
        for gone_before in [GONE, GOOD] {
            let stats = guests.stats(Subject::Vcpu);
            let mut rows = repeated(&stats, 4);
            rows.push((gone_before == GOOD).then(|| Arc::clone(&stats[0])));
            let mut source = open(&guests.opener, &plan, &rows);
            let want = pread(&plan, &rows).1;
            let mut check = |states: [RowState; 5]| {
                let (seen, words) = tick(&mut *source, plan.row_words());
                assert_eq!(seen, states);
                let rows = words.chunks(plan.row_words()).zip(want.chunks(plan.row_words()));
                for ((seen, want), state) in rows.zip(states) {
                    assert!(state != GOOD || seen == want);
                }
                assert!(source.read_ns().is_some_and(|read| read.start > 0), "that is not a fault");
            };
            check([GOOD, GOOD, GOOD, GOOD, gone_before]);
            stats[3].retire();
            check([GOOD, GOOD, GOOD, GONE, gone_before]);
            stats[0].retire();
            check([GONE, GOOD, GOOD, GONE, GONE]);
            stats[1..3].iter().for_each(|fd| fd.retire());
            check([GONE; 5]);
        }
    }
}

#[test]
fn it_says_between_which_instants_it_has_read() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(3, bpf);
    let rows = repeated(&guests.stats(Subject::Vcpu), 48);
    for plan in [named(rows[0].as_ref().unwrap().schema(), &["exits"])] {
        let mut source = open(&guests.opener, &plan, &rows);
        let mut last = 0..0;
        for _ in 0..1000 {
            let before = now_ns();
            tick(&mut *source, plan.row_words());
            let after = now_ns();
            let read = source.read_ns().unwrap();
            assert!(before <= read.start && read.start <= read.end && read.end <= after);
            assert!(last.end <= read.start);
            last = read;
        }
    }
}

#[test]
fn once_given_up_it_reads_by_pread() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(3, bpf.clone());
    let rows = repeated(&guests.stats(Subject::Vcpu), 3);
    let plan = all(rows[0].as_ref().unwrap().schema());
    let [mut first, mut second] = [(); 2].map(|()| open(&guests.opener, &plan, &rows));
    let want = pread(&plan, &rows);
    assert_eq!(tick(&mut *first, plan.row_words()), want);
    assert!(bpf.warnings().is_empty() && matches!(bpf.status(), BpfStatus::Open(_)));

    bpf.give_up("a test says so");
    for source in [&mut first, &mut second] {
        for _ in 0..2 {
            assert_eq!(tick(&mut **source, plan.row_words()), want);
            assert_eq!(source.read_ns(), None);
        }
    }
    // Whoever goes is gone there too.
    rows[1].as_ref().unwrap().retire();
    assert_eq!(tick(&mut *second, plan.row_words()).0, [GOOD, GONE, GOOD]);
    assert_eq!(bpf.status(), BpfStatus::GivenUp("a test says so".to_owned()));
}

/// Nothing else can read these.
#[test]
fn object_fd_rows_are_missing_once_it_is_given_up() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(2, bpf.clone());
    let schema = bpf.object_schema(&Target::Vcpu).unwrap();
    let rows = repeated(&guests.object_fds(Subject::Vcpu, &schema), 2);
    let plan = named(rows[0].as_ref().unwrap().schema(), &["exits", "halt_exits"]);
    let mut source = open(&guests.opener, &plan, &rows);
    let want = pread(&plan, &repeated(&guests.stats(Subject::Vcpu), 2));
    assert_eq!(tick(&mut *source, 2), want);
    bpf.give_up("a test says so");
    assert_eq!(tick(&mut *source, 2).0, [RowState::Missing; 2]);
    rows[0].as_ref().unwrap().retire();
    assert_eq!(tick(&mut *source, 2).0, [GONE, RowState::Missing]);
}

#[test]
fn what_is_not_as_pread_says_is_never_seen() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(3, bpf.clone());
    let rows = repeated(&guests.stats(Subject::Vcpu), 3);
    let schema = rows[0].as_ref().unwrap().schema();
    let [exits, halts] = ["exits", "halt_exits"].map(|name| named(schema, &[name]));
    let gone_epoch = guests.opener.gone_epoch();
    let mut other = open(&guests.opener, &exits, &rows);
    let mut source = falsely_audited(&bpf, &exits, &halts, &rows, gone_epoch);
    let (want, seen) = (pread(&exits, &rows), pread(&halts, &rows).1[0]);
    assert_ne!(want.1[0], seen, "else this proves nothing");
    assert_eq!(tick(&mut *other, 1), want);

    // Even the tick that finds the fault returns pread's values.
    assert_eq!(tick(&mut source, 1), want);
    assert_eq!(source.read_ns(), None);
    let why = format!(
        "it read exits of /vm/x/vcpu[0] as {}, while pread read {seen} before and {seen} after it",
        want.1[0]
    );
    assert_eq!(bpf.status(), BpfStatus::GivenUp(why.clone()));
    let warnings = bpf.warnings();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].kind(), ErrorKind::Unsupported);
    assert!(warnings[0].to_string().ends_with(&format!(": {why}")), "{}", warnings[0]);

    assert_eq!(tick(&mut *other, 1), want);
    assert_eq!(other.read_ns(), None, "whoever reads so stops");
    assert!(bpf.refusal().is_some());
    // And there is no way back.
    assert_eq!((tick(&mut source, 1), source.read_ns()), (want.clone(), None));
    let opened = BulkOpener::open(&bpf, &super::super::tests::rows(&exits, &rows, gone_epoch));
    assert!(opened.unwrap().is_none());
}

/// Of whatever row it is, and whatever was told before.
#[test]
fn an_audit_comes_about_once_a_second() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(3, bpf.clone());
    let rows = repeated(&guests.stats(Subject::Vcpu), 3);
    let schema = rows[0].as_ref().unwrap().schema();
    let [exits, halts] = ["exits", "halt_exits"].map(|name| named(schema, &[name]));
    let gone_epoch = guests.opener.gone_epoch();
    let mut source = falsely_audited(&bpf, &exits, &halts, &rows, gone_epoch);
    let want = pread(&exits, &rows);
    // As if one had just been done, of the first row.
    source.audit.advance(now_ns());
    let begin = Instant::now();
    let mut ticks = 0;
    while bpf.health().why().is_none() {
        assert_eq!(tick(&mut source, 1), want);
        ticks += 1;
        assert!(begin.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(10));
    }
    let seconds = begin.elapsed().as_secs_f64();
    assert!(seconds > 0.9 && ticks > 10, "{ticks} in {seconds} s");
    assert!(bpf.health().why().unwrap().contains(" of /vm/x/vcpu[1] as "), "the next row's turn");
}

#[test]
fn a_run_that_does_not_end_is_never_seen() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(3, bpf.clone());
    let rows = repeated(&guests.stats(Subject::Vcpu), 3);
    let plan = named(rows[0].as_ref().unwrap().schema(), &["exits"]);
    let gone_epoch = guests.opener.gone_epoch();
    let source = falsely_audited(&bpf, &plan, &plan, &rows, gone_epoch);
    let bulk = crate::bulk::tests::of_more_rows(source.bulk);
    let mut source = KernelSource { bulk, ..source };
    assert_eq!(tick(&mut source, 1), pread(&plan, &rows));
    assert_eq!(source.read_ns(), None);
    let why = "its program did not finish".to_owned();
    assert_eq!(bpf.status(), BpfStatus::GivenUp(why));
}

/// The last close of a dead VM's descriptors destroys it.
#[test]
fn its_descriptors_are_closed_by_the_reaper() {
    let Some(bpf) = bpf() else { return };
    let (reaper, closed) = Reaper::held();
    let opener = Opener::new(reaper, bpf.clone().into());
    let (farm, fds) = farm(3, &opener);
    let own = farm.vms()[0].vcpus()[0].fd().try_clone_to_owned().unwrap();
    let object_fds =
        Arc::new(opener.open_object_fd(own, bpf.object_schema(&Target::Vcpu).unwrap(), None));
    let mut rows = repeated(&fds, 3);
    rows.push(Some(object_fds));
    let plan = named(fds[0].schema(), &["exits"]);
    let mut source = open(&opener, &plan, &rows);
    drop((fds, rows));
    tick(&mut *source, 1);
    assert_eq!(closed.try_iter().count(), 0, "its rows have them");
    drop(source);
    let link = |fd| fs::read_link(format!("/proc/self/fd/{}", AsRawFd::as_raw_fd(&fd))).unwrap();
    let links: Vec<_> = closed.try_iter().map(link).collect();
    assert_eq!(links.len(), 4, "{links:?}");
}

/// Two vCPUs of a VMM, between two of ours.
fn with_a_vmms(bpf: &Bpf, guests: &Guests, vmm: &Vmm) -> Fds {
    let schema = bpf.object_schema(&Target::Vcpu).unwrap();
    let theirs = vmm.vcpus().map(|fd| {
        // Nobody watches the VMM: the epoch does not move.
        Arc::new(guests.opener.open_object_fd(fd, Arc::clone(&schema), None))
    });
    let ours = [
        guests.stats(Subject::Vcpu).remove(0),
        guests.object_fds(Subject::Vcpu, &schema).remove(1),
    ];
    [&ours[0], &theirs[0], &theirs[1], &ours[1]].map(|fd| Some(Arc::clone(fd))).into()
}

#[test]
fn the_end_of_a_vmm_is_seen_from_within() {
    let Some(bpf) = bpf() else { return };
    for names in [Some(&["exits", "halt_exits"][..]), None] {
        let guests = Guests::new(2, bpf.clone());
        let mut vmm = Vmm::start();
        let rows = with_a_vmms(&bpf, &guests, &vmm);
        let schema = rows[0].as_ref().unwrap().schema();
        let plan = names.map_or_else(|| all(schema), |names| named(schema, names));
        let mut source = open(&guests.opener, &plan, &rows);
        let (states, want) = tick(&mut *source, plan.row_words());
        assert_eq!(states, [GOOD; 4]);
        let exits = plan.column("exits").unwrap().words.start;
        assert!(want.chunks(plan.row_words()).all(|row| row[exits] >= 10));

        vmm.kill();
        let killed = Instant::now();
        let (mut last_good, mut gone_ticks) = (Duration::ZERO, 0);
        // For a while longer, while what is left of it is cleaned up.
        while gone_ticks < 1000 {
            let (states, words) = tick(&mut *source, plan.row_words());
            let theirs = [states[1], states[2]];
            assert_eq!([states[0], states[3]], [GOOD; 2]);
            assert!(theirs.iter().all(|state| [GOOD, GONE].contains(state)), "{theirs:?}");
            let rows = words.chunks(plan.row_words()).zip(want.chunks(plan.row_words()));
            for ((seen, want), state) in rows.zip(states) {
                assert!(state == GONE || seen == want);
            }
            if theirs == [GONE; 2] {
                gone_ticks += 1;
                continue;
            }
            assert_eq!(gone_ticks, 0, "they are back");
            last_good = killed.elapsed();
            assert!(last_good < Duration::from_secs(30));
        }
        println!("gone {last_good:?} after it was killed");
        assert_eq!(guests.opener.gone_epoch().count(), 0, "nobody has said so");
        assert!(!bpf.health().is_given_up());
    }
}

#[test]
fn the_end_of_a_vmms_vm_is_seen_from_within() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(1, bpf.clone());
    let mut vmm = Vmm::start();
    let schema = bpf.object_schema(&Target::Vm).unwrap();
    let theirs = Arc::new(guests.opener.open_object_fd(vmm.vm(), Arc::clone(&schema), None));
    let ours = guests.stats(Subject::Vm).remove(0);
    let rows = vec![Some(theirs), Some(ours)];
    let plan = all(rows[0].as_ref().unwrap().schema());
    let mut source = open(&guests.opener, &plan, &rows);
    assert_eq!(tick(&mut *source, plan.row_words()).0, [GOOD; 2]);
    vmm.kill();
    let is_gone = || tick(&mut *source, plan.row_words()).0 == [GONE, GOOD];
    assert!(vmstrobe_testing::soon(Duration::from_secs(30), is_gone));
}

/// An object that we hold a descriptor of keeps its last values, as long as its VMM lives.
#[test]
fn a_vmm_may_close_what_is_read() {
    let Some(bpf) = bpf() else { return };
    let guests = Guests::new(2, bpf.clone());
    let mut vmm = Vmm::start();
    let rows = with_a_vmms(&bpf, &guests, &vmm);
    let plan = all(rows[0].as_ref().unwrap().schema());
    let mut source = open(&guests.opener, &plan, &rows);
    let before = tick(&mut *source, plan.row_words());
    assert_eq!(before.0, [GOOD; 4]);
    vmm.close();
    for _ in 0..100 {
        assert_eq!(tick(&mut *source, plan.row_words()), before);
    }
    drop(vmm);
    let states = || tick(&mut *source, plan.row_words()).0;
    assert_eq!({ states }(), [GOOD, GONE, GONE, GOOD], "it was waited for");
}
