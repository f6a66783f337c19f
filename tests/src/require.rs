//! The requirements of tests on QEMU, BPF, namespaces and FUSE, beside those on KVM.
//!
//! Each `require_*` returns true if the thing is there, and else does as [`require`] does: it says
//! on standard output that the test is skipped, or panics where the thing was promised.

use std::fs::OpenOptions;
use std::process::Command;

use vmstrobe::bpf::{Bpf, BpfMode};
pub use vmstrobe_require::{kvm, require, require_kvm};

use crate::host::namespace;
use crate::qemu;

/// Requires `qemu`: a `qemu-system-x86_64` on the path that can use KVM.
pub fn require_qemu() -> bool {
    require("qemu", qemu())
}

/// Requires `qemu-8.1`: a QEMU that keeps stats fds open, as it does from 8.1 on.
pub fn require_lending_qemu() -> bool {
    require("qemu-8.1", lending_qemu())
}

/// Requires `qemu-7.2`: a QEMU that keeps no stats fds open, see [`qemu::older`].
pub fn require_older_qemu() -> bool {
    require("qemu-7.2", qemu::older().and_then(|_| kvm()))
}

/// Requires `bpf`: a system that permits the BPF reader.
pub fn require_bpf() -> bool {
    require("bpf", bpf())
}

/// Requires `namespaces`: root, which may make namespaces of processes and of mounts.
pub fn require_namespaces() -> bool {
    require("namespaces", namespace::available())
}

/// Requires `fuse`: file systems whose server is a process.
pub fn require_fuse() -> bool {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    require("fuse", opened.map(drop).map_err(|error| format!("/dev/fuse: {error}")))
}

/// Requires `tmux`: a terminal whose screen can be looked at.
pub fn require_tmux() -> bool {
    let version = Command::new("tmux").arg("-V").output();
    require("tmux", version.map(drop).map_err(|error| format!("tmux: {error}")))
}

/// Checks that a `qemu-system-x86_64` is on the path and can use KVM.
///
/// # Errors
///
/// The reason why it is not or cannot.
pub fn qemu() -> Result<(), String> {
    qemu::version()?;
    kvm()
}

/// Checks that the BPF reader can be used: programs can be loaded, and read the values of pread.
///
/// # Errors
///
/// The reason why it cannot.
pub fn bpf() -> Result<(), String> {
    Bpf::new(BpfMode::Require).check().map_err(|error| error.to_string())
}

/// Checks that there is a QEMU that keeps its stats fds open; the error says why not.
fn lending_qemu() -> Result<(), String> {
    let (major, minor) = qemu::version()?;
    if (major, minor) >= (8, 1) {
        return kvm();
    }
    Err(format!("QEMU {major}.{minor} keeps no stats fds open"))
}
