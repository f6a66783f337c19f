//! Other processes to borrow from: a real QEMU, and a VMM of ours
//! that does as it is told.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmstrobe_core::{RowState, Target};
use vmstrobe_guest::{Irqchip, Vm};
use vmstrobe_host::{
    Access, Care, GoneEpoch, Host, KvmLink, MAX_RECORDS, MAX_SAME_LINK, Seen, VmInfo,
};
use vmstrobe_testing::{has_kvm, has_lending_qemu, open_all, require, soon, states};

use super::*;
use crate::NewVcpu;
use crate::OwnKvm;
use crate::tests::{Never, kvm_links};

/// A QEMU with two paused vCPUs; ended when dropped.
struct Qemu(Child);

impl Qemu {
    /// With that name; `None` where there is no QEMU.
    fn start(name: &str) -> Option<Self> {
        if !has_lending_qemu() {
            return None;
        }
        let child = Command::new("qemu-system-x86_64")
            .args(["-accel", "kvm", "-display", "none", "-nodefaults", "-machine", "q35"])
            .args(["-m", "64", "-smp", "2", "-S", "-name", name])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let qemu = Self(child);
        let up = Access::StatsFds { vcpus: 2, vm: false };
        let is_up = || scan::scan(qemu.pid()).is_ok_and(|vms| vms[0].access == up);
        assert!(soon(Duration::from_secs(30), is_up), "{:?}", scan::scan(qemu.pid()));
        Some(qemu)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn end(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const VMM: &str = "attach::tests::a_vmm_that_does_as_it_is_told";

/// The VMM below, in a process of its own; ended when dropped.
struct Vmm(Child);

impl Vmm {
    fn start() -> Option<Self> {
        let program = env::current_exe().unwrap();
        has_kvm().then(|| {
            let child = Command::new(program)
                .args(["--exact", VMM, "--nocapture"])
                .env(VMM, "")
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            Self(child)
        })
    }

    /// Has a command carried out, and waits until the process has that many VMs and vCPU stats.
    fn tell(&mut self, command: &str, vms: usize, vcpu_stats: usize) {
        writeln!(self.0.stdin.as_mut().unwrap(), "{command}").unwrap();
        let so = || {
            let found = scan::scan(self.0.id()).unwrap_or_default();
            let count = |vm: &VmInfo| match vm.access {
                Access::StatsFds { vcpus, .. } => vcpus,
                _ => 0,
            };
            found.len() == vms && found.iter().map(count).sum::<usize>() == vcpu_stats
        };
        assert!(soon(Duration::from_secs(10), so), "{command}: {:?}", scan::scan(self.0.id()));
    }

    /// Has a VM made with a vCPU. The stats fd of a VM alone is not waited for.
    fn tell_with_vcpu(&mut self) {
        for (command, vcpu_stats) in [("vm", 0), ("vcpu 0", 0), ("add 0", 1)] {
            self.tell(command, 1, vcpu_stats);
        }
    }
}

impl Drop for Vmm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test, but what [`Vmm`] runs: takes `bare`, `vm`, `vcpu ID`, `add ID`, `remove ID`, `copy
/// COUNT`, `flicker` and `close` from its input; all act on the newest VM.
#[test]
fn a_vmm_that_does_as_it_is_told() {
    if env::var_os(VMM).is_none() {
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let (mut vms, mut kvms, mut vcpus) = (Vec::new(), Vec::new(), Vec::new());
    let mut copies = Vec::new();
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let (command, id) = line.split_once(' ').unwrap_or((&line, "0"));
        let id: u32 = id.parse().unwrap();
        match command {
            "bare" => vms.push(Vm::new(Irqchip::None).unwrap()),
            "vm" => {
                vms.push(Vm::new(Irqchip::None).unwrap());
                kvms.push(OwnKvm::new("x", vms.last().unwrap().fd()).unwrap());
            }
            "vcpu" => vcpus.push(vms.last().unwrap().vcpu(id).unwrap()),
            "add" => {
                let vcpu = vcpus.iter().rfind(|vcpu| vcpu.id() == id).unwrap();
                kvms.last().unwrap().add_vcpu(NewVcpu::new(id, vcpu.fd())).unwrap();
            }
            // As a QEMU that is asked for them all the time: open for a tenth of it.
            "flicker" => {
                let vm = vms.last().unwrap().fd().try_clone_to_owned().unwrap();
                thread::spawn(move || {
                    loop {
                        let stats = crate::kvm_get_stats_fd(vm.as_fd()).unwrap();
                        spin(Duration::from_micros(20));
                        drop(stats);
                        spin(Duration::from_micros(180));
                    }
                });
            }
            "remove" => assert!(kvms.last().unwrap().remove_vcpu(id)),
            "copy" => {
                let vm = vms.last().unwrap().fd();
                copies.extend((0..id).map(|_| vm.try_clone_to_owned().unwrap()));
            }
            "close" => {
                kvms.clear();
                vcpus.clear();
                vms.clear();
            }
            _ => panic!("{line}"),
        }
    }
}

fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn borrowed() -> AttachedKvm {
    AttachedKvm::new(Reaper::new().unwrap()).unwrap()
}

fn paths(kvm: &AttachedKvm) -> Vec<String> {
    kvm.objects().unwrap().into_iter().map(|object| object.path.into()).collect()
}

#[test]
fn vcpus_of_a_qemu_are_borrowed() {
    let Some(qemu) = Qemu::start("web") else { return };
    let kvm = borrowed();
    assert_eq!(kvm.schemas().unwrap().len(), 0);
    kvm.attach(qemu.pid()).unwrap();
    kvm.attach(qemu.pid()).unwrap();
    assert_eq!(paths(&kvm), ["/vm/web/vcpu[0]", "/vm/web/vcpu[1]"]);
    let schemas = kvm.schemas().unwrap();
    assert_eq!(schemas.len(), 1);
    assert!(["exits", "halt_exits"].iter().all(|name| schemas[0].find(name).is_some()));

    let objects = kvm.objects().unwrap();
    assert_eq!(objects, kvm.objects().unwrap(), "a second look borrows nothing again");
    let mut source = open_all(&kvm, &objects).remove(0);
    assert_eq!(states(&mut *source, &objects[0]), [RowState::Good; 2]);

    assert!(kvm.detach(qemu.pid()));
    assert!(!kvm.detach(qemu.pid()));
    assert_eq!(paths(&kvm).len(), 0);
    assert_eq!(states(&mut *source, &objects[0]), [RowState::Gone; 2]);

    kvm.attach(qemu.pid()).unwrap();
    assert!(kvm.objects().unwrap().iter().all(|new| objects.iter().all(|old| old.key != new.key)));
    let [vm] = &scan::scan(qemu.pid()).unwrap()[..] else { panic!("one VM") };
    assert_eq!((vm.name.as_deref(), vm.vcpus), (Some("web"), 2));
    assert!(vm.start_time_ticks > 0);
}

/// A VMM that opens one all the time, for a tenth of it: whatever is mistaken once is found out.
#[test]
fn what_a_vmm_opens_for_a_moment_is_not_kept() {
    let Some(mut vmm) = Vmm::start() else { return };
    vmm.tell_with_vcpu();
    let kvm = borrowed();
    kvm.attach(vmm.0.id()).unwrap();
    let before = paths(&kvm);
    vmm.tell("flicker", 1, 1);
    let is_open = || kvm_links(vmm.0.id()).len() > before.len() + 2;
    assert!(soon(Duration::from_secs(10), is_open), "it opens none");
    for _ in 0..1000 {
        let is_as_before = || paths(&kvm) == before;
        assert!(soon(Duration::from_secs(10), is_as_before), "{:?}", paths(&kvm));
    }
}

#[test]
fn the_end_of_a_qemu_is_noticed() {
    let Some(mut qemu) = Qemu::start("mortal") else { return };
    let (reaper, closed) = Reaper::held();
    let kvm = AttachedKvm::new(reaper).unwrap();
    kvm.attach(qemu.pid()).unwrap();
    let objects = kvm.objects().unwrap();
    let mut source = open_all(&kvm, &objects).remove(0);
    let mut now = || states(&mut *source, &objects[0]);
    assert_eq!(now(), [RowState::Good; 2]);

    qemu.end();
    let ended = Instant::now();
    assert!(soon(Duration::from_millis(100), || now() == [RowState::Gone; 2]), "{:?}", now());
    let noticed = ended.elapsed();
    assert_eq!(kvm.ended(), [qemu.pid()]);
    assert_eq!(paths(&kvm).len(), 0);
    assert_eq!(kvm.ended(), [qemu.pid()], "it is known after the look that has left it out");
    assert_eq!(kvm.schemas().unwrap().len(), 0);
    let error = kvm.attach(qemu.pid()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    // The source holds the last fds of the dead VM, whose close destroys it: not here.
    let before = Instant::now();
    drop(source);
    let dropped = before.elapsed();
    drop(kvm);
    let fds: Vec<_> = closed.into_iter().collect();
    for (id, fd) in fds.iter().enumerate() {
        let link = fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap();
        assert_eq!(link.to_str(), Some(&*format!("anon_inode:kvm-vcpu-stats:{id}")));
    }
    assert_eq!(fds.len(), 2);
    let before = Instant::now();
    drop(fds);
    println!("noticed in {noticed:?}, dropped in {dropped:?}, closed in {:?}", before.elapsed());
}

/// A look takes the provider's lock for as long as a process keeps it waiting.
#[test]
fn the_end_is_said_while_a_look_goes_on() {
    let Some(mut vmm) = Vmm::start() else { return };
    vmm.tell_with_vcpu();
    let kvm = Arc::new(borrowed());
    let (pid, sched) = (vmm.0.id(), kvm.sched().unwrap());
    kvm.attach(pid).unwrap();
    assert!(kvm.ended().is_empty() && sched.ended().is_empty());
    let look = kvm.state();
    drop(vmm);
    let (answer, answered) = std::sync::mpsc::channel();
    let asked = Arc::clone(&kvm);
    thread::spawn(move || answer.send([asked.ended(), sched.ended()]));
    let ended = answered.recv_timeout(Duration::from_secs(10));
    drop(look);
    assert_eq!(ended, Ok([vec![pid], vec![pid]]));
}

#[test]
fn what_is_given_back_has_not_ended() {
    let Some(mut vmm) = Vmm::start() else { return };
    vmm.tell_with_vcpu();
    let (kvm, pid) = (borrowed(), vmm.0.id());
    kvm.attach(pid).unwrap();
    assert!(kvm.detach(pid));
    assert!(kvm.ended().is_empty());
    kvm.attach(pid).unwrap();
    assert!(kvm.detach(pid));
    drop(vmm);
    assert!(kvm.ended().is_empty());
}

#[test]
fn two_vms_of_one_name_are_told_apart() {
    let Some(first) = Qemu::start("twin") else { return };
    let second = Qemu::start("twin").unwrap();
    let kvm = borrowed();
    kvm.attach(first.pid()).unwrap();
    kvm.attach(second.pid()).unwrap();
    let other = format!("/vm/twin.{}", second.pid());
    assert_eq!(
        paths(&kvm),
        [
            "/vm/twin/vcpu[0]".to_owned(),
            "/vm/twin/vcpu[1]".to_owned(),
            format!("{other}/vcpu[0]"),
            format!("{other}/vcpu[1]"),
        ]
    );
    assert_eq!(kvm.schemas().unwrap().len(), 1, "one kernel, one schema");
    drop(first);
    // It keeps its name: whoever watches it has that.
    assert!(paths(&kvm).iter().all(|path| path.starts_with(&other)));
}

#[test]
fn fds_that_come_and_go_are_followed() {
    let Some(mut vmm) = Vmm::start() else { return };
    let pid = vmm.0.id();
    for (command, vcpu_stats) in [("vm", 0), ("vcpu 0", 0), ("vcpu 1", 0), ("add 0", 1)] {
        vmm.tell(command, 1, vcpu_stats);
    }
    let kvm = borrowed();
    kvm.attach(pid).unwrap();
    let vcpu = |id: u32| format!("/vm/{pid}/vcpu[{id}]");
    assert_eq!(paths(&kvm), [format!("/vm/{pid}"), vcpu(0)]);
    let targets: Vec<_> = kvm.schemas().unwrap().iter().map(|s| s.target().clone()).collect();
    assert_eq!(targets, [Target::Vm, Target::Vcpu]);

    vmm.tell("add 1", 1, 2);
    let objects = kvm.objects().unwrap();
    assert_eq!(paths(&kvm), [format!("/vm/{pid}"), vcpu(0), vcpu(1)]);
    let mut source = open_all(&kvm, &objects[1..]).remove(0);
    assert_eq!(states(&mut *source, &objects[1]), [RowState::Good; 2]);

    vmm.tell("remove 0", 1, 1);
    assert_eq!(paths(&kvm), [format!("/vm/{pid}"), vcpu(1)]);
    assert_eq!(states(&mut *source, &objects[1]), [RowState::Gone, RowState::Good]);
    assert_eq!(kvm.objects().unwrap()[1].key, objects[2].key, "the same as before");

    // The VMM closes its VM, and makes a new one later.
    vmm.tell("close", 0, 0);
    assert_eq!(paths(&kvm).len(), 0);
    assert_eq!(states(&mut *source, &objects[1]), [RowState::Gone; 2]);
    vmm.tell_with_vcpu();
    assert_eq!(paths(&kvm), [format!("/vm/{pid}"), vcpu(0)]);
}

#[test]
fn several_vms_of_one_process_are_told_apart() {
    let Some(mut vmm) = Vmm::start() else { return };
    let pid = vmm.0.id();
    for (command, vms, vcpu_stats) in
        [("vm", 1, 0), ("vcpu 0", 1, 0), ("add 0", 1, 1), ("vm", 2, 1), ("vcpu 0", 2, 1)]
    {
        vmm.tell(command, vms, vcpu_stats);
    }
    vmm.tell("add 0", 2, 2);
    let kvm = borrowed();
    kvm.attach(pid).unwrap();
    let (first, second) = (format!("/vm/{pid}"), format!("/vm/{pid}#2"));
    let vcpu = |vm: &str| format!("{vm}/vcpu[0]");
    assert_eq!(paths(&kvm), [first.clone(), vcpu(&first), second.clone(), vcpu(&second)]);
    let names: Vec<_> = scan::scan(pid).unwrap().into_iter().map(|vm| vm.name).collect();
    assert_eq!(names, [None, Some(format!("{pid}#2"))]);
}

#[test]
fn a_vmm_without_stats_fds_is_said_to_have_none() {
    let Some(mut vmm) = Vmm::start() else { return };
    let pid = vmm.0.id();
    vmm.tell("bare", 1, 0);
    let kvm = borrowed();
    let error = kvm.attach(pid).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let want = format!(
        "the VMM of pid {pid} keeps no stats fds open (QEMU 8.1 and later do, and any VMM that \
         embeds vmstrobe), and the BPF reader, which needs none, is switched off (--bpf)"
    );
    assert_eq!(error.to_string(), want);
    assert_eq!(paths(&kvm).len(), 0);
    assert!(!kvm.detach(pid));
}

#[test]
fn why_the_other_way_is_closed_is_said() {
    let error = unreadable(7, Some(&Never(Some("CAP_BPF is missing"))));
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let end = "the BPF reader, which needs none, cannot be used: CAP_BPF is missing";
    assert!(error.to_string().ends_with(end), "{error}");
    let error = unreadable(7, Some(&Never(None)));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(
        error.to_string(),
        "pid 7 closed its virtual machine while it was being attached to"
    );
}

#[test]
fn a_vm_of_another_process_is_not_ones_own() {
    let Some(mut vmm) = Vmm::start() else { return };
    vmm.tell("bare", 1, 0);
    let process = Process::open(vmm.0.id(), &GoneEpoch::default()).unwrap();
    let all: Vec<_> = (3..64).map(|fd| (fd, Some(KvmLink::Vm))).collect();
    let borrowed = Host::default().borrow(&process, &all).unwrap();
    let vm = borrowed.into_iter().find_map(std::result::Result::ok).unwrap();
    let error = OwnKvm::new("x", vm.as_fd()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("belongs to another process"), "{error}");
}

#[test]
fn what_is_no_vmm_is_not_attached() {
    let kvm = borrowed();
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    let error = kvm.attach(child.id()).unwrap_err();
    assert!(error.to_string().contains("(sleep) has no KVM virtual machine open"), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(kvm.attach(child.id()).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Waits until `enough` is true of the process's descriptors, and returns what is seen then.
fn seen(vmm: &Vmm, enough: impl Fn(&Seen) -> bool) -> Seen {
    let host = Host::default();
    let look = || host.look(vmm.0.id(), Care::FULL).unwrap();
    assert!(soon(Duration::from_secs(30), || enough(&look())), "{:?}", look().kvm.len());
    look()
}

#[test]
fn copies_count_once_and_too_many_are_said_to_be() {
    let Some(mut vmm) = Vmm::start() else { return };
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let has_room = hard > MAX_RECORDS as u64 + 256;
    if !require("descriptors", has_room.then_some(()).ok_or(format!("the limit is {hard}"))) {
        return;
    }
    let mut tell = |line: String| writeln!(vmm.0.stdin.as_mut().unwrap(), "{line}").unwrap();
    tell("bare".to_owned());
    tell(format!("copy {}", MAX_RECORDS - 1));
    let all = seen(&vmm, |seen| seen.kvm.len() == MAX_RECORDS);
    assert!(!all.is_crowded);
    assert!(all.kvm.iter().all(|seen| seen.file == all.kvm[0].file), "one VM, many copies");
    assert_eq!(scan::scan(vmm.0.id()).unwrap().len(), 1);
    writeln!(vmm.0.stdin.as_mut().unwrap(), "copy 1").unwrap();
    assert_eq!(seen(&vmm, |seen| seen.is_crowded).kvm.len(), MAX_RECORDS);
}

#[test]
fn more_vms_than_are_told_apart_are_said_to_be() {
    let Some(mut vmm) = Vmm::start() else { return };
    for _ in 0..=MAX_SAME_LINK {
        writeln!(vmm.0.stdin.as_mut().unwrap(), "bare").unwrap();
    }
    assert_eq!(seen(&vmm, |seen| seen.is_crowded).kvm.len(), MAX_SAME_LINK);
}

#[test]
fn no_stats_fd_is_held_where_it_may_outlive_its_vm() {
    let Some(mut vmm) = Vmm::start() else { return };
    vmm.tell_with_vcpu();
    let kvm = AttachedKvm { unsafe_release: Some("5.15.90".to_owned()), ..borrowed() };
    let error = kvm.attach(vmm.0.id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(text.contains("this kernel (5.15.90) reads freed memory"), "{text}");
    assert_eq!(paths(&kvm).len(), 0);
    borrowed().attach(vmm.0.id()).unwrap();
}
