//! A reader of BTF, the running kernel's description of its own types: it finds the offset of a
//! struct's member, and the id of a type or a function.
//!
//! `/sys/kernel/btf/vmlinux` has the kernel's types, `/sys/kernel/btf/<module>` a module's, whose
//! ids and names go on where vmlinux's end. The format is that of `Documentation/bpf/btf.rst` and
//! `include/uapi/linux/btf.h`, to Linux 7.2.
//!
//! Invariant: whatever the bytes are, parsing is one pass over them and keeps 4 bytes a type; a
//! question looks at a bounded number of members; and a member that is found lies inside its
//! struct. A member that is unclear (a bitfield, a loop, a size that is not known) is not found.

use vmstrobe_core::{Error, ErrorKind, Result};

mod part;

use part::{Part, Record, kind, u32_at};

/// The most bytes of one file. vmlinux has 5.5 MB in Linux 6.18.
pub(crate) const MAX_BTF_BYTES: usize = 64 << 20;
/// The most types of vmlinux and the module together: the kernel's own limit (`BTF_MAX_TYPE`).
pub(crate) const MAX_TYPES: usize = 0xf_ffff;
/// The most typedefs, qualifiers and tags before a type, and the most dimensions of an array: as
/// the kernel's `MAX_RESOLVE_DEPTH`.
const MAX_CHAIN: usize = 32;
/// The greatest depth of structs and unions without a name. The kernel has 6 in 6.18.
const MAX_NESTING: usize = 16;
/// The most members that are looked at for one, those of structs without a name among them. The
/// most there are in 6.18 is 272.
const MAX_MEMBERS: usize = 1 << 13;
/// The most bytes of a struct whose members are looked for: an offset is 32 bits and counts bits.
pub(crate) const MAX_STRUCT_BYTES: u32 = 1 << 29;
/// Bytes of a pointer of the kernel: there is no 32-bit one that is read this way.
const POINTER_BYTES: u32 = 8;
/// Bytes of a `struct btf_member`.
const MEMBER_BYTES: usize = 12;

/// A type's number, which a program may name if the type is vmlinux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TypeId(u32);

impl TypeId {
    /// The number, as an instruction carries it.
    pub(crate) fn get(self) -> u32 {
        self.0
    }
}

/// A member of a struct: its offset, its type, and whether it is a pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// The offset in bytes from the start of the struct that was asked about.
    pub(crate) offset_bytes: u32,
    /// The member's own type, behind typedefs, qualifiers and tags.
    pub(crate) type_id: TypeId,
    /// Whether its bytes are there, or elsewhere.
    pub(crate) shape: Shape,
}

/// The kind of data at a member's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The thing itself: a number, a struct, a union or an array.
    Inline,
    /// The address of something.
    Pointer,
}

/// The types of vmlinux, or of vmlinux and one module.
pub(crate) struct Btf<'a> {
    vmlinux: Part<'a>,
    module: Part<'a>,
    /// The offset of each type in its part, by its id less 1: vmlinux's, then the module's.
    starts: Vec<u32>,
    vmlinux_types: usize,
}

impl<'a> Btf<'a> {
    /// Takes the bytes of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// `Malformed` if they are no BTF, or damaged where that can be seen; `TooLarge` if they are
    /// over [`MAX_BTF_BYTES`] or [`MAX_TYPES`]; `Unsupported` if they are of the other byte order,
    /// of another version, or have a type of a kind that is not known and whose size they do not
    /// say.
    pub(crate) fn parse(vmlinux: &'a [u8]) -> Result<Self> {
        let vmlinux = Part::vmlinux(vmlinux)?;
        let mut starts = Vec::new();
        vmlinux.walk(&mut starts)?;
        let vmlinux_types = starts.len();
        Ok(Self { vmlinux, module: Part::default(), starts, vmlinux_types })
    }

