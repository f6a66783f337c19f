//! BTF by hand, whole, split, damaged and hostile; and the real one where it can be read.

use std::fs;
use std::io::Write;

use vmstrobe_core::Target;
use vmstrobe_kvm::{NewVcpu, OwnKvm};
use vmstrobe_testing::vm;

use super::*;

const FLAG: u32 = 1 << 31;
const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
const KVM: &str = "/sys/kernel/btf/kvm";

/// BTF by hand. Ids and names go on from those of a base, if there is one.
#[derive(Clone)]
struct Build {
    types: Vec<u8>,
    strings: Vec<u8>,
    layout: Vec<u8>,
    last_id: u32,
    base_strings: u32,
}

impl Build {
    fn new() -> Self {
        let (types, layout) = (Vec::new(), Vec::new());
        Self { types, strings: vec![0], layout, last_id: 0, base_strings: 0 }
    }

    fn on(base: &Self) -> Self {
        let base_strings = base.strings.len() as u32;
        Self { strings: Vec::new(), last_id: base.last_id, base_strings, ..Self::new() }
    }

    fn name(&mut self, name: &str) -> u32 {
        if name.is_empty() {
            return 0;
        }
        let at = self.base_strings + self.strings.len() as u32;
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        at
    }

    /// A record; `info` is the flag and the count.
    fn add(&mut self, kind: u8, name: &str, info: u32, word: u32, rest: &[u32]) -> u32 {
        let name = self.name(name);
        self.types
            .extend([name, u32::from(kind) << 24 | info, word].map(u32::to_ne_bytes).concat());
        self.types.extend(rest.iter().flat_map(|word| word.to_ne_bytes()));
        self.last_id += 1;
        self.last_id
    }

    fn int(&mut self, name: &str, bytes: u32) -> u32 {
        self.add(kind::INT, name, 0, bytes, &[bytes * 8])
    }

    /// A struct or union, whose members are a name, a type and an offset as it stands there.
    fn of(&mut self, kind: u8, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
        let words = |&(name, id, offset): &(&str, u32, u32)| [self.name(name), id, offset];
        let rest: Vec<u32> = members.iter().flat_map(words).collect();
        self.add(kind, name, members.len() as u32, bytes, &rest)
    }

    fn structure(&mut self, name: &str, bytes: u32, members: &[(&str, u32, u32)]) -> u32 {
        self.of(kind::STRUCT, name, bytes, members)
    }

    fn pointer(&mut self, to: u32) -> u32 {
        self.add(kind::PTR, "", 0, to, &[])
    }

    fn array(&mut self, of: u32, elements: u32) -> u32 {
        self.add(kind::ARRAY, "", 0, 0, &[of, 0, elements])
    }

    fn bytes(&self) -> Vec<u8> {
        let with_layout = !self.layout.is_empty();
        let lens = [&self.types, &self.strings, &self.layout].map(|part| part.len() as u32);
        let header = if with_layout { 32 } else { 24 };
        let mut words = vec![u32::from_ne_bytes(head_word()), header, 0, lens[0], lens[0], lens[1]];
        if with_layout {
            words.extend([lens[0] + lens[1], lens[2]]);
        }
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        bytes.extend([&self.types[..], &self.strings, &self.layout].concat());
        bytes
    }
}

fn head_word() -> [u8; 4] {
    let [a, b] = 0xeb9f_u16.to_ne_bytes();
    [a, b, 1, 0]
}

fn id(id: u32) -> TypeId {
    TypeId(id)
}

fn inline(offset_bytes: u32, type_id: u32) -> Option<Member> {
    Some(Member { offset_bytes, type_id: TypeId(type_id), shape: Shape::Inline })
}

fn pointer(offset_bytes: u32, type_id: u32) -> Option<Member> {
    Some(Member { offset_bytes, type_id: TypeId(type_id), shape: Shape::Pointer })
}

#[track_caller]
fn refused(parsed: Result<Btf<'_>>, kind: ErrorKind, text: &str) {
    let error = parsed.err().unwrap();
    assert_eq!((error.kind(), &*error.to_string()), (kind, text));
}

