//! Helpers that the tests of the providers share: checks of what the machine has, and one way to
//! read.
//!
//! Invariant: a test that cannot run says so on standard output, and fails instead where
//! `VMSTROBE_REQUIRE` (a comma list) promises the thing.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use vmstrobe_core::{Mask, Object, Provider, ReadPlan, RowState, Rows, Source};
use vmstrobe_guest::{Irqchip, Vm};

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

/// Whether /dev/kvm opens for reading and writing; else why not.
pub fn kvm() -> Result<(), String> {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
}

/// Whether KVM can be used here.
pub fn has_kvm() -> bool {
    require("kvm", kvm())
}

/// A QEMU that keeps stats fds open: 8.1 or later.
pub fn has_lending_qemu() -> bool {
    let lending = || -> Option<(u32, u32)> {
        let said = Command::new("qemu-system-x86_64").arg("--version").output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let mut numbers = said.split("version ").nth(1)?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    };
    let version = lending().filter(|version| *version >= (8, 1));
    require("qemu-8.1", version.ok_or("there is none".to_owned()).and_then(|_| kvm()))
}

/// A VM without vCPUs; `None` where there is no KVM.
pub fn vm() -> Option<Vm> {
    has_kvm().then(|| Vm::new(Irqchip::None).unwrap())
}

/// Waits until it is so; false if it never is.
pub fn soon(limit: Duration, mut so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// True if this process has an fd of that link.
pub fn has_link(link: &str) -> bool {
    let links = fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    links.into_iter().any(|held| held.to_str() == Some(link))
}

/// Opens these objects, all of one schema, for everything they have.
pub fn open_all(provider: &dyn Provider, objects: &[Object]) -> Vec<Box<dyn Source>> {
    let schema = &objects[0].schema;
    provider.open(objects, &ReadPlan::new(schema, &Mask::all(schema))).unwrap()
}

/// One tick: what became of the rows, and their words.
pub fn tick(source: &mut dyn Source, row_words: usize) -> (Vec<RowState>, Vec<u64>) {
    let mut states = vec![RowState::Missing; source.rows()];
    let mut words = vec![u64::MAX; source.rows() * row_words];
    source.read(Rows::new(&mut words, &mut states, row_words));
    (states, words)
}

/// As [`tick`], of a source opened by [`open_all`].
pub fn states(source: &mut dyn Source, like: &Object) -> Vec<RowState> {
    tick(source, like.schema.data_bytes() / 8).0
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
