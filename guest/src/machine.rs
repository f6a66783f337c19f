//! VMs and vCPUs, and all unsafe code of this crate: giving memory to a guest, borrowing fds.
//!
//! Invariant: guest memory is shared by reference count between the VM and its vCPUs, so it stays
//! mapped as long as anything can run the guest; and once a guest has it, this process never makes
//! a Rust reference into it ([`MmapRaw`] offers none).
//!
//! Every VM gets the same memory image (`code.rs`); a vCPU's registers choose the program.
#![allow(unsafe_code, reason = "KVM takes addresses of memory; kvm-ioctls has no borrowed fds")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{VcpuFd, VmFd};
use memmap2::{MmapMut, MmapRaw};

use crate::code::{self, MEMORY_BYTES};
use crate::error::{Error, refused};
use crate::host;
use crate::processor;

/// The interrupt controllers of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irqchip {
    /// None: every `hlt` is an exit to user space.
    None,
    /// The kernel's: a halted vCPU waits there until its local APIC wakes it.
    InKernel,
}

/// A virtual machine with a few KiB of memory and no devices.
#[derive(Debug)]
pub struct Vm {
    // Before `memory`: fields drop in this order.
    vm: VmFd,
    memory: Arc<MmapRaw>,
}

impl Vm {
    /// Creates a VM that holds the programs of this crate and has no vCPU yet.
    ///
    /// # Errors
    /// If KVM is unusable or refuses a step.
    pub fn new(irqchip: Irqchip) -> Result<Vm, Error> {
        let vm = host::open()?.create_vm().map_err(refused("create a VM"))?;
        processor::set_up_vm(&vm)?;
        if irqchip == Irqchip::InKernel {
            vm.create_irq_chip().map_err(refused("create interrupt controllers"))?;
        }
        let vm = Vm { vm, memory: Arc::new(guest_memory()?) };
        vm.give_memory()?;
        Ok(vm)
    }

    /// Creates vCPU `id`, which is 0 for the first.
    ///
    /// # Errors
    /// If the id exists or is too large, or fds or memory run out.
    pub fn vcpu(&self, id: u32) -> Result<Vcpu, Error> {
        let vcpu = self.vm.create_vcpu(id.into()).map_err(refused("create a vCPU"))?;
        Ok(Vcpu {
            id,
            number: vcpu.as_raw_fd(),
            vcpu: Mutex::new(vcpu),
            _memory: Arc::clone(&self.memory),
        })
    }

    /// Returns the VM's fd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number must stay open for the lifetime of `&self`, and must not be -1.
        // `self.vm` owns the open file behind it and closes it only when dropped, which the
        // borrow of `self` excludes.
        unsafe { BorrowedFd::borrow_raw(self.vm.as_raw_fd()) }
    }

    fn give_memory(&self) -> Result<(), Error> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: MEMORY_BYTES as u64,
            userspace_addr: self.memory.as_mut_ptr() as u64,
        };
        // SAFETY: KVM requires that the range is mapped and writable, that it stays so while the
        // guest can run, that no other slot overlaps it, and that Rust expects the guest's writes.
        // - `guest_memory` mapped exactly MEMORY_BYTES, readable and writable.
        // - Only KVM_RUN touches it, and KVM_RUN is reached only through a `Vcpu`; each holds a
        //   count on the mapping, and drops it after its own fd. KVM keeps the address after that
        //   (a stats fd keeps the VM), but there is no vCPU any more to run.
        // - It is this VM's only slot: 0 to 32 KiB, far below the TSS pages of `processor`.
        // - The mapping is private and anonymous, and a `MmapRaw` gives out no references, so
        //   Rust assumes nothing of its contents.
        unsafe { self.vm.set_user_memory_region(region) }.map_err(refused("give memory to a VM"))
    }
}

/// One virtual CPU. It does nothing until the guest that owns it runs it.
#[derive(Debug)]
pub struct Vcpu {
    id: u32,
    number: RawFd,
    // Before `_memory`: fields drop in this order.
    vcpu: Mutex<VcpuFd>,
    _memory: Arc<MmapRaw>,
}

impl Vcpu {
    /// Returns the vCPU's id in its VM.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Returns the vCPU's fd, also while another thread runs the vCPU.
    pub fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the number must stay open for the lifetime of `&self`, and must not be -1.
        // It was read from the `VcpuFd` in `self.vcpu`, which owns the open file and closes it
        // only when dropped. That takes dropping `self`, which the borrow excludes, or putting
        // another `VcpuFd` into the mutex, which no code of this crate does: `Vm::vcpu` alone makes
        // them, and wraps each at once. Holding the mutex does not move the file.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }

    /// Locks the vCPU, to run it or to change its registers, as the kernel does with `vcpu->mutex`.
    pub(crate) fn hold(&self) -> MutexGuard<'_, VcpuFd> {
        // A panic while holding it leaves the vCPU between two exits, a state like any other.
        self.vcpu.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn guest_memory() -> Result<MmapRaw, Error> {
    let mut memory = MmapMut::map_anon(MEMORY_BYTES)
        .map_err(|errno| Error::Refused { step: "map guest memory", errno })?;
    code::lay_out(&mut memory);
    Ok(memory.into())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use vmstrobe_require::require;

    use super::*;
    use crate::host::usable;

    #[test]
    fn fds_can_be_borrowed_while_another_thread_holds_the_vcpu() {
        if !require("kvm", usable()) {
            return;
        }
        let vm = Vm::new(Irqchip::None).unwrap();
        let vcpu = vm.vcpu(3).unwrap();
        let held = vcpu.hold();
        thread::scope(|scope| {
            scope.spawn(|| assert_eq!(vcpu.fd().as_raw_fd(), held.as_raw_fd()));
        });
        assert_eq!(vcpu.id(), 3);
        assert_ne!(vm.fd().as_raw_fd(), vcpu.fd().as_raw_fd());
    }

    #[test]
    fn memory_lives_until_the_last_vcpu_is_gone() {
        if !require("kvm", usable()) {
            return;
        }
        let vm = Vm::new(Irqchip::InKernel).unwrap();
        let memory = Arc::downgrade(&vm.memory);
        let vcpu = vm.vcpu(0).unwrap();
        drop(vm);
        assert!(memory.upgrade().is_some());
        drop(vcpu);
        assert!(memory.upgrade().is_none());
    }

    #[test]
    fn a_vcpu_id_twice_is_refused() {
        if !require("kvm", usable()) {
            return;
        }
        let vm = Vm::new(Irqchip::None).unwrap();
        let _first = vm.vcpu(0).unwrap();
        let error = vm.vcpu(0).unwrap_err().to_string();
        assert!(error.starts_with("The kernel refused to create a vCPU: "), "{error}");
    }
}