#[test]
fn members_are_where_the_types_say() {
    let mut build = Build::new();
    let (long, int) = (build.int("u64", 8), build.int("u32", 4));
    let to = build.pointer(0);
    let four = build.array(int, 4);
    let inner = build.structure("inner", 16, &[("x", long, 0), ("y", int, 64)]);
    let value = build.add(kind::ENUM, "e", 0, 4, &[]);
    let members = [
        ("a", int, 0),
        ("p", to, 64),
        ("in", inner, 128),
        ("four", four, 256),
        ("e", value, 384),
        ("none", 0, 0),
        ("gone", 99, 0),
    ];
    let outer = build.structure("outer", 56, &members);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.struct_named("outer"), Some(id(outer)));
    for (name, want) in [
        ("a", inline(0, int)),
        ("p", pointer(8, to)),
        ("in", inline(16, inner)),
        ("four", inline(32, four)),
        ("e", inline(48, value)),
        ("x", None),
        ("none", None),
        ("gone", None),
        ("", None),
        ("ou", None),
        ("outer", None),
    ] {
        assert_eq!(btf.member(id(outer), name), want, "{name}");
    }
    for not_a_struct in [0, int, to, four, outer + 1, u32::MAX] {
        assert_eq!(btf.member(id(not_a_struct), "a"), None);
    }
    assert_eq!(btf.struct_named("outer").unwrap().get(), outer);
}

#[test]
fn members_without_a_name_are_looked_into() {
    let mut build = Build::new();
    let (long, int) = (build.int("u64", 8), build.int("u32", 4));
    let deep = build.structure("", 16, &[("deep", int, 96)]);
    let both = build.of(kind::UNION, "", 16, &[("first", long, 0), ("", deep, 0)]);
    let constant = build.add(kind::CONST, "", 0, both, &[]);
    let named = build.structure("", 8, &[("hidden", long, 0)]);
    let members = [("", long, 0), ("", constant, 64), ("named", named, 192), ("last", long, 256)];
    let outer = build.structure("outer", 40, &members);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for (name, want) in [
        ("first", inline(8, long)),
        ("deep", inline(20, int)),
        ("named", inline(24, named)),
        ("last", inline(32, long)),
        ("hidden", None),
        ("", None),
    ] {
        assert_eq!(btf.member(id(outer), name), want, "{name}");
    }
    assert_eq!(btf.member(id(constant), "first"), inline(0, long), "behind a qualifier");
}

#[test]
fn nesting_has_a_limit() {
    let mut build = Build::new();
    let byte = build.int("u8", 1);
    let mut inner = build.structure("", 1, &[("x", byte, 0)]);
    for _ in 0..MAX_NESTING {
        inner = build.structure("", 1, &[("", inner, 0)]);
    }
    let over = build.structure("", 1, &[("", inner, 0), ("y", byte, 0)]);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member(id(inner), "x"), inline(0, byte));
    assert_eq!(btf.member(id(over), "x"), None);
    assert_eq!(btf.member(id(over), "y"), inline(0, byte));
}

#[test]
fn structs_inside_themselves_end() {
    let mut build = Build::new();
    let empty = build.structure("me", 0, &[("", 1, 0), ("", 1, 0)]);
    // 64 to the power of the nesting, if all were looked at.
    let mut wide = build.structure("", 0, &[]);
    for _ in 0..MAX_NESTING {
        wide = build.structure("", 0, &vec![("", wide, 0); 64]);
    }
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for of in [empty, wide] {
        assert_eq!(btf.member(id(of), "x"), None);
    }
}

#[test]
fn looking_for_a_member_has_a_limit() {
    let mut build = Build::new();
    let byte = build.int("u8", 1);
    let mut members = vec![("a", byte, 0); MAX_MEMBERS];
    *members.last_mut().unwrap() = ("last", byte, 8);
    let most = build.structure("", 2, &members);
    members.insert(0, ("first", byte, 0));
    let over = build.structure("", 2, &members);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member(id(most), "last"), inline(1, byte));
    assert_eq!(btf.member(id(over), "last"), None);
    assert_eq!(btf.member(id(over), "first"), inline(0, byte));
}

