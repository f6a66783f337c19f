//! Memory with a file's name and descriptor (`memfd_create`).

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::path::Arg;

/// Creates a memfd that is closed on exec and cannot be executed.
///
/// # Errors
/// As `memfd_create(2)`.
pub fn memfd(name: impl Arg + Copy, flags: MemfdFlags) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = flags | MemfdFlags::CLOEXEC;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Linux 6.3 wants to be told whether it may be executed; earlier ones do not know the flag.
        Err(Errno::INVAL) => memfd_create(name, flags),
        made => made,
    }
}
