//! A VMM's view: its vCPUs come, run, and go, while someone samples them.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use kvm_bindings::kvm_msi;
use kvm_ioctls::Kvm;
use rustix::event::{EventfdFlags, eventfd};
use vmstrobe_core::{RowState, Snapshot};
use vmstrobe_guest::{DemoGuest, Farm, Vm};
use vmstrobe_host::{GoneEpoch, KvmLink, Process};
use vmstrobe_testing::{has_kvm, has_link, open_all, soon, states, tick, vm};

use super::*;

fn paths(kvm: &OwnKvm) -> Vec<String> {
    kvm.objects().unwrap().into_iter().map(|object| object.path.into()).collect()
}

fn objects_of(kvm: &OwnKvm, target: &Target) -> Vec<Object> {
    let objects = kvm.objects().unwrap();
    objects.into_iter().filter(|object| object.schema.target() == target).collect()
}

#[test]
fn objects_are_the_vm_and_its_vcpus_by_index() {
    let Some(vm) = vm() else { return };
    let vcpus: Vec<_> = (0..4).map(|id| vm.vcpu(id).unwrap()).collect();
    let kvm = OwnKvm::new("a/b", vm.fd()).unwrap();
    assert_eq!(kvm.schemas().unwrap().len(), 1);
    for index in [2, 0, 3] {
        kvm.add_vcpu(NewVcpu::new(index, vcpus[index as usize].fd())).unwrap();
    }
    kvm.add_vcpu(NewVcpu {
        path: Some("/machine/unattached/device[1]"),
        ..NewVcpu::new(1, vcpus[1].fd())
    })
    .unwrap();
    assert_eq!(
        paths(&kvm),
        [
            "/vm/a_b",
            "/vm/a_b/vcpu[0]",
            "/machine/unattached/device[1]",
            "/vm/a_b/vcpu[2]",
            "/vm/a_b/vcpu[3]",
        ]
    );
    assert_eq!(kvm.name(), "kvm");
    let schemas = kvm.schemas().unwrap();
    assert_eq!(
        schemas.iter().map(|s| s.target()).collect::<Vec<_>>(),
        [&Target::Vm, &Target::Vcpu]
    );
    let vcpus = objects_of(&kvm, &Target::Vcpu);
    assert!(vcpus.iter().all(|vcpu| Arc::ptr_eq(&vcpu.schema, &schemas[1])));
    assert_eq!(vcpus.iter().map(|v| v.index).collect::<Vec<_>>(), [0, 1, 2, 3].map(Some));
}

#[test]
fn nothing_is_there_twice() {
    let Some(vm) = vm() else { return };
    let (first, second) = (vm.vcpu(0).unwrap(), vm.vcpu(1).unwrap());
    let kvm = OwnKvm::new("x", vm.fd()).unwrap();
    kvm.add_vcpu(NewVcpu::here(0, first.fd())).unwrap();
    for result in [
        kvm.add_vcpu(NewVcpu::new(0, second.fd())),
        kvm.add_vcpu(NewVcpu { path: Some("/vm/x/vcpu[0]"), ..NewVcpu::new(1, second.fd()) }),
        kvm.add_vcpu(NewVcpu { path: Some("/vm/x/vcpu[0]"), ..NewVcpu::here(1, second.fd()) }),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.to_string(), "there is /vm/x/vcpu[0] already: remove it first");
    }
    assert_eq!(paths(&kvm).len(), 2);
}

