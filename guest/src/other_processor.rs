//! The stand-in for `processor.rs` on every processor but x86-64: no guest can be made.
//!
//! Invariant: nothing of a guest is begun, because [`check_processor`] is asked first.

use kvm_ioctls::{VcpuFd, VmFd};

use crate::error::Error;

/// Checks that guests of this crate can run on this processor, which is not so.
///
/// # Errors
/// [`Error::OtherProcessor`], always.
pub fn check_processor() -> Result<(), Error> {
    Err(Error::OtherProcessor)
}

pub(crate) fn set_up_vm(_: &VmFd) -> Result<(), Error> {
    check_processor()
}

pub(crate) fn enter(_: &VcpuFd, _: u16, _: u16, _: u32) -> Result<(), Error> {
    check_processor()
}

pub(crate) fn give_x2apic(_: &VcpuFd) -> Result<(), Error> {
    check_processor()
}
