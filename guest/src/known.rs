//! A guest that makes a known number of exits to user space: `out`s, then `hlt`s.
//!
//! Invariant: between two runs the vCPU does not run and has no I/O half done, so a run adds
//! exactly its own `out`s and `hlt`s. The kernel's `halt_exits` then grows by exactly the halts,
//! and `exits` by at least both, because it also counts the host's interrupts and page faults.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::code::{KNOWN_ENTRY, PORT_WORK, stack_top};
use crate::error::{EINTR, Error, refused};
use crate::machine::{Irqchip, Vcpu, Vm};
use crate::processor;

/// A VM without interrupt controllers and with one vCPU, each of whose exits is counted.
#[derive(Debug)]
pub struct KnownGuest {
    vm: Vm,
    vcpu: Vcpu,
}

/// The exits to user space that one run made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// The number of port writes.
    pub outs: u64,
    /// The number of halts.
    pub halts: u64,
}

impl KnownGuest {
    /// Builds the guest; nothing runs yet.
    ///
    /// # Errors
    /// If KVM is unusable or refuses a step.
    pub fn new() -> Result<KnownGuest, Error> {
        let vm = Vm::new(Irqchip::None)?;
        Ok(KnownGuest { vcpu: vm.vcpu(0)?, vm })
    }

    /// Returns the VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Returns the only vCPU.
    pub fn vcpu(&self) -> &Vcpu {
        &self.vcpu
    }

    /// Makes the guest execute `outs` port writes and then `halts` halts, on the calling thread.
    ///
    /// It can be called again. Returns the exits that the guest made, which are those asked for
    /// unless the guest or the kernel is wrong.
    ///
    /// # Errors
    /// If KVM refuses to run it, or the vCPU exits for another reason.
    pub fn run(&self, outs: u32, halts: u32) -> Result<Exits, Error> {
        run(&self.vcpu, outs, halts)
    }
}

/// Makes a vCPU execute `outs` port writes and `halts` halts. The program needs no stack, so the
/// vCPUs of a VM can run it in turn.
pub(crate) fn run(vcpu: &Vcpu, outs: u32, halts: u32) -> Result<Exits, Error> {
    let (id, mut vcpu) = (vcpu.id(), vcpu.hold());
    processor::enter(&vcpu, KNOWN_ENTRY, stack_top(0), outs)?;
    let mut seen = Exits::default();
    while seen.outs + seen.halts < u64::from(outs) + u64::from(halts) {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(PORT_WORK, _)) => seen.outs += 1,
            Ok(VcpuExit::Hlt) => seen.halts += 1,
            Ok(exit) => return Err(Error::Stray { vcpu: id, reason: format!("{exit:?}") }),
            Err(errno) if errno.errno() == EINTR => {}
            Err(errno) => return Err(refused("run a vCPU")(errno)),
        }
    }
    settle(&mut vcpu)?;
    Ok(seen)
}

/// Lets KVM finish the last `out`: it does so at the start of the next run, not at the exit.
fn settle(vcpu: &mut VcpuFd) -> Result<(), Error> {
    vcpu.set_kvm_immediate_exit(1);
    let outcome = vcpu.run().map(|exit| format!("{exit:?}"));
    vcpu.set_kvm_immediate_exit(0);
    match outcome {
        Err(errno) if errno.errno() == EINTR => Ok(()),
        Err(errno) => Err(refused("settle a vCPU")(errno)),
        Ok(reason) => Err(Error::Stray { vcpu: 0, reason }),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use vmstrobe_require::require;

    use super::*;
    use crate::host::usable;

    fn check(guest: &KnownGuest, outs: u32, halts: u32) {
        let want = Exits { outs: outs.into(), halts: halts.into() };
        assert_eq!(guest.run(outs, halts).unwrap(), want);
    }

    #[test]
    fn a_run_makes_the_requested_exits() {
        if !require("kvm", usable()) {
            return;
        }
        let guest = KnownGuest::new().unwrap();
        for (outs, halts) in [(4, 1), (1, 0), (0, 1), (0, 0), (1, 0), (1000, 500), (70_000, 3)] {
            check(&guest, outs, halts);
        }
    }

    #[test]
    fn another_thread_may_run_it() {
        if !require("kvm", usable()) {
            return;
        }
        let guest = KnownGuest::new().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| check(&guest, 10, 10));
        });
        check(&guest, 5, 5);
    }
}
