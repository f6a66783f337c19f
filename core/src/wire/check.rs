//! The rules for the descriptors, the data and the whole of a binary-statistics block. Those for
//! the header alone are beside it.
//!
//! Invariant: a block that passes can be read without another check. Its parts are disjoint, its
//! counts are within their limits, and every kept statistic is a whole number of aligned words
//! inside the data block.

use std::fmt;

use super::header::{Header, MAX_DATA_BYTES, malformed};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::{Desc, WORD_BYTES};
use crate::stat::{Base, StatType, Unit};

/// A rule that a block breaks although it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// The number of the descriptor in the block; `None` for the block itself.
    pub desc: Option<u32>,
    /// The broken rule.
    pub rule: Rule,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.desc {
            Some(index) => write!(f, "descriptor {index} {}", self.rule),
            None => write!(f, "the block {}", self.rule),
        }
    }
}

/// A rule of the format that a block or descriptor breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rule {
    /// Header flags are not 0.
    HeaderFlags,
    /// The id does not start with `kvm`.
    IdNotKvm,
    /// The id overlaps the header, the descriptors or the data.
    IdOverlaps,
    /// The data has fewer words than there are descriptors.
    DataTooSmall,
    /// Statistics share words.
    StatsOverlap,
    /// Two statistics have the same name.
    NameTwice,
    /// Left out: the name has no NUL.
    NameWithoutNul,
    /// Left out: size 0.
    SizeZero,
    /// Left out: the offset is no multiple of 8.
    OffsetUnaligned,
    /// Left out: a linear histogram without a bucket width.
    BucketSizeZero,
    /// A statistic that is no linear histogram has a bucket width.
    BucketSizeSet,
    /// The type is unknown.
    UnknownType,
    /// The unit is unknown.
    UnknownUnit,
    /// The base is unknown.
    UnknownBase,
    /// Unknown flag bits are set.
    UnknownFlags,
    /// The exponent has a sign that no kernel uses with that unit.
    UnusualExponent,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeaderFlags => "has header flags that we do not know",
            Self::IdNotKvm => "has an id that does not start with `kvm`",
            Self::IdOverlaps => "has an id that overlaps another part",
            Self::DataTooSmall => "has less data than a word a descriptor",
            Self::StatsOverlap => "has statistics that share words",
            Self::NameTwice => "has two statistics of one name",
            Self::NameWithoutNul => "is left out: its name has no NUL",
            Self::SizeZero => "is left out: its size is 0",
            Self::OffsetUnaligned => "is left out: its offset is no multiple of 8",
            Self::BucketSizeZero => "is left out: a linear histogram needs a bucket size",
            Self::BucketSizeSet => "has a bucket size where none belongs",
            Self::UnknownType => "has a type that we do not know",
            Self::UnknownUnit => "has a unit that we do not know",
            Self::UnknownBase => "has a base that we do not know",
            Self::UnknownFlags => "has flags that we do not know",
            Self::UnusualExponent => "has an exponent unusual for its unit",
        })
    }
}

/// Returns the hard rule that a descriptor breaks, so that it has to be left out.
pub(super) fn unreadable(desc: &Desc) -> Option<Rule> {
    if desc.size == 0 {
        Some(Rule::SizeZero)
    } else if !(desc.offset as usize).is_multiple_of(WORD_BYTES) {
        Some(Rule::OffsetUnaligned)
    } else if desc.stat_type == StatType::LinearHistogram && desc.bucket_size == 0 {
        Some(Rule::BucketSizeZero)
    } else {
        None
    }
}

/// Returns the soft rules that a descriptor breaks.
pub(super) fn oddities(desc: &Desc) -> impl Iterator<Item = Rule> + use<> {
    let exponent = desc.scale.exponent;
    let usual = match desc.unit {
        Unit::None | Unit::Bytes | Unit::Cycles => exponent >= 0,
        Unit::Seconds => exponent <= 0,
        Unit::Boolean => exponent == 0,
        Unit::Unknown(_) => true,
    };
    let bucketed = desc.stat_type == StatType::LinearHistogram;
    let odd = [
        (matches!(desc.stat_type, StatType::Unknown(_)), Rule::UnknownType),
        (matches!(desc.unit, Unit::Unknown(_)), Rule::UnknownUnit),
        (matches!(desc.scale.base, Base::Unknown(_)), Rule::UnknownBase),
        (desc.other_flags != 0, Rule::UnknownFlags),
        (!usual, Rule::UnusualExponent),
        (!bucketed && desc.bucket_size != 0, Rule::BucketSizeSet),
    ];
    odd.into_iter().filter_map(|(is_odd, rule)| is_odd.then_some(rule))
}

/// Checks the hard rules of the data block, which need every descriptor.
pub(super) fn data(header: &Header, descs: &[Desc]) -> Result<()> {
    let data_bytes = data_bytes(descs);
    // Shared words count once for each statistic, because they are read, summed and printed that
    // often.
    let claimed_bytes = descs.iter().map(|desc| usize::from(desc.size) * WORD_BYTES).sum();
    if data_bytes.max(claimed_bytes) > MAX_DATA_BYTES {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!(
                "a statistics block with {} bytes of data; the limit is {MAX_DATA_BYTES}",
                data_bytes.max(claimed_bytes)
            ),
        ));
    }
    let data_end = u64::from(header.data_offset) + data_bytes as u64;
    if header.data_offset < header.desc_offset && data_end > u64::from(header.desc_offset) {
        return Err(malformed("the data reaches into the descriptors"));
    }
    Ok(())
}

/// Returns notes on the soft rules that the block as a whole breaks.
pub(super) fn block(
    header: &Header,
    id: &str,
    descs: &[Desc],
) -> impl Iterator<Item = Note> + use<> {
    let odd = [
        (header.flags != 0, Rule::HeaderFlags),
        (!id.starts_with("kvm"), Rule::IdNotKvm),
        (id_overlaps(header, descs), Rule::IdOverlaps),
        (data_bytes(descs) < descs.len() * WORD_BYTES, Rule::DataTooSmall),
        (stats_overlap(descs), Rule::StatsOverlap),
        (name_twice(descs), Rule::NameTwice),
    ];
    odd.into_iter().filter_map(|(is_odd, rule)| is_odd.then_some(Note { desc: None, rule }))
}

fn data_bytes(descs: &[Desc]) -> usize {
    descs.iter().map(Desc::end_bytes).max().unwrap_or(0)
}

fn id_overlaps(header: &Header, descs: &[Desc]) -> bool {
    let id = header.id_range();
    let data_start = u64::from(header.data_offset);
    let parts = [
        0..Header::BYTES as u64,
        header.desc_range(),
        data_start..data_start + data_bytes(descs) as u64,
    ];
    parts.iter().any(|part| id.start < part.end && part.start < id.end)
}

fn stats_overlap(descs: &[Desc]) -> bool {
    let mut words: Vec<_> = descs.iter().map(Desc::words).collect();
    words.sort_by_key(|range| range.start);
    words.windows(2).any(|pair| pair[1].start < pair[0].end)
}

fn name_twice(descs: &[Desc]) -> bool {
    let mut names: Vec<_> = descs.iter().map(|desc| &desc.name).collect();
    names.sort();
    names.windows(2).any(|pair| pair[0] == pair[1])
}
