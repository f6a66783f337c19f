//! The requirements of tests on the machine: a test without its requirement is skipped or fails.
//!
//! A test that cannot run says so on standard output and passes; `ci/test.sh` repeats those lines
//! at its end. Where `VMSTROBE_REQUIRE` names the missing thing (`VMSTROBE_REQUIRE=kvm,qemu`, as CI
//! sets it), the test fails instead.
//!
//! Invariant: this crate depends on no other, so that the unit tests of every crate can use it.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::Write;

/// Names the things that must be there, separated by commas; without them tests fail.
const REQUIRE_ENV: &str = "VMSTROBE_REQUIRE";

/// Returns true if the thing is there; else prints `skipped: TEST: WHAT: WHY` and returns false.
///
/// # Panics
///
/// If it is not there although `VMSTROBE_REQUIRE` names it.
pub fn require(what: &str, available: Result<(), impl Display>) -> bool {
    let promised = std::env::var(REQUIRE_ENV).unwrap_or_default();
    let Some(why) = missing(what, available, &promised) else { return true };
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a thread without a name");
    // libtest captures the output of print! and shows it only if a test fails; this it lets pass.
    let line = format!("skipped: {test}: {what}: {why}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("standard output takes a line");
    false
}

/// Returns true if `/dev/kvm` can be used, as [`require`] does for `kvm`.
///
/// # Panics
///
/// As [`require`] does.
pub fn require_kvm() -> bool {
    require("kvm", kvm())
}

/// Opens `/dev/kvm` for reading and writing, and closes it.
///
/// # Errors
///
/// The reason why it cannot be opened, as a text.
pub fn kvm() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
}

/// Returns the reason why the thing is missing, if it is; panics if it was promised.
fn missing(what: &str, available: Result<(), impl Display>, promised: &str) -> Option<String> {
    let why = available.err()?.to_string();
    let named = promised.split(',').any(|name| name.trim() == what);
    assert!(!named, "{REQUIRE_ENV}={promised} promises {what}, but: {why}");
    Some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_that_is_there_is_not_missing() {
        assert_eq!(missing("kvm", Ok::<(), String>(()), "kvm"), None);
    }

    #[test]
    fn a_thing_that_is_not_promised_may_be_missing() {
        for promised in ["", "qemu", "kvm2,nokvm"] {
            let why = missing("kvm", Err("gone"), promised);
            assert_eq!(why.as_deref(), Some("gone"), "promised: {promised}");
        }
    }

    #[test]
    #[should_panic(expected = "VMSTROBE_REQUIRE=qemu, kvm promises kvm, but: gone")]
    fn a_promised_thing_must_be_there() {
        missing("kvm", Err("gone"), "qemu, kvm");
    }
}
