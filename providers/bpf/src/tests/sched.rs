//! Real vCPUs on real threads, by both ways, against what /proc says of them.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use vmstrobe_core::{
    Desc, Error, ErrorKind, Mask, Object, Provider, ReadPlan, RowState, Schema, Source, Target,
};
use vmstrobe_guest::{DemoGuest, Irqchip, KnownGuest, Vm};
use vmstrobe_host::{GoneEpoch, Process, Reaper, procfs};
use vmstrobe_kvm::{
    AttachedKvm, BulkOpener, GROWING, NewVcpu, NoThreads, OwnKvm, Sched, Schedstat, THREAD_ID,
    ThreadRows, Vcpu, WORD_NAMES, WORDS, check_schedstat, sched_schema,
};
use vmstrobe_testing::{has_kvm, has_lending_qemu, open_all, require, soon, states, tick};

use crate::{Bpf, BpfMode, BpfStatus};

mod polled;

/// Longer than a round of readings and a look for threads take.
const LIMIT: Duration = Duration::from_secs(10);

/// The BPF reader of threads, insisted on; `None` where it cannot be used.
fn bpf_of_threads() -> Option<Bpf> {
    let bpf = Bpf::new(BpfMode::Require);
    let checked = bpf.try_threads().map_err(|error| error.to_string());
    (has_kvm() && require("bpf", checked)).then_some(bpf)
}

