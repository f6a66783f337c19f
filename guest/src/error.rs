//! The error of this crate.
//!
//! Invariant: every error says in one line what failed, why, and what to do next; no text needs
//! its source to be understood, so there is no source chain.

use std::io;

// The errno values that this crate tells apart, whatever was asked for.
/// A signal came; the call is to be made again.
pub(crate) const EINTR: i32 = 4;
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
pub(crate) const EMFILE: i32 = 24;

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

/// Returns a function that makes an [`Error`] of the kernel's answer to `step` (a verb phrase).
pub(crate) fn refused(step: &'static str) -> impl Fn(kvm_ioctls::Error) -> Error {
    move |errno| Error::Refused { step, errno: errno.into() }
}

/// Returns what to do about an error of the kernel.
pub(crate) fn advice(errno: &io::Error) -> &'static str {
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
