//! Kernels on which a statistics descriptor does not keep what it reads.
//!
//! There, once the VM has ended, a read is of freed memory: the VMM may end at any time, so such a
//! descriptor of another process is not safe to hold. Fixed by "KVM: Grab a reference to KVM for VM
//! and vCPU stats file descriptors" in Linux 6.5, and in 6.4.8, 6.1.43 and 5.15.124.

use rustix::system::uname;
use vmstrobe_core::{Error, ErrorKind};

/// The releases in which it was fixed, with those before which it was not.
const FIXED: [[u32; 3]; 4] = [[6, 5, 0], [6, 4, 8], [6, 1, 43], [5, 15, 124]];

/// Returns the release of this kernel, if its statistics descriptors may outlive their VM.
pub fn unsafe_release() -> Option<String> {
    let name = uname();
    let release = name.release().to_string_lossy();
    (!keeps_its_vm(&release)).then(|| release.into_owned())
}

/// Makes the error for a VM whose statistics descriptors must not be held on that release.
pub fn refusal(whose: &str, release: &str) -> Error {
    let text = format!(
        "{whose} is not attached to: this kernel ({release}) reads freed memory through a \
         statistics descriptor whose VM has ended. Update it (fixed in 6.5, 6.4.8, 6.1.43 and \
         5.15.124), or, if it has the fix, say so (--on-any-kernel). A process id can also be \
         attached to by the BPF reader, which needs none"
    );
    Error::new(ErrorKind::Unsupported, text)
}

/// Whether a statistics descriptor of that release keeps its VM. What is no release does.
fn keeps_its_vm(release: &str) -> bool {
    let numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut numbers = numbers.map_while(std::result::Result::ok);
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else { return true };
    let release = [major, minor, numbers.next().unwrap_or(0)];
    let [main, stable @ ..] = FIXED;
    let is_fixed = |fixed: &[u32; 3]| release[..2] == fixed[..2] && release >= *fixed;
    release >= main || stable.iter().any(is_fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_by_their_numbers() {
        for (release, keeps) in [
            ("6.5.0", true),
            ("6.18.44-fc", true),
            ("7.0-rc1", true),
            ("6.4.8", true),
            ("6.4.7-arch1", false),
            ("6.3.13", false),
            ("6.1.43", true),
            ("6.1.42", false),
            ("6.1.0-18-amd64", false),
            ("5.15.124", true),
            ("5.15.0-91-generic", false),
            ("5.14.0-362.el9", false),
            ("5.16.20", false),
            ("custom", true),
        ] {
            assert_eq!(keeps_its_vm(release), keeps, "{release}");
        }
    }
}