#[test]
fn a_removed_vcpu_is_gone_and_its_key_with_it() {
    let Some(vm) = vm() else { return };
    let vcpus = [vm.vcpu(0).unwrap(), vm.vcpu(1).unwrap()];
    let kvm = OwnKvm::new("x", vm.fd()).unwrap();
    for (index, vcpu) in (0..).zip(&vcpus) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu.fd())).unwrap();
    }
    let old = objects_of(&kvm, &Target::Vcpu);
    let mut opened = open_all(&kvm, &old).remove(0);
    assert_eq!(states(&mut *opened, &old[0]), [RowState::Good; 2]);

    assert!(kvm.remove_vcpu(1));
    assert!(!kvm.remove_vcpu(1));
    assert_eq!(paths(&kvm), ["/vm/x", "/vm/x/vcpu[0]"]);
    assert_eq!(states(&mut *opened, &old[0]), [RowState::Good, RowState::Gone]);

    kvm.add_vcpu(NewVcpu::new(1, vcpus[1].fd())).unwrap();
    let new = objects_of(&kvm, &Target::Vcpu);
    assert_eq!(new[1].path, old[1].path);
    assert_ne!(new[1].key, old[1].key);
    // Neither the open row nor the old object leads to the new one.
    assert_eq!(states(&mut *opened, &old[0]), [RowState::Good, RowState::Gone]);
    let mut reopened = open_all(&kvm, &old).remove(0);
    assert_eq!(states(&mut *reopened, &old[0]), [RowState::Good, RowState::Gone]);
    let mut fresh = open_all(&kvm, &new).remove(0);
    assert_eq!(states(&mut *fresh, &new[0]), [RowState::Good; 2]);
}

#[test]
fn vcpus_come_and_go_while_others_are_read() {
    let Some(vm) = vm() else { return };
    let vcpus = [vm.vcpu(0).unwrap(), vm.vcpu(1).unwrap()];
    let kvm = OwnKvm::new("x", vm.fd()).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, vcpus[0].fd())).unwrap();
    let first = objects_of(&kvm, &Target::Vcpu);
    let mut opened = open_all(&kvm, &first).remove(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                kvm.add_vcpu(NewVcpu::new(1, vcpus[1].fd())).unwrap();
                assert!(kvm.remove_vcpu(1));
            }
            done.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            assert_eq!(states(&mut *opened, &first[0]), [RowState::Good]);
        }
    });
}

#[test]
fn sources_outlive_the_provider_and_the_vm() {
    let Some(vm) = vm() else { return };
    let vcpu = vm.vcpu(0).unwrap();
    let kvm = OwnKvm::new("x", vm.fd()).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, vcpu.fd())).unwrap();
    let objects = objects_of(&kvm, &Target::Vcpu);
    let mut opened = open_all(&kvm, &objects).remove(0);
    drop((kvm, vcpu, vm));
    assert_eq!(states(&mut *opened, &objects[0]), [RowState::Good]);
}

#[test]
fn a_running_guest_moves_its_counters() {
    if !has_kvm() {
        return;
    }
    let mut guest = DemoGuest::new(2).unwrap();
    let kvm = OwnKvm::new("demo", guest.vm().fd()).unwrap();
    for (index, vcpu) in (0..).zip(guest.vcpus()) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu.fd())).unwrap();
    }
    guest.start().unwrap();
    let objects = objects_of(&kvm, &Target::Vcpu);
    let schema = Arc::clone(&objects[0].schema);
    let plan = ReadPlan::new(&schema, &vmstrobe_core::Mask::all(&schema));
    let mut source = kvm.open(&objects, &plan).unwrap().remove(0);
    let layout = vmstrobe_core::Layout::new(1, vec![(Arc::clone(&plan), objects)]);
    let exits = |snapshot: &Snapshot| -> Vec<u64> {
        snapshot.stat("exits").map(|(_, value)| value.number().unwrap()).collect()
    };
    let mut read = || {
        let mut snapshot = Snapshot::new(&layout);
        let (words, states) = snapshot.begin(1);
        source.read(vmstrobe_core::Rows::new(words, states, plan.row_words()));
        exits(&snapshot)
    };
    let before = read();
    assert!(soon(Duration::from_secs(10), || {
        read().iter().zip(&before).all(|(now, before)| now > before)
    }));
    guest.stop().unwrap();
}

/// An fd of a type that lends none.
fn fd_of(file: &impl AsRawFd, link: KvmLink) -> OwnedFd {
    let this = Process::open(std::process::id(), &GoneEpoch::default()).unwrap();
    crate::tests::borrow(&this, file.as_raw_fd(), link)
}

