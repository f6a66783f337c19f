//! All the unsafe code of reaching and holding a stats fd: KVM's two ioctls that lead to
//! statistics, and fds that are used without touching their owners.
//!
//! Invariant: everything here is safe to call with any fd whatever. A request number means
//! something only to the driver behind the fd, so a file that cannot be KVM's never sees ours.

#![allow(unsafe_code, reason = "no safe crate has these calls, or fds with shared owners")]

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstatfs;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// The kernel's `KVM_CAP_BINARY_STATS_FD`.
pub(crate) const CAP_BINARY_STATS_FD: usize = 203;

/// The type byte of KVM's ioctls.
const KVMIO: u8 = 0xAE;
const CHECK_EXTENSION: Opcode = opcode::none(KVMIO, 0x03);
const GET_STATS_FD: Opcode = opcode::none(KVMIO, 0xCE);

/// The type that `fstatfs` reports for anonymous inodes, as the files of VMs and vCPUs are.
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;

/// Opens the statistics of a VM or a vCPU: the kernel's `KVM_GET_STATS_FD` (Linux 5.14).
///
/// For a vCPU it waits for `KVM_RUN` to return, which it may never do: call it before the vCPU's
/// first run or on the vCPU's own thread. [`OwnKvm`](crate::OwnKvm) takes care of that.
///
/// # Errors
/// `EIO` if the VM belongs to another process, `ENOTTY` or `EINVAL` if the fd is no VM and no vCPU
/// or the kernel is older, `EMFILE` or `ENOMEM` if there is no room.
pub fn kvm_get_stats_fd(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let stats = request::<GET_STATS_FD>(fd, 0)?;
    debug_assert!(stats >= 0);
    // SAFETY: the number must be an open fd that nobody else owns.
    // - `request` has made sure that KVM answered: another driver would have refused.
    // - A VM and a vCPU answer with a new file's fd, installed for this call alone
    //   (`kvm_vm_ioctl_get_stats_fd`, `kvm_vcpu_ioctl_get_stats_fd`); KVM's devices refuse.
    // - It is not negative: rustix has made an error of such an answer.
    Ok(unsafe { OwnedFd::from_raw_fd(stats) })
}

/// Asks the VM for a capability (`KVM_CHECK_EXTENSION`): returns 0 if it does not have it, else
/// more.
pub(crate) fn kvm_check_extension(vm: BorrowedFd<'_>, capability: usize) -> io::Result<i32> {
    request::<CHECK_EXTENSION>(vm, capability)
}

fn request<const OPCODE: Opcode>(fd: BorrowedFd<'_>, argument: usize) -> io::Result<c_int> {
    // Needs no /proc, which a jailed VMM does not have.
    if fstatfs(fd)?.f_type as u64 != ANON_INODE_FS_MAGIC {
        return Err(Errno::NOTTY.into());
    }
    // SAFETY: the request must be one that this fd's driver takes as we mean it, and its argument
    // valid for that.
    // - The file is an anonymous inode, so its driver is KVM, which takes both requests as meant,
    //   or one that refuses them: type 0xAE is KVM's. (Nitro Enclaves share it among anonymous
    //   inodes, with numbers 0x20 to 0x24.)
    // - Neither request has a pointer for argument: 0x03 takes an integer, 0xCE ignores it. So
    //   the kernel neither reads nor writes memory of ours.
    Ok(unsafe { ioctl(fd, Request::<OPCODE> { argument }) }?)
}

/// A request with an integer for argument and another for answer.
struct Request<const OPCODE: Opcode> {
    argument: usize,
}

// SAFETY: the trait asks that the opcode and pointer be those of the request, that `IS_MUTATING`
// be true if the kernel writes behind the pointer, and that `output_from_ptr` read only what is
// there. Here the "pointer" is an integer that nobody follows, and the output is the system call's
// own return value.
unsafe impl<const OPCODE: Opcode> Ioctl for Request<OPCODE> {
    type Output = c_int;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.argument)
    }

    // SAFETY: nothing is asked of the caller: the pointer is not followed.
    unsafe fn output_from_ptr(answer: IoctlOutput, _: *mut c_void) -> rustix::io::Result<c_int> {
        Ok(answer)
    }
}

/// Fds kept open by their owners, side by side: on the tick, following a pointer to each owner
/// costs 5 ns a vCPU (measured over 64), as much as all else that we do around a read.
#[derive(Debug)]
pub(crate) struct HeldFds {
    /// The descriptors, which are given out for no longer than the owners are held.
    fds: Box<[BorrowedFd<'static>]>,
    _owners: Box<[Arc<OwnedFd>]>,
}

impl HeldFds {
    pub(crate) fn new(owners: Box<[Arc<OwnedFd>]>) -> Self {
        let held = |owner: &Arc<OwnedFd>| {
            debug_assert!(owner.as_raw_fd() >= 0);
            // SAFETY: the number must be a fd that stays open for as long as the borrow lasts.
            // - It is an owner's, which closes it only when it is dropped, and never changes it: an
            //   `OwnedFd` cannot be changed behind a shared reference.
            // - The borrow leaves this value only with a borrow of it (`HeldFds::all`), and this
            //   value holds the owner.
            unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
        };
        Self { fds: owners.iter().map(held).collect(), _owners: owners }
    }

    #[inline]
    pub(crate) fn all(&self) -> &[BorrowedFd<'_>] {
        &self.fds
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn requests_have_the_kernels_numbers() {
        assert_eq!(GET_STATS_FD, 0xAECE);
        assert_eq!(CHECK_EXTENSION, 0xAE03);
    }

    #[test]
    fn a_file_that_is_not_kvms_is_refused() {
        let file = File::open("/dev/null").unwrap();
        let anonymous = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        for fd in [file.as_fd(), anonymous.as_fd()] {
            let error = kvm_get_stats_fd(fd).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NOTTY));
        }
    }

    #[test]
    fn a_vm_has_the_capability_and_its_statistics() {
        let Some(vm) = vmstrobe_testing::vm() else { return };
        assert!(kvm_check_extension(vm.fd(), CAP_BINARY_STATS_FD).unwrap() > 0);
        assert_eq!(kvm_check_extension(vm.fd(), 1 << 30).unwrap(), 0);
        kvm_get_stats_fd(vm.fd()).unwrap();
    }
}