#[test]
fn bitfields_are_not_found() {
    let mut build = Build::new();
    let int = build.int("u32", 4);
    let bool = build.int("_Bool", 1);
    let narrow = build.add(kind::INT, "narrow", 0, 4, &[31]);
    let shifted = build.add(kind::INT, "shifted", 0, 4, &[8 << 16 | 32]);
    let huge = build.add(kind::INT, "huge", 0, 1 << 29, &[0]);
    let members = [
        ("plain", int, 32),
        ("bool", bool, 64),
        ("unaligned", int, 33),
        ("narrow", narrow, 0),
        ("shifted", shifted, 0),
        ("huge", huge, 0),
    ];
    let old = build.structure("old", 1 << 29, &members);
    let members = [("plain", int, 32), ("bit", int, 1 << 24), ("all", int, 32 << 24 | 64)];
    let members = members.map(|(name, id, offset)| [build.name(name), id, offset]).concat();
    let new = build.add(kind::STRUCT, "new", FLAG | 3, 1 << 29, &members);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    assert_eq!(btf.member(id(old), "plain"), inline(4, int));
    assert_eq!(btf.member(id(old), "bool"), inline(8, bool));
    for name in ["unaligned", "narrow", "shifted", "huge"] {
        assert_eq!(btf.member(id(old), name), None, "{name}");
    }
    assert_eq!(btf.member(id(new), "plain"), inline(4, int));
    for name in ["bit", "all"] {
        assert_eq!(btf.member(id(new), name), None, "{name}");
    }
}

#[test]
fn members_lie_inside_their_struct() {
    let mut build = Build::new();
    let long = build.int("u64", 8);
    let members = [("fits", long, 64), ("over", long, 72), ("far", long, u32::MAX - 7)];
    let small = build.structure("small", 16, &members);
    let largest = build.structure("largest", MAX_STRUCT_BYTES, &[("last", long, !0 - 63)]);
    let larger = build.structure("larger", MAX_STRUCT_BYTES + 1, &[("first", long, 0)]);
    let inside = build.structure("inside", 8, &[("", small, 0), ("own", long, 0)]);
    let flexible = build.array(long, 0);
    let tail = build.structure("tail", 8, &[("own", long, 0), ("rest", flexible, 64)]);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for (of, name, want) in [
        (small, "fits", inline(8, long)),
        (small, "over", None),
        (small, "far", None),
        (largest, "last", inline(MAX_STRUCT_BYTES - 8, long)),
        (larger, "first", None),
        (inside, "fits", None),
        (inside, "own", inline(0, long)),
        (tail, "rest", inline(8, flexible)),
    ] {
        assert_eq!(btf.member(id(of), name), want, "{name}");
    }
}

#[test]
fn sizes_are_those_of_values() {
    let mut build = Build::new();
    let int = build.int("u32", 4);
    let cases = [
        (kind::STRUCT, 24, Some(24)),
        (kind::UNION, 3, Some(3)),
        (kind::ENUM, 4, Some(4)),
        (kind::ENUM64, 8, Some(8)),
        (kind::FLOAT, 2, Some(2)),
        (kind::PTR, 0, Some(8)),
        (kind::TYPEDEF, int, Some(4)),
        (kind::CONST, int, Some(4)),
        (kind::VOLATILE, int, Some(4)),
        (kind::RESTRICT, int, Some(4)),
        (kind::TYPE_TAG, int, Some(4)),
        (kind::TYPEDEF, 0, None),
        (kind::TYPEDEF, 9999, None),
        (kind::FWD, 4, None),
        (kind::FUNC, 4, None),
        (kind::FUNC_PROTO, 4, None),
        (kind::DATASEC, 4, None),
    ];
    let ids = cases.map(|(kind, word, _)| build.add(kind, "", 0, word, &[]));
    let var = build.add(kind::VAR, "v", 0, int, &[0]);
    let tag = build.add(kind::DECL_TAG, "t", 0, int, &[0]);
    let row = build.array(int, 5);
    let table = build.array(row, 3);
    let over = build.array(table, u32::MAX / 60 + 1);
    let half = build.array(int, 1 << 16);
    let square = build.array(half, 1 << 16);
    let itself = build.array(square + 1, 2);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for ((kind, _, want), at) in cases.into_iter().zip(ids) {
        assert_eq!(btf.size_bytes(id(at)), want, "kind {kind}");
    }
    let others = [(row, Some(20)), (table, Some(60)), (var, None), (tag, None)];
    for (at, want) in others.into_iter().chain([over, square, itself, 0].map(|at| (at, None))) {
        assert_eq!(btf.size_bytes(id(at)), want, "type {at}");
    }
}

