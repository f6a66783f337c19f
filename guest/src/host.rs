//! Access to `/dev/kvm` on this host, and the message for each refusal.
//!
//! Invariant: every error says in one line what failed, why, and what to do next; no text needs
//! its source to be understood, so there is no source chain.

use std::fs;
use std::io;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

use crate::processor::check_processor;

/// The number of `KVM_CAP_BINARY_STATS_FD`, which kvm-ioctls does not have.
const CAP_BINARY_STATS_FD: u64 = 203;

// The errno values that this crate tells apart.
const EPERM: i32 = 1;
const ENOENT: i32 = 2;
/// A signal came; the call is to be made again.
pub(crate) const EINTR: i32 = 4;
const ENXIO: i32 = 6;
const ENOMEM: i32 = 12;
const EACCES: i32 = 13;
const ENODEV: i32 = 19;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// The reason why a guest could not be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The guests are x86-64 programs, and this processor is another.
    #[error(
        "vmstrobe's own guests run on x86-64 alone, and this processor is {}: read a virtual \
         machine of another program instead",
        std::env::consts::ARCH
    )]
    OtherProcessor,
    /// KVM is absent, not accessible, or too old for binary statistics.
    #[error("/dev/kvm {reason}: {advice}")]
    Unusable {
        /// The fault of `/dev/kvm`, as a verb phrase.
        reason: String,
        /// Advice for the user.
        advice: &'static str,
    },
    /// The kernel refused one step of building or running a guest.
    #[error("The kernel refused to {step}: {errno}: {}", advice(.errno))]
    Refused {
        /// The step that was refused, as a verb phrase.
        step: &'static str,
        /// The kernel's answer.
        errno: io::Error,
    },
    /// A vCPU stopped for a reason that its program cannot cause.
    #[error("vCPU {vcpu} stopped unexpectedly ({reason}): see the kernel log, then report it")]
    Stray {
        /// The vCPU's id.
        vcpu: u32,
        /// The exit, or the fate of its thread.
        reason: String,
    },
    /// A demo guest cannot have this number of vCPUs.
    #[error("A demo guest cannot have {asked} vCPUs: use 1 to {max}")]
    VcpuCount {
        /// The number asked for.
        asked: u32,
        /// The largest possible number.
        max: u32,
    },
}

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

/// Returns a function that makes an [`Error`] of the kernel's answer to `step` (a verb phrase).
pub(crate) fn refused(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |errno| Error::Refused { step, errno: errno.into() }
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

fn advice(errno: &io::Error) -> &'static str {
    match errno.raw_os_error() {
        Some(EMFILE | ENFILE) => "raise the limit on open files (ulimit -n) or ask for fewer vCPUs",
        Some(ENOMEM) => "free some memory or ask for fewer vCPUs",
        _ => "see the kernel log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_refused_step_names_the_step() {
        let error = refused("create a vCPU")(kvm_ioctls::Error::new(ENOMEM));
        assert_eq!(
            error.to_string(),
            "The kernel refused to create a vCPU: Cannot allocate memory (os error 12): \
             free some memory or ask for fewer vCPUs"
        );
    }

    #[test]
    fn another_processor_is_named_and_what_can_be_done_there() {
        let text = Error::OtherProcessor.to_string();
        assert!(text.contains(std::env::consts::ARCH) && text.contains("read a virtual"), "{text}");
    }
}
