//! Types of a kernel and of a module of it, damaged: they are refused, or what is found in them
//! keeps its promises.
//!
//! The input is where the module's bytes begin (two bytes, little-endian), then vmlinux's bytes and
//! the module's. The names that are asked for are the last in it. That real types are understood
//! rightly is the tests' business.

#![no_main]

// Nobody outside the crate has a use for it, so it has no door.
#[path = "../../providers/bpf/src"]
mod bpf {
    pub(crate) mod btf;
}

use libfuzzer_sys::fuzz_target;
use vmstrobe_core::{Error, ErrorKind};

use bpf::btf::{Btf, MAX_STRUCT_BYTES, Member, Shape, TypeId};

/// The number of names; each pair of them is asked whether one is the other's member.
const NAMES: usize = 20;

fuzz_target!(|input: &[u8]| {
    let Some((at, bytes)) = input.split_first_chunk() else { return };
    let at = usize::from(u16::from_le_bytes(*at)).min(bytes.len());
    let (vmlinux, module) = bytes.split_at(at);
    let pieces = bytes.rsplit(|&byte| byte == 0).filter_map(|piece| str::from_utf8(piece).ok());
    let mut names: Vec<&str> = pieces.filter(|name| !name.is_empty()).take(NAMES).collect();
    names.push("");
    match Btf::parse(vmlinux) {
        Ok(alone) => {
            ask(&alone, &names);
            let kernel = |id: &Option<TypeId>| id.is_none_or(|id| alone.is_vmlinux(id));
            assert!(names.iter().all(|name| kernel(&alone.struct_named(name))));
            match Btf::with_module(vmlinux, module) {
                Ok(both) => {
                    ask(&both, &names);
                    comes_first(&alone, &both, &names);
                }
                Err(error) => is_refusal(&error),
            }
        }
        Err(error) => {
            is_refusal(&error);
            let again = Btf::with_module(vmlinux, module)
                .err()
                .expect("a module is not parsed without a valid vmlinux");
            assert_eq!(again.to_string(), error.to_string());
        }
    }
});

fn is_refusal(error: &Error) {
    let kind = error.kind();
    assert!(matches!(kind, ErrorKind::Malformed | ErrorKind::TooLarge | ErrorKind::Unsupported));
}

/// Checks that a module hides nothing that vmlinux has.
fn comes_first(alone: &Btf<'_>, both: &Btf<'_>, names: &[&str]) {
    for name in names {
        for (before, now) in [
            (alone.struct_named(name), both.struct_named(name)),
            (alone.function(name), both.function(name)),
        ] {
            assert!(before.is_none() || now.is_some_and(|now| both.is_vmlinux(now)), "{name:?}");
        }
    }
}

fn ask(btf: &Btf<'_>, names: &[&str]) {
    for name in names {
        if let Some(function) = btf.function(name) {
            assert!(!name.is_empty() && function.get() > 0);
            assert_eq!(btf.size_bytes(function), None, "a function is no value");
        }
        let whole = btf.struct_named(name);
        let path = btf.path(name, &[]);
        assert_eq!(whole, path.as_ref().ok().map(|found| found.type_id));
        let Some(whole) = whole else { continue };
        assert!(!name.is_empty() && whole.get() > 0);
        for member in names {
            let found = btf.member(whole, member);
            assert_eq!(found, btf.path(name, &[member]).ok(), "{name}.{member}");
            found.inspect(|found| lies_inside(btf, whole, found));
        }
        for pair in names.windows(2) {
            through(btf, name, pair);
        }
    }
}

fn lies_inside(btf: &Btf<'_>, whole: TypeId, found: &Member) {
    let size = btf.size_bytes(found.type_id).expect("only a type with a size is found");
    let end = found.offset_bytes.checked_add(size).expect("a member ends within its type");
    assert!(end <= MAX_STRUCT_BYTES && Some(end) <= btf.size_bytes(whole));
    assert!(found.shape == Shape::Inline || size == 8, "an address has 8 bytes");
}

/// A path of two is the second in the first.
fn through(btf: &Btf<'_>, name: &str, pair: &[&str]) {
    match btf.path(name, pair) {
        Ok(found) => {
            let first = btf.path(name, &pair[..1]).expect("the path goes through it");
            let second = btf.member(first.type_id, pair[1]).expect("the path leads to it");
            assert_eq!(first.shape, Shape::Inline);
            assert_eq!(found.offset_bytes, first.offset_bytes + second.offset_bytes);
            assert_eq!((found.type_id, found.shape), (second.type_id, second.shape));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported),
    }
}
