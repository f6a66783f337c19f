//! The descriptors of a process, as /proc shows them, and copies of this process's own.

use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use rustix::process::{
    PidfdFlags, PidfdGetfdFlags, Resource, Rlimit, getpid, getrlimit, pidfd_getfd, pidfd_open,
    setrlimit,
};

/// The link of a VM's own descriptor.
pub const VM: &str = "anon_inode:kvm-vm";
/// The beginning of the link of a vCPU's own descriptor.
pub const VCPU: &str = "anon_inode:kvm-vcpu:";
/// The beginning of the link of a vCPU's statistics descriptor.
pub const VCPU_STATS: &str = "anon_inode:kvm-vcpu-stats:";

/// Counts the descriptors that a process has open.
///
/// # Errors
///
/// If the process is not there.
pub fn count(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Returns the numbers of this process's descriptors whose links begin so, in ascending order.
///
/// # Errors
///
/// If /proc cannot be read.
pub fn own(begin: &str) -> io::Result<Vec<RawFd>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The directory's own descriptor may be gone by then.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        if link.to_string_lossy().starts_with(begin) {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.parse().ok());
            numbers.push(number.ok_or_else(|| io::Error::other(format!("{name:?} in /proc")))?);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Duplicates the descriptor with that number of this process.
///
/// # Errors
///
/// If there is none of that number, or no more descriptors can be had.
pub fn copy(number: RawFd) -> io::Result<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(&this, number, PidfdGetfdFlags::empty())?)
}

/// Raises this process's limit of descriptors as far as it may.
///
/// # Errors
///
/// If the kernel refuses.
pub fn raise_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
