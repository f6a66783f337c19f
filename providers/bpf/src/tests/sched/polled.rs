//! Tests of reading /proc: by which thread, how often, and with which files held open.

use super::*;
use vmstrobe_kvm::NewVcpu;

/// Whether /proc says how long threads wait.
fn has_schedstat() -> bool {
    has_kvm() && require("schedstat", check_schedstat().map_err(|error| error.to_string()))
}

/// Returns the number of schedstat files that this process has open.
fn open_files() -> usize {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.ends_with("schedstat")).count()
}

fn has_poller() -> bool {
    threads_of(std::process::id()).iter().any(|(_, name)| name == "vmstrobe-sched")
}

/// Ten rounds a second: of many ticks a few see a new one, no row is old, none goes back.
fn check_rounds(source: &mut dyn Source, first: Vec<[u64; WORDS]>, times: &[Schedstat]) {
    let (mut good, mut torn, mut last) = (0, 0, first);
    for _ in 0..2000 {
        let (states, words) = read(source);
        for (at, state) in states.iter().enumerate() {
            match state {
                RowState::Good => good += 1,
                RowState::Aged(ms) => assert!(*ms < 900, "{ms} ms"),
                // Its writer has been made to wait in the middle of it.
                RowState::Torn => {
                    torn += 1;
                    continue;
                }
                other => panic!("{other:?}"),
            }
            let now = times[at].read().unwrap();
            assert!((last[at][1]..=now[1]).contains(&words[at][1]));
            last[at] = words[at];
        }
        thread::sleep(Duration::from_micros(500));
    }
    assert!((4 * 3..4 * 50).contains(&good) && torn < 100, "{good} good, {torn} torn");
}

#[test]
fn without_the_bpf_reader_rows_grow_old() {
    if !has_schedstat() || !is_alone("polled::without_the_bpf_reader_rows_grow_old") {
        return;
    }
    let (mut guest, kvm) = demo(4, Bpf::off());
    let sched = kvm.sched().unwrap();
    guest.start().unwrap();
    let names = || threads_of(std::process::id());
    let mut want: Vec<u64> = Vec::new();
    assert!(soon(LIMIT, || {
        let id_of = |at| names().iter().find(|(_, name)| *name == format!("CPU {at}/KVM")).cloned();
        want = (0..4).filter_map(|at| Some(id_of(at)?.0.into())).collect();
        want.len() == 4
    }));
    let objects = sched.objects().unwrap();
    let paths: Vec<&str> = objects.iter().map(|object| &*object.path).collect();
    let vcpu = |at| format!("/vm/demo/vcpu[{at}]");
    assert_eq!(paths, (0..4).map(vcpu).collect::<Vec<_>>());
    assert_eq!(open_files(), 0, "nothing is opened before it is read");

    let mut source = open_all(&sched, &objects).remove(0);
    assert_eq!(source.read_ns(), None);
    let (states, first) = read(&mut *source);
    assert_eq!(states, [RowState::Good; 4], "read when it was opened");
    assert_eq!(first.iter().map(|words| words[THREAD_ID]).collect::<Vec<_>>(), want);
    assert_eq!(open_files(), 4);
    let times = schedstats(std::process::id(), &first);
    check_rounds(&mut *source, first, &times);
    // A probe's reading is no older than its question.
    sched.refresh(&Target::Vm).unwrap();
    sched.refresh(&Target::Vcpu).unwrap();
    assert_eq!(read(&mut *source).0, [RowState::Good; 4]);

    // Its threads end, and others come.
    guest.stop().unwrap();
    assert!(soon(LIMIT, || read(&mut *source).0 == [RowState::Missing; 4]));
    assert_eq!(open_files(), times.len(), "the test's alone");
    drop(times);
    assert_eq!(sched.objects().unwrap(), []);
    guest.start().unwrap();
    let again = || read(&mut *source).0.iter().all(is_fresh);
    assert!(soon(LIMIT, again), "{:?}", read(&mut *source));
    assert_eq!(sched.objects().unwrap(), objects, "the same vCPUs");

    drop(sched);
    assert!(read(&mut *source).0.iter().all(is_fresh));
    drop(source);
    assert!(soon(LIMIT, || open_files() == 0 && !has_poller()));
}