    /// As [`parse`](Self::parse), with the bytes of `/sys/kernel/btf/<module>` of the same kernel
    /// on top.
    ///
    /// # Errors
    /// As [`parse`](Self::parse), of either.
    pub(crate) fn with_module(vmlinux: &'a [u8], module: &'a [u8]) -> Result<Self> {
        let mut btf = Self::parse(vmlinux)?;
        btf.module = Part::module(module, &btf.vmlinux)?;
        btf.module.walk(&mut btf.starts)?;
        Ok(btf)
    }

    /// The struct of that name, of several vmlinux's, and the first. A declaration that says
    /// nothing but the name is none.
    pub(crate) fn struct_named(&self, name: &str) -> Option<TypeId> {
        self.find(kind::STRUCT, name)
    }

    /// The function of that name, e.g. `bpf_rdonly_cast`; of several vmlinux's, and the first.
    pub(crate) fn function(&self, name: &str) -> Option<TypeId> {
        self.find(kind::FUNC, name)
    }

    /// True if the type is vmlinux's own: a program without a module's fd may name only those.
    pub(crate) fn is_vmlinux(&self, id: TypeId) -> bool {
        (1..=self.vmlinux_types).contains(&(id.0 as usize))
    }

    /// Bytes of a value of that type; `None` if it has no size (a function, a declaration), or the
    /// size cannot be told.
    pub(crate) fn size_bytes(&self, id: TypeId) -> Option<u32> {
        let (mut id, mut elements) = (id, 1_u32);
        for _ in 0..=MAX_CHAIN {
            let (_, record) = self.behind_aliases(id)?;
            let element = match record.kind {
                kind::INT | kind::STRUCT | kind::UNION => record.size_or_type,
                kind::ENUM | kind::ENUM64 | kind::FLOAT => record.size_or_type,
                kind::PTR => POINTER_BYTES,
                kind::ARRAY => {
                    // Its index type, the second word, is of no use.
                    elements = elements.checked_mul(u32_at(record.rest, 8)?)?;
                    id = TypeId(u32_at(record.rest, 0)?);
                    continue;
                }
                _ => return None,
            };
            return elements.checked_mul(element);
        }
        None
    }

    /// The member of that name of a struct or union, also inside members that have no name.
    /// Bitfields are not found.
    pub(crate) fn member(&self, of: TypeId, name: &str) -> Option<Member> {
        if name.is_empty() {
            return None;
        }
        let mut left = MAX_MEMBERS;
        self.member_within(of, name, MAX_NESTING, &mut left)
    }

    /// Follows members from a struct on: those of the struct, those of the first of them, and so
    /// on. The offset is from the start of the struct. Without members it is the struct itself.
    ///
    /// # Errors
    /// `Unsupported`, with the name of what this kernel does not have, or has as a pointer where
    /// the path goes on.
    pub(crate) fn path(&self, struct_name: &str, members: &[&str]) -> Result<Member> {
        let missing = |what: &str| unsupported(format!("this kernel's types have no {what}"));
        let type_id = self
            .struct_named(struct_name)
            .ok_or_else(|| missing(&format!("struct {struct_name}")))?;
        let mut found = Member { offset_bytes: 0, type_id, shape: Shape::Inline };
        let mut path = struct_name.to_owned();
        for name in members {
            if found.shape == Shape::Pointer {
                let text = format!("{path} is a pointer in this kernel, so {name} is not inside");
                return Err(unsupported(text));
            }
            path = format!("{path}.{name}");
            let inner = self.member(found.type_id, name).ok_or_else(|| missing(&path))?;
            // No overflow: each lies inside the one before.
            found = Member { offset_bytes: found.offset_bytes + inner.offset_bytes, ..inner };
        }
        Ok(found)
    }

    fn find(&self, kind: u8, name: &str) -> Option<TypeId> {
        let is_it = |record: Record<'_>| record.kind == kind && self.is_named(record.name, name);
        let mut ids = (1..=self.starts.len() as u32).map(TypeId);
        ids.find(|&id| !name.is_empty() && self.record(id).is_some_and(is_it))
    }

