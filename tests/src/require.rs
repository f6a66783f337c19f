//! The requirements of tests on the machine, such as KVM or QEMU.
//!
//! A test that cannot run says so on standard output and passes; `ci/test.sh` repeats those lines
//! at its end. Where `VMSTROBE_REQUIRE` names the missing thing (`VMSTROBE_REQUIRE=kvm,qemu`, as CI
//! sets it), the test fails instead.

use std::fs::OpenOptions;

use vmstrobe_providers::{Bpf, BpfMode};

use crate::host::namespace;
use crate::qemu;

pub use vmstrobe_testing::{REQUIRE_ENV, kvm, require};

/// [`require`] for `kvm`.
pub fn require_kvm() -> bool {
    require("kvm", kvm())
}

/// [`require`] for `qemu`.
pub fn require_qemu() -> bool {
    require("qemu", qemu())
}

/// [`require`] for `qemu-8.1`, from which on QEMU keeps stats fds open that can be borrowed.
pub fn require_lending_qemu() -> bool {
    require("qemu-8.1", lending_qemu())
}

/// [`require`] for `qemu-7.2`, or what is like it: see [`qemu::older`].
pub fn require_older_qemu() -> bool {
    require("qemu-7.2", qemu::older().and_then(|_| kvm()))
}

/// [`require`] for `bpf`: the BPF reader.
pub fn require_bpf() -> bool {
    require("bpf", bpf())
}

/// [`require`] for `namespaces`: of processes and of mounts, made by root, who may become any user.
pub fn require_namespaces() -> bool {
    require("namespaces", namespace::available())
}

/// [`require`] for `fuse`: file systems whose server is a process.
pub fn require_fuse() -> bool {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    require("fuse", opened.map(drop).map_err(|error| format!("/dev/fuse: {error}")))
}

/// Whether a `qemu-system-x86_64` is on the path and can use KVM; else why not.
pub fn qemu() -> Result<(), String> {
    qemu::version()?;
    kvm()
}

/// Whether the BPF reader can be used: programs can be loaded, and read what pread does; else
/// why not.
pub fn bpf() -> Result<(), String> {
    Bpf::new(BpfMode::Require).check().map_err(|error| error.to_string())
}

/// Whether there is a QEMU that keeps its stats fds open; else why not.
fn lending_qemu() -> Result<(), String> {
    let (major, minor) = qemu::version()?;
    if (major, minor) >= (8, 1) {
        return kvm();
    }
    Err(format!("QEMU {major}.{minor} keeps no stats fds open"))
}