#[test]
fn what_is_given_up_is_asked_of_proc() {
    if !has_schedstat() || !is_alone("polled::what_is_given_up_is_asked_of_proc") {
        return;
    }
    let Some(bpf) = bpf_of_threads() else { return };
    let (mut guest, kvm) = demo(4, bpf.clone());
    let sched = kvm.sched().unwrap();
    guest.start().unwrap();
    let objects = sched.objects().unwrap();
    let mut source = open_all(&sched, &objects).remove(0);
    assert!(soon(LIMIT, || read(&mut *source).0 == [RowState::Good; 4]));
    let (_, before) = read(&mut *source);
    // Nobody asks /proc for what is read otherwise.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(open_files(), 0);

    bpf.give_up("a test");
    // Unless the poller is as quick, nothing is known yet.
    let unknown = |state: &RowState| *state == RowState::Missing || is_fresh(state);
    assert!(read(&mut *source).0.iter().all(unknown));
    assert!(soon(LIMIT, || read(&mut *source).0.iter().all(is_fresh)));
    let (_, after) = read(&mut *source);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before[THREAD_ID], after[THREAD_ID]);
        assert!(GROWING.into_iter().all(|word| before[word] <= after[word]));
    }
    assert_eq!(source.read_ns(), None);
    let said = said(&sched);
    assert!(matches!(&said[..], [said] if said.ends_with("a test")), "{said:?}");
    assert_eq!(sched.objects().unwrap(), objects);
    let mut source = open_all(&sched, &objects).remove(0);
    assert_eq!(read(&mut *source).0, [RowState::Good; 4]);
    guest.stop().unwrap();
}

#[test]
fn vcpus_whose_threads_cannot_be_told_are_left_out() {
    if !has_schedstat() {
        return;
    }
    let vm = Vm::new(Irqchip::None).unwrap();
    let vcpus = [vm.vcpu(0).unwrap(), vm.vcpu(1).unwrap()];
    let kvm = Arc::new(OwnKvm::new("x", vm.fd()).unwrap());
    let sched = kvm.sched().unwrap();
    assert_eq!(sched.objects().unwrap(), []);
    assert_eq!(sched.schemas().unwrap(), [sched_schema()]);
    for (index, vcpu) in (0..).zip(&vcpus) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu.fd())).unwrap();
    }
    assert_eq!(sched.objects().unwrap(), [], "one thread made both");
    let want = "which threads run 2 of the vCPUs cannot be told, so that they have no statistics \
                of the scheduler; the BPF reader does not need to know: switched off";
    assert_eq!(said(&sched), [want]);
    assert_eq!(said(&sched), [want]);

    // Its VMM says which thread runs it.
    assert!(kvm.remove_vcpu(1));
    thread::scope(|scope| {
        let (added, end) = (mpsc::channel(), mpsc::channel::<()>());
        let vcpu = &vcpus[1];
        let kvm = &kvm;
        scope.spawn(move || {
            kvm.add_vcpu(NewVcpu::here(1, vcpu.fd())).unwrap();
            added.0.send(rustix::thread::gettid().as_raw_nonzero().get() as u64).unwrap();
            let _ = end.1.recv();
        });
        let id = added.1.recv().unwrap();
        let objects = sched.objects().unwrap();
        let mut source = open_all(&sched, &objects[..]).pop().unwrap();
        let (states, words) = read(&mut *source);
        let at = objects.iter().position(|object| object.index == Some(1)).unwrap();
        assert_eq!((states[at], words[at][THREAD_ID]), (RowState::Good, id));
        assert_eq!(said(&sched), [want.replace("run 2", "run 1")]);
        assert!(kvm.remove_vcpu(1));
        assert_eq!(read(&mut *source).0[at], RowState::Gone);
        drop(end.0);
    });
}

/// With `BpfMode::Needed`, a program is loaded only for vCPUs that nothing else can read.
#[test]
fn the_bpf_reader_is_for_what_cannot_be_told() {
    if !has_schedstat() || bpf_of_threads().is_none() {
        return;
    }
    let vm = Vm::new(Irqchip::None).unwrap();
    let vcpus = [vm.vcpu(0).unwrap(), vm.vcpu(1).unwrap()];
    let bpf = Bpf::new(BpfMode::Needed);
    let kvm = Arc::new(OwnKvm::with_bulk("x", vm.fd(), bpf.clone()).unwrap());
    let sched = kvm.sched().unwrap();
    kvm.add_vcpu(NewVcpu::here(0, vcpus[0].fd())).unwrap();
    let objects = sched.objects().unwrap();
    let mut source = open_all(&sched, &objects).remove(0);
    assert_eq!((read(&mut *source).0, source.read_ns()), (vec![RowState::Good], None));
    assert_eq!(bpf.status(), BpfStatus::Untried);

    assert!(kvm.remove_vcpu(0));
    for (index, vcpu) in (0..).zip(&vcpus) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu.fd())).unwrap();
    }
    let objects = sched.objects().unwrap();
    assert_eq!(objects.len(), 2);
    let mut source = open_all(&sched, &objects).remove(0);
    assert_eq!(source.read_ns(), Some(0..0));
    assert_eq!(read(&mut *source).0, [RowState::Missing; 2], "they have never run");
}