#[test]
fn chains_have_a_limit_and_loops_end() {
    for kind in [kind::TYPEDEF, kind::CONST, kind::ARRAY] {
        let mut build = Build::new();
        let link = |to: u32, build: &mut Build| match kind {
            kind::ARRAY => build.array(to, 1),
            kind => build.add(kind, "", 0, to, &[]),
        };
        let mut last = build.int("u32", 4);
        for _ in 0..MAX_CHAIN {
            last = link(last, &mut build);
        }
        let over = link(last, &mut build);
        let itself = link(over + 1, &mut build);
        let pair = link(itself + 2, &mut build);
        link(pair, &mut build);
        let bytes = build.bytes();
        let btf = Btf::parse(&bytes).unwrap();
        assert_eq!(btf.size_bytes(id(last)), Some(4));
        for at in [over, itself, pair] {
            assert_eq!(btf.size_bytes(id(at)), None);
            assert_eq!(btf.member(id(at), "x"), None);
        }
    }
}

#[test]
fn of_one_name_the_first_whole_struct_counts() {
    let mut build = Build::new();
    build.add(kind::FWD, "twice", 0, 0, &[]);
    build.of(kind::UNION, "twice", 1, &[]);
    build.add(kind::TYPEDEF, "twice", 0, 2, &[]);
    let first = build.structure("twice", 2, &[]);
    build.structure("twice", 3, &[]);
    build.structure("", 4, &[]);
    let proto = build.add(kind::FUNC_PROTO, "", 0, 0, &[]);
    let function = build.add(kind::FUNC, "twice", 1, proto, &[]);
    let mut module = Build::on(&build);
    module.structure("twice", 5, &[]);
    let own = module.structure("own", 6, &[]);
    module.add(kind::FUNC, "twice", 0, proto, &[]);
    let own_function = module.add(kind::FUNC, "mine", 2, proto, &[]);
    let (vmlinux, module) = (build.bytes(), module.bytes());
    let alone = Btf::parse(&vmlinux).unwrap();
    let both = Btf::with_module(&vmlinux, &module).unwrap();
    for btf in [&alone, &both] {
        assert_eq!(btf.struct_named("twice"), Some(id(first)));
        assert_eq!(btf.function("twice"), Some(id(function)));
        assert_eq!(btf.struct_named(""), None);
        assert_eq!(btf.struct_named("twic"), None);
        assert!(btf.is_vmlinux(id(1)) && btf.is_vmlinux(id(function)));
        assert!(!btf.is_vmlinux(id(0)) && !btf.is_vmlinux(id(function + 1)));
    }
    assert_eq!((alone.struct_named("own"), alone.function("mine")), (None, None));
    assert_eq!(both.struct_named("own"), Some(id(own)));
    assert_eq!(both.function("mine"), Some(id(own_function)));
}

/// vmlinux with an integer, and a module whose struct has names and types of both.
fn split() -> (Build, Build) {
    let mut build = Build::new();
    let long = build.int("shared", 8);
    let base = build.structure("base", 8, &[("in_base", long, 0)]);
    let shared = build.strings.windows(7).position(|at| at == b"shared\0").unwrap() as u32;
    let mut module = Build::on(&build);
    let to = module.pointer(base);
    let own = [module.name("own"), to, 0];
    let members = [[0, base, 64], own, [shared, long, 128]].concat();
    module.add(kind::STRUCT, "top", 3, 24, &members);
    (build, module)
}

#[test]
fn a_module_goes_on_where_vmlinux_ends() {
    let (build, module) = split();
    let (vmlinux, module) = (build.bytes(), module.bytes());
    let btf = Btf::with_module(&vmlinux, &module).unwrap();
    let top = btf.struct_named("top").unwrap();
    assert_eq!(top, id(4));
    assert!(!btf.is_vmlinux(top) && btf.is_vmlinux(btf.struct_named("base").unwrap()));
    assert_eq!(btf.member(top, "own"), pointer(0, 3));
    assert_eq!(btf.member(top, "in_base"), inline(8, 1));
    assert_eq!(btf.member(top, "shared"), inline(16, 1));
    // A module's bytes alone are not vmlinux's.
    assert!(Btf::parse(&module).is_err());
    let nothing = Build::on(&build).bytes();
    let btf = Btf::with_module(&vmlinux, &nothing).unwrap();
    assert_eq!((btf.struct_named("base"), btf.struct_named("top")), (Some(id(2)), None));
}

