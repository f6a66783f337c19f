//! The properties of one statistic: its type, its unit, its scale, and their text.
//!
//! The words are the kernel's (`KVM_STATS_*` in `include/uapi/linux/kvm.h`) and QAPI's
//! (`stats.json`). Invariant: every value that a kernel can write into a descriptor's flags has a
//! place here. An unknown value is kept as `Unknown` with its number, so that it can be shown and
//! written back unchanged.

use std::fmt;

/// The type of a statistic: `KVM_STATS_TYPE_*`, QAPI `StatsType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StatType {
    /// A count that only grows, except when it is reset.
    Cumulative,
    /// A value of this instant, which may go up and down.
    Instant,
    /// The largest value since the start.
    Peak,
    /// Counts in buckets of equal width; the last bucket is open.
    LinearHistogram,
    /// Counts in buckets that double; the last bucket is open.
    Log2Histogram,
    /// A type of a newer kernel, by its number in the flags (5 to 15).
    Unknown(u8),
}

impl StatType {
    /// Returns the type in the low four bits of a descriptor's flags.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 0xf {
            0 => Self::Cumulative,
            1 => Self::Instant,
            2 => Self::Peak,
            3 => Self::LinearHistogram,
            4 => Self::Log2Histogram,
            other => Self::Unknown(other as u8),
        }
    }

    /// Returns the flag bits of the type, the inverse of [`StatType::from_bits`].
    pub fn bits(self) -> u32 {
        match self {
            Self::Cumulative => 0,
            Self::Instant => 1,
            Self::Peak => 2,
            Self::LinearHistogram => 3,
            Self::Log2Histogram => 4,
            Self::Unknown(bits) => u32::from(bits & 0xf),
        }
    }

    /// Returns whether this is one of the two histogram types.
    pub fn is_histogram(self) -> bool {
        matches!(self, Self::LinearHistogram | Self::Log2Histogram)
    }
}

impl fmt::Display for StatType {
    /// Writes QAPI's name, or `type-<number>` for an unknown type.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cumulative => f.pad("cumulative"),
            Self::Instant => f.pad("instant"),
            Self::Peak => f.pad("peak"),
            Self::LinearHistogram => f.pad("linear-histogram"),
            Self::Log2Histogram => f.pad("log2-histogram"),
            Self::Unknown(bits) => f.pad(&format!("type-{bits}")),
        }
    }
}

/// The unit of a statistic: `KVM_STATS_UNIT_*`, QAPI `StatsUnit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A plain number.
    None,
    /// Bytes.
    Bytes,
    /// Seconds, almost always scaled down to nanoseconds.
    Seconds,
    /// Cycles of a CPU clock.
    Cycles,
    /// A truth value: zero is false, anything else is true (Linux 5.19).
    Boolean,
    /// A unit of a newer kernel, by its number in the flags (5 to 15).
    Unknown(u8),
}

impl Unit {
    /// Returns the unit in bits 4 to 7 of a descriptor's flags.
    pub fn from_bits(bits: u32) -> Self {
        match (bits >> 4) & 0xf {
            0 => Self::None,
            1 => Self::Bytes,
            2 => Self::Seconds,
            3 => Self::Cycles,
            4 => Self::Boolean,
            other => Self::Unknown(other as u8),
        }
    }

    /// Returns the flag bits of the unit, the inverse of [`Unit::from_bits`].
    pub fn bits(self) -> u32 {
        let number = match self {
            Self::None => 0,
            Self::Bytes => 1,
            Self::Seconds => 2,
            Self::Cycles => 3,
            Self::Boolean => 4,
            Self::Unknown(bits) => u32::from(bits & 0xf),
        };
        number << 4
    }

    /// Returns QAPI's name; `None` for a plain number or a unit that QAPI does not know.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Bytes => Some("bytes"),
            Self::Seconds => Some("seconds"),
            Self::Cycles => Some("cycles"),
            Self::Boolean => Some("boolean"),
            Self::None | Self::Unknown(_) => None,
        }
    }

    /// Returns the symbol to which an SI or IEC prefix is added.
    fn letter(self) -> Option<&'static str> {
        match self {
            Self::Seconds => Some("s"),
            Self::Bytes => Some("B"),
            _ => None,
        }
    }
}

