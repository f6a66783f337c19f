//! Helpers that the tests of the providers share: checks of what the machine has, and one way to
//! read.
//!
//! Invariant: a test that cannot run says so by [`require`].

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

pub mod snapshots;
pub mod random;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use vmstrobe_core::{Mask, Object, Provider, ReadPlan, RowState, Rows, Source};
use vmstrobe_guest::{Irqchip, Vm};
pub use vmstrobe_require::{kvm, require};

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
