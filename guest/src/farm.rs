//! Many vCPUs that do not run, each with a real statistics fd, for benches.
//!
//! Invariant: the vCPUs of a farm run only in [`Farm::run_each`]. At other times none of them holds
//! `vcpu->mutex` and no counter changes: two readings of an idle farm have the same bytes.
//!
//! A vCPU costs one fd, about 100 kB of kernel memory and no thread. Dropping 1024 of them takes
//! the kernel some tens of milliseconds.

use crate::error::Error;
use crate::host;
use crate::known;
use crate::machine::{Irqchip, Vcpu, Vm};

/// A number of vCPUs that do not run, in as few VMs as KVM allows.
///
/// ```no_run
/// # fn main() -> Result<(), vmstrobe_guest::Error> {
/// let farm = vmstrobe_guest::Farm::new(256)?;
/// for vcpu in farm.vms().iter().flat_map(|vm| vm.vcpus()) {
///     println!("vCPU {}: {:?}", vcpu.id(), vcpu.fd());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Farm {
    vms: Vec<FarmVm>,
}

/// One VM of a [`Farm`], with its vCPUs.
#[derive(Debug)]
pub struct FarmVm {
    vm: Vm,
    vcpus: Vec<Vcpu>,
}

impl Farm {
    /// Creates `vcpus` vCPUs. Each VM has as many as KVM allows (often 1024), the last the rest.
    ///
    /// Each vCPU and each VM needs an fd, and a second one for its statistics.
    ///
    /// # Errors
    /// If KVM is unusable, or fds or memory run out.
    pub fn new(vcpus: usize) -> Result<Farm, Error> {
        Self::with_vcpus_per_vm(vcpus, host::open()?.get_max_vcpus())
    }

    /// Creates `vcpus` vCPUs with at most `vcpus_per_vm` in each VM; 0 counts as 1.
    ///
    /// # Errors
    /// The errors of [`Farm::new`], and if `vcpus_per_vm` is more than KVM allows.
    pub fn with_vcpus_per_vm(vcpus: usize, vcpus_per_vm: usize) -> Result<Farm, Error> {
        let vcpus_per_vm = vcpus_per_vm.max(1);
        let vms = (0..vcpus)
            .step_by(vcpus_per_vm)
            .map(|first| FarmVm::new(vcpus_per_vm.min(vcpus - first)))
            .collect::<Result<_, _>>()?;
        Ok(Farm { vms })
    }

    /// Makes each vCPU in turn execute `outs` port writes and `halts` halts, on this thread, so
    /// that its counters are not 0.
    ///
    /// # Errors
    /// The errors of [`KnownGuest::run`](crate::KnownGuest::run).
    pub fn run_each(&self, outs: u32, halts: u32) -> Result<(), Error> {
        let mut vcpus = self.vms.iter().flat_map(|vm| &vm.vcpus);
        vcpus.try_for_each(|vcpu| known::run(vcpu, outs, halts).map(drop))
    }

    /// Returns the VMs, in order of creation.
    pub fn vms(&self) -> &[FarmVm] {
        &self.vms
    }
}

impl FarmVm {
    fn new(vcpus: usize) -> Result<FarmVm, Error> {
        let vm = Vm::new(Irqchip::None)?;
        let vcpus = (0..vcpus as u32).map(|id| vm.vcpu(id)).collect::<Result<_, _>>()?;
        Ok(FarmVm { vm, vcpus })
    }

    /// Returns the VM.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// Returns its vCPUs; the index is the vCPU's id.
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::os::fd::AsRawFd;

    use vmstrobe_require::require;

    use super::*;
    use crate::host::usable;

    fn check(farm: &Farm, sizes: &[usize]) {
        let seen: Vec<_> = farm.vms().iter().map(|vm| vm.vcpus().len()).collect();
        assert_eq!(seen, sizes);
        let mut fds = HashSet::new();
        for vm in farm.vms() {
            assert!(fds.insert(vm.vm().fd().as_raw_fd()));
            for (id, vcpu) in vm.vcpus().iter().enumerate() {
                assert_eq!(vcpu.id() as usize, id);
                assert!(fds.insert(vcpu.fd().as_raw_fd()));
            }
        }
    }

    #[test]
    fn sixty_four_vcpus_share_a_vm() {
        if !require("kvm", usable()) {
            return;
        }
        check(&Farm::new(64).unwrap(), &[64]);
    }

    #[test]
    fn each_vcpu_can_be_run() {
        if !require("kvm", usable()) {
            return;
        }
        let farm = Farm::with_vcpus_per_vm(6, 4).unwrap();
        farm.run_each(2, 1).unwrap();
        farm.run_each(0, 1).unwrap();
    }

    #[test]
    fn the_last_vm_takes_the_rest() {
        if !require("kvm", usable()) {
            return;
        }
        check(&Farm::with_vcpus_per_vm(10, 4).unwrap(), &[4, 4, 2]);
        check(&Farm::new(0).unwrap(), &[]);
    }

    #[test]
    fn too_many_vcpus_in_a_vm_are_refused() {
        if !require("kvm", usable()) {
            return;
        }
        let too_many = host::open().unwrap().get_max_vcpus() + 1;
        let error = Farm::with_vcpus_per_vm(too_many, too_many).unwrap_err().to_string();
        assert!(error.starts_with("The kernel refused to create a vCPU: "), "{error}");
    }
}