/// The base of a [`Scale`]: `KVM_STATS_BASE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Base {
    /// Powers of ten.
    Ten,
    /// Powers of two.
    Two,
    /// A base of a newer kernel, by its number in the flags (2 to 15).
    Unknown(u8),
}

impl Base {
    /// Returns the base in bits 8 to 11 of a descriptor's flags.
    pub fn from_bits(bits: u32) -> Self {
        match (bits >> 8) & 0xf {
            0 => Self::Ten,
            1 => Self::Two,
            other => Self::Unknown(other as u8),
        }
    }

    /// Returns the flag bits of the base, the inverse of [`Base::from_bits`].
    pub fn bits(self) -> u32 {
        let number = match self {
            Self::Ten => 0,
            Self::Two => 1,
            Self::Unknown(bits) => u32::from(bits & 0xf),
        };
        number << 8
    }

    /// Returns the base as a number; `None` for an unknown base.
    pub fn value(self) -> Option<u32> {
        match self {
            Self::Ten => Some(10),
            Self::Two => Some(2),
            Self::Unknown(_) => None,
        }
    }
}

/// The factor of a stored number: `base^exponent`. Nanoseconds are seconds at `10^-9`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    /// The base, ten or two.
    pub base: Base,
    /// The exponent.
    pub exponent: i16,
}

impl Scale {
    /// The scale without effect: the number is the value.
    pub const ONE: Self = Self { base: Base::Ten, exponent: 0 };
    /// The scale of nanoseconds, `10^-9`.
    pub const NANO: Self = Self { base: Base::Ten, exponent: -9 };

    /// Returns `base^exponent`; `None` for an unknown base with an exponent.
    pub fn factor(self) -> Option<f64> {
        if self.exponent == 0 {
            return Some(1.0);
        }
        self.base.value().map(|base| f64::from(base).powi(i32::from(self.exponent)))
    }

    /// Returns the text that QEMU's `info stats` writes behind a name: `ns`, `KiB`, `* 2^70 bytes`,
    /// `cycles`, or nothing (QEMU 7.1 to 10.2, `stats/stats-hmp-cmds.c`).
    ///
    /// ```
    /// use vmstrobe_core::{Base, Scale, Unit};
    /// assert_eq!(Scale::NANO.text(Unit::Seconds), "ns");
    /// assert_eq!(Scale { base: Base::Two, exponent: 70 }.text(Unit::Bytes), "* 2^70 bytes");
    /// ```
    pub fn text(self, unit: Unit) -> String {
        if self.exponent == 0 {
            return match unit {
                Unit::Unknown(bits) => format!("unit-{bits}"),
                _ => unit.letter().or(unit.name()).unwrap_or("").to_owned(),
            };
        }
        if let (Some(prefix), Some(letter)) = (self.prefix(), unit.letter()) {
            return format!("{prefix}{letter}");
        }
        let power = match self.base {
            Base::Unknown(bits) => format!("* base-{bits}^{}", self.exponent),
            Base::Ten => format!("* 10^{}", self.exponent),
            Base::Two => format!("* 2^{}", self.exponent),
        };
        match unit {
            Unit::Unknown(bits) => format!("{power} unit-{bits}"),
            _ => match unit.name() {
                Some(name) => format!("{power} {name}"),
                None => power,
            },
        }
    }