#[test]
fn paths_go_through_structs() {
    let mut build = Build::new();
    let long = build.int("u64", 8);
    let stat = build.structure("stat", 16, &[("exits", long, 64)]);
    let to = build.pointer(stat);
    let alias = build.add(kind::TYPEDEF, "stat_t", 0, stat, &[]);
    let inner = build.structure("", 24, &[("stat", alias, 64)]);
    let list = build.array(stat, 2);
    let members = [("", inner, 64), ("to", to, 256), ("list", list, 320)];
    let vcpu = build.structure("vcpu", 72, &members);
    let bytes = build.bytes();
    let btf = Btf::parse(&bytes).unwrap();
    for (members, want) in [
        (&["stat"][..], inline(16, stat)),
        (&["stat", "exits"], inline(24, long)),
        (&["to"], pointer(32, to)),
        (&["list"], inline(40, list)),
        (&[], inline(0, vcpu)),
    ] {
        assert_eq!(btf.path("vcpu", members).ok(), want, "{members:?}");
    }
    for (of, members, want) in [
        ("vm", &["stat"][..], "this kernel's types have no struct vm"),
        ("vcpu", &["stats"], "this kernel's types have no vcpu.stats"),
        ("vcpu", &["stat", "exit"], "this kernel's types have no vcpu.stat.exit"),
        ("vcpu", &["stat", "exits", "n"], "this kernel's types have no vcpu.stat.exits.n"),
        ("vcpu", &["list", "exits"], "this kernel's types have no vcpu.list.exits"),
        ("vcpu", &["to", "exits"], "vcpu.to is a pointer in this kernel, so exits is not inside"),
    ] {
        let error = btf.path(of, members).unwrap_err();
        assert_eq!((error.kind(), &*error.to_string()), (ErrorKind::Unsupported, want));
    }
}

#[test]
fn a_kind_of_unknown_length_is_named() {
    let mut build = Build::new();
    let good = build.bytes();
    build.add(20, "", 3, 0, &[]);
    let bad = build.bytes();
    let text = "the BTF of vmlinux has a type of kind 20, which vmstrobe does not know";
    refused(Btf::parse(&bad), ErrorKind::Unsupported, text);
    let text = "the BTF of the module has a type of kind 20, which vmstrobe does not know";
    refused(Btf::with_module(&good, &bad), ErrorKind::Unsupported, text);
    let mut none = Build::new();
    none.int("u8", 1);
    none.add(0, "", 0, 0, &[]);
    let text = "the BTF of vmlinux has a type 2 of no kind";
    refused(Btf::parse(&none.bytes()), ErrorKind::Malformed, text);
}

#[test]
fn kinds_and_counts_have_the_bits_of_newer_kernels() {
    let mut build = Build::new();
    let count = 1 << 16;
    build.add(kind::ENUM, "many", count, 4, &vec![0; count as usize * 2]);
    let after = build.structure("after", 1, &[]);
    assert_eq!(Btf::parse(&build.bytes()).unwrap().struct_named("after"), Some(id(after)));
    build.add(32 + kind::STRUCT, "", 0, 0, &[]);
    let text = "the BTF of vmlinux has a type of kind 36, which vmstrobe does not know";
    refused(Btf::parse(&build.bytes()), ErrorKind::Unsupported, text);
}

#[test]
fn a_kind_whose_length_is_told_is_passed_over() {
    let mut build = Build::new();
    build.layout = [[0; 4]; 21].concat();
    build.layout[80..].copy_from_slice(&[4, 8, 0, 0]);
    let base = build.clone().bytes();
    build.add(20, "", 3, 0, &[0xffff_ffff; 7]);
    let after = build.structure("after", 1, &[]);
    let bytes = build.bytes();
    assert_eq!(Btf::parse(&bytes).unwrap().struct_named("after"), Some(id(after)));
    // A module without a layout has vmlinux's.
    let module = Build { layout: Vec::new(), ..build.clone() }.bytes();
    assert_eq!(Btf::with_module(&base, &module).unwrap().starts, [0, 40]);
    for (at, byte) in [(80, 3), (81, 6)] {
        let mut odd = build.clone();
        odd.layout[at] = byte;
        assert_eq!(Btf::parse(&odd.bytes()).err().unwrap().kind(), ErrorKind::Unsupported);
    }
    let short = Build { layout: build.layout[..83].to_vec(), ..build };
    assert_eq!(Btf::parse(&short.bytes()).err().unwrap().kind(), ErrorKind::Unsupported);
}

