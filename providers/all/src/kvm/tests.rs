//! Helpers of the tests of KVM's readers: the descriptors of a process, listed and taken.

use std::os::fd::{OwnedFd, RawFd};

use vmstrobe_host::{Care, Host, KvmLink, Process};

/// KVM's descriptors of a process, ascending.
pub(crate) fn kvm_links(pid: u32) -> Vec<(RawFd, KvmLink)> {
    let seen = Host::default().look(pid, Care { makers: false, ..Care::FULL }).unwrap();
    seen.kvm.iter().map(|seen| (seen.fd, seen.link)).collect()
}

/// A duplicate of a descriptor of KVM's.
pub(crate) fn borrow(process: &Process, fd: RawFd, link: KvmLink) -> OwnedFd {
    Host::default().borrow(process, &[(fd, Some(link))]).unwrap().remove(0).unwrap()
}
