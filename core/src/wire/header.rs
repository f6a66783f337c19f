//! The header of a binary-statistics block, and the limits of a block.
//!
//! Invariant: a header that [`Header::parse`] returns has counts within the limits, and its
//! descriptors and data overlap neither the header nor each other's beginning.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::schema::WORD_BYTES;

/// The most descriptors of one block. The largest kernel has about 90 (s390).
pub const MAX_DESCS: u32 = 4096;
/// The most bytes of an id or name with its NUL. Every kernel so far has 48.
pub const MAX_NAME_BYTES: u32 = 256;
/// The most bytes of a data block. A vCPU of Linux 6.18 has 1120.
pub const MAX_DATA_BYTES: usize = 1 << 20;
/// The most bytes that parsing one block may allocate. A descriptor takes less than 1 KiB with its
/// name, its note and its entry in the check for overlaps, even if the name is not UTF-8 and its
/// replacement is three times as long.
pub const MAX_PARSED_BYTES: usize = MAX_DESCS as usize * 2048;

/// The size of a descriptor before its name, in bytes.
pub(super) const DESC_BYTES: usize = 16;

/// The header of a block: `struct kvm_stats_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Flags. Every kernel so far writes 0.
    pub flags: u32,
    /// The size of the id string and of each name, in bytes with the NUL.
    pub name_size: u32,
    /// The number of descriptors.
    pub num_desc: u32,
    /// The start of the id string, in bytes of the file.
    pub id_offset: u32,
    /// The start of the descriptors, in bytes of the file.
    pub desc_offset: u32,
    /// The start of the data words, in bytes of the file.
    pub data_offset: u32,
}

impl Header {
    /// The size of a header in bytes.
    pub const BYTES: usize = 24;

    /// Reads a header and checks the rules that need no other part of the block.
    ///
    /// # Errors
    /// `Malformed` if the parts overlap or are not aligned, `TooLarge` if a count is over its
    /// limit.
    pub fn parse(bytes: &[u8; Self::BYTES]) -> Result<Self> {
        let word = |at: usize| u32_at(bytes, at * 4);
        let header = Self {
            flags: word(0),
            name_size: word(1),
            num_desc: word(2),
            id_offset: word(3),
            desc_offset: word(4),
            data_offset: word(5),
        };
        header.check()?;
        Ok(header)
    }

    /// Checks the hard rules of a header alone.
    pub(super) fn check(&self) -> Result<()> {
        let limit = |what: &str, count: u32, max: u32| {
            if count <= max {
                return Ok(());
            }
            Err(Error::new(
                ErrorKind::TooLarge,
                format!("a statistics block with {count} {what}; the limit is {max}"),
            ))
        };
        limit("descriptors", self.num_desc, MAX_DESCS)?;
        limit("bytes a name", self.name_size, MAX_NAME_BYTES)?;
        if self.name_size == 0 {
            return Err(malformed("names have no room for a NUL"));
        }
        // Without descriptors nothing is read, so the offsets do not matter.
        if self.num_desc == 0 {
            return Ok(());
        }
        let head = Header::BYTES as u32;
        if self.desc_offset < head || self.data_offset < head {
            return Err(malformed("descriptors or data lie over the header"));
        }
        if !self.data_offset.is_multiple_of(WORD_BYTES as u32) {
            return Err(malformed("the data does not start at a multiple of 8"));
        }
        let descs = self.desc_range();
        if descs.start <= u64::from(self.data_offset) && descs.end > u64::from(self.data_offset) {
            return Err(malformed("the descriptors reach into the data"));
        }
        Ok(())
    }

    /// Returns the header's bytes.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let words = [
            self.flags,
            self.name_size,
            self.num_desc,
            self.id_offset,
            self.desc_offset,
            self.data_offset,
        ];
        let mut bytes = [0; Self::BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    /// Returns the range of the id string, in bytes of the file.
    pub fn id_range(&self) -> Range<u64> {
        let start = u64::from(self.id_offset);
        start..start + u64::from(self.name_size)
    }

    /// Returns the range of the descriptors, in bytes of the file.
    pub fn desc_range(&self) -> Range<u64> {
        let start = u64::from(self.desc_offset);
        start..start + u64::from(self.num_desc) * self.desc_bytes() as u64
    }

    /// Returns the size of a descriptor with its name, in bytes.
    pub(super) fn desc_bytes(&self) -> usize {
        DESC_BYTES + self.name_size as usize
    }
}

/// Reads a native-endian word at an offset in bytes.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Returns the error for a block that breaks a hard rule of the format.
pub(super) fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Malformed, format!("not a binary-statistics block: {what}"))
}

const _: () = assert!(DESC_BYTES.is_multiple_of(WORD_BYTES));