#[test]
fn what_is_no_btf_of_this_machine_is_refused() {
    let good = split().0.bytes();
    let swapped = 0x9feb_u16.to_ne_bytes().to_vec();
    for (at, with, kind, text) in [
        (0, swapped, ErrorKind::Unsupported, "is of the other byte order"),
        (0, vec![0x7f, 0x45], ErrorKind::Malformed, "does not start with BTF's magic number"),
        (2, vec![2], ErrorKind::Unsupported, "is of version 2 with flags 0; known is 1 with 0"),
        (3, vec![8], ErrorKind::Unsupported, "is of version 1 with flags 8; known is 1 with 0"),
        (4, 23_u32.to_ne_bytes().into(), ErrorKind::Malformed, "has a header that does not fit"),
        (4, vec![0xff; 4], ErrorKind::Malformed, "has a header that does not fit"),
        (8, vec![0xff; 4], ErrorKind::Malformed, "ends within its types"),
        (12, vec![0xff; 4], ErrorKind::Malformed, "ends within its types"),
        (16, vec![0xff; 8], ErrorKind::Malformed, "ends within its strings"),
        (20, vec![0; 4], ErrorKind::Malformed, "has no empty string"),
        (12, 13_u32.to_ne_bytes().into(), ErrorKind::Malformed, "ends within type 1"),
        (12, 20_u32.to_ne_bytes().into(), ErrorKind::Malformed, "ends within type 2"),
        (good.len() - 1, vec![b'x'], ErrorKind::Malformed, "has a string without an end"),
    ] {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(&with);
        refused(Btf::parse(&bytes), kind, &format!("the BTF of vmlinux {text}"));
    }
    let text = "the BTF of vmlinux is shorter than a header";
    refused(Btf::parse(&[]), ErrorKind::Malformed, text);
    // A header may grow.
    let mut longer = good.clone();
    longer[4..8].copy_from_slice(&28_u32.to_ne_bytes());
    longer.splice(24..24, [0xff; 4]);
    assert_eq!(Btf::parse(&longer).unwrap().struct_named("base"), Some(id(2)));
}

#[test]
fn sizes_have_limits() {
    let text = "the BTF of vmlinux has 67108865 bytes; the limit is 67108864";
    refused(Btf::parse(&vec![0; MAX_BTF_BYTES + 1]), ErrorKind::TooLarge, text);
    let largest = vec![0; MAX_BTF_BYTES];
    assert_eq!(Btf::parse(&largest).err().unwrap().kind(), ErrorKind::Malformed);

    let mut most = Build::new();
    most.pointer(0);
    most.types = most.types.repeat(MAX_TYPES - 1);
    most.last_id = MAX_TYPES as u32 - 1;
    let last = most.structure("last", 0, &[]);
    let mut one = Build::on(&most);
    let vmlinux = most.bytes();
    assert_eq!(Btf::parse(&vmlinux).unwrap().struct_named("last"), Some(id(last)));
    one.pointer(0);
    let text = "the BTF of the module has more types than 1048575";
    refused(Btf::with_module(&vmlinux, &one.bytes()), ErrorKind::TooLarge, text);
    most.pointer(0);
    let text = "the BTF of vmlinux has more types than 1048575";
    refused(Btf::parse(&most.bytes()), ErrorKind::TooLarge, text);
}

/// A type of each kind, and members of all sorts.
fn every_kind() -> (Build, Build) {
    let mut build = Build::new();
    let (long, int) = (build.int("u64", 8), build.int("u32", 4));
    let leaf = build.structure("leaf", 16, &[("x", long, 0), ("y", int, 64)]);
    let to = build.pointer(leaf);
    let list = build.array(leaf, 2);
    let both = build.of(kind::UNION, "", 16, &[("u", long, 0), ("", leaf, 0)]);
    build.add(kind::ENUM, "e", 1, 4, &[0, 7]);
    build.add(kind::FWD, "later", FLAG, 0, &[]);
    let alias = build.add(kind::TYPEDEF, "alias", 0, both, &[]);
    let volatile = build.add(kind::VOLATILE, "", 0, alias, &[]);
    let constant = build.add(kind::CONST, "", 0, volatile, &[]);
    build.add(kind::RESTRICT, "", 0, to, &[]);
    let proto = build.add(kind::FUNC_PROTO, "", 1, int, &[0, long]);
    build.add(kind::FUNC, "f", 1, proto, &[]);
    let var = build.add(kind::VAR, "v", 0, long, &[1]);
    build.add(kind::DATASEC, "data", 1, 8, &[var, 0, 8]);
    build.add(kind::FLOAT, "float", 0, 4, &[]);
    build.add(kind::DECL_TAG, "tag", 0, proto, &[0]);
    let tag = build.add(kind::TYPE_TAG, "tag", 0, constant, &[]);
    build.add(kind::ENUM64, "e64", 1, 8, &[0, 7, 0]);
    let members = [("a", int, 0), ("p", to, 64), ("", tag, 128), ("list", list, 256)];
    build.structure("outer", 64, &members);
    let words = [[0, int, 3 << 24], [build.name("whole"), int, 32]].concat();
    build.add(kind::STRUCT, "bits", FLAG | 2, 8, &words);
    let mut module = Build::on(&build);
    let top = [("", tag, 0), ("leaf", leaf, 128), ("up", to, 256)];
    module.structure("top", 40, &top);
    module.add(kind::FUNC, "g", 1, proto, &[]);
    (build, module)
}

