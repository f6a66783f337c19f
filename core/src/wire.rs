//! The kernel's binary-statistics block: bytes to a schema, and a schema to bytes.
//!
//! ```text
//! header (24 bytes) | id string | descriptors (16 bytes + name, each) | data words
//! ```
//!
//! All numbers are native-endian, every offset is a multiple of 8, and the parts do not overlap
//! (`include/uapi/linux/kvm.h`, `struct kvm_stats_header`, `struct kvm_stats_desc`). The rules are
//! those of the kernel's own selftest (`kvm_binary_stats_test.c`, Linux 6.12). A block that breaks
//! a hard rule is refused. A descriptor that breaks a hard rule is left out, with a [`Note`]. A
//! block or descriptor that breaks a soft rule is kept, with a note, because a newer kernel may do
//! so on purpose.
//!
//! Invariant: no content of a block can make the parser panic, loop, or allocate more than
//! [`MAX_PARSED_BYTES`]. The format is both the kernel's and that of our own tables.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Desc, Schema, Target, WORD_BYTES};
use crate::stat::{Base, Scale, StatType, Unit};

mod check;
mod header;

use self::header::{DESC_BYTES, malformed, u32_at};

pub use self::check::{Note, Rule};
pub use self::header::{Header, MAX_DATA_BYTES, MAX_DESCS, MAX_NAME_BYTES, MAX_PARSED_BYTES};

/// A parsed block, with notes on the rules that it breaks.
#[derive(Clone, Debug)]
pub struct Block {
    /// The header.
    pub header: Header,
    /// The id, `kvm-<tid>` or `kvm-<tid>/vcpu-<n>`, with the thread that created the object. It is
    /// not unique.
    pub id: String,
    /// The statistics that can be read.
    pub schema: Arc<Schema>,
    /// The descriptors that were left out, and the soft rules that were broken.
    pub notes: Vec<Note>,
}

/// Parses the immutable parts of a block.
///
/// `id` and `descs` are the bytes at [`Header::id_range`] and [`Header::desc_range`].
///
/// # Errors
/// `Malformed` if either is short, the id has no NUL, or the data reaches into the descriptors;
/// `TooLarge` if the data is over [`MAX_DATA_BYTES`].
pub fn parse(
    header: &Header,
    id: &[u8],
    descs: &[u8],
    provider: &str,
    target: Target,
) -> Result<Block> {
    header.check()?;
    if id.len() != header.name_size as usize {
        return Err(short("id string", header.name_size as usize, id.len()));
    }
    let want = header.num_desc as usize * header.desc_bytes();
    if descs.len() != want {
        return Err(short("descriptor block", want, descs.len()));
    }
    let id = until_nul(id).ok_or_else(|| malformed("the id string has no NUL"))?;
    let mut notes = Vec::new();
    let mut kept = Vec::with_capacity(header.num_desc as usize);
    for (index, bytes) in descs.chunks_exact(header.desc_bytes()).enumerate() {
        let mut note = |rule| notes.push(Note { desc: Some(index as u32), rule });
        match parse_desc(bytes) {
            Ok(desc) => {
                if let Some(rule) = check::unreadable(&desc) {
                    note(rule);
                } else {
                    check::oddities(&desc).for_each(&mut note);
                    kept.push(desc);
                }
            }
            Err(rule) => note(rule),
        }
    }
    check::data(header, &kept)?;
    notes.extend(check::block(header, &id, &kept));
    Ok(Block { header: *header, id, schema: Schema::new(provider, target, kept), notes })
}

fn parse_desc(bytes: &[u8]) -> std::result::Result<Desc, Rule> {
    let flags = u32_at(bytes, 0);
    Ok(Desc {
        name: until_nul(&bytes[DESC_BYTES..]).ok_or(Rule::NameWithoutNul)?.into(),
        stat_type: StatType::from_bits(flags),
        unit: Unit::from_bits(flags),
        scale: Scale {
            base: Base::from_bits(flags),
            exponent: i16::from_ne_bytes([bytes[4], bytes[5]]),
        },
        other_flags: flags >> 12 << 12,
        size: u16::from_ne_bytes([bytes[6], bytes[7]]),
        offset: u32_at(bytes, 8),
        bucket_size: u32_at(bytes, 12),
    })
}

/// Returns the immutable parts of a block with these statistics, from the header to the
/// descriptors. The data words follow immediately. `name_size` is the smallest multiple of 8 that
/// holds every name, at least 48, as in the kernel.
///
/// # Errors
/// `TooLarge` if there are more than [`MAX_DESCS`] statistics, or a name or the id is over
/// [`MAX_NAME_BYTES`]; `Malformed` if one contains a NUL.
pub fn write(id: &str, schema: &Schema) -> Result<Vec<u8>> {
    let descs = schema.descs();
    let longest = descs.iter().map(|d| d.name.len()).chain([id.len()]).max().unwrap_or(0);
    let name_size = (longest + 1).next_multiple_of(WORD_BYTES).max(48);
    if name_size > MAX_NAME_BYTES as usize || descs.len() > MAX_DESCS as usize {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "{} statistics with names of up to {longest} bytes do not fit a block; \
                 the limits are {MAX_DESCS} and {}",
                descs.len(),
                MAX_NAME_BYTES - 1
            ),
        ));
    }
    if descs.iter().any(|d| d.name.contains('\0')) || id.contains('\0') {
        return Err(malformed("a name contains a NUL"));
    }
    let desc_offset = Header::BYTES + name_size;
    let header = Header {
        flags: 0,
        name_size: name_size as u32,
        num_desc: descs.len() as u32,
        id_offset: Header::BYTES as u32,
        desc_offset: desc_offset as u32,
        data_offset: (desc_offset + descs.len() * (DESC_BYTES + name_size)) as u32,
    };
    let mut bytes = Vec::with_capacity(header.data_offset as usize);
    bytes.extend(header.to_bytes());
    push_padded(&mut bytes, id, name_size);
    for desc in descs {
        let flags = desc.stat_type.bits() | desc.unit.bits() | desc.scale.base.bits();
        bytes.extend((flags | desc.other_flags).to_ne_bytes());
        bytes.extend(desc.scale.exponent.to_ne_bytes());
        bytes.extend(desc.size.to_ne_bytes());
        bytes.extend(desc.offset.to_ne_bytes());
        bytes.extend(desc.bucket_size.to_ne_bytes());
        push_padded(&mut bytes, &desc.name, name_size);
    }
    Ok(bytes)
}

fn push_padded(bytes: &mut Vec<u8>, text: &str, size: usize) {
    let end = bytes.len() + size;
    bytes.extend(text.as_bytes());
    bytes.resize(end, 0);
}

fn until_nul(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn short(what: &str, want: usize, got: usize) -> Error {
    malformed(format!("the {what} should be {want} bytes and is {got}"))
}

#[cfg(test)]
mod tests;
