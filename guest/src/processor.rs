//! The state of x86-64 in which the programs of this crate run: real mode, an x2APIC.
//!
//! Invariant: all that is of x86-64 alone is here and in `code.rs`, so that another file can stand
//! in for this one on another processor.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::{VcpuFd, VmFd};

use crate::error::{Error, refused};

/// The address of three pages that KVM on old Intel CPUs needs to emulate real mode, as in QEMU.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// The bits of IA32_APIC_BASE that switch on the APIC (bit 11) and its access through MSRs (bit
/// 10).
const X2APIC_ON: u64 = 0b11 << 10;

/// Checks that guests of this crate can run on this processor, which is so.
///
/// # Errors
/// None here; on other processors [`Error::OtherProcessor`].
pub fn check_processor() -> Result<(), Error> {
    Ok(())
}

/// Sets up what a VM of this processor needs before its vCPUs.
pub(crate) fn set_up_vm(vm: &VmFd) -> Result<(), Error> {
    vm.set_tss_address(TSS_ADDRESS).map_err(refused("set the TSS address"))
}

/// Points `vcpu` at a program, in real mode with flat segments at 0 and interrupts off.
pub(crate) fn enter(vcpu: &VcpuFd, entry: u16, stack: u16, ecx: u32) -> Result<(), Error> {
    let step = refused("set a vCPU's registers");
    let mut sregs = vcpu.get_sregs().map_err(&step)?;
    // After reset cs points at a BIOS, which these guests do not have.
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs).map_err(&step)?;

    let mut regs = vcpu.get_regs().map_err(&step)?;
    regs.rip = entry.into();
    regs.rsp = stack.into();
    regs.rcx = ecx.into();
    regs.rflags = 1 << 1; // always set
    vcpu.set_regs(&regs).map_err(&step)
}

/// Gives a vCPU a local APIC that is programmed through MSRs.
pub(crate) fn give_x2apic(vcpu: &VcpuFd) -> Result<(), Error> {
    // KVM lets a guest have an x2APIC only if its CPUID says so. The program asks for nothing
    // else, so it need not inherit the rest of the host's CPUID.
    let leaf_1 = kvm_cpuid_entry2 {
        function: 1,
        ecx: 1 << 21,                  // x2APIC
        edx: 1 << 4 | 1 << 5 | 1 << 9, // TSC, MSR, APIC
        ..Default::default()
    };
    let leaf_0 = kvm_cpuid_entry2 { eax: leaf_1.function, ..Default::default() };
    let cpuid = CpuId::from_entries(&[leaf_0, leaf_1]).expect("two entries are below the limit");
    vcpu.set_cpuid2(&cpuid).map_err(refused("set a vCPU's CPUID"))?;

    let step = refused("switch a vCPU to x2APIC");
    let mut sregs = vcpu.get_sregs().map_err(&step)?;
    sregs.apic_base |= X2APIC_ON;
    vcpu.set_sregs(&sregs).map_err(&step)
}