/// Asks all there is to ask; what is found keeps its promises.
fn ask(btf: &Btf<'_>) {
    let structs = ["leaf", "outer", "bits", "top", "later"].map(|name| btf.struct_named(name));
    for at in 0..=btf.starts.len() as u32 + 1 {
        let size = btf.size_bytes(id(at));
        for name in ["x", "y", "u", "a", "p", "list", "whole", "leaf", "up"] {
            let Some(member) = btf.member(id(at), name) else { continue };
            let end = member.offset_bytes + btf.size_bytes(member.type_id).unwrap();
            assert!(end <= size.unwrap() && end <= MAX_STRUCT_BYTES);
        }
    }
    for of in structs.into_iter().flatten() {
        assert!(btf.size_bytes(of).is_some());
    }
    let _ = (btf.path("outer", &["list", "x"]), btf.path("top", &["leaf", "y"]));
    for function in [btf.function("f"), btf.function("g")].into_iter().flatten() {
        assert_eq!(btf.size_bytes(function), None);
    }
}

#[test]
fn every_kind_is_known() {
    let (build, module) = every_kind();
    let (vmlinux, module) = (build.bytes(), module.bytes());
    let btf = Btf::with_module(&vmlinux, &module).unwrap();
    ask(&btf);
    let kinds = (1..=build.last_id).map(|at| btf.record(id(at)).unwrap().kind);
    assert!((1..=19).all(|kind| kinds.clone().any(|known| known == kind)));
    let at = |of: &str, members: &[&str]| btf.path(of, members).unwrap().offset_bytes;
    assert_eq!((at("outer", &["u"]), at("outer", &["y"]), at("outer", &["list"])), (16, 24, 32));
    assert_eq!(
        (at("bits", &["whole"]), at("top", &["leaf", "y"]), at("top", &["up"])),
        (4, 24, 32)
    );
    assert_eq!(btf.function("f"), Some(id(14)));
    assert_eq!(btf.function("g").map(|found| btf.is_vmlinux(found)), Some(false));
}

#[test]
fn what_is_cut_off_is_refused() {
    let (build, module) = every_kind();
    let (vmlinux, module) = (build.bytes(), module.bytes());
    for len in 0..vmlinux.len() {
        assert_eq!(Btf::parse(&vmlinux[..len]).err().unwrap().kind(), ErrorKind::Malformed);
    }
    for len in 0..module.len() {
        let error = Btf::with_module(&vmlinux, &module[..len]).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Malformed);
    }
}

#[test]
fn any_byte_may_be_wrong() {
    let (build, module) = every_kind();
    let (vmlinux, module) = (build.bytes(), module.bytes());
    let (mut refused, mut taken) = (0, 0);
    let mut check = |parsed: Result<Btf<'_>>| match parsed {
        Ok(btf) => {
            ask(&btf);
            taken += 1;
        }
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Malformed | ErrorKind::Unsupported));
            refused += 1;
        }
    };
    let split = vmlinux.len();
    for at in 0..split + module.len() {
        let mut both = [&vmlinux[..], &module].concat();
        let good = both[at];
        // Each bit alone, all of them, a neighbour, and nothing.
        let bits = (0..8).map(|bit| good ^ 1 << bit);
        for bad in bits.chain([!good, good.wrapping_add(1), good.wrapping_sub(1), 0]) {
            both[at] = bad;
            check(Btf::with_module(&both[..split], &both[split..]));
        }
    }
    assert!(refused > 1000 && taken > 1000, "{refused} refused, {taken} taken");
}

