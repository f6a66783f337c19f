//! The bytes of one BTF file: its header, and its records one behind the other.
//!
//! Invariant: every read is checked, and a walk moves on by at least a record's head a step. What
//! an id or a name refers to is checked by whoever follows it.

use vmstrobe_core::{Error, ErrorKind, Result};

use super::{MAX_BTF_BYTES, MAX_TYPES, unsupported};

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// Bytes of a `struct btf_header`, as every kernel writes it.
const HEADER_BYTES: usize = 24;
/// Bytes of one that also says where the layout is, as newer kernels' do.
const HEADER_WITH_LAYOUT_BYTES: usize = 32;
/// Bytes of a `struct btf_type`.
const HEAD_BYTES: usize = 12;
/// Bytes of a `struct btf_layout`.
const LAYOUT_BYTES: usize = 4;

/// The kinds of records: the kernel's `BTF_KIND_*`.
pub(super) mod kind {
    pub(crate) const INT: u8 = 1;
    pub(crate) const PTR: u8 = 2;
    pub(crate) const ARRAY: u8 = 3;
    pub(crate) const STRUCT: u8 = 4;
    pub(crate) const UNION: u8 = 5;
    pub(crate) const ENUM: u8 = 6;
    pub(crate) const FWD: u8 = 7;
    pub(crate) const TYPEDEF: u8 = 8;
    pub(crate) const VOLATILE: u8 = 9;
    pub(crate) const CONST: u8 = 10;
    pub(crate) const RESTRICT: u8 = 11;
    pub(crate) const FUNC: u8 = 12;
    pub(crate) const FUNC_PROTO: u8 = 13;
    pub(crate) const VAR: u8 = 14;
    pub(crate) const DATASEC: u8 = 15;
    pub(crate) const FLOAT: u8 = 16;
    pub(crate) const DECL_TAG: u8 = 17;
    pub(crate) const TYPE_TAG: u8 = 18;
    pub(crate) const ENUM64: u8 = 19;
}

/// One file, or nothing of a file that is not there.
#[derive(Default)]
pub(super) struct Part<'a> {
    /// The owner of the types, as errors name it.
    owner: &'static str,
    types: &'a [u8],
    /// Each ends with a NUL.
    pub(super) strings: &'a [u8],
    /// The length of a record of each kind; empty if the file does not say.
    layout: &'a [u8],
}

/// A record: its `struct btf_type`, and what comes with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    /// The offset of its name in vmlinux's strings, continued by the module's.
    pub(super) name: u32,
    pub(super) kind: u8,
    /// `kind_flag`: of a struct, that offsets carry the width of bitfields.
    pub(super) has_flag: bool,
    /// The bytes of a value or another type's id, by the kind.
    pub(super) size_or_type: u32,
    /// The bytes behind its `struct btf_type`: members, parameters, values.
    pub(super) rest: &'a [u8],
}

impl<'a> Part<'a> {
    /// # Errors
    /// As [`Btf::parse`](super::Btf::parse).
    pub(super) fn vmlinux(bytes: &'a [u8]) -> Result<Self> {
        let part = Self::parse(bytes, "vmlinux")?;
        // A record without a name has the name at 0.
        if part.strings.first() != Some(&0) {
            return Err(part.malformed("has no empty string"));
        }
        Ok(part)
    }

    /// # Errors
    /// As [`Btf::with_module`](super::Btf::with_module).
    pub(super) fn module(bytes: &'a [u8], vmlinux: &Self) -> Result<Self> {
        let part = Self::parse(bytes, "the module")?;
        // A module without one has vmlinux's.
        let layout = if part.layout.is_empty() { vmlinux.layout } else { part.layout };
        Ok(Self { layout, ..part })
    }