    fn record(&self, id: TypeId) -> Option<Record<'a>> {
        let index = (id.0 as usize).checked_sub(1)?;
        let start = *self.starts.get(index)?;
        let part = if index < self.vmlinux_types { &self.vmlinux } else { &self.module };
        part.record(start as usize)
    }

    /// True if the string there is this one.
    fn is_named(&self, offset: u32, name: &str) -> bool {
        let (offset, vmlinux) = (offset as usize, self.vmlinux.strings);
        let string = match offset.checked_sub(vmlinux.len()) {
            None => vmlinux.get(offset..),
            Some(beyond) => self.module.strings.get(beyond..),
        };
        let behind = string.and_then(|string| string.strip_prefix(name.as_bytes()));
        behind.is_some_and(|behind| behind.first() == Some(&0))
    }

    /// The type behind typedefs, qualifiers and tags.
    fn behind_aliases(&self, id: TypeId) -> Option<(TypeId, Record<'a>)> {
        let mut id = id;
        for _ in 0..=MAX_CHAIN {
            let record = self.record(id)?;
            match record.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = TypeId(record.size_or_type);
                }
                _ => return Some((id, record)),
            }
        }
        None
    }

    /// [`member`](Self::member), that many levels of members without a name deep, while members
    /// may be looked at.
    fn member_within(
        &self,
        of: TypeId,
        name: &str,
        levels: usize,
        left: &mut usize,
    ) -> Option<Member> {
        let (_, outer) = self.behind_aliases(of)?;
        if !matches!(outer.kind, kind::STRUCT | kind::UNION) {
            return None;
        }
        for bytes in outer.rest.chunks_exact(MEMBER_BYTES) {
            *left = left.checked_sub(1)?;
            let name_offset = u32_at(bytes, 0)?;
            if self.is_named(name_offset, name) {
                return self.place(&outer, bytes);
            }
            if levels == 0 || !self.is_named(name_offset, "") {
                continue;
            }
            let Some(unnamed) = self.place(&outer, bytes) else { continue };
            if let Some(inner) = self.member_within(unnamed.type_id, name, levels - 1, left) {
                // No overflow: it lies inside.
                let offset_bytes = unnamed.offset_bytes + inner.offset_bytes;
                return Some(Member { offset_bytes, ..inner });
            }
        }
        None
    }

    /// Returns a member's offset, type and shape; `None` if it is a bitfield, has no known size or
    /// is not inside the struct, or if the struct is over [`MAX_STRUCT_BYTES`].
    fn place(&self, outer: &Record<'_>, member: &[u8]) -> Option<Member> {
        let (declared, offset_bits) = (TypeId(u32_at(member, 4)?), u32_at(member, 8)?);
        // With the flag the upper 8 bits are the width of a bitfield, or 0.
        if outer.has_flag && offset_bits >> 24 != 0 || offset_bits % 8 != 0 {
            return None;
        }
        let (type_id, record) = self.behind_aliases(declared)?;
        let (offset_bytes, size_bytes) = (offset_bits / 8, self.size_bytes(type_id)?);
        let is_inside = offset_bytes.checked_add(size_bytes)? <= outer.size_or_type;
        if !is_inside || outer.size_or_type > MAX_STRUCT_BYTES || is_bitfield(&record) {
            return None;
        }
        let shape = if record.kind == kind::PTR { Shape::Pointer } else { Shape::Inline };
        Some(Member { offset_bytes, type_id, shape })
    }
}

/// True of an integer that does not fill its bytes, which is how a struct without the flag has
/// bitfields.
fn is_bitfield(record: &Record<'_>) -> bool {
    // How many bits, and behind how many that are not used.
    let bits = u32_at(record.rest, 0).filter(|_| record.kind == kind::INT);
    bits.is_some_and(|bits| Some(bits & 0xff_ffff) != record.size_or_type.checked_mul(8))
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}

#[cfg(test)]
mod tests;