/// The bytes of such a file, or why there are none; `VMSTROBE_REQUIRE` may promise it as `btf`.
fn readable(file: &str) -> Option<Vec<u8>> {
    let error = match fs::read(file) {
        Ok(bytes) => return Some(bytes),
        Err(error) => error,
    };
    let promised = std::env::var("VMSTROBE_REQUIRE").unwrap_or_default();
    let is_promised = promised.split(',').any(|name| name.trim() == "btf");
    assert!(!is_promised, "VMSTROBE_REQUIRE promises btf, but: {file}: {error}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    writeln!(std::io::stdout(), "skipped: {test}: btf: {file}: {error}").unwrap();
    None
}

/// Members that the BPF programs need, and the shape of each in every kernel.
const ASKED: &[(&str, &[&str], Shape)] = &[
    ("task_struct", &["files"], Shape::Pointer),
    ("files_struct", &["fdt"], Shape::Pointer),
    ("fdtable", &["fd"], Shape::Pointer),
    ("fdtable", &["max_fds"], Shape::Inline),
    ("file", &["f_op"], Shape::Pointer),
    ("file", &["private_data"], Shape::Pointer),
    ("mm_struct", &["mm_users"], Shape::Inline),
    ("pid", &["tasks"], Shape::Inline),
    ("hlist_head", &["first"], Shape::Pointer),
    ("task_struct", &["pid"], Shape::Inline),
    ("task_struct", &["sched_info", "run_delay"], Shape::Inline),
    ("task_struct", &["sched_info", "pcount"], Shape::Inline),
    ("task_struct", &["se", "sum_exec_runtime"], Shape::Inline),
    ("task_struct", &["pid_links"], Shape::Inline),
    ("bpf_perf_event_value", &["counter"], Shape::Inline),
];

#[test]
fn the_real_types_have_what_is_asked() {
    let Some(vmlinux) = readable(VMLINUX) else { return };
    let btf = Btf::parse(&vmlinux).unwrap();
    for (of, members, shape) in ASKED {
        let found = btf.path(of, members).unwrap();
        let (whole, size) = (btf.struct_named(of).unwrap(), btf.size_bytes(found.type_id).unwrap());
        assert_eq!(found.shape, *shape, "{of} {members:?}");
        assert!(btf.is_vmlinux(whole) && size > 0, "{of} {members:?}");
        assert!(found.offset_bytes + size <= btf.size_bytes(whole).unwrap(), "{of} {members:?}");
        assert!(found.offset_bytes.is_multiple_of(size.min(8)), "{of} {members:?}");
    }
    // Part of the user's interface, so that these are known.
    let value = btf.struct_named("bpf_perf_event_value").unwrap();
    assert_eq!(btf.size_bytes(value), Some(24));
    for (name, offset) in [("counter", 0), ("enabled", 8), ("running", 16)] {
        assert_eq!(btf.member(value, name).unwrap().offset_bytes, offset, "{name}");
    }
    assert_eq!(btf.path("hlist_head", &["first"]).unwrap().offset_bytes, 0);
    assert_eq!(btf.function("bpf_rdonly_castor"), None);
    // From 6.2 on.
    if let Some(function) = btf.function("bpf_rdonly_cast") {
        assert!(btf.is_vmlinux(function) && btf.size_bytes(function).is_none());
    }
}

#[test]
fn the_real_statistics_are_as_long_as_the_types_say() {
    let Some(vmlinux) = readable(VMLINUX) else { return };
    // There is none if KVM is no module.
    let module = fs::read(KVM);
    let btf = match &module {
        Ok(module) => Btf::with_module(&vmlinux, module).unwrap(),
        Err(_) => Btf::parse(&vmlinux).unwrap(),
    };
    let Some(vm) = vm() else { return };
    let vcpu = vm.vcpu(0).unwrap();
    let kvm = OwnKvm::new("types", vm.fd()).unwrap();
    kvm.add_vcpu(NewVcpu::new(0, vcpu.fd())).unwrap();
    for object in vmstrobe_core::Provider::objects(&kvm).unwrap() {
        let (of, target) = match object.schema.target() {
            Target::Vcpu => ("kvm_vcpu", "a vCPU"),
            _ => ("kvm", "a VM"),
        };
        let stat = btf.path(of, &["stat"]).unwrap();
        assert_eq!(stat.shape, Shape::Inline, "{target}");
        let size = btf.size_bytes(stat.type_id).map(|bytes| bytes as usize);
        assert_eq!(size, Some(object.schema.data_bytes()), "{target}");
    }
    for (of, name) in [("kvm_vcpu", "kvm"), ("kvm_vcpu", "pid"), ("kvm", "mm")] {
        assert_eq!(btf.path(of, &[name]).unwrap().shape, Shape::Pointer, "{of}.{name}");
    }
}