    fn parse(bytes: &'a [u8], owner: &'static str) -> Result<Self> {
        let part = Self { owner, ..Self::default() };
        if bytes.len() > MAX_BTF_BYTES {
            let text = format!("the BTF of {owner} has {} bytes", bytes.len());
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("{text}; the limit is {MAX_BTF_BYTES}"),
            ));
        }
        let header = bytes.first_chunk::<HEADER_BYTES>();
        let header = header.ok_or_else(|| part.malformed("is shorter than a header"))?;
        match u16::from_ne_bytes([header[0], header[1]]) {
            MAGIC => {}
            magic if magic == MAGIC.swap_bytes() => {
                return Err(unsupported(format!("the BTF of {owner} is of the other byte order")));
            }
            _ => return Err(part.malformed("does not start with BTF's magic number")),
        }
        if header[2] != VERSION || header[3] != 0 {
            let (version, flags) = (header[2], header[3]);
            let text = format!("the BTF of {owner} is of version {version} with flags {flags}");
            return Err(unsupported(format!("{text}; known is {VERSION} with 0")));
        }
        let header_bytes = u32_at(bytes, 4).map_or(0, |bytes| bytes as usize);
        if header_bytes < HEADER_BYTES || header_bytes > bytes.len() {
            return Err(part.malformed("has a header that does not fit"));
        }
        let section = |at: usize, what: &str| {
            section(bytes, header_bytes, at)
                .ok_or_else(|| part.malformed(&format!("ends within its {what}")))
        };
        let (types, strings) = (section(8, "types")?, section(16, "strings")?);
        let has_layout = header_bytes >= HEADER_WITH_LAYOUT_BYTES;
        let layout = if has_layout { section(24, "layout")? } else { &[] };
        if strings.last().is_some_and(|&last| last != 0) {
            return Err(part.malformed("has a string without an end"));
        }
        Ok(Self { types, strings, layout, ..part })
    }

    /// Goes through all records and notes where each starts.
    ///
    /// # Errors
    /// `Malformed` if the last is not whole, or one has no kind; `TooLarge` if `starts` would have
    /// more than [`MAX_TYPES`]; `Unsupported` if it is not known how long one is.
    pub(super) fn walk(&self, starts: &mut Vec<u32>) -> Result<()> {
        let mut at = 0;
        while at < self.types.len() {
            let id = starts.len() + 1;
            if id > MAX_TYPES {
                let text = format!("the BTF of {} has more types than {MAX_TYPES}", self.owner);
                return Err(Error::new(ErrorKind::TooLarge, text));
            }
            let Some(record) = self.record(at) else { return Err(self.unreadable(at, id)) };
            starts.push(at as u32);
            at += HEAD_BYTES + record.rest.len();
        }
        Ok(())
    }

    /// Why there is no record there.
    fn unreadable(&self, at: usize, id: usize) -> Error {
        let Some(head) = Head::read(self.types, at) else {
            return self.malformed(&format!("ends within type {id}"));
        };
        match head.rest_bytes(self.layout) {
            Some(_) => self.malformed(&format!("ends within type {id}")),
            None if head.kind() == 0 => self.malformed(&format!("has a type {id} of no kind")),
            None => unsupported(format!(
                "the BTF of {} has a type of kind {}, which vmstrobe does not know",
                self.owner,
                head.kind()
            )),
        }
    }

    /// The record that starts there.
    #[inline]
    pub(super) fn record(&self, at: usize) -> Option<Record<'a>> {
        let head = Head::read(self.types, at)?;
        let rest = self.types.get(at + HEAD_BYTES..)?.get(..head.rest_bytes(self.layout)?)?;
        let Head { name, info, size_or_type } = head;
        Some(Record { name, kind: head.kind(), has_flag: info >> 31 == 1, size_or_type, rest })
    }

    fn malformed(&self, what: &str) -> Error {
        Error::new(ErrorKind::Malformed, format!("the BTF of {} {what}", self.owner))
    }
}

/// A `struct btf_type`.
struct Head {
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Head {
    #[inline]
    fn read(types: &[u8], at: usize) -> Option<Self> {
        let head = types.get(at..)?.get(..HEAD_BYTES)?;
        let (name, info) = (u32_at(head, 0)?, u32_at(head, 4)?);
        Some(Self { name, info, size_or_type: u32_at(head, 8)? })
    }

    /// 7 bits from Linux 7.2 on; 5 before, where the other two are 0.
    fn kind(&self) -> u8 {
        (self.info >> 24 & 0x7f) as u8
    }

    /// Returns the number of bytes behind it; `None` if that is not known.
    #[inline]
    fn rest_bytes(&self, layout: &[u8]) -> Option<usize> {
        // 24 bits from Linux 7.2 on; 16 before, where the other eight are 0.
        let count = (self.info & 0xff_ffff) as usize;
        match self.kind() {
            kind::PTR | kind::FWD | kind::FUNC | kind::FLOAT => Some(0),
            kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                Some(0)
            }
            kind::INT | kind::VAR | kind::DECL_TAG => Some(4),
            kind::ARRAY => Some(12),
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => Some(count * 12),
            kind::ENUM | kind::FUNC_PROTO => Some(count * 8),
            0 => None,
            other => {
                let layout = layout.get(usize::from(other) * LAYOUT_BYTES..)?;
                let &[once, each, ..] = layout.first_chunk::<LAYOUT_BYTES>()?;
                // Everything in BTF is words of 4 bytes.
                let is_sound = once % 4 == 0 && each % 4 == 0;
                is_sound.then_some(usize::from(once) + count * usize::from(each))
            }
        }
    }
}

/// The section whose offset behind the header and length stand there in the header.
fn section(bytes: &[u8], header_bytes: usize, at: usize) -> Option<&[u8]> {
    let (offset, len) = (u32_at(bytes, at)? as usize, u32_at(bytes, at + 4)? as usize);
    bytes.get(header_bytes..)?.get(offset..)?.get(..len)
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