/// Has this test run in a process in which no other does: the threads of others bear the same
/// names. False in the process that waits for it.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "VMSTROBE_TEST_ALONE";
    if env::var_os(ALONE).is_some_and(|name| *name == *test) {
        return true;
    }
    let path = format!("tests::sched::{test}");
    let run = Command::new(env::current_exe().unwrap())
        .args(["--exact", &path, "--nocapture"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    for line in said.lines().filter(|line| line.starts_with("skipped:")) {
        writeln!(std::io::stdout(), "{line}").unwrap();
    }
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(said.contains("1 passed"), "there is no test {path}: {said}");
    false
}

/// A guest that does not run yet, with its provider.
fn demo(vcpus: u32, bpf: Bpf) -> (DemoGuest, Arc<OwnKvm>) {
    let guest = DemoGuest::new(vcpus).unwrap();
    let kvm = OwnKvm::with_bulk("demo", guest.vm().fd(), bpf).unwrap();
    guest.vcpus().iter().for_each(|vcpu| kvm.add_vcpu(NewVcpu::new(vcpu.id(), vcpu.fd())).unwrap());
    (guest, Arc::new(kvm))
}

/// One tick: the states, and the words vCPU by vCPU.
fn read(source: &mut dyn Source) -> (Vec<RowState>, Vec<[u64; WORDS]>) {
    let (states, words) = tick(source, WORDS);
    (states, words.as_chunks().0.to_vec())
}

/// Whether it has data that were read lately.
fn is_fresh(state: &RowState) -> bool {
    matches!(state, RowState::Good | RowState::Aged(_))
}

fn plan_of(names: &[&str]) -> Arc<ReadPlan> {
    let schema = sched_schema();
    let mut mask = Mask::none(schema.descs().len());
    names.iter().for_each(|name| mask.set(schema.find(name).unwrap()));
    ReadPlan::new(&schema, &mask)
}

/// The threads of vCPUs, as files that say how long each waits.
fn schedstats(pid: u32, words: &[[u64; WORDS]]) -> Vec<Schedstat> {
    let open = |words: &[u64; WORDS]| Schedstat::open(pid, words[THREAD_ID] as u32).unwrap();
    words.iter().map(open).collect()
}

/// Before, by the program, after: more than a thousand times four vCPUs.
#[test]
fn the_bpf_reader_reads_what_proc_says() {
    let Some(bpf) = bpf_of_threads() else { return };
    let (mut guest, kvm) = demo(4, bpf);
    let sched = kvm.sched().unwrap();
    guest.start().unwrap();
    let objects = sched.objects().unwrap();
    assert_eq!(objects.len(), 4);
    let mut source = open_all(&sched, &objects).remove(0);
    assert_eq!(source.read_ns(), Some(0..0));
    let all_run = || read(&mut *source).0 == [RowState::Good; 4];
    assert!(soon(LIMIT, all_run), "{:?}", read(&mut *source));
    let (_, first) = read(&mut *source);
    let times = schedstats(std::process::id(), &first);
    let now = |times: &[Schedstat]| -> Vec<[u64; WORDS]> {
        times.iter().map(|times| times.read().unwrap()).collect()
    };
    let (mut samples, mut exact, mut last) = (0, 0, first.clone());
    let moves = |last: &[[u64; WORDS]]| {
        last.iter().zip(&first).all(|(last, first)| last[1] > first[1] && last[2] > first[2])
    };
    while samples < 20_000 || !moves(&last) {
        let before = now(&times);
        let (states, seen) = read(&mut *source);
        let after = now(&times);
        assert_eq!(states, [RowState::Good; 4]);
        let between = source.read_ns().unwrap();
        assert!(between.start > 0 && between.end >= between.start);
        for ((before, seen), after) in before.iter().zip(&seen).zip(&after) {
            for word in 0..WORDS {
                let range = before[word]..=after[word];
                assert!(range.contains(&seen[word]), "{word}: {} is outside {range:?}", seen[word]);
                samples += 1;
                exact += usize::from(before[word] == after[word]);
            }
        }
        last = seen;
    }
    println!("{samples} samples, {exact} of which nothing moved about, none outside");
    guest.stop().unwrap();
}

#[test]
fn the_words_of_a_plan_are_read() {
    let Some(bpf) = bpf_of_threads() else { return };
    let guest = KnownGuest::new().unwrap();
    guest.run(1, 1).unwrap();
    let kvm = OwnKvm::with_bulk("x", guest.vm().fd(), bpf).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, guest.vcpu().fd())).unwrap();
    let sched = Arc::new(kvm).sched().unwrap();
    let objects = sched.objects().unwrap();
    let own = rustix::thread::gettid().as_raw_nonzero().get() as u64;
    let times = Schedstat::open(std::process::id(), own as u32).unwrap();
    for names in [
        &["thread_id"][..],
        &["run_time", "thread_id"],
        &["run_delay", "timeslices"],
        &["run_delay", "run_time", "timeslices"],
    ] {
        let plan = plan_of(names);
        let mut source = sched.open(&objects, &plan).unwrap().remove(0);
        let before = times.read().unwrap();
        let (states, words) = tick(&mut *source, names.len());
        let after = times.read().unwrap();
        assert_eq!(states, [RowState::Good]);
        for (name, seen) in names.iter().zip(words) {
            let at = WORD_NAMES.iter().position(|known| known == name).unwrap();
            assert!((before[at]..=after[at]).contains(&seen), "{name}");
        }
    }
    // Nothing to be read: whether it is there.
    let mut source = sched.open(&objects, &plan_of(&[])).unwrap().remove(0);
    assert!(soon(LIMIT, || matches!(tick(&mut *source, 0).0[..], [RowState::Good])));
    let other = Schema::new("sched", Target::Vcpu, vec![Desc::counter("x", 0)]);
    let error = sched.open(&objects, &ReadPlan::new(&other, &Mask::all(&other))).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn a_vcpu_without_a_thread_is_missing() {
    let Some(bpf) = bpf_of_threads() else { return };
    let guest = KnownGuest::new().unwrap();
    let kvm = OwnKvm::with_bulk("x", guest.vm().fd(), bpf).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, guest.vcpu().fd())).unwrap();
    let kvm = Arc::new(kvm);
    let sched = kvm.sched().unwrap();
    let objects = sched.objects().unwrap();
    let mut source = open_all(&sched, &objects).remove(0);
    let mut now = || read(&mut *source);
    assert_eq!(now().0, [RowState::Missing], "it has never run");
    let (ran, end) = (mpsc::channel(), mpsc::channel::<()>());
    let id = thread::scope(|scope| {
        let vcpu = &guest;
        let runner = scope.spawn(move || {
            vcpu.run(10, 1).unwrap();
            ran.0.send(rustix::thread::gettid().as_raw_nonzero().get() as u64).unwrap();
            let _ = end.1.recv();
        });
        let id = ran.1.recv().unwrap();
        let (states, words) = now();
        assert_eq!((states, words[0][THREAD_ID]), (vec![RowState::Good], id));
        drop(end.0);
        runner.join().unwrap();
        id
    });
    // Joined when the thread has said so, which is a moment before it is gone.
    assert!(soon(LIMIT, || now().0 == [RowState::Missing]), "its thread {id} has ended");
    // Another thread.
    guest.run(1, 0).unwrap();
    let (states, words) = now();
    assert_eq!(states, [RowState::Good]);
    assert_eq!(words[0][THREAD_ID], rustix::thread::gettid().as_raw_nonzero().get() as u64);
    assert!(kvm.remove_vcpu(0));
    assert_eq!(now().0, [RowState::Gone]);
    assert_eq!(sched.objects().unwrap(), []);
}

