//! The kernel's description of its types, to be falsified: a copy of the files, in which single
//! numbers are changed by their place.
//!
//! Invariant: it looks for what it changes in its own way, and not by the parser that is tested.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use vmstrobe_testing::require;

use crate::offsets::BTF_DIR;

/// `BTF_KIND_STRUCT`, and others.
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;

/// Bytes of a `struct btf_type`, and of a `struct btf_member`.
const HEAD_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;

/// The bytes of vmlinux's types; only where KVM is among them.
pub(crate) struct Types {
    bytes: Vec<u8>,
    types: usize,
    types_end: usize,
    strings: usize,
}

/// A directory of such files, gone when dropped.
pub(crate) struct BtfDir(PathBuf);

impl Types {
    /// Reads the types of this kernel; `None` where it does not give them, or KVM is a module.
    pub(crate) fn read() -> Option<Self> {
        let path = Path::new(BTF_DIR).join("vmlinux");
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()));
        if !require("btf", bytes.as_ref().map(drop).map_err(Clone::clone)) {
            return None;
        }
        let bytes = bytes.unwrap();
        let word = |at| u32_at(&bytes, at) as usize;
        let (first, types, strings) = (word(4), word(4) + word(8), word(4) + word(16));
        let types = Self { types_end: types + word(12), types, strings, bytes };
        assert!(first >= 24);
        let has_kvm = types.find(STRUCT, "kvm_vcpu").is_some();
        let why = "KVM is a module: vmlinux does not describe it";
        let available = if has_kvm { Ok(()) } else { Err(why.to_owned()) };
        require("btf-kvm-built-in", available).then_some(types)
    }

    pub(crate) fn has_function(&self, name: &str) -> bool {
        self.find(FUNC, name).is_some()
    }

    /// Changes the size of a struct.
    pub(crate) fn resize(&mut self, of: &str, by: i32) -> &mut Self {
        let at = self.find(STRUCT, of).unwrap() + 8;
        self.add(at, by)
    }

    /// Moves a member of a struct by so many bytes.
    pub(crate) fn shift(&mut self, of: &str, name: &str, by_bytes: i32) -> &mut Self {
        let at = self.member(of, name) + 8;
        self.add(at, by_bytes * 8)
    }

    /// Makes a member of a struct one of another's type.
    pub(crate) fn retype(&mut self, of: &str, name: &str, like: (&str, &str)) -> &mut Self {
        let (at, like) = (self.member(of, name) + 4, self.member(like.0, like.1) + 4);
        self.bytes.copy_within(like..like + 4, at);
        self
    }

    /// Puts a member of a struct where another of it is.
    pub(crate) fn move_to(&mut self, of: &str, name: &str, there: &str) -> &mut Self {
        let (at, there) = (self.member(of, name) + 8, self.member(of, there) + 8);
        self.bytes.copy_within(there..there + 4, at);
        self
    }

    /// Gives all that has this name another one.
    pub(crate) fn rename(&mut self, name: &str) -> &mut Self {
        let name = format!("\0{name}\0").into_bytes();
        let strings = &mut self.bytes[self.strings..];
        let at = strings.windows(name.len()).position(|bytes| bytes == name).unwrap();
        strings[at + 1] = b'!';
        self
    }

    /// A module's types on top of these: nothing but a struct of these, of which these then know
    /// nothing.
    pub(crate) fn split(&mut self, of: &str) -> Vec<u8> {
        let record = self.find(STRUCT, of).unwrap();
        let members = (u32_at(&self.bytes, record + 4) & 0xffff) as usize;
        let mut record = self.bytes[record..record + HEAD_BYTES + members * MEMBER_BYTES].to_vec();
        self.rename(of);
        // Its name goes on from these names, its members' are among them.
        let name = self.bytes.len() - self.strings;
        record[..4].copy_from_slice(&(name as u32).to_ne_bytes());
        let names = format!("{of}\0").into_bytes();
        let mut module = self.bytes[..4].to_vec();
        for word in [24, 0, record.len(), record.len(), names.len()] {
            module.extend((word as u32).to_ne_bytes());
        }
        module.extend(record);
        module.extend(names);
        module
    }

    /// Writes them down.
    pub(crate) fn dir(&self) -> BtfDir {
        let dir = BtfDir::empty();
        dir.write("vmlinux", &self.bytes);
        dir
    }

    fn add(&mut self, at: usize, by: i32) -> &mut Self {
        let value = u32_at(&self.bytes, at).checked_add_signed(by).unwrap();
        self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    /// Returns the offset of each record, in the order of their ids, which begin at 1.
    fn records(&self) -> impl Iterator<Item = usize> {
        let is_inside = |at: &usize| *at < self.types_end;
        let next = move |at: &usize| Some(at + self.record_bytes(*at)).filter(is_inside);
        std::iter::successors(Some(self.types).filter(is_inside), next)
    }

    fn record_bytes(&self, at: usize) -> usize {
        let (kind, count) = self.kind_and_count(at);
        let behind = match kind {
            1 | 14 | 17 => 4,
            3 => 12,
            STRUCT | UNION | 15 | 19 => MEMBER_BYTES * count,
            6 | 13 => 8 * count,
            _ => 0,
        };
        HEAD_BYTES + behind
    }

    fn kind_and_count(&self, at: usize) -> (u32, usize) {
        let info = u32_at(&self.bytes, at + 4);
        (info >> 24 & 0x1f, (info & 0xffff) as usize)
    }

    /// Returns the offset of the first record of that kind and name.
    fn find(&self, kind: u32, name: &str) -> Option<usize> {
        let is_it = |at: &usize| self.kind_and_count(*at).0 == kind && self.is_named(*at, name);
        self.records().find(is_it)
    }

    /// Returns the offset of a member's record, also inside of a member without a name.
    fn member(&self, of: &str, name: &str) -> usize {
        self.member_within(self.find(STRUCT, of).unwrap(), name).unwrap()
    }

    fn member_within(&self, record: usize, name: &str) -> Option<usize> {
        let (kind, count) = self.kind_and_count(record);
        if kind != STRUCT && kind != UNION {
            return None;
        }
        let mut members = (0..count).map(|at| record + HEAD_BYTES + at * MEMBER_BYTES);
        members.clone().find(|at| self.is_named(*at, name)).or_else(|| {
            let inner = |at: usize| {
                let id = u32_at(&self.bytes, at + 4) as usize;
                self.is_named(at, "").then(|| self.records().nth(id - 1).unwrap())
            };
            members.find_map(|at| self.member_within(inner(at)?, name))
        })
    }

    fn is_named(&self, at: usize, name: &str) -> bool {
        let start = self.strings + u32_at(&self.bytes, at) as usize;
        self.bytes[start..].starts_with(name.as_bytes()) && self.bytes[start + name.len()] == 0
    }
}

impl BtfDir {
    pub(crate) fn empty() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmstrobe-btf-{}-{count}", std::process::id());
        let dir = Self(std::env::temp_dir().join(name));
        fs::create_dir(&dir.0).unwrap();
        dir
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.join(name), bytes).unwrap();
    }
}

impl Drop for BtfDir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap())
}
