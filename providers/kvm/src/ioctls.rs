//! The descriptors of the crate kvm-ioctls, as they are given to [`OwnKvm`](crate::OwnKvm).
//!
//! kvm-ioctls (0.25) gives only the numbers of its descriptors. The borrow of a number is unsafe,
//! and it is here so that no VMM has to write it.
//!
//! Invariant: what is borrowed here lives as long as the value that owns it is borrowed.

#![allow(unsafe_code, reason = "kvm-ioctls has no AsFd")]

use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_ioctls::{VcpuFd, VmFd};

use crate::own::KvmFdRef;

impl<'a> From<&'a VmFd> for KvmFdRef<'a> {
    fn from(vm: &'a VmFd) -> Self {
        debug_assert!(vm.as_raw_fd() >= 0);
        // SAFETY: the number must be that of a descriptor that stays open as long as the borrow.
        // - A `VmFd` owns its descriptor, never changes it, and closes it when it is dropped.
        // - It is borrowed for as long as what this returns.
        Self(unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) })
    }
}

impl<'a> From<&'a VcpuFd> for KvmFdRef<'a> {
    fn from(vcpu: &'a VcpuFd) -> Self {
        debug_assert!(vcpu.as_raw_fd() >= 0);
        // SAFETY: as above; a `VcpuFd` owns its descriptor in the same way.
        Self(unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) })
    }
}