#[test]
fn a_thread_of_another_process_is_refused() {
    let Some(bpf) = bpf_of_threads() else { return };
    let guest = KnownGuest::new().unwrap();
    guest.run(1, 1).unwrap();
    let kvm = OwnKvm::with_bulk("x", guest.vm().fd(), bpf.clone()).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, guest.vcpu().fd())).unwrap();
    let kvm = Arc::new(kvm);
    let objects = kvm.sched().unwrap().objects().unwrap();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let gone_epoch = GoneEpoch::default();
    let other = Process::open(child.id(), &gone_epoch).unwrap();
    let (object, fd) = kvm.stats_fds().remove(1);
    let vcpu = Vcpu {
        path: object.path,
        index: object.index,
        key: object.key,
        fd,
        process: Some(Arc::new(other)),
        thread_id: None,
    };
    let rows = ThreadRows {
        objects: objects.into(),
        plan: plan_of(&["run_delay"]),
        vcpus: Box::new([Some(vcpu)]),
        gone_epoch,
        opened_at: 0,
    };
    let opened = bpf.open_threads(&rows, &|_| panic!("nothing is opened"));
    let Err(NoThreads::Required(error)) = opened.map(|_| ()) else { panic!("it is refused") };
    let own = rustix::thread::gettid().as_raw_nonzero().get();
    let want = format!(
        "it finds thread {own} for /vm/x/vcpu[0], which is not a thread of pid {}",
        child.id()
    );
    assert!(error.to_string().ends_with(&want), "{error}");
    assert!(!bpf.health().is_given_up(), "vCPUs themselves are read as before");
    child.kill().unwrap();
    child.wait().unwrap();
}

fn said(sched: &Sched) -> Vec<String> {
    sched.warnings().iter().map(Error::to_string).collect()
}

