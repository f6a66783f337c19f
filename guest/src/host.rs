//! Access to `/dev/kvm` on this host, and the message for each refusal.
//!
//! Invariant: a refusal is blamed on what the host shows to be the reason, and on nothing else.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

use crate::error::{Error, advice};
use crate::processor::check_processor;

// The errno values that say why it does not open.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;

/// The number of `KVM_CAP_BINARY_STATS_FD`, which kvm-ioctls does not have.
const CAP_BINARY_STATS_FD: u64 = 203;

/// Checks that guests of this crate can run here and be sampled.
///
/// It makes an empty VM and drops it again, which takes some milliseconds.
///
/// # Errors
/// [`Error::Unusable`] or [`Error::OtherProcessor`], whose text says why and what to do.
pub fn usable() -> Result<(), Error> {
    let kvm = open()?;
    let version = kvm.get_api_version();
    if version != KVM_API_VERSION as i32 {
        let reason = format!("speaks API version {version}, not {KVM_API_VERSION}");
        return Err(Error::Unusable { reason, advice: "use Linux 5.14 or later" });
    }
    if kvm.check_extension_raw(CAP_BINARY_STATS_FD) <= 0 {
        let reason = "has no binary statistics (KVM_CAP_BINARY_STATS_FD)".to_owned();
        return Err(Error::Unusable { reason, advice: "use Linux 5.14 or later" });
    }
    // The device opens even when another hypervisor holds the CPU; only a VM shows it.
    kvm.create_vm().map(drop).map_err(|errno| Error::Unusable {
        reason: format!("cannot create a VM: {}", io::Error::from(errno)),
        advice: "stop any other hypervisor, then see the kernel log",
    })
}

/// Opens `/dev/kvm`.
pub(crate) fn open() -> Result<Kvm, Error> {
    check_processor()?;
    Kvm::new().map_err(|errno| unopened(errno.into(), Device::find()))
}

/// The facts about `/dev/kvm` that explain why it does not open.
#[derive(Clone, Copy, Debug, Default)]
struct Device {
    /// Its owner, group and mode, if there is such a file.
    access: Option<(u32, u32, u32)>,
    /// Whether the kernel has KVM's core, as a module or built in.
    has_module: bool,
    /// Whether the processor offers virtualisation to this system.
    has_virtualisation: bool,
}

impl Device {
    fn find() -> Self {
        let access = fs::metadata("/dev/kvm").ok();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            access: access.map(|at| (at.st_uid(), at.st_gid(), at.st_mode() & 0o777)),
            has_module: Path::new("/sys/module/kvm").exists(),
            // If there are no flags, as on arm64, nothing is known.
            has_virtualisation: !cpu.contains("flags")
                || cpu.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"),
        }
    }
}

fn unopened(errno: io::Error, device: Device) -> Error {
    let (why, advice) = match (errno.raw_os_error(), device.access) {
        (Some(EACCES), Some((user, group, mode))) => (
            format!(
                "permission denied: it belongs to user {user} and group {group}, with mode \
                 {mode:04o}"
            ),
            "add yourself to that group (usermod -aG, then log in again) or run as root",
        ),
        (Some(EACCES), None) => {
            ("permission denied".to_owned(), "add yourself to group kvm or run as root")
        }
        (Some(EPERM), _) => (
            "a device policy forbids it, of a container or a service".to_owned(),
            "allow the device there (--device /dev/kvm, DeviceAllow=/dev/kvm)",
        ),
        (Some(ENOENT | ENXIO | ENODEV), access) => {
            let why = if access.is_none() { "there is no such device" } else { "no such device" };
            (why.to_owned(), absent(device))
        }
        _ => (errno.to_string(), advice(&errno)),
    };
    Error::Unusable { reason: format!("cannot be opened: {why}"), advice }
}

/// Returns the advice if there is no `/dev/kvm`, or no KVM behind it.
fn absent(device: Device) -> &'static str {
    if device.has_module && device.access.is_none() {
        "the kernel has KVM: give the container its device (--device /dev/kvm)"
    } else if device.has_virtualisation {
        "load the kvm module (modprobe kvm_intel or kvm_amd)"
    } else {
        "the processor offers no virtualisation here: enable it in the firmware, or in the \
         hypervisor that this system runs on"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::EMFILE;

    #[test]
    fn a_refused_open_says_why_and_what_to_do() {
        let root = Some((0, 104, 0o660));
        let with = |access, has_module, has_virtualisation| Device {
            access,
            has_module,
            has_virtualisation,
        };
        for (errno, device, want) in [
            (
                EACCES,
                with(root, true, true),
                "permission denied: it belongs to user 0 and group 104, with mode 0660: add \
                 yourself to that group (usermod -aG, then log in again) or run as root",
            ),
            (
                EACCES,
                Device::default(),
                "permission denied: add yourself to group kvm or run as root",
            ),
            (
                EPERM,
                with(root, true, true),
                "a device policy forbids it, of a container or a service: allow the device there \
                 (--device /dev/kvm, DeviceAllow=/dev/kvm)",
            ),
            (
                ENOENT,
                with(None, true, true),
                "there is no such device: the kernel has KVM: give the container its device \
                 (--device /dev/kvm)",
            ),
            (
                ENOENT,
                with(None, false, true),
                "there is no such device: load the kvm module (modprobe kvm_intel or kvm_amd)",
            ),
            (
                ENODEV,
                with(root, false, false),
                "no such device: the processor offers no virtualisation here: enable it in the \
                 firmware, or in the hypervisor that this system runs on",
            ),
            (
                EMFILE,
                with(root, true, true),
                "Too many open files (os error 24): raise the limit on open files (ulimit -n) or \
                 ask for fewer vCPUs",
            ),
        ] {
            let text = unopened(io::Error::from_raw_os_error(errno), device).to_string();
            assert_eq!(text, format!("/dev/kvm cannot be opened: {want}"));
        }
    }
}
