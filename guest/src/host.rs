//! What the host lets us do: opening `/dev/kvm`, and the words for each refusal.
//!
//! Invariant: every error says in one line what failed, why, and what to do next; no text needs
//! its source to be understood, so there is no source chain.

use std::io;

use kvm_bindings::KVM_API_VERSION;
use kvm_ioctls::Kvm;

/// `KVM_CAP_BINARY_STATS_FD`, absent from kvm-ioctls' list of capabilities.
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

/// Why a guest could not be built or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// KVM is absent, out of reach, or too old for binary statistics.
    #[error("/dev/kvm {reason}: {advice}")]
    Unusable {
        /// What is wrong with it.
        reason: String,
        /// What the user can do about it.
        advice: &'static str,
    },
    /// The kernel refused one step of building or running a guest.
    #[error("The kernel refused to {step}: {errno}: {}", advice(.errno))]
    Refused {
        /// What was asked of it, as a verb phrase.
        step: &'static str,
        /// Its answer.
        errno: io::Error,
    },
    /// A vCPU came back for a reason its program cannot have.
    #[error("vCPU {vcpu} stopped unexpectedly ({reason}): see the kernel log, then report it")]
    Stray {
        /// The vCPU's id.
        vcpu: u32,
        /// The exit, or what became of its thread.
        reason: String,
    },
    /// The demo guest was asked for a number of vCPUs it has no room for.
    #[error("A demo guest cannot have {asked} vCPUs: choose 1 to {max}")]
    VcpuCount {
        /// The number asked for.
        asked: u32,
        /// The largest possible number.
        max: u32,
    },
}

/// Whether guests of this crate can run here and be sampled.
///
/// Makes an empty VM and drops it again, which takes some milliseconds.
///
/// # Errors
/// [`Error::Unusable`], whose text says why and what to do.
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
    Kvm::new().map_err(|errno| unopened(errno.into()))
}

/// Turns the kernel's answer to `step` (a verb phrase) into our error.
pub(crate) fn refused(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |errno| Error::Refused { step, errno: errno.into() }
}

fn unopened(errno: io::Error) -> Error {
    let (why, advice) = match errno.raw_os_error() {
        Some(EACCES | EPERM) => {
            ("permission denied".to_owned(), "add yourself to group kvm or run as root")
        }
        Some(ENOENT | ENXIO | ENODEV) => (
            "no such device".to_owned(),
            "load the kvm module (modprobe kvm_intel or kvm_amd) or enable virtualisation",
        ),
        _ => (errno.to_string(), advice(&errno)),
    };
    Error::Unusable { reason: format!("cannot be opened: {why}"), advice }
}

fn advice(errno: &io::Error) -> &'static str {
    match errno.raw_os_error() {
        Some(EMFILE | ENFILE) => "raise the limit on open files (ulimit -n) or ask for fewer vCPUs",
        Some(ENOMEM) => "free some memory or ask for fewer vCPUs",
        _ => "see the kernel log",
    }
}

/// For tests: true, and a line says why, where KVM is unusable.
///
/// Panics instead when the environment variable `VMSTROBE_REQUIRE` lists `kvm`.
#[cfg(test)]
pub(crate) fn skipped() -> bool {
    use std::io::Write;

    let Err(why) = usable() else { return false };
    let required = std::env::var("VMSTROBE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name.trim() == "kvm"), "kvm is required: {why}");
    writeln!(io::stdout(), "skipped: kvm: {why}").unwrap();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(errno: i32, text: &str) {
        assert_eq!(unopened(io::Error::from_raw_os_error(errno)).to_string(), text);
    }

    #[test]
    fn a_refused_open_says_why_and_what_to_do() {
        check(
            EACCES,
            "/dev/kvm cannot be opened: permission denied: \
             add yourself to group kvm or run as root",
        );
        check(
            ENOENT,
            "/dev/kvm cannot be opened: no such device: \
             load the kvm module (modprobe kvm_intel or kvm_amd) or enable virtualisation",
        );
        check(
            EMFILE,
            "/dev/kvm cannot be opened: Too many open files (os error 24): \
             raise the limit on open files (ulimit -n) or ask for fewer vCPUs",
        );
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
}