/// The program that [`Vmm`] runs, which is no test: two running vCPUs, whose stats fds are kept
/// open, until its input ends.
#[test]
fn a_vmm_with_running_vcpus() {
    if env::var_os(VMM).is_none() {
        return;
    }
    let (mut guest, _kvm) = demo(2, Bpf::off());
    guest.start().unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

const VMM: &str = "tests::sched::a_vmm_with_running_vcpus";

/// A VMM, such as the one above, in a process of its own; ended when dropped.
struct Vmm(Child);

impl Vmm {
    fn start() -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", VMM, "--nocapture"])
            .env(VMM, "")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let vmm = Self(child);
        let runs = |name: &&str| threads_of(vmm.0.id()).iter().any(|(_, comm)| comm == *name);
        assert!(soon(LIMIT, || ["CPU 0/KVM", "CPU 1/KVM"].iter().all(runs)));
        vmm
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The threads of a process with their names.
fn threads_of(pid: u32) -> Vec<(u32, String)> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let thread = |entry: fs::DirEntry| {
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        Some((entry.file_name().to_str()?.parse().ok()?, name.trim_end().to_owned()))
    };
    entries.flatten().filter_map(thread).collect()
}

fn check_vmm(bpf: Bpf) {
    let mut vmm = Vmm::start();
    let pid = vmm.0.id();
    let kvm = Arc::new(AttachedKvm::with_bulk(Reaper::new().unwrap(), bpf).unwrap());
    let sched = kvm.sched().unwrap();
    assert_eq!(sched.objects().unwrap(), []);
    kvm.attach(pid).unwrap();
    let objects = sched.objects().unwrap();
    let beside: Vec<Object> = kvm.objects().unwrap();
    let vcpus = beside.into_iter().filter(|object| *object.schema.target() == Target::Vcpu);
    let as_sched = |object| Object { schema: sched_schema(), ..object };
    assert_eq!(objects, vcpus.map(as_sched).collect::<Vec<_>>());
    assert_eq!(objects.len(), 2);

    let mut source = open_all(&sched, &objects).remove(0);
    let (states, words) = read(&mut *source);
    assert_eq!(states, [RowState::Good; 2]);
    let names = threads_of(pid);
    for (at, words) in words.iter().enumerate() {
        let thread = (words[THREAD_ID] as u32, format!("CPU {at}/KVM"));
        assert!(names.contains(&thread), "{thread:?} is not in {names:?}");
    }
    for (times, seen) in schedstats(pid, &words).iter().zip(&words) {
        let after = times.read().unwrap();
        assert!(GROWING.into_iter().all(|word| seen[word] <= after[word]));
    }
    let moves = |words: &[[u64; WORDS]], before: &[[u64; WORDS]]| {
        words.iter().zip(before).all(|(now, before)| now[1] > before[1] && now[2] > before[2])
    };
    assert!(soon(LIMIT, || moves(&read(&mut *source).1, &words)), "{words:?}");

    vmm.0.kill().unwrap();
    vmm.0.wait().unwrap();
    assert!(soon(LIMIT, || read(&mut *source).0 == [RowState::Gone; 2]));
    assert_eq!(sched.objects().unwrap(), []);
    assert_eq!(states_of_none(&sched, &objects), [RowState::Gone; 2]);
}

/// Returns the states of the rows of objects that are gone.
fn states_of_none(sched: &Sched, objects: &[Object]) -> Vec<RowState> {
    states(&mut *open_all(sched, objects).remove(0), &objects[0])
}

#[test]
fn vcpus_of_another_process_are_read_by_the_bpf_reader() {
    let Some(bpf) = bpf_of_threads() else { return };
    check_vmm(bpf);
}

#[test]
fn vcpus_of_another_process_are_read_in_proc() {
    if has_kvm() && require("schedstat", check_schedstat().map_err(|error| error.to_string())) {
        check_vmm(Bpf::off());
    }
}

/// A QEMU, whose thread of vCPU 0 both ways find.
#[test]
fn both_ways_find_the_threads_of_a_qemu() {
    // In a pid namespace, stats fds do not tell.
    if !has_lending_qemu() || check_schedstat().is_err() || !procfs::sees_every_process() {
        return;
    }
    let qemu = Command::new("qemu-system-x86_64")
        .args(["-accel", "kvm", "-display", "none", "-nodefaults", "-machine", "q35"])
        .args(["-m", "64", "-smp", "6,sockets=2,cores=3"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let qemu = Vmm(qemu);
    let found = |bpf: Bpf| {
        let kvm = Arc::new(AttachedKvm::with_bulk(Reaper::new().unwrap(), bpf).unwrap());
        let sched = kvm.sched().unwrap();
        let is_up = || kvm.attach(qemu.0.id()).is_ok() && sched.objects().unwrap().len() == 6;
        assert!(soon(Duration::from_secs(30), is_up), "{:?}", kvm.attach(qemu.0.id()));
        let objects = sched.objects().unwrap();
        let mut source = open_all(&sched, &objects).remove(0);
        // vCPU 0 runs the firmware.
        assert!(soon(LIMIT, || is_fresh(&read(&mut *source).0[0])));
        read(&mut *source)
    };
    let (states, words) = found(Bpf::off());
    assert!(states.iter().all(is_fresh), "{states:?}");
    let mut ids: Vec<u64> = words.iter().map(|words| words[THREAD_ID]).collect();
    if let Some(bpf) = bpf_of_threads() {
        let (states, seen) = found(bpf);
        let seen = states.iter().zip(&seen).filter(|(state, _)| **state == RowState::Good);
        let with = seen.zip(&ids).filter(|((_, seen), id)| seen[THREAD_ID] == **id).count();
        let good = states.iter().filter(|state| **state == RowState::Good).count();
        assert!(good > 0 && with == good, "{states:?}");
    }
    ids.dedup();
    assert_eq!(ids.len(), 6);
}