    fn prefix(self) -> Option<&'static str> {
        const SI: [&str; 13] = ["a", "f", "p", "n", "u", "m", "", "K", "M", "G", "T", "P", "E"];
        const IEC: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let exponent = self.exponent;
        match self.base {
            Base::Ten if exponent % 3 == 0 => {
                usize::try_from(exponent / 3 + 6).ok().and_then(|i| SI.get(i).copied())
            }
            Base::Two if exponent % 10 == 0 => {
                usize::try_from(exponent / 10).ok().and_then(|i| IEC.get(i).copied())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_nibble_survives_the_way_there_and_back() {
        for nibble in 0..16 {
            assert_eq!(StatType::from_bits(nibble).bits(), nibble);
            assert_eq!(Unit::from_bits(nibble << 4).bits(), nibble << 4);
            assert_eq!(Base::from_bits(nibble << 8).bits(), nibble << 8);
        }
    }

    /// QEMU's texts: a row for each base and exponent, a column for each unit.
    const TEXTS: [(Base, i16, [&str; 4]); 17] = [
        (Base::Ten, 0, ["", "B", "s", "cycles"]),
        (Base::Ten, -9, ["* 10^-9", "nB", "ns", "* 10^-9 cycles"]),
        (Base::Ten, -6, ["* 10^-6", "uB", "us", "* 10^-6 cycles"]),
        (Base::Ten, -3, ["* 10^-3", "mB", "ms", "* 10^-3 cycles"]),
        (Base::Ten, 3, ["* 10^3", "KB", "Ks", "* 10^3 cycles"]),
        (Base::Ten, 6, ["* 10^6", "MB", "Ms", "* 10^6 cycles"]),
        (Base::Ten, 9, ["* 10^9", "GB", "Gs", "* 10^9 cycles"]),
        (Base::Ten, 18, ["* 10^18", "EB", "Es", "* 10^18 cycles"]),
        (Base::Ten, -18, ["* 10^-18", "aB", "as", "* 10^-18 cycles"]),
        (Base::Ten, 21, ["* 10^21", "* 10^21 bytes", "* 10^21 seconds", "* 10^21 cycles"]),
        (Base::Ten, 1, ["* 10^1", "* 10^1 bytes", "* 10^1 seconds", "* 10^1 cycles"]),
        (Base::Two, 10, ["* 2^10", "KiB", "Kis", "* 2^10 cycles"]),
        (Base::Two, 20, ["* 2^20", "MiB", "Mis", "* 2^20 cycles"]),
        (Base::Two, 60, ["* 2^60", "EiB", "Eis", "* 2^60 cycles"]),
        (Base::Two, 70, ["* 2^70", "* 2^70 bytes", "* 2^70 seconds", "* 2^70 cycles"]),
        (Base::Two, -10, ["* 2^-10", "* 2^-10 bytes", "* 2^-10 seconds", "* 2^-10 cycles"]),
        (Base::Two, 4, ["* 2^4", "* 2^4 bytes", "* 2^4 seconds", "* 2^4 cycles"]),
    ];

    #[test]
    fn scale_text_is_qemus() {
        for (base, exponent, texts) in TEXTS {
            let units = [Unit::None, Unit::Bytes, Unit::Seconds, Unit::Cycles];
            for (unit, want) in units.into_iter().zip(texts) {
                assert_eq!(Scale { base, exponent }.text(unit), want, "{unit:?}");
            }
        }
        assert_eq!(Scale::ONE.text(Unit::Boolean), "boolean");
        assert_eq!(Scale { base: Base::Two, exponent: 10 }.text(Unit::Boolean), "* 2^10 boolean");
    }

    #[test]
    fn what_is_unknown_is_shown() {
        assert_eq!(StatType::from_bits(9).to_string(), "type-9");
        assert_eq!(Scale::ONE.text(Unit::Unknown(7)), "unit-7");
        let odd = Scale { base: Base::Unknown(3), exponent: 2 };
        assert_eq!(odd.text(Unit::Bytes), "* base-3^2 bytes");
        assert_eq!(odd.factor(), None);
        assert_eq!(Scale { base: Base::Two, exponent: 10 }.factor(), Some(1024.0));
    }

    #[test]
    fn extreme_exponents_neither_overflow_nor_match_a_prefix() {
        for exponent in [i16::MIN, i16::MAX, -32766, 32760] {
            for base in [Base::Ten, Base::Two] {
                let text = Scale { base, exponent }.text(Unit::Seconds);
                assert!(text.starts_with("* "), "{text}");
            }
        }
    }
}
