//! The requirements of tests on the machine, such as KVM or QEMU.
//!
//! A test that cannot run says so on standard output and passes; `ci/test.sh` repeats those lines
//! at its end. Where `VMSTROBE_REQUIRE` names the missing thing (`VMSTROBE_REQUIRE=kvm,qemu`, as CI
//! sets it), the test fails instead.

use std::fs::OpenOptions;
use std::io::Write;

use vmstrobe_providers::{Bpf, BpfMode};

use crate::host::namespace;
use crate::qemu;

/// Names the things that must be there, separated by commas; without them tests fail, not skip.
pub const REQUIRE_ENV: &str = "VMSTROBE_REQUIRE";

/// True if the thing is there; else prints `skipped: <test>: <what>: <why>` and returns false.
///
/// # Panics
///
/// If it is not there although [`REQUIRE_ENV`] names it.
pub fn require(what: &str, available: Result<(), String>) -> bool {
    let promised = std::env::var(REQUIRE_ENV).unwrap_or_default();
    let Some(why) = missing(what, available, &promised) else { return true };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a thread without a name");
    // libtest captures what print! writes, and shows it only when a test fails. This it lets pass.
    let line = format!("skipped: {test}: {what}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output takes a line");
    false
}

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

/// Whether /dev/kvm opens for reading and writing; else why not.
pub fn kvm() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
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

/// Why the thing is missing, if it is; panics if it was promised.
fn missing(what: &str, available: Result<(), String>, promised: &str) -> Option<String> {
    let why = available.err()?;
    let named = promised.split(',').any(|name| name.trim() == what);
    assert!(!named, "{REQUIRE_ENV}={promised} promises {what}, but: {why}");
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_missing() {
        assert_eq!(missing("kvm", Ok(()), "kvm"), None);
    }

    #[test]
    fn what_is_not_promised_may_be_missing() {
        for promised in ["", "qemu", "kvm2,nokvm"] {
            let why = missing("kvm", Err("gone".to_owned()), promised);
            assert_eq!(why.as_deref(), Some("gone"), "promised: {promised}");
        }
    }

    #[test]
    #[should_panic(expected = "VMSTROBE_REQUIRE=qemu, kvm promises kvm, but: gone")]
    fn what_is_promised_must_be_there() {
        missing("kvm", Err("gone".to_owned()), "qemu, kvm");
    }
}