/// A vCPU other than the first waits in KVM_RUN until it gets an INIT.
#[test]
fn a_vcpu_that_stays_in_kvm_run_is_busy() {
    if !has_kvm() {
        return;
    }
    // An id that no other test has; it is the APIC id too.
    const ID: u32 = 193;
    let link = format!("anon_inode:kvm-vcpu-stats:{ID}");
    let vm = Kvm::new().unwrap().create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    let mut vcpu = vm.create_vcpu(ID.into()).unwrap();
    // KVM finds a new vCPU's APIC by its id only after something was written to it.
    vcpu.set_lapic(&vcpu.get_lapic().unwrap()).unwrap();
    let vcpu_fd = fd_of(&vcpu, KvmLink::Vcpu(ID));
    let kvm = OwnKvm::new("x", fd_of(&vm, KvmLink::Vm).as_fd()).unwrap();
    let runner = thread::spawn(move || {
        let outcome = vcpu.run().map(|exit| format!("{exit:?}")).map_err(|errno| errno.errno());
        (vcpu, outcome)
    });
    thread::sleep(Duration::from_millis(50));

    let before = Instant::now();
    let error = kvm.add_vcpu(NewVcpu::new(ID, vcpu_fd.as_fd())).unwrap_err();
    let waited = before.elapsed();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(waited >= VCPU_BUSY_LIMIT && waited < 2 * VCPU_BUSY_LIMIT, "{waited:?}");
    assert!(error.to_string().contains("before its first KVM_RUN"), "{error}");
    assert_eq!(paths(&kvm).len(), 1);
    assert!(!has_link(&link));

    // An INIT, level asserted: KVM_RUN returns EAGAIN, and the asker gets what it waited for.
    let init = kvm_msi { address_lo: 0xfee0_0000 | ID << 12, data: 0x4500, ..Default::default() };
    assert_eq!(vm.signal_msi(init).unwrap(), 1);
    let (vcpu, outcome) = runner.join().unwrap();
    assert_eq!(outcome, Err(Errno::AGAIN.raw_os_error()));
    kvm.add_vcpu(NewVcpu::new(ID, vcpu_fd.as_fd())).unwrap();
    assert!(kvm.remove_vcpu(ID));
    assert!(soon(Duration::from_secs(5), || !has_link(&link)), "closed, ours and the late one");
    drop(vcpu);
}

#[test]
fn a_fd_of_another_kind_is_refused() {
    let Some(vm) = vm() else { return };
    let vcpu = vm.vcpu(0).unwrap();
    let other = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    for fd in [vcpu.fd(), other.as_fd()] {
        let error = OwnKvm::new("x", fd).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.to_string(), "this descriptor is not that of a KVM VM");
    }
    let kvm = OwnKvm::new("x", vm.fd()).unwrap();
    let error = kvm.add_vcpu(NewVcpu::new(0, other.as_fd())).unwrap_err();
    assert_eq!(error.to_string(), "this descriptor is not that of a KVM vCPU");
    let error = kvm.add_vcpu(NewVcpu::new(0, vm.fd())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this descriptor is a VM's, not a vCPU's: give that of KVM_CREATE_VCPU"
    );
    assert_eq!(paths(&kvm), ["/vm/x"]);
}

#[test]
fn vcpus_are_added_before_their_first_run() {
    if !has_kvm() {
        return;
    }
    let farm = Farm::new(64).unwrap();
    let vm: &Vm = farm.vms()[0].vm();
    let kvm = OwnKvm::new("farm", vm.fd()).unwrap();
    for (index, vcpu) in (0..).zip(farm.vms()[0].vcpus()) {
        kvm.add_vcpu(NewVcpu::new(index, vcpu.fd())).unwrap();
    }
    let objects = objects_of(&kvm, &Target::Vcpu);
    let mut sources = open_all(&kvm, &objects);
    assert_eq!(sources.len(), 1);
    let (states, _) = tick(&mut *sources[0], objects[0].schema.data_bytes() / 8);
    assert_eq!(states, [RowState::Good; 64]);
}
