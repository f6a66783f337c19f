//! The statistics of a provider by name, in one schema for each of its targets, and the objects
//! that have them.
//!
//! Invariant: a [`Schema`] is immutable, and each of its descriptors lies inside its data block,
//! aligned to a word. Words may be indexed by a schema without another check.

use std::fmt;
use std::sync::Arc;

use crate::stat::{Base, Scale, StatType, Unit};

/// The size of a word in bytes. Every statistic is made of words.
pub const WORD_BYTES: usize = 8;

/// The kind of object that has statistics: QAPI `StatsTarget`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A virtual machine as a whole.
    Vm,
    /// One virtual CPU.
    Vcpu,
    /// A crypto device's backend (QEMU 8.0).
    Cryptodev,
    /// A target of a program's own, by name.
    Other(Box<str>),
}

impl Target {
    /// Returns the target of that name. A name that QAPI does not know is a program's own target.
    pub fn from_name(name: &str) -> Self {
        match name {
            "vm" => Self::Vm,
            "vcpu" => Self::Vcpu,
            "cryptodev" => Self::Cryptodev,
            other => Self::Other(other.into()),
        }
    }

    /// Returns QAPI's name, or the name of a program's own target.
    pub fn name(&self) -> &str {
        match self {
            Self::Vm => "vm",
            Self::Vcpu => "vcpu",
            Self::Cryptodev => "cryptodev",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One statistic: `struct kvm_stats_desc`, QAPI `StatsSchemaValue`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Desc {
    /// The kernel's name of the statistic. Names differ between kernels, and nothing promises that
    /// they are unique in a schema.
    pub name: Box<str>,
    /// The type of its values.
    pub stat_type: StatType,
    /// The unit of its values.
    pub unit: Unit,
    /// The factor that a stored number is multiplied by.
    pub scale: Scale,
    /// Flag bits 12 to 31, which no kernel uses yet.
    pub other_flags: u32,
    /// The number of words: 1 for a scalar, the number of buckets for a histogram. Never 0.
    pub size: u16,
    /// The offset of its first word, in bytes from the start of the data block. A multiple of 8.
    pub offset: u32,
    /// The width of a linear histogram's buckets in stored units; otherwise 0.
    pub bucket_size: u32,
}

impl Desc {
    /// Makes a cumulative count without a unit, of one word at `offset`. Other statistics are made
    /// of it by struct update.
    ///
    /// ```
    /// use vmstrobe_core::{Desc, Scale, StatType, Unit};
    /// let plain = Desc::counter("wait_ns", 8);
    /// let waited = Desc { unit: Unit::Seconds, scale: Scale::NANO, ..plain };
    /// assert_eq!(waited.stat_type, StatType::Cumulative);
    /// assert_eq!(waited.words(), 1..2);
    /// ```
    pub fn counter(name: &str, offset: u32) -> Self {
        Self {
            name: name.into(),
            stat_type: StatType::Cumulative,
            unit: Unit::None,
            scale: Scale::ONE,
            other_flags: 0,
            size: 1,
            offset,
            bucket_size: 0,
        }
    }

    /// Returns true if it is the number of something, such as `thread_id`, and no amount. Nothing
    /// but the name tells, by which QEMU and the kernel call such numbers too. Numbers have no sum.
    pub fn is_id(&self) -> bool {
        self.stat_type == StatType::Instant && self.unit == Unit::None && self.name.ends_with("_id")
    }

    /// Returns whether QEMU's `query-stats` gives the value. QEMU (to 10.2) drops statistics whose
    /// type, unit or base QAPI has no word for.
    #[doc(hidden)] // For QEMU's order, and for tests of providers that imitate QEMU.
    pub fn has_qapi_value(&self) -> bool {
        self.has_qapi_words() && !matches!(self.scale.base, Base::Unknown(_))
    }

    /// Returns whether QEMU's `query-stats-schemas` describes the statistic. The condition is that
    /// for the value, except that without an exponent the base does not matter.
    #[doc(hidden)] // For vmstrobe-server: only QEMU's order leaves out schemas.
    pub fn has_qapi_schema(&self) -> bool {
        self.has_qapi_words() && (self.has_qapi_value() || self.scale.exponent == 0)
    }

    fn has_qapi_words(&self) -> bool {
        !matches!(self.stat_type, StatType::Unknown(_)) && !matches!(self.unit, Unit::Unknown(_))
    }

    /// Returns the range of its words in the data block.
    pub fn words(&self) -> std::ops::Range<usize> {
        let first = self.offset as usize / WORD_BYTES;
        first..first + usize::from(self.size)
    }

    /// Returns the offset behind its last byte in the data block.
    pub(crate) fn end_bytes(&self) -> usize {
        self.offset as usize + usize::from(self.size) * WORD_BYTES
    }

    /// Returns whether QAPI gives a boolean value. Only the unit decides, whatever the size or
    /// type.
    pub fn is_boolean(&self) -> bool {
        self.unit == Unit::Boolean
    }
}

/// All statistics of one provider's target: QAPI `StatsSchema`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Schema {
    provider: Box<str>,
    target: Target,
    descs: Box<[Desc]>,
    data_bytes: usize,
}

impl Schema {
    /// Makes a schema of these statistics.
    ///
    /// Descriptors that cannot be read are left out, as [`crate::wire`] leaves them out of a
    /// kernel's block: those with size 0 or an offset that is not a multiple of 8.
    ///
    /// ```
    /// use vmstrobe_core::{Desc, Schema, Target};
    /// let schema = Schema::new("kvm", Target::Vcpu, vec![Desc::counter("exits", 0)]);
    /// assert_eq!(schema.data_bytes(), 8);
    /// assert_eq!(schema.find("exits"), Some(0));
    /// ```
    pub fn new(provider: &str, target: Target, mut descs: Vec<Desc>) -> Arc<Self> {
        descs.retain(|d| d.size > 0 && (d.offset as usize).is_multiple_of(WORD_BYTES));
        let data_bytes = descs.iter().map(Desc::end_bytes).max().unwrap_or(0);
        Arc::new(Self { provider: provider.into(), target, descs: descs.into(), data_bytes })
    }

    /// Returns the name of the provider that has these statistics.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Returns the kind of object that has them.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the statistics in the provider's order, which need not be the order of their data.
    pub fn descs(&self) -> &[Desc] {
        &self.descs
    }

    /// Returns the size of the data block in bytes: the largest end of any statistic.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Returns the index of the first statistic of that name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.descs.iter().position(|d| &*d.name == name)
    }
}

/// One thing that has statistics: QAPI's `qom-path`, and what a sampler needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The name of the object: the QOM path where known, else `/vm/<name>` or
    /// `/vm/<name>/vcpu[<n>]`.
    pub path: Box<str>,
    /// The number of a vCPU; `None` for other objects.
    pub index: Option<u32>,
    /// The statistics of the object. Objects with the same statistics share the schema.
    pub schema: Arc<Schema>,
    /// The provider's own handle for the object. It is never used again for another object. Of two
    /// objects, the later one has the larger key, as far as the provider can tell.
    pub key: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_bytes_is_the_largest_end_not_the_last() {
        let schema = Schema::new(
            "kvm",
            Target::Vm,
            vec![Desc::counter("last", 112), Desc { size: 4, ..Desc::counter("first", 8) }],
        );
        assert_eq!(schema.data_bytes(), 120);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        let bad = [Desc { size: 0, ..Desc::counter("none", 0) }, Desc::counter("crooked", 4)];
        let schema = Schema::new("xyz", Target::from_name("disk"), bad.into());
        assert!(schema.descs().is_empty());
        assert_eq!(schema.data_bytes(), 0);
        assert_eq!(schema.target().name(), "disk");
    }

    #[test]
    fn target_names_are_qapis() {
        for name in ["vm", "vcpu", "cryptodev", "xyz"] {
            assert_eq!(Target::from_name(name).to_string(), name);
        }
        assert_eq!(Target::from_name("vcpu"), Target::Vcpu);
    }
}
